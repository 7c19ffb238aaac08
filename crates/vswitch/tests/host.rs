//! Switches on a real Open vSwitch with real traffic. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "these are tests"
)]

#[path = "host/lab.rs"]
mod lab;

use lab::{Host, Peer, in_namespace, reconcile, run, wait_for};
use reconcile::section::Section;
use serde_json::{Value, json};

const A: &str = "02:00:00:00:00:0a";
const B: &str = "02:00:00:00:00:0b";
const C: &str = "02:00:00:00:00:0c";

fn profile(switches: Value) -> Value {
    json!({"esx": {"network_vss": {"switches": switches}}})
}

fn two_vlans() -> Value {
    profile(json!([{
        "name": "vSwitch1", "bridge": {"nics": ["vmnic0"]},
        "port_groups": [
            {"name": "untagged", "vlan_id": 0},
            {"name": "ten", "vlan_id": 10},
            {"name": "twenty", "vlan_id": 20},
            {"name": "all", "vlan_id": 4095},
        ],
    }]))
}

/// What a switch outside is: an OVS bridge that is not ours, with access ports. `trunks` are the near ends of
/// its cables to us; the far ends are `NAME-0`, `NAME-1`, ….
fn physical(host: &Host, name: &str, trunks: &[&str], access: &[(&str, u16)]) {
    host.vsctl(&format!(
        "add-br {name} -- set bridge {name} datapath_type=netdev"
    ));
    for (index, trunk) in trunks.iter().enumerate() {
        run(&format!("ip link add {trunk} type veth peer name {name}-{index}"));
        run(&format!("ip link set {trunk} up"));
        run(&format!("ip link set {name}-{index} up"));
        host.vsctl(&format!("add-port {name} {name}-{index}"));
    }
    for (port, vlan) in access {
        let tag = if *vlan == 0 {
            String::new()
        } else {
            format!("tag={vlan}")
        };
        host.vsctl(&format!("add-port {name} {port} {tag}"));
    }
}

#[test]
fn vlans_are_kept_apart() {
    in_namespace(|| async {
        let host = Host::new();
        let (out0, out10) = (
            Peer::new("out0", "02:00:00:00:01:00"),
            Peer::new("out10", "02:00:00:00:01:0a"),
        );
        physical(&host, "phys", &["vmnic0"], &[("out0", 0), ("out10", 10)]);
        out0.address("10.0.0.100/24");
        out10.address("10.0.10.100/24");
        let (a, b, c) = (
            Peer::new("tap-a", A),
            Peer::new("tap-b", B),
            Peer::new("tap-c", C),
        );
        let switch = host.switch().await;
        let report = reconcile(&switch, &two_vlans()).await;
        assert!(report.changes.iter().all(|c| !c.drift) && !report.changes.is_empty());
        assert_eq!(host.groups.borrow()["ten"].vlan_id, 10);

        host.attach(&[
            ("tap-a", "ten", A),
            ("tap-b", "ten", B),
            ("tap-c", "twenty", C),
            ("tap-x", "nowhere", C),
        ]);
        host.attached("vSwitch1", &[A, B, C]).await;
        for (peer, address) in [(&a, "10.0.10.1/24"), (&b, "10.0.10.2/24"), (&c, "10.0.10.3/24")] {
            peer.address(address);
        }
        assert!(a.reaches("10.0.10.2"), "one VLAN");
        assert!(a.reaches("10.0.10.100"), "tagged to the outside");
        assert!(out10.reaches("10.0.10.2"), "tagged from the outside");
        assert!(c.never_reaches("10.0.10.1"), "another VLAN");
        assert!(c.never_reaches("10.0.10.100"), "another VLAN outside");
        assert!(!host.vsctl("list-ports vSwitch1").contains("tap-x"));

        host.attach(&[
            ("tap-a", "untagged", A),
            ("tap-b", "ten", B),
            ("tap-c", "twenty", C),
        ]);
        wait_for("the new tag", || host.vsctl("get Port tap-a tag").trim() == "[]").await;
        reconcile(&switch, &two_vlans()).await;
        a.run("ip address flush dev eth0");
        a.address("10.0.0.1/24");
        assert!(a.reaches("10.0.0.100"), "untagged to the outside");
        assert!(a.never_reaches("10.0.10.2"), "untagged to a VLAN");
    });
}

