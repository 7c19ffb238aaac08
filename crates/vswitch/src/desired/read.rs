//! Reading the profile.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use reconcile::section::Problem;
use serde_json::Value;

use super::{
    Desired, Discovery, DiscoveryProtocol, Ipv4, NicDevices, PortGroup, Reading, Switch, Uplink, Vmknic,
    bridge_name,
    fields::{Fields, Notes},
    made_up_mac,
    teaming::{or_none, policy},
};

const DEFAULT_PORTS: u32 = 1024;
const DEFAULT_MTU: u32 = 1500;
/// The largest port group number that OpenFlow actions and people can carry.
const MAX_PORTS: u32 = 4088;

/// What must be unique on the host, and the path that has it.
#[derive(Default)]
struct Taken {
    nics: BTreeMap<String, String>,
    port_groups: BTreeMap<String, String>,
    bridges: BTreeMap<String, String>,
}

pub(super) fn read(profile: &Value, nics: &NicDevices, host_name: &str) -> Result<Reading, Vec<Problem>> {
    let notes = Notes::default();
    let mut desired = Desired::default();
    let mut taken = Taken::default();
    let esx = profile.get("esx");
    {
        let vss = Fields::new("esx.network_vss", esx.and_then(|e| e.get("network_vss")), &notes);
        for (name, fields) in vss.named("switches", "name") {
            desired.switches.push(switch(name, &fields, nics, &mut taken));
        }
    }
    {
        let network = Fields::new("esx.network", esx.and_then(|e| e.get("network")), &notes);
        network.rest_is_not_ours();
        for (device, fields) in network.named("vmknics", "device") {
            let vmknic = vmknic(device, &fields, &desired, host_name);
            desired.vmknics.extend(vmknic);
        }
    }
    let (problems, mut not_enforced) = (notes.problems.take(), notes.not_enforced.take());
    if !problems.is_empty() {
        return Err(problems);
    }
    desired.switches.sort_by(|a, b| a.name.cmp(&b.name));
    desired.vmknics.sort_by(|a, b| a.device.cmp(&b.device));
    not_enforced.sort();
    not_enforced.dedup();
    Ok(Reading {
        desired: Arc::new(desired),
        not_enforced,
    })
}

/// Notes a second use of something unique.
fn claim(
    taken: &mut BTreeMap<String, String>,
    what: &str,
    name: &str,
    path: &str,
    reason: &str,
    notes: &Notes,
) {
    if let Some(first) = taken.get(name) {
        notes.problem(path, reason, format!("{what} {name:?} is already in {first}"));
    } else {
        taken.insert(name.into(), path.into());
    }
}

fn switch(name: String, fields: &Fields<'_>, nics: &NicDevices, taken: &mut Taken) -> Switch {
    let notes = fields.notes;
    let bridge = bridge_name(&name);
    claim(
        &mut taken.bridges,
        "a vSwitch",
        &bridge,
        &fields.path,
        "DuplicateSwitch",
        notes,
    );
    let bridge_fields = fields.object("bridge");
    let names = bridge_fields.texts("nics").unwrap_or_default();
    let known: Vec<_> = nics.keys().cloned().collect();
    let mut uplinks = Vec::new();
    for (index, nic) in names.iter().enumerate() {
        let path = format!("{}[{index}]", bridge_fields.at("nics"));
        claim(&mut taken.nics, "NIC", nic, &path, "NicInTwoPlaces", notes);
        match nics.get(nic) {
            Some(device) => uplinks.push(Uplink {
                nic: nic.clone(),
                device: device.clone(),
            }),
            None => {
                let message = format!("there is no NIC {nic:?} on this host; it has {}", or_none(&known));
                notes.problem(path, "UnknownNic", message);
            }
        }
    }
    let base = policy(&fields.object("policy"), &names, None);
    let mut port_groups: Vec<_> = fields
        .named("port_groups", "name")
        .into_iter()
        .map(|(name, group)| {
            claim(
                &mut taken.port_groups,
                "a port group",
                &name,
                &group.path,
                "DuplicatePortGroup",
                notes,
            );
            let vlan = group.integer("vlan_id", 0, 4095, "InvalidVlan").unwrap_or(0);
            let (team, security) = policy(&group.object("policy"), &names, Some(&base));
            PortGroup {
                name,
                vlan_id: u16::try_from(vlan).unwrap_or(0),
                team,
                security,
            }
        })
        .collect();
    port_groups.sort_by(|a, b| a.name.cmp(&b.name));
    Switch {
        name,
        bridge,
        num_ports: fields
            .integer("num_ports", 0, MAX_PORTS, "InvalidNumPorts")
            .unwrap_or(DEFAULT_PORTS),
        mtu: fields
            .integer("mtu", 1280, 9190, "InvalidMtu")
            .unwrap_or(DEFAULT_MTU),
        uplinks,
        discovery: discovery(&bridge_fields.object("link_discovery_protocol")),
        port_groups,
    }
}

