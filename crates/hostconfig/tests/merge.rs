//! Merging layers: golden results, conflicts, order.

use hostconfig::{Layer, Merged, merge_layers};
use proptest::prelude::*;
use serde_json::{Value, json};

fn layer(name: &str, esx: Value) -> Layer {
    Layer {
        name: format!("esx-system/{name}"),
        base: name == "esx-base-profile",
        profile: json!({ "esx": esx }),
    }
}

fn base() -> Layer {
    layer(
        "esx-base-profile",
        json!({
            "network_vss": {"switches": [{
                "name": "vSwitch0", "mtu": 1500, "bridge": {"nics": ["vmnic0"]},
                "policy": {"security": {"allow_promiscuous": false, "mac_changes": false}},
                "port_groups": [{"name": "VM Network", "vlan_id": 0}, {"name": "Management Network", "vlan_id": 0}],
            }]},
            "network": {"vmknics": [{"device": "vmk0", "port_group": "Management Network", "ip": {"dhcp": true}}]},
        }),
    )
}

fn show(merged: &Merged) -> String {
    let owners: Vec<String> = merged
        .provenance
        .iter()
        .map(|(path, layers)| format!("{path} <- {}", layers.join(", ")))
        .collect();
    let conflicts: Vec<String> = merged.conflicts.iter().map(ToString::to_string).collect();
    format!(
        "{:#}\n\n{}\n\n{}",
        merged.profile,
        owners.join("\n"),
        conflicts.join("\n")
    )
}

#[test]
fn a_site_of_several_layers() {
    // A second switch, a change of one policy of the first, time servers, a port group more, a vmknic more.
    let layers = [
        base(),
        layer(
            "vswitch-config",
            json!({"network_vss": {"switches": [{
                "name": "vSwitch1", "num_ports": 1024, "mtu": 9000,
                "policy": {"nic_teaming": {"policy": "LOADBALANCE_SRCID", "active_nics": ["vmnic1"], "standby_nics": []}},
                "bridge": {"nics": ["vmnic1"], "link_discovery_protocol": {"protocol": "CDP", "operation": "LISTEN"}},
                "port_groups": [{"name": "workload-network", "vlan_id": 20}],
            }]}}),
        ),
        layer(
            "security",
            json!({"network_vss": {"switches": [{"name": "vSwitch0", "policy": {"security": {"mac_changes": true}}}]}}),
        ),
        layer(
            "cameras",
            json!({"network_vss": {"switches": [{"name": "vSwitch1", "port_groups": [{"name": "Cameras", "vlan_id": 30}]}]}}),
        ),
        layer(
            "ntp-sync",
            json!({"system": {"system_time": {"enabled": true, "protocol": "NTP", "ntp_config": {"server": [{"hostname": "t"}]}}},
            "network": {"vmknics": [{"device": "vmk1", "port_group": "Cameras"}]}}),
        ),
    ];
    let merged = merge_layers(&layers);
    assert_eq!(merged.conflicts, []);
    insta::assert_snapshot!(show(&merged));
}

#[test]
fn layers_that_disagree_are_both_named_and_the_later_wins() {
    let vlan = |id: u16| json!({"network_vss": {"switches": [{"name": "vSwitch1", "port_groups": [{"name": "P", "vlan_id": id}]}]}});
    let nics = |nics: &[&str]| json!({"network_vss": {"switches": [{"name": "vSwitch1", "bridge": {"nics": nics}}]}});
    let layers = [
        layer("c", vlan(30)),
        layer("a", vlan(10)),
        layer("b", vlan(10)),
        layer("d", nics(&["vmnic1"])),
        layer("e", nics(&["vmnic1", "vmnic2"])),
    ];
    let merged = merge_layers(&layers);
    insta::assert_snapshot!(show(&merged));
    let path = "esx.network_vss.switches[vSwitch1].port_groups[P].vlan_id";
    assert_eq!(merged.conflicts[1].path, path);
    assert_eq!(
        merged.conflicts[1].layers,
        ["esx-system/a", "esx-system/b", "esx-system/c"]
    );
    assert_eq!(
        merged
            .profile
            .pointer("/esx/network_vss/switches/0/port_groups/0/vlan_id"),
        Some(&json!(30))
    );
    assert_eq!(merged.layers_at(path), ["esx-system/c"]);
}

#[test]
fn a_value_that_changes_and_changes_back_is_still_a_conflict() {
    let mtu = |mtu: u32| json!({"network_vss": {"switches": [{"name": "s", "mtu": mtu}]}});
    let merged = merge_layers(&[
        layer("a", mtu(1500)),
        layer("b", mtu(9000)),
        layer("c", mtu(1500)),
    ]);
    assert_eq!(
        merged.conflicts[0].layers,
        ["esx-system/a", "esx-system/b", "esx-system/c"]
    );
    assert_eq!(merged.conflicts[0].winner, "esx-system/c");
}

#[test]
fn an_object_against_a_value_is_a_conflict() {
    let merged = merge_layers(&[
        layer("a", json!({"x": {"y": {"z": 1}}})),
        layer("b", json!({"x": {"y": 5}})),
        layer("c", json!({"x": {"y": {"w": 2}}})),
    ]);
    assert_eq!(*merged.profile, json!({"esx": {"x": {"y": {"w": 2}}}}));
    assert_eq!(merged.conflicts.len(), 1);
    assert_eq!(
        merged.conflicts[0].layers,
        ["esx-system/a", "esx-system/b", "esx-system/c"]
    );
    assert_eq!(merged.provenance.keys().collect::<Vec<_>>(), ["esx.x.y"]);
}

