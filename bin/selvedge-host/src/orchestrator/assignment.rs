//! What the orchestrator makes of this host: kept on disk, and turned into the objects that everything comes from.
//!
//! ```text
//!   assign ──check──▶ <state>/orchestrator/assignment.json ──▶ GitRepository, Kustomization, Secret, variables ──▶ assigned
//!             │          (fsync, rename)                          (gitops::bootstrap)
//!             └─▶ refused: the one before stays in force
//! ```
//!
//! An assignment is in force from the moment that it is on disk: a host that is cut off after that carries it out at its
//! next start, with or without the orchestrator. Older ones never override newer ones: generations of one enrolment
//! only rise.

use std::{
    path::{Path, PathBuf},
    sync::PoisonError,
};

use anyhow::{Context, bail};
use apiserver::Client;
use gitops::{BootstrapSource, Origin};
use kinds::{flux::GitRef, gvr};
use link::message::{Assignment, Source, Target};
use reconcile::{Key, Signal};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Mutex;

use super::files;

/// An assignment as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Kept {
    /// The host's id at the orchestrator: generations of another enrolment can't be compared.
    pub(crate) host_id: String,
    /// Of the assignment.
    pub(crate) generation: u64,
    /// The assignment.
    pub(crate) assignment: Assignment,
}

/// What became of an assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is on disk and in force now.
    New,
    /// It was on disk before, and is in force.
    Known,
    /// It is not in force: why.
    Refused(String),
}

/// The host's own source and where it comes from. Shared by the start of the daemon and the link.
pub(crate) struct Assignments {
    file: PathBuf,
    client: Client,
    /// Wakes the reconcilers of Kustomizations, which do not watch variables.
    kustomizations: Signal,
    /// What `host.toml` says, if it does.
    own: Option<BootstrapSource>,
    /// Whether `host.toml` names an orchestrator: else what it once assigned no longer counts.
    linked: bool,
    kept: Mutex<Option<Kept>>,
    /// Host's id and generation of what is kept.
    known: std::sync::Mutex<(String, u64)>,
}

/// Where the host's source comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum SourceFrom {
    /// `[source]` of `host.toml`.
    HostToml,
    /// The orchestrator's assignment.
    Assignment,
    /// Nobody names one.
    Nowhere,
}

impl Assignments {
    /// Reads what is kept. A damaged file counts as none: the orchestrator sends it again.
    pub(crate) fn open(
        state: &Path,
        client: Client,
        kustomizations: Signal,
        own: Option<BootstrapSource>,
        linked: bool,
    ) -> Self {
        let file = state.join("orchestrator/assignment.json");
        let kept = if linked { read(&file) } else { None };
        let known = kept.as_ref().map(|kept| (kept.host_id.clone(), kept.generation));
        Self {
            file,
            client,
            kustomizations,
            own,
            linked,
            kept: Mutex::new(kept),
            known: std::sync::Mutex::new(known.unwrap_or_default()),
        }
    }

    /// The generation of what is kept for a host's id; 0 for nothing.
    pub(crate) fn generation(&self, host_id: &str) -> u64 {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 == host_id { known.1 } else { 0 }
    }

    /// What is kept.
    pub(crate) async fn kept(&self) -> Option<Kept> {
        self.kept.lock().await.clone()
    }

    /// Where the source comes from now.
    pub(crate) async fn origin(&self) -> SourceFrom {
        let kept = self.kept.lock().await;
        self.origin_of(kept.as_ref())
    }

    fn origin_of(&self, kept: Option<&Kept>) -> SourceFrom {
        match (&self.own, kept) {
            (Some(_), _) => SourceFrom::HostToml,
            (None, Some(kept)) if kept.assignment.source.is_some() => SourceFrom::Assignment,
            _ => SourceFrom::Nowhere,
        }
    }

    /// Makes the objects as `host.toml` and what is kept say; to be called at each start.
    pub(crate) async fn enforce(&self) -> anyhow::Result<()> {
        let kept = self.kept.lock().await;
        self.make(kept.as_ref()).await
    }

