//! Uplinks that fail, with traffic running. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "these are tests"
)]

#[path = "host/lab.rs"]
mod lab;

use lab::{Host, Peer, Process, attempt, in_namespace, reconcile, run, try_run, wait_for};
use serde_json::{Value, json};
use vswitch::VSwitch;

const A: &str = "02:00:00:00:00:0a";
const OUT: &str = "02:00:00:00:01:00";
const UPLINKS: [&str; 3] = ["vmnic0", "vmnic1", "vmnic2"];

/// Three uplinks to one physical switch with one station, and one guest.
async fn lab(teaming: Value) -> (Host, VSwitch, Peer, Peer, Value) {
    let host = Host::new();
    let (out, a) = (Peer::new("out", OUT), Peer::new("tap-a", A));
    host.vsctl("add-br phys -- set bridge phys datapath_type=netdev -- add-port phys out");
    for (index, nic) in UPLINKS.iter().enumerate() {
        run(&format!("ip link add {nic} type veth peer name phys-{index}"));
        run(&format!("ip link set {nic} up; ip link set phys-{index} up"));
        host.vsctl(&format!("add-port phys phys-{index}"));
    }
    out.address("10.0.0.100/24");
    a.address("10.0.0.1/24");
    host.attach(&[("tap-a", "net", A)]);
    let switch = host.switch().await;
    let profile = json!({"esx": {"network_vss": {"switches": [{
        "name": "s", "bridge": {"nics": UPLINKS}, "policy": {"nic_teaming": teaming},
        "port_groups": [{"name": "net"}],
    }]}}});
    reconcile(&switch, &profile).await;
    host.attached("s", &[A]).await;
    assert!(a.reaches("10.0.0.100"));
    (host, switch, out, a, profile)
}

/// The uplink that carries the (only) lane now.
fn carrier(host: &Host) -> Option<String> {
    let flows = host.ofctl("--names dump-flows s table=60");
    let line = flows.lines().find(|l| l.contains("output:"))?;
    Some(line.rsplit_once("output:")?.1.trim_matches(['"', ' ']).to_owned())
}

async fn carried_by(host: &Host, nic: Option<&str>) {
    wait_for(&format!("{nic:?} to carry"), || carrier(host).as_deref() == nic).await;
}

/// Every answer once, also when the physical switch floods.
fn no_duplicates(out: &Peer) {
    let text = try_run(&out.enter("arping -c 3 -b -I eth0 10.0.0.1")).1;
    assert!(text.contains("Received 3 response"), "{text}");
}

#[test]
fn uplinks_lost_one_after_the_other_are_replaced_in_order() {
    in_namespace(|| async {
        let teaming = json!({
            "policy": "FAILOVER_EXPLICIT", "active_nics": ["vmnic1", "vmnic0"], "standby_nics": ["vmnic2"],
        });
        let (host, switch, out, a, profile) = lab(teaming).await;
        carried_by(&host, Some("vmnic1")).await;
        no_duplicates(&out);
        for (down, next) in [("phys-1", "vmnic0"), ("phys-0", "vmnic2")] {
            // 1,000 questions, one each millisecond; the link goes after some of them.
            let file = host.path("ping");
            let ping = a.enter(&format!(
                "ping -n -q -i 0.001 -c 1000 10.0.0.100 > {}",
                file.display()
            ));
            let mut sender = Process::start("sh", &["-c", &ping]);
            let received = || {
                let text = a.run("cat /proc/net/snmp");
                let line = text
                    .lines()
                    .rfind(|l| l.starts_with("Icmp:"))
                    .unwrap_or_default()
                    .to_owned();
                line.split_whitespace()
                    .nth(1)
                    .and_then(|n| n.parse::<u64>().ok())
                    .unwrap_or(0)
            };
            let before = received();
            wait_for("some answers", || received() > before + 100).await;
            run(&format!("ip link set {down} down"));
            carried_by(&host, Some(next)).await;
            wait_for("the sender", || sender.0.try_wait().unwrap().is_some()).await;
            let text = std::fs::read_to_string(file).unwrap();
            let summary = text
                .lines()
                .find(|l| l.contains("transmitted"))
                .unwrap()
                .to_owned();
            println!("{down} lost: {summary}");
            assert!(!summary.contains("duplicates"), "{summary}");
            assert!(a.reaches("10.0.0.100") && out.reaches("10.0.0.1"), "over {next}");
        }
        run("ip link set phys-2 down");
        carried_by(&host, None).await;
        assert!(a.never_reaches("10.0.0.100"));
        run("ip link set phys-0 up");
        carried_by(&host, Some("vmnic0")).await;
        run("ip link set phys-1 up; ip link set phys-2 up");
        carried_by(&host, Some("vmnic1")).await;
        assert!(out.reaches("10.0.0.1"));
        no_duplicates(&out);
        // None of this is a change of the configuration.
        assert_eq!(attempt(&switch, &profile).await.changes, []);
    });
}