#[test]
fn a_guest_may_tag_by_itself() {
    in_namespace(|| async {
        let host = Host::new();
        let (out0, out10) = (
            Peer::new("out0", "02:00:00:00:01:00"),
            Peer::new("out10", "02:00:00:00:01:0a"),
        );
        physical(&host, "phys", &["vmnic0"], &[("out0", 0), ("out10", 10)]);
        // Three addresses behind one port, one of them the port's own: the others need leave to be there.
        let (in0, in10, in20) = (Peer::new("in0", A), Peer::new("in10", B), Peer::new("in20", C));
        physical(
            &host,
            "guest",
            &["tap-b"],
            &[("in0", 0), ("in10", 10), ("in20", 20)],
        );
        let c = Peer::new("tap-c", "02:00:00:00:00:0d");
        for (peer, address) in [
            (&out0, "10.0.0.100/24"),
            (&out10, "10.0.10.100/24"),
            (&in0, "10.0.0.2/24"),
            (&in10, "10.0.10.2/24"),
            (&in20, "10.0.20.2/24"),
            (&c, "10.0.20.3/24"),
        ] {
            peer.address(address);
        }
        let mut profile = two_vlans();
        profile["esx"]["network_vss"]["switches"][0]["policy"] =
            json!({"security": {"forged_transmits": true, "mac_changes": true}});
        host.attach(&[("tap-b", "all", A), ("tap-c", "twenty", "02:00:00:00:00:0d")]);
        let switch = host.switch().await;
        reconcile(&switch, &profile).await;
        host.attached("vSwitch1", &[A, "02:00:00:00:00:0d"]).await;
        assert!(in0.reaches("10.0.0.100"), "untagged to the outside");
        assert!(in10.reaches("10.0.10.100"), "a guest's tag to the outside");
        assert!(out10.reaches("10.0.10.2"), "from the outside to a guest's tag");
        assert!(c.reaches("10.0.20.2"), "from an access port to a guest's tag");
        assert!(in20.reaches("10.0.20.3"), "from a guest's tag to an access port");
        c.run("ip address add 10.0.10.3/24 dev eth0");
        assert!(
            c.never_reaches("10.0.10.2"),
            "from an access port to another VLAN"
        );
    });
}

#[test]
fn a_second_run_changes_nothing() {
    in_namespace(|| async {
        let host = Host::new();
        let _outside = Peer::new("vmnic0", "02:00:00:00:01:00");
        let _a = Peer::new("tap-a", A);
        host.attach(&[("tap-a", "ten", A)]);
        let switch = host.switch().await;
        reconcile(&switch, &two_vlans()).await;
        host.attached("vSwitch1", &[A]).await;
        let before = (host.configuration(), host.ofctl("--no-stats dump-flows vSwitch1"));
        let started = tokio::time::Instant::now();
        let report = reconcile(&switch, &two_vlans()).await;
        println!("unchanged: {:?}", started.elapsed());
        assert_eq!(report.changes, []);

        // Another process that takes over finds all as it is, too.
        drop(switch);
        let switch = host.switch().await;
        assert_eq!(reconcile(&switch, &two_vlans()).await.changes, []);
        assert_eq!(
            before,
            (host.configuration(), host.ofctl("--no-stats dump-flows vSwitch1"))
        );
    });
}

#[test]
fn a_bad_profile_changes_nothing() {
    in_namespace(|| async {
        let host = Host::new();
        let _outside = Peer::new("vmnic0", "02:00:00:00:01:00");
        let switch = host.switch().await;
        reconcile(&switch, &two_vlans()).await;
        let before = host.configuration();
        let mut bad = two_vlans();
        bad["esx"]["network_vss"]["switches"][0]["port_groups"][1]["vlan_id"] = json!(5000);
        bad["esx"]["network_vss"]["switches"][0]["mtu"] = json!(9000);
        let report = switch.reconcile(&bad).await;
        assert_eq!(
            report.problems[0].path,
            "esx.network_vss.switches[vSwitch1].port_groups[ten].vlan_id"
        );
        assert_eq!((report.changes, host.configuration()), (vec![], before));
    });
}

