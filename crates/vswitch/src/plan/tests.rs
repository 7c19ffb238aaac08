use std::{fmt::Write as _, sync::Arc};

use kinds::network::PortRequest;
use ovsdb::{Atom, Datum, Row};
use serde_json::{Value, json};

use super::{
    flows::{LocalPort, difference, file, flows},
    teaming::{Lanes, assign},
    *,
};
use crate::{
    apply::transaction,
    desired::Desired,
    observe::{Address, Bridge, Database, Port, Route},
};

fn desired(esx: &Value) -> Arc<Desired> {
    let nics = (0..3)
        .map(|n| (format!("vmnic{n}"), format!("vmnic{n}")))
        .collect();
    Desired::read(&json!({ "esx": esx }), &nics, "host1")
        .unwrap()
        .desired
}

fn two_switches() -> Value {
    json!({
        "network_vss": {"switches": [
            {"name": "vSwitch0", "bridge": {"nics": ["vmnic0"]}, "port_groups": [
                {"name": "Management Network"}, {"name": "prod", "vlan_id": 10}]},
            {"name": "a long switch name", "mtu": 9000, "bridge": {"nics": ["vmnic1", "vmnic2"]}},
        ]},
        "network": {"vmknics": [{"device": "vmk0", "port_group": "Management Network", "mac": "02:00:00:00:00:01",
            "ip": {"ipv4_address": "10.0.0.5", "ipv4_subnet_mask": "255.255.255.0", "ipv4_gateway": "10.0.0.1"}}]},
    })
}

fn vm(interface: &str, group: &str) -> PortRequest {
    PortRequest {
        interface: interface.into(),
        port_group: group.into(),
        mac: "02:00:00:00:00:0a".into(),
        owner: "default/vm1".into(),
    }
}

/// A plan as people would read it.
fn text(plan: &Plan) -> String {
    let mut text = String::new();
    for step in &plan.steps {
        writeln!(text, "{step} [{:?}]", step.impact).unwrap();
        if let Change::Update { table, columns, .. } = &step.change {
            writeln!(text, "    {table} {}", columns.to_json()).unwrap();
        }
    }
    for step in &plan.kernel {
        writeln!(text, "{step}").unwrap();
    }
    for problem in &plan.problems {
        writeln!(
            text,
            "problem {} at {:?}: {}",
            problem.reason, problem.path, problem.message
        )
        .unwrap();
    }
    text
}

/// What the database is like after a plan's additions to an empty one.
fn carried_out(plan: &Plan) -> Database {
    let mut database = Database {
        root: "root".into(),
        ..Database::default()
    };
    for step in &plan.steps {
        let bridge = database.bridges.entry(step.bridge.clone()).or_default();
        match &step.change {
            Change::AddBridge { row } => {
                (bridge.uuid, bridge.row) = (format!("uuid-{}", step.bridge), row.clone());
            }
            Change::AddPort { port, interface, .. } => {
                let name = step.port.clone().unwrap();
                let interface = interface
                    .clone()
                    .with("ofport", Datum::one(bridge.ports.len() as i64 + 1));
                let (uuid, interface_uuid) = (format!("port-{name}"), format!("interface-{name}"));
                bridge.ports.insert(
                    name,
                    Port {
                        uuid,
                        row: port.clone(),
                        interface_uuid,
                        interface,
                    },
                );
            }
            _ => panic!("not an addition: {step}"),
        }
    }
    database
}

#[test]
fn a_fresh_host() {
    let mut observed = Observed::default();
    for nic in ["vmnic0", "vmnic1", "vmnic2"] {
        observed.kernel.links.entry(nic.into()).or_default().up = nic == "vmnic0";
    }
    let address = "10.0.0.5".parse().unwrap();
    observed.kernel.addresses.push(Address {
        device: "vmnic0".into(),
        address,
        prefix: 24,
        dynamic: false,
    });
    let gateway = Some("10.0.0.1".parse().unwrap());
    for (destination, metric) in [
        (("0.0.0.0".parse().unwrap(), 0), 0),
        (("10.9.0.0".parse().unwrap(), 16), 7),
    ] {
        observed.kernel.routes.push(Route {
            destination,
            gateway,
            device: "vmnic0".into(),
            metric,
        });
    }
    let plan = plan(
        &desired(&two_switches()),
        &[vm("tap0", "prod")],
        &observed,
        "netdev",
    );
    insta::assert_snapshot!(text(&plan));
    observed.database.root = "root".into();
    insta::assert_json_snapshot!(transaction(&plan.steps, &observed.database).operations());
}

#[test]
fn a_host_that_is_as_wanted_needs_nothing() {
    let desired = desired(&two_switches());
    let requests = [vm("tap0", "prod")];
    let first = plan(&desired, &requests, &Observed::default(), "netdev");
    let database = carried_out(&first);
    let second = plan(
        &desired,
        &requests,
        &Observed {
            database,
            ..Observed::default()
        },
        "netdev",
    );
    assert_eq!(
        text(&Plan {
            kernel: Vec::new(),
            ..second
        }),
        ""
    );
}

