//! Switches on a real Open vSwitch with real traffic. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "these are tests"
)]

#[path = "host/lab.rs"]
mod lab;

use std::sync::Arc;

use lab::{Host, Peer, attempt, in_namespace, reconcile, run, try_run, wait_for};
use reconcile::section::Section as _;
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
        let report = attempt(&switch, &bad).await;
        assert_eq!(
            report.problems[0].path,
            "esx.network_vss.switches[vSwitch1].port_groups[ten].vlan_id"
        );
        assert_eq!((report.changes, host.configuration()), (vec![], before));
    });
}

#[test]
fn a_profile_that_did_not_change_is_read_again_for_other_nics() {
    in_namespace(|| async {
        let host = Host::new();
        let _outside = Peer::new("vmnic0", "02:00:00:00:01:00");
        let switch = host.switch().await;
        let both = Arc::new(profile(
            json!([{"name": "vSwitch1", "bridge": {"nics": ["vmnic0", "vmnic1"]}}]),
        ));
        for _ in 0..2 {
            let report = switch.reconcile(&both).await;
            assert_eq!(report.problems[0].reason, "UnknownNic", "{report:?}");
        }
        let other = Peer::new("vmnic1", "02:00:00:00:01:01");
        let report = switch.reconcile(&both).await;
        assert_eq!(report.problems, []);
        assert!(host.vsctl("list-ports vSwitch1").contains("vmnic1"));
        drop(other);
        wait_for("the NIC to be gone", || !try_run("ip link show vmnic1").0).await;
        let report = switch.reconcile(&both).await;
        assert_eq!(report.problems[0].reason, "UnknownNic", "{report:?}");
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
        let report = attempt(&switch, &clash).await;
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
        // Its own address on the frame, another one's in ARP: it can't take the other's traffic.
        reconcile(&switch, &groups(false)).await;
        a.run(&format!("ip link set eth0 address {A}"));
        assert!(a.reaches("10.0.0.2"));
        b.run("ip neighbour flush all");
        a.run("ip address add 10.0.0.77/24 dev eth0");
        a.run("arping -q -c 2 -w 1 -A -I eth0 10.0.0.77 || true");
        assert!(b.reaches("10.0.0.77"), "what it says about itself is heard");
        let spoof = "ffffffffffff02000000000a08060001080006040002020000000f0f0a00004e02000000000b0a000002";
        let c = Peer::empty();
        c.card("spy", "eth0", C);
        host.attach(&[
            ("tap-a", "strict", A),
            ("tap-b", "strict", B),
            ("spy", "strict", C),
        ]);
        host.attached("s", &[C]).await;
        let mut spy = spy(&c, "arp");
        let raw = format!(
            "python3 -c \"import socket;s=socket.socket(17,3);s.bind(('eth0',0));s.send(bytes.fromhex('{spoof}'))\""
        );
        a.run(&raw);
        // A frame that is allowed follows, so that what was before it has passed.
        a.run("arping -c 1 -w 1 -U -I eth0 10.0.0.1 || true");
        let seen = spy.until("10.0.0.1 ");
        assert!(!seen.contains("02:00:00:00:0f:0f"), "{seen}");
    });
}

/// tcpdump in a namespace.
struct Spy {
    process: std::process::Child,
    lines: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
}

fn spy(peer: &Peer, filter: &str) -> Spy {
    use std::io::BufRead;
    let line = peer.enter(&format!("tcpdump -l -n -e -i eth0 {filter} 2>&1"));
    let mut process = std::process::Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "sh", "-c", &format!("exec {line}")])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(process.stdout.take().unwrap()).lines();
    while !lines.next().unwrap().unwrap().contains("listening on") {}
    Spy { process, lines }
}

impl Spy {
    /// Everything up to the line that has this.
    fn until(&mut self, what: &str) -> String {
        let mut seen = String::new();
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            seen += &line;
            seen.push('\n');
            if line.contains(what) {
                break;
            }
        }
        seen
    }
}

impl Drop for Spy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn only_promiscuous_ports_hear_what_is_not_theirs() {
    in_namespace(|| async {
        let host = Host::new();
        let (a, b, c) = (
            Peer::new("tap-a", A),
            Peer::new("tap-b", B),
            Peer::new("tap-c", C),
        );
        a.address("10.0.0.1/24");
        b.address("10.0.0.2/24");
        c.address("10.0.0.3/24");
        let groups = |promiscuous: bool| {
            profile(
                json!([{"name": "s", "port_groups": [{"name": "plain"}, {"name": "listening",
                "policy": {"security": {"allow_promiscuous": promiscuous}}}]}]),
            )
        };
        host.attach(&[
            ("tap-a", "plain", A),
            ("tap-b", "plain", B),
            ("tap-c", "listening", C),
        ]);
        let switch = host.switch().await;
        for promiscuous in [false, true] {
            reconcile(&switch, &groups(promiscuous)).await;
            host.attached("s", &[A, B, C]).await;
            let mut spy = spy(&c, "icmp");
            assert!(a.reaches("10.0.0.2") && a.reaches("10.0.0.3"));
            let seen = spy.until("10.0.0.3: ICMP echo request");
            assert_eq!(seen.contains("10.0.0.1 > 10.0.0.2"), promiscuous, "{seen}");
        }
    });
}

