use serde_json::json;

use super::*;

fn nics() -> NicDevices {
    (0..4)
        .map(|n| (format!("vmnic{n}"), format!("vmnic{n}")))
        .collect()
}

fn read(network_vss: Value) -> Result<Reading, Vec<Problem>> {
    Desired::read(&json!({"esx": {"network_vss": network_vss}}), &nics(), "host1")
}

fn problems(network_vss: Value) -> Vec<(String, String)> {
    read(network_vss)
        .unwrap_err()
        .into_iter()
        .map(|p| (p.path, p.reason))
        .collect()
}

fn pair(path: &str, reason: &str) -> (String, String) {
    (path.into(), reason.into())
}

#[test]
fn a_public_sample_is_read_whole() {
    let reading = read(json!({"switches": [{
        "name": "vSwitch1", "num_ports": 1024, "mtu": 1500,
        "policy": {
            "nic_teaming": {
                "policy": "LOADBALANCE_SRCID", "notify_switches": true, "rolling_order": false,
                "link_criteria_beacon": "IGNORE", "active_nics": ["vmnic1"], "standby_nics": [],
            },
            "security": {"allow_promiscuous": true, "mac_changes": true, "forged_transmits": true},
            "traffic_shaping": {"enabled": false},
        },
        "bridge": {
            "link_discovery_protocol": {"protocol": "CDP", "operation": "LISTEN"}, "nics": ["vmnic1"],
        },
        "port_groups": [
            {"name": "prod", "vlan_id": 10},
            {"name": "all", "vlan_id": 4095, "policy": {"security": {"forged_transmits": false}}},
        ],
    }]}))
    .unwrap();
    assert_eq!(reading.not_enforced, [""; 0]);
    let (switch, prod) = reading.desired.port_group("prod").unwrap();
    assert_eq!(
        (switch.bridge.as_str(), switch.mtu, prod.vlan_id),
        ("vSwitch1", 1500, 10)
    );
    assert_eq!(
        (prod.team.active.as_slice(), prod.team.notify_switches),
        (&["vmnic1".to_owned()][..], true)
    );
    let (_, all) = reading.desired.port_group("all").unwrap();
    assert!(all.security.allow_promiscuous && !all.security.forged_transmits);
    assert_eq!(all.team, prod.team);
}

#[test]
fn what_is_not_known_is_listed_not_refused() {
    let reading = read(json!({"switches": [{
        "name": "s", "colour": "blue", "bridge": {"beacon": {"interval": 1}},
        "policy": {"traffic_shaping": {"enabled": true, "peak_bandwidth": 1}},
        "port_groups": [{"name": "p", "vlan_id": 1, "key": 7}],
    }]}))
    .unwrap();
    assert_eq!(
        reading.not_enforced,
        [
            "esx.network_vss.switches[s].bridge.beacon",
            "esx.network_vss.switches[s].colour",
            "esx.network_vss.switches[s].policy.traffic_shaping",
            "esx.network_vss.switches[s].port_groups[p].key",
        ]
    );
}

#[test]
fn every_mistake_is_named_with_its_path() {
    assert_eq!(
        problems(json!({"switches": [
            {
                "name": "vSwitch1",
                "bridge": {"nics": ["vmnic1", "vmnic9"]},
                "policy": {"nic_teaming": {"policy": "LOADBALANCE_IP", "standby_nics": ["vmnic3"]}},
                "port_groups": [{"name": "prod", "vlan_id": 5000}, {"name": "prod"}],
            },
            {"name": "vSwitch2", "bridge": {"nics": ["vmnic1"]}, "port_groups": [{"name": "prod"}], "mtu": "big"},
            {"policy": 3},
        ]})),
        [
            pair("esx.network_vss.switches[2]", "MissingName"),
            pair("esx.network_vss.switches[vSwitch1].bridge.nics[1]", "UnknownNic"),
            pair(
                "esx.network_vss.switches[vSwitch1].policy.nic_teaming.standby_nics[0]",
                "UnknownUplink"
            ),
            pair(
                "esx.network_vss.switches[vSwitch1].policy.nic_teaming.standby_nics",
                "StandbyNotAllowed"
            ),
            pair(
                "esx.network_vss.switches[vSwitch1].port_groups[prod].vlan_id",
                "InvalidVlan"
            ),
            pair(
                "esx.network_vss.switches[vSwitch1].port_groups[prod]",
                "DuplicatePortGroup"
            ),
            pair(
                "esx.network_vss.switches[vSwitch2].bridge.nics[0]",
                "NicInTwoPlaces"
            ),
            pair(
                "esx.network_vss.switches[vSwitch2].port_groups[prod]",
                "DuplicatePortGroup"
            ),
            pair("esx.network_vss.switches[vSwitch2].mtu", "InvalidType"),
        ]
    );
    let unknown = read(json!({"switches": [{"name": "s", "bridge": {"nics": ["vmnic9"]}}]})).unwrap_err();
    assert_eq!(
        unknown[0].message,
        "there is no NIC \"vmnic9\" on this host; it has vmnic0, vmnic1, vmnic2, vmnic3"
    );
}

