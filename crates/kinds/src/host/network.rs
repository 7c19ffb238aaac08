//! vSwitches, port groups and vmknics as a profile asks for them, with the defaults of a standard switch.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::typed::null_is_default;

/// The group `esx.network_vss`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkVss {
    /// vSwitches.
    #[serde(deserialize_with = "null_is_default")]
    pub switches: Vec<Switch>,
}

/// A vSwitch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Switch {
    /// Name.
    pub name: String,
    /// Most ports that may be in use; 128 if not said.
    pub num_ports: u32,
    /// Bytes; 1500 if not said.
    pub mtu: u32,
    /// Teaming, security and shaping.
    #[serde(deserialize_with = "null_is_default")]
    pub policy: SwitchPolicy,
    /// Uplinks.
    #[serde(deserialize_with = "null_is_default")]
    pub bridge: Bridge,
    /// Port groups.
    #[serde(deserialize_with = "null_is_default")]
    pub port_groups: Vec<PortGroupSpec>,
}

impl Default for Switch {
    fn default() -> Self {
        Self {
            name: String::new(),
            num_ports: 128,
            mtu: 1500,
            policy: SwitchPolicy::default(),
            bridge: Bridge::default(),
            port_groups: Vec::new(),
        }
    }
}

/// The uplinks of a vSwitch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bridge {
    /// Physical NICs.
    #[serde(deserialize_with = "null_is_default")]
    pub nics: Vec<String>,
    /// Link discovery; listening to CDP if not said.
    #[serde(deserialize_with = "null_is_default")]
    pub link_discovery_protocol: LinkDiscovery,
}

/// What is told to and learned from the switch at the other end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkDiscovery {
    /// `CDP` or `LLDP`.
    pub protocol: String,
    /// `LISTEN`, `ADVERTISE`, `BOTH` or `NONE`.
    pub operation: String,
}

impl Default for LinkDiscovery {
    fn default() -> Self {
        Self {
            protocol: "CDP".into(),
            operation: "LISTEN".into(),
        }
    }
}

/// Teaming, security and shaping as written; what is not written comes from the vSwitch, then from
/// [`SwitchPolicy::with_defaults`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SwitchPolicy {
    /// How several uplinks share the work.
    #[serde(deserialize_with = "null_is_default")]
    pub nic_teaming: NicTeaming,
    /// What a port may do.
    #[serde(deserialize_with = "null_is_default")]
    pub security: Security,
    /// Limits for what a port sends.
    #[serde(deserialize_with = "null_is_default")]
    pub traffic_shaping: Shaping,
}

/// How several uplinks share the work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NicTeaming {
    /// `LOADBALANCE_SRCID`, `LOADBALANCE_SRCMAC`, `LOADBALANCE_IP` or `FAILOVER_EXPLICIT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Whether switches are told when a MAC address moves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notify_switches: Option<bool>,
    /// Whether a repaired uplink stays idle until it is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolling_order: Option<bool>,
    /// `IGNORE` or `REQUIRED`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_criteria_beacon: Option<String>,
    /// Uplinks in use, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_nics: Option<Vec<String>>,
    /// Uplinks in reserve, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standby_nics: Option<Vec<String>>,
}

/// What a port may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// Whether a port may see frames for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_promiscuous: Option<bool>,
    /// Whether frames reach a port under an address that is not the card's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac_changes: Option<bool>,
    /// Whether a port may send under an address that is not the card's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forged_transmits: Option<bool>,
}

/// Limits for what a port sends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shaping {
    /// Whether there is a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Bits per second on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub average_bandwidth: Option<u64>,
    /// Bits per second at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_bandwidth: Option<u64>,
    /// Bytes that may be sent at the peak.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst_size: Option<u64>,
}

/// A port group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortGroupSpec {
    /// Name, unique on the host.
    pub name: String,
    /// 0 untagged, 1–4094 access, 4095 trunk to the guest.
    #[serde(deserialize_with = "null_is_default")]
    pub vlan_id: u16,
    /// What differs from the vSwitch's policy.
    #[serde(deserialize_with = "null_is_default")]
    pub policy: SwitchPolicy,
}

/// An interface of the host's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Vmknic {
    /// Name, for example `vmk0`.
    pub device: String,
    /// Whether it is up.
    pub enabled: bool,
    /// The port group that it is on.
    pub port_group: String,
    /// `VSS_PORT_GROUP`.
    pub port_connection_type: String,
    /// `defaultTcpipStack`.
    pub net_stack_instance_key: String,
    /// `AUTO_GENERATED`, or `MANUAL` with `mac`.
    pub mac_mode: String,
    /// MAC address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Bytes; 1500 if not said.
    pub mtu: u32,
    /// What the interface is for, for example `management`.
    #[serde(deserialize_with = "null_is_default")]
    pub enabled_services: BTreeMap<String, bool>,
    /// Addresses.
    #[serde(deserialize_with = "null_is_default")]
    pub ip: VmknicIp,
}

