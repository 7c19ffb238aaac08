//! The rows that the database should have.

use std::collections::BTreeMap;

use kinds::network::PortRequest;
use ovsdb::{Datum, Row};
use reconcile::section::Problem;

use super::teaming::{Lane, slot};
use crate::{
    desired::{Desired, PortGroup, Security, Switch},
    observe::{Database, MARK_MAC, MARK_OWNER, MARK_PORT_GROUP, MARK_ROLE, MARK_SWITCH, Port},
};

/// A bridge as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedBridge {
    /// The vSwitch's name.
    pub switch: String,
    /// Columns.
    pub row: Row,
    /// Ports by name.
    pub ports: BTreeMap<String, WantedPort>,
}

/// A port as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedPort {
    /// Columns of the port.
    pub port: Row,
    /// Columns of its interface.
    pub interface: Row,
    /// Why it is there, for people.
    pub reason: String,
    /// Path in the profile, if it comes from there.
    pub path: String,
}

/// A port of a port group: a virtual machine's or the host's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The bridge.
    pub bridge: String,
    /// The vSwitch.
    pub switch: String,
    /// The device.
    pub interface: String,
    /// The port group.
    pub port_group: String,
    /// 0, 1–4094, 4095.
    pub vlan_id: u16,
    /// Bytes.
    pub mtu: u32,
    /// MAC address.
    pub mac: String,
    /// `namespace/name` of the virtual machine; `None` for the host's own.
    pub owner: Option<String>,
    /// Its lane.
    pub lane: Lane,
    /// What it may do.
    pub security: Security,
}

/// Which ports there are to be: the host's own, then those of virtual machines, at most `num_ports` on each
/// vSwitch, those first that have a port already.
#[must_use]
pub fn attach(
    desired: &Desired,
    requests: &[PortRequest],
    database: &Database,
) -> (Vec<Attachment>, Vec<Problem>) {
    let attachment =
        |switch: &Switch, group: &PortGroup, interface: &str, mac: &str, owner: Option<&str>| Attachment {
            bridge: switch.bridge.clone(),
            switch: switch.name.clone(),
            interface: interface.into(),
            port_group: group.name.clone(),
            vlan_id: group.vlan_id,
            mtu: switch.mtu,
            mac: mac.into(),
            owner: owner.map(Into::into),
            lane: Lane {
                team: group.team.clone(),
                slot: slot(&group.team, interface, mac),
            },
            // The host is trusted with its own frames.
            security: Security {
                forged_transmits: owner.is_none() || group.security.forged_transmits,
                ..group.security
            },
        };
    let mut attachments = Vec::new();
    for vmknic in &desired.vmknics {
        if let Some((switch, group)) = desired.port_group(&vmknic.port_group) {
            let mut port = attachment(switch, group, &vmknic.device, &vmknic.mac, None);
            port.mtu = vmknic.mtu;
            port.security = Security {
                forged_transmits: true,
                ..Security::default()
            };
            attachments.push(port);
        }
    }
    let mut requests: Vec<_> = requests.iter().collect();
    requests.sort_by_key(|r| (database.port(&r.interface).is_none(), &r.interface));
    let mut used: BTreeMap<&str, u32> = BTreeMap::new();
    for own in &attachments {
        let name = desired
            .port_group(&own.port_group)
            .map(|(s, _)| s.name.as_str())
            .unwrap_or_default();
        *used.entry(name).or_default() += 1;
    }
    let mut refused: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for request in requests {
        // An unknown port group is for the virtual machine to report: it sees which there are.
        let Some((switch, group)) = desired.port_group(&request.port_group) else {
            continue;
        };
        let count = used.entry(&switch.name).or_default();
        if *count >= switch.num_ports {
            refused.entry(&switch.name).or_default().push(&request.owner);
            continue;
        }
        *count += 1;
        attachments.push(attachment(
            switch,
            group,
            &request.interface,
            &request.mac,
            Some(&request.owner),
        ));
    }
    attachments.sort_by(|a, b| (&a.bridge, &a.interface).cmp(&(&b.bridge, &b.interface)));
    (
        attachments,
        desired
            .switches
            .iter()
            .filter_map(|s| full(s, &used, &refused))
            .collect(),
    )
}