#[test]
fn port_groups_inherit_teaming_piece_by_piece() {
    let reading = read(json!({"switches": [{
        "name": "s", "bridge": {"nics": ["vmnic0", "vmnic1", "vmnic2"]},
        "policy": {"nic_teaming": {"standby_nics": ["vmnic2"], "rolling_order": true}},
        "port_groups": [
            {"name": "a"},
            {"name": "b", "policy": {"nic_teaming": {"policy": "FAILOVER_EXPLICIT", "active_nics": ["vmnic2"]}}},
        ],
    }]}))
    .unwrap();
    let team = |name| reading.desired.port_group(name).unwrap().1.team.clone();
    assert_eq!(
        (team("a").active.join(","), team("a").standby.join(",")),
        ("vmnic0,vmnic1".into(), "vmnic2".into())
    );
    assert_eq!(
        (team("b").active.join(","), team("b").standby.join(",")),
        ("vmnic2".into(), String::new())
    );
    assert!(team("b").rolling_order && team("b").policy == TeamPolicy::Explicit);
}

#[test]
fn vmknics_are_read_and_checked() {
    let profile = |vmknics: Value| {
        let switches = json!([{"name": "s", "mtu": 9000, "port_groups": [{"name": "mgmt"}]}]);
        json!({"esx": {
            "network_vss": {"switches": switches},
            "network": {"vmknics": vmknics, "net_stacks": [{"key": "defaultTcpipStack"}]},
        }})
    };
    let good = json!([{
        "device": "vmk0", "port_group": "mgmt", "port_connection_type": "VSS_PORT_GROUP", "mac": "02:AB:00:00:00:01",
        "mac_mode": "MANUAL", "net_stack_instance_key": "defaultTcpipStack",
        "ip": {"dhcp": false, "ipv4_address": "10.0.0.2", "ipv4_subnet_mask": "255.255.255.0",
               "ipv4_gateway": "10.0.0.1", "ipv6_enabled": false, "ipv6": {"dhcp": false}},
    }]);
    let reading = Desired::read(&profile(good), &nics(), "h").unwrap();
    assert_eq!(
        reading.not_enforced,
        ["esx.network.vmknics[vmk0].net_stack_instance_key"]
    );
    let vmk = &reading.desired.vmknics[0];
    assert_eq!((vmk.mac.as_str(), vmk.mtu), ("02:ab:00:00:00:01", 9000));
    let address = "10.0.0.2".parse().unwrap();
    assert_eq!(
        vmk.ipv4,
        Ipv4::Static {
            address,
            prefix: 24,
            gateway: Some("10.0.0.1".parse().unwrap())
        }
    );

    let bad = json!([{"device": "eth0", "port_group": "x", "mac": "01:00:00:00:00:01",
        "ip": {"ipv4_address": "10.0.0.2", "ipv4_subnet_mask": "255.0.255.0"}}]);
    let reasons: Vec<_> = Desired::read(&profile(bad), &nics(), "h")
        .unwrap_err()
        .into_iter()
        .map(|p| p.reason)
        .collect();
    assert_eq!(
        reasons,
        ["InvalidDevice", "UnknownPortGroup", "InvalidMac", "InvalidMask"]
    );
}

#[test]
fn bridges_have_names_that_the_kernel_takes() {
    assert_eq!(bridge_name("vSwitch0"), "vSwitch0");
    for long in ["a switch", "a-very-long-switch-name", "ö"] {
        assert!(
            bridge_name(long).starts_with("sv-") && bridge_name(long).len() == 13,
            "{long}"
        );
    }
    assert_ne!(bridge_name("a switch"), bridge_name("b switch"));
}
