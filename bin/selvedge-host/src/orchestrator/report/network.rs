//! The sections of NICs and switches. Pure.

use std::collections::BTreeMap;

use kinds::{
    host::{self, NetworkVss, vmknics},
    network::{PortGroups, PortRequest},
    object::{self, Object},
};
use serde_json::{Value, json};
use vswitch::observe::{Neighbour, Nic};

/// What is known of the network.
#[derive(Debug)]
pub(crate) struct Network<'n> {
    pub(crate) nics: &'n [Nic],
    pub(crate) neighbours: &'n [Neighbour],
    pub(crate) groups: &'n PortGroups,
    pub(crate) ports: &'n [PortRequest],
    /// The HostConfigurations.
    pub(crate) layers: &'n [Object],
}

impl Network<'_> {
    /// The sections `nic/NAME` and `vswitch/NAME`.
    pub(crate) fn sections(&self) -> BTreeMap<String, Value> {
        let nics = self
            .nics
            .iter()
            .map(|nic| (format!("nic/{}", nic.name), self.nic(nic)));
        let switches = self
            .switches()
            .into_iter()
            .map(|(name, value)| (format!("vswitch/{name}"), value));
        nics.chain(switches).collect()
    }

    fn nic(&self, nic: &Nic) -> Value {
        let mut section = json!({
            "mac": nic.mac,
            "device": nic.device,
            "pci": nic.pci,
            "driver": nic.driver,
            "link": nic.link,
            "speedMbps": nic.speed_mbps,
            "mtu": nic.mtu,
            "vswitch": nic.switch,
        });
        if let Some(neighbour) = self.neighbours.iter().find(|n| n.device == nic.device) {
            section["lldp"] = json!({
                "system": neighbour.system, "port": neighbour.port, "protocol": neighbour.protocol,
            });
        }
        section
    }

    fn switches(&self) -> BTreeMap<String, Value> {
        let profile = self.profile();
        let wanted = NetworkVss::from_profile(&profile).unwrap_or_default();
        let vmknics = vmknics(&profile).unwrap_or_default();
        let mut switches = BTreeMap::new();
        for switch in &wanted.switches {
            let policy = switch.policy.with_defaults(&switch.bridge.nics);
            let linked = |name: &String| self.nics.iter().any(|nic| nic.name == *name && nic.link);
            let active = policy.nic_teaming.active_nics.unwrap_or_default();
            let standby = policy.nic_teaming.standby_nics.unwrap_or_default();
            let working: Vec<&String> = active.iter().filter(|name| linked(name)).collect();
            // The first of the others that has a link takes over when none of the active has one.
            let substitute = standby.iter().find(|name| working.is_empty() && linked(name));
            let uplinks: Vec<Value> = switch
                .bridge
                .nics
                .iter()
                .map(|name| {
                    let carries = working.contains(&name) || substitute == Some(name);
                    json!({"name": name, "link": linked(name), "active": carries})
                })
                .collect();
            let groups: Vec<Value> = switch
                .port_groups
                .iter()
                .map(|group| {
                    let machines = self.ports.iter().filter(|port| port.port_group == group.name);
                    let machines =
                        machines.map(|port| json!({"kind": "vm", "name": port.owner, "mac": port.mac}));
                    let own = vmknics
                        .iter()
                        .filter(|nic| nic.port_group == group.name && nic.enabled);
                    let own = own.map(|nic| json!({"kind": "vmknic", "name": nic.device}));
                    let there = self
                        .groups
                        .get(&group.name)
                        .is_some_and(|is| is.switch == switch.name);
                    json!({
                        "name": group.name,
                        "vlan": group.vlan_id,
                        "there": there,
                        "ports": own.chain(machines).collect::<Vec<_>>(),
                    })
                })
                .collect();
            let section = json!({"mtu": switch.mtu, "uplinks": uplinks, "portGroups": groups});
            switches.insert(switch.name.clone(), section);
        }
        switches
    }

    /// All layers merged, as far as they can be read.
    fn profile(&self) -> Value {
        let layers: Vec<hostconfig::Layer> = self
            .layers
            .iter()
            .filter_map(|layer| {
                let (namespace, name) = (object::namespace(layer), object::name(layer));
                let profile = hostconfig::profile::parse(&layer["spec"]["profile"]).ok()?;
                Some(hostconfig::Layer {
                    name: format!("{namespace}/{name}"),
                    base: namespace == host::NAMESPACE && name == host::BASE_LAYER,
                    profile: profile.value,
                })
            })
            .collect();
        hostconfig::merge_layers(&layers).profile.as_ref().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_shows_uplinks_groups_and_who_is_on_them() {
        let nic = |name: &str, link| Nic {
            name: name.into(),
            device: format!("e{name}"),
            mac: "aa".into(),
            link,
            mtu: 1500,
            ..Nic::default()
        };
        let layer = json!({"metadata": {"name": "esx-base-profile", "namespace": "esx-system"}, "spec": {"profile": {"esx": {
            "network_vss": {"switches": [{"name": "vSwitch0", "mtu": 1500,
                "policy": {"nic_teaming": {"active_nics": ["vmnic0"], "standby_nics": ["vmnic1"]}},
                "bridge": {"nics": ["vmnic0", "vmnic1"]},
                "port_groups": [{"name": "VM Network", "vlan_id": 7}, {"name": "Management Network"}]}]},
            "network": {"vmknics": [{"device": "vmk0", "port_group": "Management Network"}]}}}}});
        let ports = [PortRequest {
            interface: "t".into(),
            port_group: "VM Network".into(),
            mac: "02".into(),
            owner: "shop/till".into(),
        }];
        let nics = [nic("vmnic0", false), nic("vmnic1", true)];
        let neighbours = [Neighbour {
            device: "evmnic1".into(),
            protocol: "LLDP".into(),
            system: "rack7".into(),
            port: "Gi1/2".into(),
        }];
        let network = Network {
            nics: &nics,
            neighbours: &neighbours,
            groups: &PortGroups::new(),
            ports: &ports,
            layers: &[layer],
        };
        let sections = network.sections();
        assert_eq!(sections["nic/vmnic1"]["lldp"]["system"], "rack7");
        let switch = &sections["vswitch/vSwitch0"];
        assert_eq!(
            switch["uplinks"],
            json!([{"name": "vmnic0", "link": false, "active": false}, {"name": "vmnic1", "link": true, "active": true}])
        );
        assert_eq!(
            switch["portGroups"][0],
            json!({"name": "VM Network", "vlan": 7, "there": false, "ports": [{"kind": "vm", "name": "shop/till", "mac": "02"}]})
        );
        assert_eq!(
            switch["portGroups"][1]["ports"],
            json!([{"kind": "vmknic", "name": "vmk0"}])
        );
    }
}