fn discovery(fields: &Fields<'_>) -> Discovery {
    let protocols = [("CDP", DiscoveryProtocol::Cdp), ("LLDP", DiscoveryProtocol::Lldp)];
    let operations = [
        ("LISTEN", (true, false)),
        ("ADVERTISE", (false, true)),
        ("BOTH", (true, true)),
        ("NONE", (false, false)),
    ];
    let (listen, advertise) = fields.word("operation", &operations).unwrap_or((true, false));
    let protocol = fields
        .word("protocol", &protocols)
        .unwrap_or(DiscoveryProtocol::Cdp);
    Discovery {
        protocol,
        listen,
        advertise,
        explicit: fields.has("operation"),
    }
}

fn vmknic(device: String, fields: &Fields<'_>, desired: &Desired, host_name: &str) -> Option<Vmknic> {
    let notes = fields.notes;
    let number = device.strip_prefix("vmk").and_then(|n| n.parse::<u16>().ok());
    if number.is_none_or(|n| device != format!("vmk{n}")) {
        notes.problem(
            fields.at("device"),
            "InvalidDevice",
            format!("{device:?} is not of the form vmkN"),
        );
    }
    if desired.vmknics.iter().any(|v| v.device == device) {
        notes.problem(
            &fields.path,
            "DuplicateVmknic",
            format!("{device} is there twice"),
        );
    }
    let enabled = fields.boolean("enabled").unwrap_or(true);
    fields.word("port_connection_type", &[("VSS_PORT_GROUP", ())]);
    let port_group = fields.text("port_group").unwrap_or_default().to_owned();
    let switch_mtu = desired.port_group(&port_group).map(|(switch, _)| switch.mtu);
    if switch_mtu.is_none() {
        let path = fields.at("port_group");
        notes.problem(
            path,
            "UnknownPortGroup",
            format!("there is no port group {port_group:?}"),
        );
    }
    let mac = mac(fields, host_name, &device);
    let ipv4 = ipv4(&fields.object("ip"));
    let mtu = fields.integer("mtu", 1280, 9190, "InvalidMtu");
    enabled.then(|| Vmknic {
        mtu: mtu.or(switch_mtu).unwrap_or(DEFAULT_MTU),
        device,
        port_group,
        mac,
        ipv4,
    })
}

fn mac(fields: &Fields<'_>, host_name: &str, device: &str) -> String {
    fields.word("mac_mode", &[("AUTO_GENERATED", ()), ("MANUAL", ())]);
    let Some(text) = fields.text("mac") else {
        return made_up_mac(host_name, device);
    };
    let parsed: Option<Vec<u8>> = text.split(':').map(|b| u8::from_str_radix(b, 16).ok()).collect();
    match parsed.as_deref() {
        Some(&[a, b, c, d, e, f]) if a & 1 == 0 => {
            format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
        }
        _ => {
            fields.notes.problem(
                fields.at("mac"),
                "InvalidMac",
                format!("{text:?} is not a MAC address of one station"),
            );
            String::new()
        }
    }
}

fn ipv4(fields: &Fields<'_>) -> Ipv4 {
    let notes = fields.notes;
    let address = |key: &'static str| -> Option<Ipv4Addr> {
        let text = fields.text(key).filter(|t| !t.is_empty())?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            notes.problem(
                fields.at(key),
                "InvalidAddress",
                format!("{text:?} is not an IPv4 address"),
            );
        }
        parsed
    };
    let dhcp = fields.boolean("dhcp").unwrap_or(false);
    let (own, mask, gateway) = (
        address("ipv4_address"),
        address("ipv4_subnet_mask"),
        address("ipv4_gateway"),
    );
    for key in ["ipv6", "ipv6_enabled"] {
        if fields.has(key) && fields.value(key).is_some_and(wants_ipv6) {
            notes.not_enforced(fields.at(key));
        }
    }
    if dhcp {
        return Ipv4::Dhcp;
    }
    let Some(address) = own else {
        return Ipv4::None;
    };
    let prefix = mask.map(u32::from).map(|m| (m.leading_ones(), m));
    match prefix {
        Some((ones, mask)) if mask.checked_shl(ones).unwrap_or(0) == 0 => Ipv4::Static {
            address,
            prefix: u8::try_from(ones).unwrap_or(32),
            gateway,
        },
        _ => {
            let path = fields.at("ipv4_subnet_mask");
            notes.problem(
                path,
                "InvalidMask",
                "a static address needs a subnet mask such as 255.255.255.0",
            );
            Ipv4::None
        }
    }
}

/// Whether an IPv6 setting asks for something.
fn wants_ipv6(value: &Value) -> bool {
    match value {
        Value::Bool(on) => *on,
        Value::Object(map) => map.values().any(wants_ipv6),
        Value::Array(list) => !list.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => false,
    }
}