#[test]
fn removals_come_first_then_changes_then_additions() {
    let before = plan(
        &desired(&two_switches()),
        &[vm("tap0", "prod")],
        &Observed::default(),
        "netdev",
    );
    let mut database = carried_out(&before);
    // Something of others, some damage, and a NIC that moves to another switch.
    let theirs = Bridge {
        uuid: "theirs".into(),
        row: Row::new().with("name", Datum::one("br0")),
        ..Bridge::default()
    };
    database.bridges.insert("br0".into(), theirs);
    let vswitch0 = database.bridges.get_mut("vSwitch0").unwrap();
    let tap = vswitch0.ports.get_mut("tap0").unwrap();
    tap.row = tap.row.clone().with("tag", Datum::one(99));
    let ids = Datum::map([("selvedge-switch", "vSwitch0"), ("note", "by hand")]);
    vswitch0.row = vswitch0
        .row
        .clone()
        .with("fail_mode", Datum::empty())
        .with("external_ids", ids);
    let mut wish = two_switches();
    wish["network_vss"]["switches"] = json!([
        {"name": "vSwitch0", "bridge": {"nics": ["vmnic1"]}, "port_groups": [
            {"name": "Management Network"}, {"name": "prod", "vlan_id": 10}]},
        {"name": "br0", "bridge": {"nics": ["vmnic0"]}},
    ]);
    let observed = Observed {
        database,
        ..Observed::default()
    };
    let plan = plan(
        &desired(&wish),
        &[vm("tap0", "prod"), vm("tap1", "prod")],
        &observed,
        "netdev",
    );
    insta::assert_snapshot!(text(&plan));
    let order: Vec<u8> = plan
        .steps
        .iter()
        .map(|s| match s.change {
            Change::RemoveBridge { .. } | Change::RemovePort { .. } => 0,
            Change::Update { .. } => 1,
            Change::AddBridge { .. } | Change::AddPort { .. } => 2,
        })
        .collect();
    assert!(order.is_sorted(), "{order:?}");
}

#[test]
fn a_transaction_is_guarded_by_what_was_seen() {
    let before = plan(&desired(&two_switches()), &[], &Observed::default(), "netdev");
    let mut database = carried_out(&before);
    for bridge in database.bridges.values_mut() {
        let ports = bridge.ports.values().map(|p| Atom::Uuid(p.uuid.clone()));
        bridge.row = bridge.row.clone().with("ports", Datum::set(ports));
    }
    let observed = Observed {
        database,
        ..Observed::default()
    };
    let plan = plan(&Desired::default(), &[], &observed, "netdev");
    insta::assert_json_snapshot!(transaction(&plan.steps, &observed.database).operations());
}

fn local(number: u32, group: &str, desired: &Desired) -> LocalPort {
    let (_, group) = desired.port_group(group).unwrap();
    let mac = format!("02:00:00:00:00:{number:02x}");
    let lane = teaming::Lane {
        slot: teaming::slot(&group.team, &format!("tap{number}"), &mac),
        team: group.team.clone(),
    };
    LocalPort {
        number,
        mac,
        vlan_id: group.vlan_id,
        lane,
        security: group.security,
    }
}

#[test]
fn the_flows_of_a_switch() {
    let desired = desired(&json!({"network_vss": {"switches": [{
        "name": "s", "bridge": {"nics": ["vmnic0", "vmnic1"]},
        "policy": {"nic_teaming": {"policy": "FAILOVER_EXPLICIT"}},
        "port_groups": [
            {"name": "plain"}, {"name": "ten", "vlan_id": 10}, {"name": "all", "vlan_id": 4095},
            {"name": "ears", "vlan_id": 10, "policy": {"security": {
                "allow_promiscuous": true, "forged_transmits": true, "mac_changes": true}}},
            {"name": "hash", "vlan_id": 20, "policy": {"nic_teaming": {"policy": "LOADBALANCE_IP"}}},
        ],
    }]}}));
    let ports: Vec<_> = ["plain", "ten", "all", "ears", "hash"]
        .iter()
        .zip(10..)
        .map(|(group, number)| local(number, group, &desired))
        .collect();
    let uplinks = BTreeMap::from([("vmnic0".to_owned(), 1), ("vmnic1".to_owned(), 2)]);
    let lanes = |up: &[&str]| assign(&desired.switches[0], &|nic| up.contains(&nic), &Lanes::new());
    let both = flows(&ports, &uplinks, &lanes(&["vmnic0", "vmnic1"]));
    insta::assert_snapshot!(file(&both));
    // A failover changes what is about uplinks, and nothing else.
    let one = flows(&ports, &uplinks, &lanes(&["vmnic1"]));
    insta::assert_snapshot!(difference(&both, &one).join("\n"));
    assert_eq!(difference(&one, &one), [""; 0]);
}