#[test]
fn what_others_change_is_put_back_and_what_is_theirs_is_left() {
    in_namespace(|| async {
        let host = Host::new();
        let outside = Peer::new("out10", "02:00:00:00:01:0a");
        physical(&host, "theirs", &["vmnic0"], &[("out10", 10)]);
        let a = Peer::new("tap-a", A);
        host.attach(&[("tap-a", "ten", A)]);
        let switch = host.switch().await;
        reconcile(&switch, &two_vlans()).await;
        host.attached("vSwitch1", &[A]).await;
        outside.address("10.0.10.100/24");
        a.address("10.0.10.1/24");

        for damage in [
            "del-port tap-a",
            "set Port tap-a tag=99",
            "del-port vmnic0",
            "del-br vSwitch1",
        ] {
            let started = tokio::time::Instant::now();
            host.vsctl(damage);
            wait_for("the repair", || {
                let port =
                    host.vsctl("--columns=tag --bare find Port name=tap-a external_ids:selvedge-role=vm");
                port.trim() == "10" && host.vsctl("list-ports vSwitch1").contains("vmnic0")
            })
            .await;
            println!("{damage}: undone after {:?}", started.elapsed());
            // Waits for the pass that is under way, and reports what was done.
            let report = reconcile(&switch, &two_vlans()).await;
            assert!(a.reaches("10.0.10.100"), "after {damage}");
            assert!(
                report.changes.iter().all(|c| c.drift) && !report.changes.is_empty(),
                "{damage}: {report:?}"
            );
        }
        assert_eq!(
            host.vsctl("list-br").lines().collect::<Vec<_>>(),
            ["theirs", "vSwitch1"]
        );

        // Its own name for a switch, and its own port, are in the way and stay.
        let _nine = Peer::new("vmnic9", "02:00:00:00:01:09");
        host.vsctl("add-port theirs vmnic9");
        let clash =
            profile(json!([{"name": "theirs"}, {"name": "vSwitch2", "bridge": {"nics": ["vmnic9"]}}]));
        let report = switch.reconcile(&clash).await;
        let reasons: Vec<_> = report.problems.iter().map(|p| p.reason.as_str()).collect();
        assert_eq!(reasons, ["ForeignBridge", "ForeignPort"], "{report:?}");
        assert!(host.vsctl("list-ports theirs").contains("vmnic9"));
        let empty = profile(json!([]));
        reconcile(&switch, &empty).await;
        assert_eq!(host.vsctl("list-br").trim(), "theirs");
    });
}

#[test]
fn guests_cannot_pretend() {
    in_namespace(|| async {
        let host = Host::new();
        let (a, b) = (Peer::new("tap-a", A), Peer::new("tap-b", B));
        host.attach(&[("tap-a", "strict", A), ("tap-b", "strict", B)]);
        let switch = host.switch().await;
        let groups = |forged: bool| {
            let security =
                json!({"forged_transmits": forged, "mac_changes": forged, "allow_promiscuous": false});
            profile(json!([{"name": "s", "port_groups": [
                {"name": "strict", "policy": {"security": security}}]}]))
        };
        reconcile(&switch, &groups(false)).await;
        host.attached("s", &[A, B]).await;
        a.address("10.0.0.1/24");
        b.address("10.0.0.2/24");
        assert!(a.reaches("10.0.0.2"));
        // Another address of its own: nothing goes out.
        a.run("ip link set eth0 address 02:00:00:00:0f:0f");
        b.run("ip neighbour flush all");
        assert!(a.never_reaches("10.0.0.2"), "a forged source address");
        // The same is allowed by another policy.
        reconcile(&switch, &groups(true)).await;
        assert!(a.reaches("10.0.0.2"), "a changed address, allowed");
        // Its own address on the frame, another one in ARP.
        reconcile(&switch, &groups(false)).await;
        a.run(&format!("ip link set eth0 address {A}"));
        run(&format!("ip link set tap-a address {C}"));
        assert!(a.reaches("10.0.0.2"));
    });
}
