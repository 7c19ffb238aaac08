//! A node's own Open vSwitch: database server and switch, with the userspace datapath.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::layout::Layout;
use crate::netns::inside;
use crate::tool::{run, tool};
use crate::wait::wait_until;

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// The two servers' command lines; the database is made when there is none.
///
/// # Errors
/// When the database cannot be made.
pub fn commands(layout: &Layout, node: &str) -> Result<[(&'static str, Command); 2]> {
    let run_dir = layout.ovs_run(node);
    let state = layout.node_state(node).join("openvswitch");
    fs::create_dir_all(&run_dir)?;
    fs::create_dir_all(&state)?;
    let database = state.join("conf.db");
    if !database.exists() {
        let database = database.to_str().context("the directory's name is not UTF-8")?;
        tool("ovsdb-tool", ["create", database, SCHEMA])?;
    }
    let socket = run_dir.join("db.sock");
    let mut server = with_environment(layout, node, inside(layout, node, "ovsdb-server"));
    server
        .arg(&database)
        .arg(format!("--remote=punix:{}", socket.display()));
    let mut switch = with_environment(layout, node, inside(layout, node, "ovs-vswitchd"));
    switch.arg(format!("unix:{}", socket.display()));
    for command in [&mut server, &mut switch] {
        command.args(["--pidfile", "--log-file", "-vconsole:off", "-vsyslog:off"]);
    }
    Ok([("ovsdb-server", server), ("ovs-vswitchd", switch)])
}

/// Where the tools of Open vSwitch find a node's servers.
#[must_use]
pub fn with_environment(layout: &Layout, node: &str, mut command: Command) -> Command {
    let state = layout.node_state(node).join("openvswitch");
    command
        .env("OVS_RUNDIR", layout.ovs_run(node))
        .env("OVS_LOGDIR", &state)
        .env("OVS_DBDIR", &state);
    command
}

/// Waits for the database server and prepares its database for the switch.
///
/// # Errors
/// When it does not come.
pub fn initialise(layout: &Layout, node: &str) -> Result<()> {
    let socket = layout.ovs_run(node).join("db.sock");
    wait_until("ovsdb-server's socket", Duration::from_secs(10), || {
        socket.exists()
    })?;
    vsctl(layout, node, ["--no-wait", "init"]).map(drop)
}

/// Runs `ovs-vsctl` on a node's database.
///
/// # Errors
/// When it complains.
pub fn vsctl<'a>(
    layout: &Layout,
    node: &str,
    arguments: impl IntoIterator<Item = &'a str>,
) -> Result<String> {
    run(with_environment(layout, node, Command::new("ovs-vsctl"))
        .arg("--timeout=10")
        .args(arguments))
}

/// Makes the physical switch: a bridge in the switch's node.
///
/// # Errors
/// When Open vSwitch complains.
pub fn physical_switch(layout: &Layout) -> Result<()> {
    vsctl(
        layout,
        crate::SWITCH,
        [
            "add-br",
            "physical",
            "--",
            "set",
            "bridge",
            "physical",
            "datapath_type=netdev",
            "fail_mode=standalone",
        ],
    )
    .map(drop)
}

/// Connects a port of the physical switch: untagged frames belong to `untagged`; the frames of the others carry
/// their tag.
///
/// # Errors
/// When Open vSwitch complains.
pub fn physical_port(layout: &Layout, port: &str, untagged: u16, tagged: &[u16]) -> Result<()> {
    let tag = format!("tag={untagged}");
    let mode = if tagged.is_empty() {
        "vlan_mode=access"
    } else {
        "vlan_mode=native-untagged"
    };
    let trunks: Vec<String> = tagged.iter().map(u16::to_string).collect();
    let trunks = format!("trunks=[{}]", trunks.join(","));
    vsctl(
        layout,
        crate::SWITCH,
        [
            "add-port", "physical", port, "--", "set", "port", port, &tag, mode, &trunks,
        ],
    )
    .map(drop)
}