#[test]
fn a_rolling_order_stays_where_it_is_even_over_a_restart() {
    in_namespace(|| async {
        let teaming = json!({
            "policy": "FAILOVER_EXPLICIT", "active_nics": ["vmnic0"], "standby_nics": ["vmnic1"],
            "rolling_order": true,
        });
        let (host, switch, out, _a, profile) = lab(teaming).await;
        run("ip link set phys-0 down");
        carried_by(&host, Some("vmnic1")).await;
        run("ip link set phys-0 up");
        wait_for("the link", || run("ip link show vmnic0").contains("LOWER_UP")).await;
        drop(switch);
        let switch = host.switch().await;
        reconcile(&switch, &profile).await;
        assert_eq!(carrier(&host).as_deref(), Some("vmnic1"));
        assert!(out.reaches("10.0.0.1"));
        run("ip link set phys-1 down");
        carried_by(&host, Some("vmnic0")).await;
    });
}

#[test]
fn ports_are_spread_and_addresses_too() {
    in_namespace(|| async {
        let (host, switch, out, a, mut profile) = lab(json!({"policy": "LOADBALANCE_SRCID"})).await;
        no_duplicates(&out);
        assert_eq!(
            host.ofctl("dump-flows s table=60").matches("output:").count(),
            6,
            "three lanes, tagged and not"
        );
        profile["esx"]["network_vss"]["switches"][0]["policy"]["nic_teaming"] =
            json!({"policy": "LOADBALANCE_IP"});
        // The static aggregation that the policy needs.
        host.ofctl("del-flows phys");
        for line in [
            "out,actions=output:phys-0",
            "phys-0,actions=output:out",
            "phys-1,actions=output:out",
        ] {
            host.ofctl(&format!("add-flow phys in_port={line}"));
        }
        host.ofctl("add-flow phys in_port=phys-2,actions=output:out");
        reconcile(&switch, &profile).await;
        for n in 101..117 {
            out.address(&format!("10.0.0.{n}/24"));
        }
        let used = |host: &Host| {
            let flows = host.ofctl("dump-flows s table=61");
            flows
                .lines()
                .filter(|l| l.contains("output:") && !l.contains("n_packets=0,"))
                .count()
        };
        for n in 101..117 {
            assert!(a.reaches(&format!("10.0.0.{n}")));
        }
        wait_for("the counters", || used(&host) == 3).await;
    });
}

#[test]
fn a_new_vswitchd_gets_its_flows() {
    in_namespace(|| async {
        let (mut host, _switch, _out, a, _profile) = lab(json!({})).await;
        host.start_vswitchd();
        host.attached("s", &[A]).await;
        assert!(a.reaches("10.0.0.100"));
    });
}

#[test]
fn flows_that_somebody_deleted_or_added_are_put_right() {
    in_namespace(|| async {
        let (host, switch, _out, a, profile) = lab(json!({})).await;
        for damage in [
            "del-flows s",
            "add-flow s priority=65535,actions=drop",
            "mod-flows s table=20,actions=drop",
        ] {
            host.ofctl(damage);
            wait_for(&format!("the repair of {damage}"), || {
                let flows = host.ofctl("--no-stats dump-flows s");
                let emptied = flows
                    .lines()
                    .any(|l| l.contains("table=20,") && l.contains("actions=drop"));
                flows.contains(&format!("dl_src={A}")) && !flows.contains("priority=65535") && !emptied
            })
            .await;
            let report = reconcile(&switch, &profile).await;
            assert!(
                report.changes.iter().all(|c| c.drift) && !report.changes.is_empty(),
                "{report:?}"
            );
            assert!(a.reaches("10.0.0.100"), "after {damage}");
        }
    });
}