    /// Takes an assignment: on disk, then in force.
    pub(crate) async fn take(&self, new: Kept) -> Taken {
        let mut kept = self.kept.lock().await;
        if let Some(old) = kept.as_ref().filter(|old| old.host_id == new.host_id) {
            if old.generation > new.generation {
                return Taken::Refused(format!(
                    "the assignment {} is older than {}, which this host has",
                    new.generation, old.generation
                ));
            }
            if *old == new {
                // Perhaps the objects could not be made the last time.
                return match self.make(kept.as_ref()).await {
                    Ok(()) => Taken::Known,
                    Err(error) => Taken::Refused(format!("{error:#}")),
                };
            }
            if old.generation == new.generation {
                return Taken::Refused(format!(
                    "this host has another assignment of the generation {}; a changed one must have a higher",
                    new.generation
                ));
            }
        }
        if let Err(error) = check(&new.assignment) {
            return Taken::Refused(format!("{error:#}"));
        }
        if !self.linked {
            return Taken::Refused("this host's host.toml names no orchestrator".into());
        }
        let written = serde_json::to_vec(&new)
            .map_err(std::io::Error::from)
            .and_then(|bytes| files::write(&self.file, &bytes));
        if let Err(error) = written {
            return Taken::Refused(format!("it can't be kept in {}: {error}", self.file.display()));
        }
        tracing::info!(
            generation = new.generation,
            site = new.assignment.site,
            "took an assignment"
        );
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = (new.host_id.clone(), new.generation);
        *kept = Some(new);
        match self.make(kept.as_ref()).await {
            Ok(()) => Taken::New,
            // It is kept and is tried again at the next start.
            Err(error) => Taken::Refused(format!("{error:#}")),
        }
    }

    /// The commit of a repository that is here now, if one is.
    async fn here(&self, source: &Source) -> anyhow::Result<Option<String>> {
        let found = self
            .client
            .get(&gvr::git_repositories(), gitops::NAMESPACE, gitops::NAME)
            .await
            .context("can't read the host's own source")?
            .unwrap_or_default();
        let text = |pointer: &str| found.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let pinned = text("/spec/ref/commit");
        let fetched = text("/status/artifact/revision");
        let commit = fetched.rsplit_once(':').map_or(pinned, |(_, commit)| commit);
        let same = gitops::same_repository(text("/spec/url"), &source.url);
        Ok(Some(commit.to_owned()).filter(|commit| same && !commit.is_empty()))
    }

    async fn make(&self, kept: Option<&Kept>) -> anyhow::Result<()> {
        let assignment = kept.map(|kept| &kept.assignment);
        let mut source = match (&self.own, assignment.and_then(|a| Some((a, a.source.as_ref()?)))) {
            (Some(own), _) => own.clone(),
            (None, Some((assignment, source))) => {
                let mut wanted = bootstrap_source(source, &assignment.target);
                if is_unapproved(&assignment.target) {
                    wanted.reference.commit = self.here(source).await?;
                    if wanted.reference.commit.is_none() {
                        wanted.suspended = Some("no commit is approved for this site yet".into());
                    }
                }
                wanted
            }
            (None, None) => {
                if gitops::suspend(&self.client)
                    .await
                    .context("can't end the fetching")?
                {
                    tracing::warn!(
                        "neither host.toml nor an orchestrator names a source: nothing is fetched; what is there stays"
                    );
                }
                return Ok(());
            }
        };
        if let Some(assignment) = assignment {
            source.variables = assignment.variables.clone();
            source.secret_variables = assignment.secret_variables.clone();
            source.facts = facts(assignment);
        }
        let changed = gitops::bootstrap(&self.client, &source)
            .await
            .context("can't record the host's own source")?;
        if changed {
            self.kustomizations.key(Key::new(gitops::NAMESPACE, gitops::NAME));
        }
        Ok(())
    }
}

