//! Network namespaces and the cables between them.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::layout::Layout;
use crate::tool::{run, tool};

/// What runs before a program inside a node: its own `/sys` (that of its network namespace), name, resolver and hosts
/// file, and a control group of its own as the root of all that it makes. `$1` is the node's directory, `$2` its
/// name, `$3` its control group's.
const ENTER: &str = r#"
dir=$1; hostname "$2"; group=$3; shift 3
mkdir -p "$dir/cgroup"
mount --rbind /sys/fs/cgroup "$dir/cgroup"
mount -t sysfs sysfs /sys
if [ -e "$dir/cgroup/cgroup.controllers" ]; then
    # Most systems have them handed on already.
    for controller in +cpu +memory; do
        echo $controller >"$dir/cgroup/cgroup.subtree_control" || true
    done 2>/dev/null
    mkdir -p "$dir/cgroup/$group"
    mount --bind "$dir/cgroup/$group" /sys/fs/cgroup
    umount -l "$dir/cgroup"
else
    for controller in cpu memory; do
        [ -e "$dir/cgroup/$controller/cgroup.procs" ] || continue
        mkdir -p "$dir/cgroup/$controller/$group"
        mount --bind "$dir/cgroup/$controller/$group" "$dir/cgroup/$controller"
    done
    mount --move "$dir/cgroup" /sys/fs/cgroup
fi
mount --bind "$dir/resolv.conf" /etc/resolv.conf
mount --bind "$dir/hosts" /etc/hosts
exec "$@"
"#;

/// A command that runs `program` inside a node, as a process of the lab. Its process number is the program's.
#[must_use]
pub fn inside(layout: &Layout, node: &str, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", layout.namespace_path(node).display()))
        .args(["unshare", "--mount", "--uts", "sh", "-ec", ENTER, "enter"])
        .arg(layout.node_run(node))
        .arg(node)
        .arg(layout.control_group(node))
        .arg(program)
        .env(crate::layout::MARK, &layout.name);
    command
}

/// Makes a node: its namespace, directories, resolver and hosts file.
///
/// # Errors
/// When the namespace or a file cannot be made.
pub fn add(layout: &Layout, node: &str, resolver: &str) -> Result<()> {
    tool("ip", ["netns", "add", &layout.namespace(node)])?;
    prepare(layout, node, resolver)?;
    tool("ip", ["-n", &layout.namespace(node), "link", "set", "lo", "up"])?;
    Ok(())
}

/// Makes the runtime directory of a node, which a "reboot" has emptied.
///
/// # Errors
/// When a file cannot be made.
pub fn prepare(layout: &Layout, node: &str, resolver: &str) -> Result<()> {
    let run = layout.node_run(node);
    fs::create_dir_all(&run)?;
    fs::create_dir_all(layout.node_state(node))?;
    fs::write(
        run.join("resolv.conf"),
        format!("search lab\nnameserver {resolver}\n"),
    )?;
    fs::write(
        run.join("hosts"),
        format!("127.0.0.1 localhost\n127.0.1.1 {node}\n"),
    )?;
    Ok(())
}

/// The MAC address of an interface of a node.
///
/// # Errors
/// When there is no such interface.
pub fn mac(layout: &Layout, node: &str, interface: &str) -> Result<String> {
    let text = tool(
        "ip",
        ["-n", &layout.namespace(node), "-json", "link", "show", interface],
    )?;
    let links: serde_json::Value = serde_json::from_str(&text)?;
    let mac = links[0]["address"].as_str().map(str::to_owned);
    mac.with_context(|| format!("{interface} of {node} has no MAC address"))
}

/// Lays a cable from the physical switch's port to an interface of a node, or of the developer's own namespace.
///
/// # Errors
/// When a link cannot be made.
pub fn cable(layout: &Layout, port: &str, node: Option<&str>, interface: &str) -> Result<()> {
    let switch = layout.namespace(crate::SWITCH);
    let mut link = Command::new("ip");
    link.args([
        "link", "add", port, "netns", &switch, "type", "veth", "peer", "name", interface,
    ]);
    if let Some(node) = node {
        link.args(["netns", &layout.namespace(node)]);
    }
    run(&mut link)?;
    // Packets cross a userspace switch, which would carry unfinished checksums on as they are.
    let mut offload = Command::new("ethtool");
    if let Some(node) = node {
        offload = Command::new("nsenter");
        offload
            .arg(format!("--net={}", layout.namespace_path(node).display()))
            .arg("ethtool");
    }
    run(offload.args(["-K", interface, "tx", "off"]))?;
    tool("ip", ["-n", &switch, "link", "set", port, "up"])?;
    ip(layout, node, ["link", "set", interface, "up"])
}

/// Keeps a node from answering ARP on one interface for the address of another.
///
/// # Errors
/// When the setting cannot be made.
pub fn answer_for_own_addresses(layout: &Layout, node: &str) -> Result<()> {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", layout.namespace_path(node).display()));
    run(command.args(["sh", "-ec", "echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore"])).map(drop)
}

/// Runs `ip` with a node's network, or with the developer's own.
///
/// # Errors
/// When `ip` complains.
pub fn ip<'a>(
    layout: &Layout,
    node: Option<&str>,
    arguments: impl IntoIterator<Item = &'a str>,
) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(node) = node {
        command.args(["-n", &layout.namespace(node)]);
    }
    run(command.args(arguments)).map(drop)
}

/// The names of the namespaces of a lab that exist.
#[must_use]
pub fn of_lab(lab: &str) -> Vec<String> {
    let prefix = crate::layout::namespace_prefix(lab);
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return Vec::new();
    };
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(&prefix)).collect()
}

/// Removes what a host's software made of its network: every interface but the physical ones and their
/// addresses, as a power cycle does.
///
/// # Errors
/// When `ip` complains.
pub fn remove_virtual_links(layout: &Layout, node: &str) -> Result<()> {
    let namespace = layout.namespace(node);
    let links = tool("ip", ["-n", &namespace, "-json", "link"])?;
    let links: Vec<serde_json::Value> = serde_json::from_str(&links)?;
    for link in links.iter().filter_map(|link| link["ifname"].as_str()) {
        if link == "lo" {
            continue;
        }
        if link.starts_with("vmnic") {
            tool("ip", ["-n", &namespace, "address", "flush", "dev", link])?;
            // A fresh NIC is neither promiscuous nor of an odd size.
            tool(
                "ip",
                [
                    "-n", &namespace, "link", "set", link, "promisc", "off", "mtu", "1500", "up",
                ],
            )?;
        } else {
            // One may go with another; that is as good.
            let _ = tool("ip", ["-n", &namespace, "link", "delete", link]);
        }
    }
    Ok(())
}