fn full(switch: &Switch, used: &BTreeMap<&str, u32>, refused: &BTreeMap<&str, Vec<&str>>) -> Option<Problem> {
    let limit = switch.num_ports;
    let owners = refused.get(switch.name.as_str());
    let count = used.get(switch.name.as_str()).copied().unwrap_or(0);
    if owners.is_none() && count <= limit {
        return None;
    }
    let without = owners
        .map(|o| format!("; without a port: {}", o.join(", ")))
        .unwrap_or_default();
    Some(Problem {
        path: format!("esx.network_vss.switches[{}].num_ports", switch.name),
        reason: "NoFreePort".into(),
        message: format!(
            "vSwitch {} has {limit} ports and needs more{without}; raise num_ports",
            switch.name
        ),
    })
}

/// The rows for a configuration, bridges by name.
#[must_use]
pub fn wanted(
    desired: &Desired,
    attachments: &[Attachment],
    datapath_type: &str,
) -> BTreeMap<String, WantedBridge> {
    let mut bridges: BTreeMap<_, _> = desired
        .switches
        .iter()
        .map(|s| (s.bridge.clone(), bridge(s, datapath_type)))
        .collect();
    for attachment in attachments {
        if let Some(bridge) = bridges.get_mut(&attachment.bridge) {
            bridge
                .ports
                .insert(attachment.interface.clone(), port(attachment));
        }
    }
    bridges
}

fn bridge(switch: &Switch, datapath_type: &str) -> WantedBridge {
    let row = Row::new()
        .with("name", Datum::one(switch.bridge.as_str()))
        .with("datapath_type", Datum::one(datapath_type))
        .with("fail_mode", Datum::one("secure"))
        .with("stp_enable", Datum::one(false))
        .with("external_ids", Datum::map([(MARK_SWITCH, switch.name.as_str())]));
    let local = WantedPort {
        port: Row::new()
            .with("name", Datum::one(switch.bridge.as_str()))
            .with("external_ids", Datum::map([(MARK_ROLE, "bridge")])),
        interface: Row::new()
            .with("name", Datum::one(switch.bridge.as_str()))
            .with("type", Datum::one("internal")),
        reason: format!("every bridge has one, for vSwitch {}", switch.name),
        path: format!("esx.network_vss.switches[{}]", switch.name),
    };
    let mut ports = BTreeMap::from([(switch.bridge.clone(), local)]);
    for (index, uplink) in switch.uplinks.iter().enumerate() {
        let wanted = WantedPort {
            port: Row::new()
                .with("name", Datum::one(uplink.device.as_str()))
                .with("tag", Datum::empty())
                .with("external_ids", Datum::map([(MARK_ROLE, "uplink")])),
            interface: Row::new()
                .with("name", Datum::one(uplink.device.as_str()))
                .with("mtu_request", Datum::one(i64::from(switch.mtu))),
            reason: format!("{} is an uplink of vSwitch {}", uplink.nic, switch.name),
            path: format!("esx.network_vss.switches[{}].bridge.nics[{index}]", switch.name),
        };
        ports.insert(uplink.device.clone(), wanted);
    }
    WantedBridge {
        switch: switch.name.clone(),
        row,
        ports,
    }
}

