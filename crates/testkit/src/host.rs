//! A host of the lab: its NICs, its Open vSwitch, its daemon.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::lab::Lab;
use crate::layout::{Layout, MGMT, NETWORKS, PROD, host_name};
use crate::process::{Process, of_namespaces};
use crate::{netns, orchestrator, ovs};

/// Where a host's daemon hears of pushes.
pub const HOOK_PORT: u16 = 9080;
/// Where a host serves its API.
pub const API_PORT: u16 = 6443;

/// Makes a host's namespace and plugs its NICs into the physical switch.
pub(crate) fn plug(layout: &Layout, number: u8, nics: u8) -> Result<()> {
    let host = host_name(number);
    netns::add(layout, &host, &layout.svc_address(MGMT))?;
    for nic in 0..nics {
        let (interface, port) = (format!("vmnic{nic}"), switch_port(&host, nic));
        netns::cable(layout, &port, Some(&host), &interface)?;
        let untagged = if nic == 0 { MGMT } else { PROD };
        let tagged: Vec<u16> = NETWORKS
            .iter()
            .filter(|network| **network != untagged)
            .map(|network| network.vlan)
            .collect();
        ovs::physical_port(layout, &port, untagged.vlan, &tagged)?;
    }
    Ok(())
}

/// The port of the physical switch that a host's NIC is plugged into.
#[must_use]
pub fn switch_port(host: &str, nic: u8) -> String {
    format!("{host}-vmnic{nic}")
}

/// What the operating system's own network configuration does at start: `vmnic0` has the host's address.
pub(crate) fn address(layout: &Layout, number: u8, lab_has_orchestrator: bool) -> Result<()> {
    let host = host_name(number);
    let address = format!("{}/24", layout.host_address(number));
    netns::ip(
        layout,
        Some(&host),
        ["address", "replace", &address, "dev", "vmnic0"],
    )?;
    netns::ip(
        layout,
        Some(&host),
        [
            "route",
            "replace",
            "default",
            "via",
            &layout.shell_address(),
            "dev",
            "vmnic0",
        ],
    )?;
    if lab_has_orchestrator && orchestrator::behind_proxy(number) {
        orchestrator::forbid(layout, number)?;
    }
    Ok(())
}

/// Writes the daemon's configuration and returns its path.
fn configure(lab: &Lab, number: u8) -> Result<PathBuf> {
    let layout = &lab.layout;
    let host = host_name(number);
    let lead = if lab.orchestrator {
        orchestrator::lead(layout, number)?
    } else {
        format!(
            r#"[source]
url = "http://git.lab/site.git"
branch = "main"
path = "{}"
interval = "30s"
"#,
            lab.site_path.replace("{host}", &host)
        )
    };
    let state = layout.node_state(&host);
    for directory in ["state", "config"] {
        fs::create_dir_all(state.join(directory))?;
    }
    let path = state.join("host.toml");
    let (state, run, ovs) = (state.display(), layout.node_run(&host), layout.ovs_run(&host));
    let (run, ovs) = (run.display(), ovs.display());
    let address = layout.host_address(number);
    let text = format!(
        r#"# Written by the lab.
[host]
name = "{host}"

[paths]
state = "{state}/state"
run = "{run}/selvedge"
config = "{state}/config"

[api]
listen = ["{address}:{API_PORT}"]
names = ["{host}", "{host}.lab"]

{lead}
[network]
ovs_db = "{ovs}/db.sock"
ovs_rundir = "{ovs}"
datapath = "netdev"
manage_nics = true

[images]
libraries = ["http://images.lab:8000/"]

[vm]
accelerator = "auto"

[webhook]
listen = "0.0.0.0:{HOOK_PORT}"
"#
    );
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

impl Lab {
    /// Starts a host's Open vSwitch and daemon, as its init system does.
    ///
    /// # Errors
    /// When one of them cannot be started.
    pub fn start_host(&mut self, number: u8) -> Result<()> {
        let host = host_name(number);
        address(&self.layout, number, self.orchestrator)?;
        self.start_ovs(&host)?;
        self.start_daemon(number)
    }

    /// Starts a host's daemon.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_daemon(&mut self, number: u8) -> Result<()> {
        let host = host_name(number);
        let config = configure(self, number)?;
        let mut daemon = netns::inside(&self.layout, &host, self.programs.host()?);
        daemon.arg("--config").arg(config).arg("run");
        self.start(&host, "selvedge-host", daemon)
    }

    /// `kill -9` of a host's daemon; its virtual machines and switch go on.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill_daemon(&mut self, number: u8) -> Result<()> {
        self.kill(&host_name(number), "selvedge-host")
    }

    /// Turns a host off and on: every process of it is gone, its runtime directories are empty, its network is what
    /// the operating system makes of it. What is on disk stays.
    ///
    /// # Errors
    /// When a process outlives it, or the host cannot be started.
    pub fn reboot(&mut self, number: u8) -> Result<()> {
        self.power_off(number)?;
        self.start_host(number)
    }

    /// The first half of [`Lab::reboot`].
    ///
    /// # Errors
    /// When a process outlives it.
    pub fn power_off(&mut self, number: u8) -> Result<()> {
        let host = host_name(number);
        let namespace = self.layout.namespace_path(&host);
        self.kill_where(&host, || {
            crate::process::of_namespaces(std::slice::from_ref(&namespace))
        })?;
        netns::remove_virtual_links(&self.layout, &host)?;
        crate::trace::remove_control_groups(&self.layout.control_group(&host))?;
        let run = self.layout.node_run(&host);
        fs::remove_dir_all(&run).with_context(|| format!("cannot empty {}", run.display()))?;
        netns::prepare(&self.layout, &host, &self.layout.svc_address(MGMT))
    }

    /// The QEMU processes of a host's virtual machine.
    #[must_use]
    pub fn qemu(&self, number: u8, namespace: &str, name: &str) -> Vec<Process> {
        let directory = format!("/{namespace}/{name}/");
        let inside = of_namespaces(&[self.layout.namespace_path(&host_name(number))]);
        let is_it = |process: &Process| {
            let command = process.command();
            command.contains("qemu-system") && command.contains(&directory)
        };
        inside.into_iter().filter(is_it).collect()
    }

    /// Pulls a host's cable: its NIC loses the carrier.
    ///
    /// # Errors
    /// When there is no such NIC.
    pub fn link_down(&self, number: u8, nic: u8) -> Result<()> {
        self.link(number, nic, "down")
    }

    /// Plugs it in again.
    ///
    /// # Errors
    /// When there is no such NIC.
    pub fn link_up(&self, number: u8, nic: u8) -> Result<()> {
        self.link(number, nic, "up")
    }

    /// All cables of a host at once.
    ///
    /// # Errors
    /// When the switch's ports cannot be changed.
    pub fn links(&self, number: u8, up: bool) -> Result<()> {
        (0..self.nics).try_for_each(|nic| self.link(number, nic, if up { "up" } else { "down" }))
    }

    fn link(&self, number: u8, nic: u8, state: &str) -> Result<()> {
        let port = switch_port(&host_name(number), nic);
        netns::ip(&self.layout, Some(crate::SWITCH), ["link", "set", &port, state])
    }
}