#[test]
fn the_base_is_overridden_silently_and_comes_back() {
    let change = layer(
        "mtu",
        json!({"network_vss": {"switches": [{"name": "vSwitch0", "mtu": 9000, "bridge": {"nics": ["vmnic0", "vmnic1"]}}]}}),
    );
    let merged = merge_layers(&[change, base()]);
    assert_eq!(merged.conflicts, []);
    assert_eq!(
        merged.profile.pointer("/esx/network_vss/switches/0/bridge/nics"),
        Some(&json!(["vmnic0", "vmnic1"]))
    );
    assert_eq!(
        merged.layers_at("esx.network_vss.switches[vSwitch0].bridge.nics[1]"),
        ["esx-system/mtu"]
    );
    assert_eq!(
        merged.layers_at("esx.network_vss.switches[vSwitch0].policy"),
        ["esx-system/esx-base-profile"]
    );
    assert_eq!(*merge_layers(&[base()]).profile, base().profile);
}

#[test]
fn problems_belong_to_the_nearest_layers() {
    let merged = merge_layers(&[
        base(),
        layer(
            "a",
            json!({"network_vss": {"switches": [{"name": "vSwitch1", "mtu": 9000}]}}),
        ),
    ]);
    assert_eq!(
        merged.layers_at("esx.network_vss.switches[vSwitch1].bridge.nics[0]"),
        ["esx-system/a"]
    );
    assert_eq!(
        merged.layers_at("esx.network.vmknics[vmk0].ip.dhcp"),
        ["esx-system/esx-base-profile"]
    );
    assert_eq!(merged.layers_at("").len(), 2);
    assert_eq!(merge_layers(&[]).layers_at("esx.x"), Vec::<&str>::new());
}

#[test]
fn options_are_merged_by_name() {
    let option = |name: &str, value: u8| json!({"advanced_options": {"options": [{"option_name": name, "integer_value": value}]}});
    let merged = merge_layers(&[layer("a", option("A", 1)), layer("b", option("B", 2))]);
    assert_eq!(merged.conflicts, []);
    assert_eq!(
        merged.profile["esx"]["advanced_options"]["options"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

/// Values for a path that only one layer sets: switches are shared, what is in them is not.
fn pieces() -> impl Strategy<Value = Vec<Layer>> {
    let piece = (0_usize..3, 0_usize..4, prop::bool::ANY, 0_u16..4096);
    prop::collection::vec(piece, 1..8).prop_map(|pieces| {
        pieces
            .into_iter()
            .enumerate()
            .map(|(n, (switch, kind, wide, vlan))| {
                let name = format!("vSwitch{switch}");
                let esx = match kind {
                    0 => json!({"network_vss": {"switches": [{"name": name, "port_groups": [{"name": format!("P{n}"), "vlan_id": vlan}]}]}}),
                    1 => json!({"network": {"vmknics": [{"device": format!("vmk{n}"), "mtu": 1500, "ip": {"dhcp": wide}}]}}),
                    2 => json!({"system": {format!("key{n}"): {"deep": [vlan, wide]}}}),
                    _ => json!({format!("group{n}"): {"key": {}, "list": []}}),
                };
                layer(&format!("layer{n}"), esx)
            })
            .collect()
    })
}

/// Equal but for the order of keyed entries, which says nothing.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), sorted(v))).collect(),
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(sorted).collect();
            items.sort_by_key(ToString::to_string);
            items.into()
        }
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn the_order_in_which_layers_are_given_says_nothing(layers in pieces(), seed in any::<u64>()) {
        let mut shuffled = layers.clone();
        let turn = usize::try_from(seed % layers.len() as u64).unwrap();
        shuffled.rotate_left(turn);
        shuffled.reverse();
        prop_assert_eq!(merge_layers(&layers), merge_layers(&shuffled));
    }

    #[test]
    fn disjoint_layers_merge_the_same_under_any_names(layers in pieces()) {
        let count = layers.len();
        let renamed: Vec<Layer> = layers.iter().enumerate().map(|(n, l)| Layer { name: format!("esx-system/x{}", count - n), ..l.clone() }).collect();
        let (one, other) = (merge_layers(&layers), merge_layers(&renamed));
        prop_assert_eq!(&one.conflicts, &vec![]);
        prop_assert_eq!(sorted(&one.profile), sorted(&other.profile));
        prop_assert_eq!(one.provenance.keys().collect::<Vec<_>>(), other.provenance.keys().collect::<Vec<_>>());
    }

    #[test]
    fn a_layer_given_twice_under_two_names_changes_nothing(layers in pieces()) {
        let twice: Vec<Layer> = layers.iter().cloned().chain(layers.iter().map(|l| Layer { name: format!("{}-again", l.name), ..l.clone() })).collect();
        let (one, two) = (merge_layers(&layers), merge_layers(&twice));
        prop_assert_eq!(sorted(&one.profile), sorted(&two.profile));
        prop_assert_eq!(two.conflicts, vec![]);
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "measures the real time")]
fn a_thousand_port_groups_are_merged_quickly() {
    let groups: Vec<Value> = (0..1000)
        .map(|n| json!({"name": format!("P{n}"), "vlan_id": n}))
        .collect();
    let many = layer(
        "many",
        json!({"network_vss": {"switches": [{"name": "vSwitch0", "port_groups": groups}]}}),
    );
    let layers = [
        base(),
        many.clone(),
        Layer {
            name: "esx-system/more".into(),
            ..many
        },
    ];
    let start = std::time::Instant::now();
    let merged = merge_layers(&layers);
    let took = start.elapsed();
    println!("merged in {took:?}");
    assert_eq!(merged.provenance.len(), 2012);
    // Squares of a thousand would take seconds.
    assert!(took.as_millis() < 500, "{took:?}");
}
