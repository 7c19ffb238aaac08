//! A host of a lab, and the site repository that it follows.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, bail};
use testkit::{
    Lab, Options,
    kubectl::{Kubectl, ready},
    layout::host_name,
    services::git,
    site::Site,
};
use tokio::time::Instant;

use crate::{
    Context,
    api::{Api, Watch},
    measured::milliseconds,
    usage,
};

/// What anything may take before it counts as failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Where Kustomizations are in the API.
pub(crate) const KUSTOMIZATIONS: &str = "/apis/kustomize.toolkit.fluxcd.io/v1/kustomizations";
/// The host's own.
pub(crate) const SITE: &str =
    "/apis/kustomize.toolkit.fluxcd.io/v1/namespaces/flux-system/kustomizations/selvedge-site";
/// The host's own, by its name.
pub(crate) const SITE_NAME: &str = "selvedge-site";
/// Where host configurations are.
pub(crate) const CONFIGURATIONS: &str =
    "/apis/esx.vmware.com/v1alpha1/namespaces/esx-system/hostconfigurations";

/// A host whose daemon runs; with it the lab goes.
pub(crate) struct Host {
    pub(crate) site: Site,
    pub(crate) api: Api,
}

/// A commit that was pushed.
pub(crate) struct Pushed {
    /// The moment before `git push`.
    pub(crate) start: Instant,
    /// When `git push` had ended.
    pub(crate) end: Instant,
    pub(crate) commit: String,
}

impl Host {
    /// A host that is turned on, follows the folder `site` of an empty repository, and has made its own network.
    pub(crate) fn up(context: &Context) -> Result<Self> {
        context.say("  a lab: physical switch, Git server, image server, one host");
        let options = Options {
            site_path: "./site".to_owned(),
            ..Options::new("bench")
        };
        let lab = Lab::up(&options)?;
        let socket = lab.layout.node_run(&host_name(1)).join("selvedge/api.sock");
        let api = Api::new(context.runtime.handle().clone(), &socket)?;
        let kubectl = Kubectl::admin(&lab, 1);
        let mut host = Self {
            site: Site { lab, kubectl },
            api,
        };
        host.site.lab.start_host(1)?;
        host.site.wait_api()?;
        host.wait_configuration("esx-base-profile")?;
        host.write(
            "namespace.yaml",
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: bench}\n",
        )?;
        host.apply()?;
        Ok(host)
    }

    /// The daemon's process.
    pub(crate) fn pid(&self) -> Result<i32> {
        let daemon = self.site.lab.process(&host_name(1), "selvedge-host");
        match daemon {
            Some(process) => Ok(process.pid),
            None => bail!("the daemon ended: {}", self.site.last_words()),
        }
    }

    /// The processor time that the daemon and its children have used, in milliseconds: beside a time, it tells what a
    /// busy machine has added.
    pub(crate) fn used(&self) -> Result<f64> {
        let (own, children) = usage::processor(self.pid()?)?;
        Ok(milliseconds(&(own + children)))
    }

    /// Writes a file of the site's folder.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.site.lab.layout.site().join("site").join(name);
        let folder = path.parent().context("a file is in a folder")?;
        fs::create_dir_all(folder)?;
        fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))
    }

    /// Removes a folder of the site's folder.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let path = self.site.lab.layout.site().join("site").join(name);
        fs::remove_dir_all(&path).with_context(|| format!("can't remove {}", path.display()))
    }

    /// Commits what was written and pushes it. The clock starts with the push, not with the commit.
    pub(crate) fn push(&self) -> Result<Pushed> {
        let folder = self.site.lab.layout.site();
        git(&folder, ["add", "--all"])?;
        git(
            &folder,
            ["commit", "--quiet", "--allow-empty", "-m", "Change the site"],
        )?;
        let commit = git(&folder, ["rev-parse", "HEAD"])?.trim().to_owned();
        let start = Instant::now();
        git(&folder, ["push", "--quiet", "origin", "main"])?;
        let end = Instant::now();
        Ok(Pushed { start, end, commit })
    }

    /// Pushes, and waits until the host has applied it; the time of both, and of the push alone.
    pub(crate) fn apply(&self) -> Result<(Duration, Duration)> {
        let mut watch = self.api.watch(KUSTOMIZATIONS)?;
        let pushed = self.push()?;
        let done = wait_applied(&mut watch, &[SITE_NAME.to_owned()], &pushed.commit)?;
        Ok((done - pushed.start, pushed.end - pushed.start))
    }

    /// Waits until a HostConfiguration is Ready for what it says now; when that was.
    pub(crate) fn wait_configuration(&self, name: &str) -> Result<Instant> {
        let mut watch = self.api.watch(CONFIGURATIONS)?;
        wait_configuration(&mut watch, name)
    }
}

/// Waits until these Kustomizations have applied a commit; when the last had.
pub(crate) fn wait_applied(watch: &mut Watch, names: &[String], commit: &str) -> Result<Instant> {
    let mut waiting: std::collections::HashSet<&str> = names.iter().map(String::as_str).collect();
    let applied = watch.until("the commit, applied", PATIENCE, |_, object| {
        let revision = object["status"]["lastAppliedRevision"]
            .as_str()
            .unwrap_or_default();
        if revision.contains(commit) {
            waiting.remove(object["metadata"]["name"].as_str().unwrap_or_default());
        }
        waiting.is_empty().then_some(())
    });
    applied.map(|((), when)| when)
}

/// Waits until a HostConfiguration is Ready for what it says now; when that was.
pub(crate) fn wait_configuration(watch: &mut Watch, name: &str) -> Result<Instant> {
    let done = watch.until(
        &format!("HostConfiguration {name}, Ready"),
        PATIENCE,
        |_, object| (object["metadata"]["name"] == name && ready(object).is_ok()).then_some(()),
    );
    done.map(|((), when)| when)
}
