//! The lab's orchestrator: a machine of its own on the management network, and how hosts find it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cli::Cli;
use crate::lab::Lab;
use crate::layout::{Layout, MGMT, host_name};
use crate::tool::{self, complaint};
use crate::wait::{wait_for, wait_until};
use crate::{HUB, SVC, SWITCH, netns, ovs};

/// Where it serves people, hosts and Git.
pub const PORT: u16 = 8443;
/// The organisation that the lab's sites belong to.
pub const TENANT: &str = "acme";
/// Its owner.
pub const OWNER: &str = "ada";
/// Where the proxy is.
const PROXY_PORT: u16 = 3128;
/// Whom it lets through, as in a URL.
const PROXY_USER: &str = "site:under-lock";
/// The owner's password. A lab can be reached from its own machine only.
pub const PASSWORD: &str = "selvedge-lab-demo";

/// How long it may take to start.
const START: Duration = Duration::from_secs(20);

/// Makes its machine and plugs it in.
pub(crate) fn plug(layout: &Layout) -> Result<()> {
    netns::add(layout, HUB, &layout.svc_address(MGMT))?;
    let port = format!("{HUB}-{}", MGMT.name);
    netns::cable(layout, &port, Some(HUB), MGMT.name)?;
    ovs::physical_port(layout, &port, MGMT.vlan, &[])?;
    let address = format!("{}/24", layout.hub_address());
    netns::ip(layout, Some(HUB), ["address", "add", &address, "dev", MGMT.name])
}

/// The part of a host's configuration that names the orchestrator. Its activation key, if it has one, is a file.
pub(crate) fn lead(layout: &Layout, number: u8) -> Result<String> {
    let host = host_name(number);
    let authority = layout.authority();
    let mut text = format!(
        "[orchestrator]\nurl = \"{}\"\nca_file = \"{}\"\nusage = \"5s\"\n",
        layout.orchestrator_url(),
        authority.display()
    );
    let key = layout.activation_key(&host);
    if key.exists() {
        let key = key.to_str().context("a path that is not UTF-8")?;
        text.push_str(&format!("activation_key_file = \"{key}\"\n"));
    }
    if behind_proxy(number) {
        let proxy = layout.svc_address(MGMT);
        text.push_str(&format!("proxy = \"http://{PROXY_USER}@{proxy}:{PROXY_PORT}\"\n"));
    }
    Ok(text)
}

/// The last of the sites has no way to the orchestrator but through a proxy.
#[must_use]
pub fn behind_proxy(number: u8) -> bool {
    number == 3
}

/// What the machine's firewall does to a host that is behind a proxy.
pub(crate) fn forbid(layout: &Layout, number: u8) -> Result<()> {
    let orchestrator = format!("{}/32", layout.hub_address());
    let node = host_name(number);
    netns::ip(
        layout,
        Some(&node),
        ["route", "replace", "prohibit", &orchestrator],
    )
}

impl Layout {
    /// What people and hosts call the orchestrator.
    #[must_use]
    pub fn orchestrator_url(&self) -> String {
        format!("https://{}:{PORT}", self.hub_address())
    }

    /// What the orchestrator keeps.
    #[must_use]
    pub fn orchestrator_data(&self) -> PathBuf {
        self.node_state(HUB).join("data")
    }

    /// Whom to trust to be the orchestrator.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.orchestrator_data().join("ca.pem")
    }

    /// The key with which a host is to enrol.
    #[must_use]
    pub fn activation_key(&self, host: &str) -> PathBuf {
        self.node_state(host).join("activation.key")
    }
}

impl Lab {
    /// Starts the orchestrator and waits until it is ready.
    ///
    /// # Errors
    /// When it does not come up; with its last words.
    pub fn start_orchestrator(&mut self) -> Result<Duration> {
        let program = self.programs.orchestrator()?.to_owned();
        let config = self.configure_orchestrator()?;
        let mut command = netns::inside(&self.layout, HUB, &program);
        command.arg("--config").arg(&config).arg("run");
        self.start(HUB, "selvedge-orchestrator", command)?;
        let url = format!("{}/readyz", self.layout.orchestrator_url());
        let authority = self.layout.authority();
        let ready = wait_for("the orchestrator", START, || {
            if self.process(HUB, "selvedge-orchestrator").is_none() {
                bail!("it ended: {}", self.last_words(HUB, "selvedge-orchestrator"));
            }
            let mut curl = std::process::Command::new("curl");
            curl.args([
                "--silent",
                "--show-error",
                "--fail",
                "--noproxy",
                "*",
                "--max-time",
                "2",
            ]);
            curl.arg("--cacert").arg(&authority).arg(&url);
            let output = tool::output(&mut curl)?;
            Ok(if output.status.success() {
                Ok(())
            } else {
                Err(complaint(&output))
            })
        });
        ready.map(|((), took)| took)
    }

