//! The base layer of a fresh host: what an ESXi host has after its installation.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::observe::{Kernel, Nic};

/// vSwitch0 on the first NIC with the port groups `VM Network` and `Management Network`, and vmk0 with the
/// address, MAC address and gateway that the host has on that NIC now (or on vmk0, if it was taken over before).
/// If the host's address is on another NIC, that one carries vSwitch0.
#[must_use]
pub fn base_profile(nics: &[Nic], kernel: &Kernel) -> Value {
    let default = kernel.routes.iter().find(|r| r.destination.1 == 0);
    let taken_over = |n: &&Nic| n.switch.as_deref() == Some("vSwitch0");
    let has_address = |n: &&Nic| kernel.addresses_on(&n.device).next().is_some();
    let carries_default = |n: &&Nic| default.is_some_and(|r| r.device == n.device);
    let found = nics.iter().find(taken_over).or(nics.iter().find(carries_default));
    let nic = found.or(nics.iter().find(has_address)).or(nics.first());
    let names: Vec<&str> = nic.iter().map(|n| n.name.as_str()).collect();
    let teaming = json!({
        "policy": "LOADBALANCE_SRCID", "active_nics": names, "standby_nics": [],
        "notify_switches": true, "rolling_order": false, "link_criteria_beacon": "IGNORE",
    });
    let switch = json!({
        "name": "vSwitch0",
        "num_ports": 1024,
        "mtu": nic.map_or(1500, |n| n.mtu),
        "bridge": {
            "nics": names,
            "link_discovery_protocol": {"protocol": "CDP", "operation": "LISTEN"},
        },
        "policy": {
            "nic_teaming": teaming,
            "security": {"allow_promiscuous": false, "mac_changes": false, "forged_transmits": false},
            "traffic_shaping": {"enabled": false},
        },
        "port_groups": [
            {"name": "VM Network", "vlan_id": 0},
            {"name": "Management Network", "vlan_id": 0},
        ],
    });
    let mut vmknic = json!({
        "device": "vmk0",
        "port_group": "Management Network",
        "port_connection_type": "VSS_PORT_GROUP",
        "enabled": true,
        "mtu": nic.map_or(1500, |n| n.mtu),
    });
    let holder = match kernel.addresses_on("vmk0").next() {
        Some(_) => Some("vmk0"),
        None => nic.map(|n| n.device.as_str()),
    };
    if let Some(link) = holder.and_then(|h| kernel.links.get(h)) {
        vmknic["mac_mode"] = json!("MANUAL");
        vmknic["mac"] = json!(link.mac);
    }
    vmknic["ip"] = ip(holder, kernel);
    json!({"esx": {
        "network_vss": {"switches": [switch]},
        "network": {"vmknics": [vmknic]},
    }})
}

fn ip(holder: Option<&str>, kernel: &Kernel) -> Value {
    let Some(address) = holder.and_then(|h| kernel.addresses_on(h).next()) else {
        return json!({"dhcp": true, "ipv6_enabled": false});
    };
    if address.dynamic {
        return json!({"dhcp": true, "ipv6_enabled": false});
    }
    let mask = Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(address.prefix)).unwrap_or(0));
    let mut ip = json!({
        "dhcp": false, "ipv4_address": address.address, "ipv4_subnet_mask": mask, "ipv6_enabled": false,
    });
    let default = kernel
        .routes
        .iter()
        .find(|r| r.destination.1 == 0 && r.device == address.device);
    if let Some(gateway) = default.and_then(|r| r.gateway) {
        ip["ipv4_gateway"] = json!(gateway);
    }
    ip
}

#[cfg(test)]
mod tests;