fn port(attachment: &Attachment) -> WantedPort {
    let name = attachment.interface.as_str();
    let group = attachment.port_group.as_str();
    let role = if attachment.owner.is_some() {
        "vm"
    } else {
        "vmknic"
    };
    let mut marks = vec![(MARK_ROLE, role), (MARK_PORT_GROUP, group)];
    marks.extend(attachment.owner.as_deref().map(|owner| (MARK_OWNER, owner)));
    // The flows do the tagging; the tag is what people and tools look at.
    let tag = match attachment.vlan_id {
        0 | 4095 => Datum::empty(),
        vlan => Datum::one(i64::from(vlan)),
    };
    let mut interface = Row::new()
        .with("name", Datum::one(name))
        .with("mtu_request", Datum::one(i64::from(attachment.mtu)))
        .with("external_ids", Datum::map([(MARK_MAC, attachment.mac.as_str())]));
    if attachment.owner.is_none() {
        interface = interface
            .with("type", Datum::one("internal"))
            .with("mac", Datum::one(attachment.mac.as_str()));
    }
    let (reason, path) = match &attachment.owner {
        Some(owner) => (
            format!("virtual machine {owner} is on port group {group}"),
            String::new(),
        ),
        None => (
            format!("{name} is on port group {group}"),
            format!("esx.network.vmknics[{name}]"),
        ),
    };
    let port = Row::new()
        .with("name", Datum::one(name))
        .with("tag", tag)
        .with("external_ids", Datum::map(marks));
    WantedPort {
        port,
        interface,
        reason,
        path,
    }
}

/// Takes out of the wish what would touch something that is not ours, and says so.
pub(super) fn yield_to_foreign(
    bridges: &mut BTreeMap<String, WantedBridge>,
    desired: &Desired,
    database: &Database,
    problems: &mut Vec<Problem>,
) {
    let mut problem = |path: &str, reason: &str, message: String| {
        problems.push(Problem {
            path: path.into(),
            reason: reason.into(),
            message,
        });
    };
    for switch in &desired.switches {
        if database
            .bridges
            .get(&switch.bridge)
            .is_some_and(|b| b.switch().is_none())
        {
            bridges.remove(&switch.bridge);
            let path = format!("esx.network_vss.switches[{}]", switch.name);
            let message = format!(
                "a bridge {} is there that is not ours; remove it with `ovs-vsctl del-br {}` or choose another name",
                switch.bridge, switch.bridge
            );
            problem(&path, "ForeignBridge", message);
        }
    }
    for bridge in bridges.values_mut() {
        bridge.ports.retain(|name, port| match database.port(name) {
            Some((there, _, found)) if found.role().is_none() => {
                let message = format!("port {name} of bridge {there} is not ours and in the way");
                problem(&port.path, "ForeignPort", message);
                false
            }
            _ => true,
        });
    }
}

/// The columns of `want` that `have` does not have so, and their names for people. Keys of maps that are not
/// ours stay as they are.
pub(super) fn differing(want: &Row, have: &Row) -> Option<(Row, String)> {
    let mut columns = Row::new();
    let mut names = Vec::new();
    for (column, wanted) in &want.0 {
        let found = have.0.get(column);
        let value = match (wanted, found) {
            (Datum::Map(ours), Some(Datum::Map(all))) => {
                let missing: Vec<_> = ours.iter().filter(|(k, v)| all.get(*k) != Some(*v)).collect();
                if missing.is_empty() {
                    continue;
                }
                let mut merged = all.clone();
                merged.extend(missing.into_iter().map(|(k, v)| (k.clone(), v.clone())));
                Datum::Map(merged)
            }
            (wanted, Some(found)) if wanted == found => continue,
            // A column that was never set is an empty set.
            (Datum::Set(atoms), None) if atoms.is_empty() => continue,
            (wanted, _) => wanted.clone(),
        };
        names.push(match &value {
            Datum::Set(atoms) => match atoms.as_slice() {
                [] => format!("no {column}"),
                [one] => format!("{column} {}", one.to_json()),
                _ => column.clone(),
            },
            Datum::Map(_) => column.clone(),
        });
        columns = columns.with(column, value);
    }
    (!names.is_empty()).then(|| (columns, names.join(", ")))
}

pub(super) fn why_gone(name: &str, port: &Port, bridges: &BTreeMap<String, WantedBridge>) -> String {
    if let Some((elsewhere, _)) = bridges.iter().find(|(_, b)| b.ports.contains_key(name)) {
        return format!("it belongs to bridge {elsewhere}");
    }
    match port.role() {
        Some("vm") => {
            let owner = port
                .row
                .key("external_ids", MARK_OWNER)
                .unwrap_or("a virtual machine");
            format!("{owner} no longer needs it")
        }
        _ => "it is not in the profile".into(),
    }
}