#[test]
fn a_tap_may_come_after_its_port_and_ports_are_limited() {
    in_namespace(|| async {
        let host = Host::new();
        let b = Peer::new("tap-b", B);
        b.address("10.0.0.2/24");
        host.attach(&[("tap-a", "net", A), ("tap-b", "net", B), ("tap-c", "net", C)]);
        let switch = host.switch().await;
        let limited = profile(json!([{"name": "s", "num_ports": 2, "port_groups": [{"name": "net"}]}]));
        let report = attempt(&switch, &limited).await;
        assert_eq!(report.problems[0].path, "esx.network_vss.switches[s].num_ports");
        assert!(report.problems[0].message.contains("default/tap-c"), "{report:?}");
        assert_eq!(
            host.vsctl("list-ports s").lines().collect::<Vec<_>>(),
            ["tap-a", "tap-b"]
        );
        let a = Peer::new("tap-a", A);
        a.address("10.0.0.1/24");
        host.attached("s", &[A, B]).await;
        assert!(a.reaches("10.0.0.2"));
        // A port that is given back is free for another.
        host.attach(&[("tap-b", "net", B), ("tap-c", "net", C)]);
        wait_for("the other port", || host.vsctl("list-ports s").contains("tap-c")).await;
        reconcile(&switch, &limited).await;
        // A restart of the daemon takes nobody's port, before it knows who wants one.
        drop(switch);
        host.attach(&[]);
        let switch = host.switch().await;
        assert_eq!(reconcile(&switch, &limited).await.changes, []);
        host.attach(&[("tap-b", "net", B)]);
        wait_for("the port to go", || !host.vsctl("list-ports s").contains("tap-c")).await;
    });
}

#[test]
fn a_thousand_port_groups() {
    in_namespace(|| async {
        let host = Host::new();
        let _outside = Peer::new("vmnic0", "02:00:00:00:01:00");
        let groups: Vec<_> = (0..1000)
            .map(|n| json!({"name": format!("pg{n}"), "vlan_id": n + 1}))
            .collect();
        let thousand = Arc::new(profile(
            json!([{"name": "s", "bridge": {"nics": ["vmnic0"]}, "port_groups": groups}]),
        ));
        let devices: Vec<_> = (0..50)
            .map(|n| (format!("t{n}"), format!("pg{}", n * 20)))
            .collect();
        for (device, _) in &devices {
            run(&format!(
                "ip link add {device} type veth peer name p{device}; ip link set {device} up; ip link set p{device} up"
            ));
        }
        let macs: Vec<_> = (0..50).map(|n| format!("02:00:00:00:10:{n:02x}")).collect();
        let requests: Vec<_> = devices
            .iter()
            .zip(&macs)
            .map(|((d, g), m)| (d.as_str(), g.as_str(), m.as_str()))
            .collect();
        host.attach(&requests);
        let switch = host.switch().await;
        let started = tokio::time::Instant::now();
        assert_eq!(switch.reconcile(&thousand).await.problems, []);
        println!("1,000 port groups with 50 ports: {:?}", started.elapsed());
        assert_eq!(host.groups.borrow().len(), 1000);
        let mut times = Vec::new();
        for _ in 0..20 {
            let started = tokio::time::Instant::now();
            assert_eq!(switch.reconcile(&thousand).await.changes, []);
            times.push(started.elapsed());
        }
        times.sort();
        println!(
            "1,000 port groups, unchanged: {:?} at best, {:?} in the middle",
            times[0], times[10]
        );
    });
}

/// What the next test kills: applies one of two profiles and ends.
#[test]
#[ignore = "run by the test below"]
fn apply_in_a_child() {
    let dir = std::env::var("SELVEDGE_TEST_DIR").unwrap();
    let which = std::env::var("SELVEDGE_TEST_PROFILE").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (switch, _keep) = lab::switch_in(dir.as_ref(), lab::requests(&[("tap-a", "ten", A)])).await;
        attempt(&switch, &one_of_two(which == "1")).await;
    });
}

fn one_of_two(first: bool) -> Value {
    let mut profile = two_vlans();
    let switches = profile["esx"]["network_vss"]["switches"].as_array_mut().unwrap();
    if first {
        switches[0]["port_groups"][1]["vlan_id"] = json!(11);
        switches[0]["mtu"] = json!(1600);
        switches.push(json!({"name": "vSwitch2", "bridge": {"nics": ["vmnic1"]}}));
    }
    profile
}

#[test]
fn killed_anywhere_the_next_run_ends_right() {
    in_namespace(|| async {
        let host = Host::new();
        let outside = Peer::new("out10", "02:00:00:00:01:0a");
        physical(&host, "phys", &["vmnic0"], &[("out10", 10)]);
        let _spare = Peer::new("vmnic1", "02:00:00:00:01:01");
        let a = Peer::new("tap-a", A);
        outside.address("10.0.10.100/24");
        a.address("10.0.10.1/24");
        for round in 0u64..16 {
            let mut child = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "apply_in_a_child", "--ignored", "--test-threads=1"])
                .env("SELVEDGE_TEST_DIR", host.dir.path())
                .env("SELVEDGE_TEST_PROFILE", (round % 2).to_string())
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap();
            // Not a wait for something: the point of the kill moves through the run.
            tokio::time::sleep(std::time::Duration::from_millis(round * 5)).await;
            child.kill().unwrap();
            child.wait().unwrap();
        }
        host.attach(&[("tap-a", "ten", A)]);
        let switch = host.switch().await;
        reconcile(&switch, &one_of_two(false)).await;
        assert_eq!(
            host.vsctl("list-br").lines().collect::<Vec<_>>(),
            ["phys", "vSwitch1"]
        );
        assert_eq!(reconcile(&switch, &one_of_two(false)).await.changes, []);
        assert!(a.reaches("10.0.10.100"));
    });
}