    /// Starts the HTTP proxy that one of the hosts has to go through.
    ///
    /// # Errors
    /// When it does not come up.
    pub(crate) fn start_proxy(&mut self) -> Result<()> {
        let layout = self.layout.clone();
        let config = layout.node_state(SVC).join("tinyproxy.conf");
        let text = format!(
            "Port {PROXY_PORT}\nLogLevel Connect\nConnectPort {PORT}\nBasicAuth {}\n",
            PROXY_USER.replace(':', " ")
        );
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let mut proxy = netns::inside(&layout, SVC, "tinyproxy");
        proxy.arg("-d").arg("-c").arg(&config);
        self.start(SVC, "tinyproxy", proxy)?;
        let address: std::net::IpAddr = layout.svc_address(MGMT).parse()?;
        wait_until("the proxy", START, || {
            let to = (address, PROXY_PORT).into();
            std::net::TcpStream::connect_timeout(&to, Duration::from_secs(1)).is_ok()
        })
        .map(drop)
    }

    /// How many connections the proxy took to the orchestrator.
    #[must_use]
    pub fn proxied(&self) -> usize {
        let log = fs::read_to_string(self.log(SVC, "tinyproxy")).unwrap_or_default();
        let request = format!("CONNECT {}:{PORT}", self.layout.hub_address());
        log.lines().filter(|line| line.contains(&request)).count()
    }

    /// `kill -9` of the orchestrator.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill_orchestrator(&mut self) -> Result<()> {
        self.kill(HUB, "selvedge-orchestrator")
    }

    /// Makes the first organisation and its owner, and logs in as that owner.
    ///
    /// # Errors
    /// When the orchestrator refuses.
    pub fn found(&self) -> Result<Cli> {
        let state = self.layout.node_state(HUB);
        let password = state.join("password");
        fs::write(&password, PASSWORD)?;
        let password = password.to_str().context("a path that is not UTF-8")?;
        let config = state.join("orchestrator.toml");
        let mut admin = netns::inside(&self.layout, HUB, self.programs.orchestrator()?);
        admin.arg("--config").arg(config).args(["admin", "create"]);
        tool::run(admin.args(["--tenant", TENANT, "--user", OWNER, "--password-file", password]))?;
        let cli = Cli::new(self.programs.cli()?, state.join("cli.toml"));
        let url = self.layout.orchestrator_url();
        let authority = self.layout.authority();
        let authority = authority.to_str().context("a path that is not UTF-8")?;
        cli.run([
            "login",
            &url,
            "--user",
            OWNER,
            "--password",
            &format!("@{password}"),
            "--ca-file",
            authority,
        ])?;
        Ok(cli)
    }

    /// The end of what a program of a node wrote.
    #[must_use]
    pub fn last_words(&self, node: &str, name: &str) -> String {
        let log = fs::read_to_string(self.log(node, name)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    /// Pulls the orchestrator's cable, or plugs it in again.
    ///
    /// # Errors
    /// When the switch's port cannot be changed.
    pub fn orchestrator_link(&self, up: bool) -> Result<()> {
        let port = format!("{HUB}-{}", MGMT.name);
        let state = if up { "up" } else { "down" };
        netns::ip(&self.layout, Some(SWITCH), ["link", "set", &port, state])
    }

    fn configure_orchestrator(&self) -> Result<PathBuf> {
        let path = self.layout.node_state(HUB).join("orchestrator.toml");
        let text = format!(
            r#"# Written by the lab.
[server]
listen = ["0.0.0.0:{PORT}"]
url = "{url}"
names = ["orchestrator.lab", "{address}"]
data = "{data}"

# A lab's faults are to be seen within seconds.
[link]
heartbeat = "2s"
"#,
            url = self.layout.orchestrator_url(),
            address = self.layout.hub_address(),
            data = self.layout.orchestrator_data().display()
        );
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}
