//! The programs that run beside the switch: `lldpd` for link discovery, DHCP clients for vmknics. Pure.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::desired::{Desired, DiscoveryProtocol, Ipv4};

/// A program that is kept running, with the files that it reads. A difference in any of it is another program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Helper {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Files to write before it starts: path and content. They can be run.
    pub files: Vec<(PathBuf, String)>,
}

/// The programs that are there, and what they are told.
#[derive(Clone, Copy, Debug)]
pub struct Programs<'a> {
    /// `lldpd`.
    pub lldpd: Option<&'a Path>,
    /// `busybox`.
    pub busybox: Option<&'a Path>,
    /// Where their files and sockets are.
    pub run_dir: &'a Path,
    /// The host's name.
    pub host_name: &'a str,
}

/// What `udhcpc` runs. The address gets the lease's life time, so that nothing is left when renewals fail; it is
/// not taken away before a new one is there.
const DHCP_SCRIPT: &str = r#"#!/bin/sh
case "$1" in
bound | renew)
    ip -4 address replace "$ip/$mask" dev "$interface" valid_lft "$lease" preferred_lft "$lease"
    ip -4 -o address show dev "$interface" | while read -r _ _ _ old _; do
        [ "$old" = "$ip/$mask" ] || ip -4 address del "$old" dev "$interface"
    done
    for gateway in $router; do
        ip route replace default via "$gateway" dev "$interface"
        break
    done
    ;;
esac
"#;

/// Where `lldpd` listens for `lldpcli`.
#[must_use]
pub fn lldpd_socket(run_dir: &Path) -> PathBuf {
    run_dir.join("lldpd.sock")
}

/// The programs for a configuration, by name.
#[must_use]
pub fn wanted(desired: &Desired, programs: &Programs<'_>) -> BTreeMap<String, Helper> {
    let mut helpers = BTreeMap::new();
    helpers.extend(discovery(desired, programs).map(|helper| ("lldpd".to_owned(), helper)));
    let Some(busybox) = programs.busybox else {
        return helpers;
    };
    for vmknic in desired.vmknics.iter().filter(|v| v.ipv4 == Ipv4::Dhcp) {
        let script = programs.run_dir.join("udhcpc.script");
        let words = [
            &busybox.display().to_string(),
            "udhcpc",
            "-f",
            "-i",
            &vmknic.device,
            "-s",
            &script.display().to_string(),
            "-x",
            &format!("hostname:{}", programs.host_name),
            "-t",
            "4",
            "-T",
            "2",
            "-A",
            "5",
        ];
        let command = words.map(Into::into).to_vec();
        let helper = Helper {
            command,
            files: vec![(script, DHCP_SCRIPT.into())],
        };
        helpers.insert(format!("dhcp {}", vmknic.device), helper);
    }
    helpers
}

fn discovery(desired: &Desired, programs: &Programs<'_>) -> Option<Helper> {
    let lldpd = programs.lldpd?;
    let mut ports = Vec::new();
    let mut configuration = String::new();
    // How insistent CDP is: heard only, or sent unasked.
    let mut cdp = "";
    for switch in &desired.switches {
        let discovery = switch.discovery;
        let status = match (discovery.listen, discovery.advertise) {
            (false, false) => continue,
            (true, false) => "rx-only",
            (false, true) => "tx-only",
            (true, true) => "rx-and-tx",
        };
        for uplink in &switch.uplinks {
            ports.push(uplink.device.clone());
            configuration += &format!("configure ports {} lldp status {status}\n", uplink.device);
        }
        if discovery.protocol == DiscoveryProtocol::Cdp && !switch.uplinks.is_empty() {
            cdp = if discovery.advertise || cdp == "-ccccc" {
                "-ccccc"
            } else {
                "-c"
            };
        }
    }
    if ports.is_empty() {
        return None;
    }
    configuration += &format!("configure system hostname {}\n", programs.host_name);
    let file = programs.run_dir.join("lldpd.conf");
    let mut command: Vec<String> = vec![
        lldpd.display().to_string(),
        "-d".into(),
        "-u".into(),
        lldpd_socket(programs.run_dir).display().to_string(),
        "-O".into(),
        file.display().to_string(),
        "-I".into(),
        ports.join(","),
    ];
    command.extend((!cdp.is_empty()).then(|| cdp.to_owned()));
    Some(Helper {
        command,
        files: vec![(file, configuration)],
    })
}

/// The paths that are not enforced because a program is not there.
#[must_use]
pub fn missing(desired: &Desired, programs: &Programs<'_>) -> Vec<String> {
    let mut paths = Vec::new();
    if programs.lldpd.is_none() {
        let asks = |d: &crate::desired::Discovery| d.explicit && (d.listen || d.advertise);
        let switches = desired.switches.iter().filter(|s| asks(&s.discovery));
        paths.extend(switches.map(|s| {
            format!(
                "esx.network_vss.switches[{}].bridge.link_discovery_protocol",
                s.name
            )
        }));
    }
    if programs.busybox.is_none() {
        let vmknics = desired.vmknics.iter().filter(|v| v.ipv4 == Ipv4::Dhcp);
        paths.extend(vmknics.map(|v| format!("esx.network.vmknics[{}].ip.dhcp", v.device)));
    }
    paths
}