impl Default for Vmknic {
    fn default() -> Self {
        Self {
            device: String::new(),
            enabled: true,
            port_group: String::new(),
            port_connection_type: "VSS_PORT_GROUP".into(),
            net_stack_instance_key: "defaultTcpipStack".into(),
            mac_mode: "AUTO_GENERATED".into(),
            mac: None,
            mtu: 1500,
            enabled_services: BTreeMap::new(),
            ip: VmknicIp::default(),
        }
    }
}

/// Addresses of a vmknic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VmknicIp {
    /// Whether the IPv4 address comes from DHCP.
    pub dhcp: bool,
    /// Whether name servers come from DHCP.
    pub dhcp_dns: bool,
    /// IPv4 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4_address: Option<String>,
    /// IPv4 netmask in dotted form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4_subnet_mask: Option<String>,
    /// IPv4 gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4_gateway: Option<String>,
    /// Whether there is IPv6.
    pub ipv6_enabled: bool,
    /// IPv6, as JSON.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub ipv6: Value,
}

impl NetworkVss {
    /// The vSwitches of a profile `{"esx": {…}}`; none if it has none. Call [`super::check`] first: it says what
    /// is wrong with a path that people understand.
    pub fn from_profile(profile: &Value) -> Result<Self, serde_json::Error> {
        match profile.pointer("/esx/network_vss") {
            None | Some(Value::Null) => Ok(Self::default()),
            Some(group) => Self::deserialize(group),
        }
    }
}

/// The vmknics of a profile `{"esx": {…}}`.
pub fn vmknics(profile: &Value) -> Result<Vec<Vmknic>, serde_json::Error> {
    match profile.pointer("/esx/network/vmknics") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(list) => Vec::deserialize(list),
    }
}

impl SwitchPolicy {
    /// This policy, with what it leaves out taken from another.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        let (mine, theirs) = (self.clone(), other.clone());
        Self {
            nic_teaming: NicTeaming {
                policy: mine.nic_teaming.policy.or(theirs.nic_teaming.policy),
                notify_switches: mine
                    .nic_teaming
                    .notify_switches
                    .or(theirs.nic_teaming.notify_switches),
                rolling_order: mine
                    .nic_teaming
                    .rolling_order
                    .or(theirs.nic_teaming.rolling_order),
                link_criteria_beacon: mine
                    .nic_teaming
                    .link_criteria_beacon
                    .or(theirs.nic_teaming.link_criteria_beacon),
                active_nics: mine.nic_teaming.active_nics.or(theirs.nic_teaming.active_nics),
                standby_nics: mine.nic_teaming.standby_nics.or(theirs.nic_teaming.standby_nics),
            },
            security: Security {
                allow_promiscuous: mine
                    .security
                    .allow_promiscuous
                    .or(theirs.security.allow_promiscuous),
                mac_changes: mine.security.mac_changes.or(theirs.security.mac_changes),
                forged_transmits: mine
                    .security
                    .forged_transmits
                    .or(theirs.security.forged_transmits),
            },
            traffic_shaping: Shaping {
                enabled: mine.traffic_shaping.enabled.or(theirs.traffic_shaping.enabled),
                average_bandwidth: mine
                    .traffic_shaping
                    .average_bandwidth
                    .or(theirs.traffic_shaping.average_bandwidth),
                peak_bandwidth: mine
                    .traffic_shaping
                    .peak_bandwidth
                    .or(theirs.traffic_shaping.peak_bandwidth),
                burst_size: mine
                    .traffic_shaping
                    .burst_size
                    .or(theirs.traffic_shaping.burst_size),
            },
        }
    }

    /// This policy with nothing left out, for a vSwitch with these NICs: all of them are active unless they are in
    /// reserve, and ports may send and receive under their own address only.
    #[must_use]
    pub fn with_defaults(&self, nics: &[String]) -> Self {
        let standby = self.nic_teaming.standby_nics.clone().unwrap_or_default();
        let active = nics
            .iter()
            .filter(|nic| !standby.contains(nic))
            .cloned()
            .collect();
        self.or(&Self {
            nic_teaming: NicTeaming {
                policy: Some("LOADBALANCE_SRCID".into()),
                notify_switches: Some(true),
                rolling_order: Some(false),
                link_criteria_beacon: Some("IGNORE".into()),
                active_nics: Some(active),
                standby_nics: Some(standby),
            },
            security: Security {
                allow_promiscuous: Some(false),
                mac_changes: Some(false),
                forged_transmits: Some(false),
            },
            traffic_shaping: Shaping {
                enabled: Some(false),
                ..Shaping::default()
            },
        })
    }
}
