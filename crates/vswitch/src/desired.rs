//! What the profile asks for, in the words of this domain, fully defaulted and checked.

mod fields;
mod read;
mod teaming;

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use reconcile::section::Problem;
use serde_json::Value;

/// Physical NICs that may be named: name in the profile (`vmnic0`) to the kernel's device.
pub type NicDevices = BTreeMap<String, String>;

/// The host's network as it is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The vSwitches, by name.
    pub switches: Vec<Switch>,
    /// The host's own network interfaces, by device.
    pub vmknics: Vec<Vmknic>,
}

/// A vSwitch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    /// Its name in the profile.
    pub name: String,
    /// The OVS bridge that is it.
    pub bridge: String,
    /// How many ports it may have, uplinks not counted.
    pub num_ports: u32,
    /// Bytes.
    pub mtu: u32,
    /// The NICs that are its uplinks, in the profile's order.
    pub uplinks: Vec<Uplink>,
    /// Link discovery on the uplinks.
    pub discovery: Discovery,
    /// Its port groups, sorted by name.
    pub port_groups: Vec<PortGroup>,
}

/// A physical NIC of a vSwitch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its name in the profile.
    pub nic: String,
    /// The kernel's device.
    pub device: String,
}

/// Link discovery on a vSwitch's uplinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// Which protocol.
    pub protocol: DiscoveryProtocol,
    /// Whether neighbours are learned.
    pub listen: bool,
    /// Whether the host makes itself known.
    pub advertise: bool,
    /// Whether the profile says so, or it is the default.
    pub explicit: bool,
}

/// A link discovery protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiscoveryProtocol {
    /// Cisco Discovery Protocol.
    Cdp,
    /// IEEE 802.1AB.
    Lldp,
}

/// A port group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortGroup {
    /// Its name, unique on the host.
    pub name: String,
    /// 0 untagged, 1–4094 access, 4095 every VLAN, tagged, to the guest.
    pub vlan_id: u16,
    /// Which uplinks its ports use.
    pub team: Team,
    /// What its ports may do.
    pub security: Security,
}

/// How ports use uplinks. Equal teams on one vSwitch are one team.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Team {
    /// How a port's uplink is chosen.
    pub policy: TeamPolicy,
    /// The NICs in use, in order.
    pub active: Vec<String>,
    /// The NICs that replace a failed one, in order.
    pub standby: Vec<String>,
    /// Whether a recovered NIC stays idle until another one fails.
    pub rolling_order: bool,
    /// Whether the physical switches are told when a port moves to another uplink.
    pub notify_switches: bool,
}

/// How a port's uplink is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TeamPolicy {
    /// By the port.
    SourceId,
    /// By the port's MAC address.
    SourceMac,
    /// By source and destination address of each packet; the physical side is a static link aggregation.
    IpHash,
    /// The first NIC in order that works.
    Explicit,
}

/// What the ports of a port group may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// They get every frame of their VLAN.
    pub allow_promiscuous: bool,
    /// They get frames for MAC addresses that they took themselves.
    pub mac_changes: bool,
    /// They may send with other source addresses than their own.
    pub forged_transmits: bool,
}

/// One of the host's own network interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vmknic {
    /// `vmk0`, `vmk1`, …
    pub device: String,
    /// The port group that it is on.
    pub port_group: String,
    /// Bytes.
    pub mtu: u32,
    /// Its MAC address, lower case with colons.
    pub mac: String,
    /// Its IPv4 configuration.
    pub ipv4: Ipv4,
}

/// An IPv4 configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ipv4 {
    /// None.
    None,
    /// From a DHCP server.
    Dhcp,
    /// Fixed.
    Static {
        /// The address.
        address: Ipv4Addr,
        /// Length of the network part.
        prefix: u8,
        /// The default gateway, if it is reached through this interface.
        gateway: Option<Ipv4Addr>,
    },
}

/// What was read from a profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// What is wanted. It is shared: a host may have thousands of port groups.
    pub desired: Arc<Desired>,
    /// Paths that are accepted but not enforced.
    pub not_enforced: Vec<String>,
}

impl Desired {
    /// Reads the merged profile `{"esx": {…}}`. `host_name` goes into the MAC addresses that are made up.
    ///
    /// # Errors
    /// Everything that is wrong, each with its path. Then nothing of the profile may be applied.
    pub fn read(profile: &Value, nics: &NicDevices, host_name: &str) -> Result<Reading, Vec<Problem>> {
        read::read(profile, nics, host_name)
    }

    /// The port group with this name, and its vSwitch.
    #[must_use]
    pub fn port_group(&self, name: &str) -> Option<(&Switch, &PortGroup)> {
        self.switches.iter().find_map(|switch| {
            let at = switch
                .port_groups
                .binary_search_by(|group| group.name.as_str().cmp(name))
                .ok()?;
            Some((switch, switch.port_groups.get(at)?))
        })
    }
}

/// The OVS bridge for a vSwitch: its own name if that can be a network device's name, else one computed from it.
#[must_use]
pub fn bridge_name(switch: &str) -> String {
    let fits = switch.len() <= 15 && switch != "." && switch != "..";
    if fits
        && switch
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    {
        return switch.into();
    }
    format!("sv-{:010x}", hash(switch) & 0xff_ffff_ffff)
}

/// A MAC address of our own for a host interface, the same after every restart.
#[must_use]
pub(crate) fn made_up_mac(host_name: &str, device: &str) -> String {
    let [_, _, _, a, b, c, d, e] = hash(&format!("{host_name}/{device}")).to_be_bytes();
    format!("02:{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}")
}

/// FNV-1a: small, and the same on every machine and in every version.
#[must_use]
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
