//! What a site's surroundings give: names, addresses, the Git repository, images.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::host::HOOK_PORT;
use crate::lab::Lab;
use crate::layout::{Layout, MGMT, NETWORKS, host_name};
use crate::tool::run;
use crate::wait::wait_until;
use crate::{SVC, netns};

/// The image server's port; the Git server has 80.
pub const IMAGE_PORT: u16 = 8000;

/// Makes the empty repository and its working copy.
pub(crate) fn prepare_repository(layout: &Layout) -> Result<()> {
    let bare = layout.git().join("site.git");
    fs::create_dir_all(&bare)?;
    fs::create_dir_all(layout.images())?;
    git(&bare, ["init", "--quiet", "--bare", "--initial-branch=main", "."])?;
    git(&bare, ["config", "http.receivepack", "true"])?;
    let site = layout.site();
    fs::create_dir_all(&site)?;
    git(&site, ["init", "--quiet", "--initial-branch=main", "."])?;
    git(&site, ["config", "user.name", "Selvedge lab"])?;
    git(&site, ["config", "user.email", "lab@example.invalid"])?;
    git(&site, ["config", "push.default", "current"])?;
    git(
        &site,
        [
            "remote",
            "add",
            "origin",
            &format!("http://{}/site.git", layout.svc_address(MGMT)),
        ],
    )?;
    git(&site, ["config", "branch.main.remote", "origin"])?;
    git(&site, ["config", "branch.main.merge", "refs/heads/main"]).map(drop)
}

/// Runs `git` in a directory, undisturbed by the user's configuration.
///
/// # Errors
/// When it complains.
pub fn git<'a>(directory: &Path, arguments: impl IntoIterator<Item = &'a str>) -> Result<String> {
    let mut command = Command::new("git");
    command
        .arg("-C")
        .arg(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    for variable in [
        "http_proxy",
        "HTTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        // It would win over the authority that the working copy names.
        "GIT_SSL_CAINFO",
    ] {
        command.env_remove(variable);
    }
    run(command.args(arguments))
}

impl Lab {
    /// Starts DHCP and DNS, the Git server and the image server.
    ///
    /// # Errors
    /// When one does not come up.
    pub fn start_services(&mut self) -> Result<()> {
        let layout = self.layout.clone();
        let config = layout.node_state(SVC).join("dnsmasq.conf");
        fs::write(&config, dnsmasq(&layout, self.hosts))?;
        let mut dns = netns::inside(&layout, SVC, "dnsmasq");
        dns.arg("--keep-in-foreground")
            .arg(format!("--conf-file={}", config.display()));
        self.start(SVC, "dnsmasq", dns)?;
        self.start_servers()
    }

    /// Starts the Git and the image server.
    ///
    /// # Errors
    /// When they do not come up.
    pub fn start_servers(&mut self) -> Result<()> {
        let layout = self.layout.clone();
        let mut servers = netns::inside(&layout, SVC, self.programs.lab()?);
        servers
            .arg("serve")
            .arg("--git")
            .arg(layout.git())
            .arg("--images")
            .arg(layout.images());
        servers.args([
            "--git-listen",
            "0.0.0.0:80",
            "--images-listen",
            &format!("0.0.0.0:{IMAGE_PORT}"),
        ]);
        for number in 1..=self.hosts {
            servers.args([
                "--hook",
                &format!("http://{}:{HOOK_PORT}/hook/source", layout.host_address(number)),
            ]);
        }
        self.start(SVC, "servers", servers)?;
        let address = layout.svc_address(MGMT);
        for port in [80, IMAGE_PORT] {
            wait_until("the lab's servers", Duration::from_secs(10), || {
                address.parse().is_ok_and(|ip: std::net::IpAddr| {
                    std::net::TcpStream::connect_timeout(&(ip, port).into(), Duration::from_secs(1)).is_ok()
                })
            })?;
        }
        Ok(())
    }

    /// Stops them: Git and images are unreachable, the network is not.
    ///
    /// # Errors
    /// When they do not end.
    pub fn stop_servers(&mut self) -> Result<()> {
        self.kill(SVC, "servers")
    }

    /// Puts an image where the image server has it.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn publish_image(&self, file: &Path) -> Result<()> {
        let name = file.file_name().context("an image has a name")?;
        let to = self.layout.images().join(name);
        fs::copy(file, &to)
            .with_context(|| format!("cannot copy {} to {}", file.display(), to.display()))
            .map(drop)
    }

    /// Copies a folder over the working copy of the site repository.
    ///
    /// # Errors
    /// When a file cannot be copied.
    pub fn copy_site(&self, from: &Path) -> Result<()> {
        copy_tree(from, &self.layout.site())
    }

    /// Commits what the working copy has and pushes it; returns the commit.
    ///
    /// # Errors
    /// When Git complains.
    pub fn push(&self, message: &str) -> Result<String> {
        let site = self.layout.site();
        git(&site, ["add", "--all"])?;
        git(&site, ["commit", "--quiet", "--allow-empty", "-m", message])?;
        git(&site, ["push", "--quiet", "origin", "main"])?;
        Ok(git(&site, ["rev-parse", "HEAD"])?.trim().to_owned())
    }
}

fn dnsmasq(layout: &Layout, hosts: u8) -> String {
    let mut text = String::from(
        "user=root\ngroup=root\nno-resolv\nno-hosts\nno-poll\nbind-interfaces\nexcept-interface=lo\n\
         domain=lab\nlocal=/lab/\ndhcp-authoritative\nno-ping\nlog-facility=-\nlog-dhcp\n",
    );
    let run = layout.node_run(SVC);
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "pid-file={0}/dnsmasq.pid\ndhcp-leasefile={0}/leases",
        run.display()
    );
    for network in NETWORKS {
        let address = |last| layout.address(network, last);
        let _ = writeln!(
            text,
            "interface={}\ndhcp-range={},{},255.255.255.0,1h",
            network.name,
            address(100),
            address(199)
        );
    }
    for name in ["git", "images"] {
        let _ = writeln!(text, "host-record={name}.lab,{}", layout.svc_address(MGMT));
    }
    let _ = writeln!(text, "host-record=orchestrator.lab,{}", layout.hub_address());
    for number in 1..=hosts {
        let _ = writeln!(
            text,
            "host-record={}.lab,{}",
            host_name(number),
            layout.host_address(number)
        );
    }
    text
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let entries = fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?;
    for entry in entries {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)
                .with_context(|| format!("cannot copy {}", entry.path().display()))?;
        }
    }
    Ok(())
}