fn read(file: &Path) -> Option<Kept> {
    let bytes = std::fs::read(file).ok()?;
    match serde_json::from_slice(&bytes) {
        Ok(kept) => Some(kept),
        Err(error) => {
            tracing::error!(file = %file.display(), %error, "the kept assignment can't be read");
            None
        }
    }
}

/// The longest value of a variable, in bytes; all together they are an object of the API.
const LONGEST: usize = 64 << 10;

/// Whether an assignment can be carried out as far as can be told without trying.
fn check(assignment: &Assignment) -> anyhow::Result<()> {
    let variables = assignment.variables.iter().chain(&assignment.secret_variables);
    for (name, value) in variables {
        if !gitops::is_variable(name) {
            bail!("variables: {name:?} is no name of a variable: use letters, digits and underscores");
        }
        if value.len() > LONGEST {
            bail!("variables: {name} is longer than {LONGEST} bytes");
        }
    }
    let Some(source) = &assignment.source else {
        return Ok(());
    };
    if let Err(why) = gitops::check_url(&source.url) {
        bail!("source.url: {why}");
    }
    if !source.interval.is_empty() {
        kinds::duration::parse(&source.interval).context("source.interval")?;
    }
    if source.path.split('/').any(|part| part == "..") {
        bail!("source.path: {:?} leaves the repository", source.path);
    }
    if let Target::Pinned { commit } = &assignment.target
        && !commit.is_empty()
    {
        let whole = matches!(commit.len(), 40 | 64) && commit.bytes().all(|b| b.is_ascii_hexdigit());
        if !whole {
            bail!("target.commit: {commit:?} is no whole commit hash");
        }
    }
    Ok(())
}

/// Whether a rollout policy holds the host and has approved nothing yet: it stays where it is.
fn is_unapproved(target: &Target) -> bool {
    matches!(target, Target::Pinned { commit } if commit.is_empty())
}

/// The source as gitops takes it. A pinned host has the commit and nothing else to go by: a push moves it nowhere,
/// nor does a start without the orchestrator.
fn bootstrap_source(source: &Source, target: &Target) -> BootstrapSource {
    let secret = [
        ("username", &source.username),
        ("password", &source.password),
        ("bearerToken", &source.bearer),
        ("identity", &source.identity),
        ("known_hosts", &source.known_hosts),
        ("ca.crt", &source.ca),
    ];
    let given = secret.into_iter().filter_map(|(key, value)| {
        Some((
            key.to_owned(),
            value.clone().filter(|v| !v.is_empty())?.into_bytes(),
        ))
    });
    let branch = Some(source.branch.clone()).filter(|branch| !branch.is_empty());
    let commit = match target {
        Target::Pinned { commit } => Some(commit.clone()).filter(|commit| !commit.is_empty()),
        Target::Follow => None,
    };
    BootstrapSource {
        url: source.url.clone(),
        reference: GitRef {
            branch,
            commit,
            ..GitRef::default()
        },
        path: source.path.clone(),
        interval: source.interval.clone(),
        secret: given.collect(),
        origin: Origin::Assignment,
        ..BootstrapSource::default()
    }
}

/// What is known of the host, as variables: `SELVEDGE_TENANT`, `SELVEDGE_SITE`, `SELVEDGE_HOST`, and
/// `SELVEDGE_LABEL_…` for each label.
fn facts(assignment: &Assignment) -> std::collections::BTreeMap<String, String> {
    let named = [
        ("SELVEDGE_TENANT", &assignment.tenant),
        ("SELVEDGE_SITE", &assignment.site),
        ("SELVEDGE_HOST", &assignment.host),
    ];
    let named = named
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.clone()));
    let labels = assignment.labels.iter().map(|(name, value)| {
        let word = |c: char| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        };
        let name: String = name.chars().map(word).collect();
        (format!("SELVEDGE_LABEL_{name}"), value.clone())
    });
    named.chain(labels).collect()
}

#[cfg(test)]
mod tests;
