//! The host's own address: taken over from a NIC, kept, given back when the way is lost. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "these are tests"
)]

#[path = "host/lab.rs"]
mod lab;

use lab::{Host, Peer, Process, attempt, in_namespace, reconcile, run, wait_for};
use serde_json::json;

const GATEWAY: &str = "02:00:00:00:01:00";

/// A host with a fixed address on vmnic0 and a gateway behind it.
fn fresh() -> (Host, Peer) {
    let gateway = Peer::new("vmnic0", GATEWAY);
    gateway.address("10.0.0.1/24");
    run("ip address add 10.0.0.5/24 dev vmnic0");
    run("ip route add default via 10.0.0.1");
    run("ip route add 10.9.0.0/16 via 10.0.0.1 metric 7");
    (Host::new(), gateway)
}

#[test]
fn the_hosts_address_is_taken_over_without_losing_the_connection() {
    in_namespace(|| async {
        let (host, gateway) = fresh();
        let mac = std::fs::read_to_string("/sys/class/net/vmnic0/address")
            .unwrap()
            .trim()
            .to_owned();
        let switch = host.switch().await;
        let base = switch.base_profile().await.unwrap();
        assert_eq!(
            base["esx"]["network"]["vmknics"][0]["ip"]["ipv4_gateway"],
            "10.0.0.1"
        );

        let file = host.path("ping");
        let ping = gateway.enter(&format!(
            "ping -n -q -i 0.002 -c 1000 10.0.0.5 > {}",
            file.display()
        ));
        let mut sender = Process::start("sh", &["-c", &ping]);
        let report = reconcile(&switch, &base).await;
        for change in &report.changes {
            println!("{}", change.message);
        }
        wait_for("the sender", || sender.0.try_wait().unwrap().is_some()).await;
        let text = std::fs::read_to_string(file).unwrap();
        let summary = text.lines().find(|l| l.contains("transmitted")).unwrap();
        println!("taken over: {summary}");
        let lost = summary
            .split(", ")
            .find_map(|p| p.strip_suffix("% packet loss"))
            .unwrap();
        assert!(lost.parse::<f64>().unwrap() < 20.0, "{summary}");

        assert!(run("ip -4 -o address show dev vmk0").contains("10.0.0.5/24"));
        assert_eq!(run("ip -4 -o address show dev vmnic0"), "");
        let routes = run("ip route");
        assert!(routes.contains("default via 10.0.0.1 dev vmk0"), "{routes}");
        assert!(
            routes.contains("10.9.0.0/16 via 10.0.0.1 dev vmk0 metric 7"),
            "{routes}"
        );
        assert!(run("ip link show vmk0").contains(&mac));
        // Once, not from the NIC as well.
        assert!(gateway.reaches("10.0.0.5"));
        assert_eq!(reconcile(&switch, &base).await.changes, []);
        assert_eq!(
            switch.nics().await.unwrap()[0].switch.as_deref(),
            Some("vSwitch0")
        );
        // What the base layer would be now is what it was.
        assert_eq!(
            switch.base_profile().await.unwrap()["esx"]["network"],
            base["esx"]["network"]
        );

        // Somebody takes the address away.
        run("ip address flush dev vmk0");
        wait_for("the address", || {
            run("ip -4 -o address show dev vmk0").contains("10.0.0.5/24")
        })
        .await;
        wait_for("the route", || {
            run("ip route").contains("default via 10.0.0.1 dev vmk0")
        })
        .await;
        assert!(reconcile(&switch, &base).await.changes.iter().all(|c| c.drift));
        assert!(gateway.reaches("10.0.0.5"));
    });
}

#[test]
fn a_change_that_cuts_the_host_off_is_undone() {
    in_namespace(|| async {
        let (host, gateway) = fresh();
        let switch = host.switch().await;
        let mut wrong = switch.base_profile().await.unwrap();
        // The gateway is not in this VLAN.
        wrong["esx"]["network_vss"]["switches"][0]["port_groups"][1]["vlan_id"] = json!(77);
        let report = attempt(&switch, &wrong).await;
        assert_eq!(report.problems[0].reason, "ConnectivityLost", "{report:?}");
        assert!(gateway.reaches("10.0.0.5"), "the fresh host is as it was");
        assert_eq!(host.vsctl("list-br"), "");
        // The same again is not even tried.
        let before = host.configuration();
        assert_eq!(
            attempt(&switch, &wrong).await.problems[0].reason,
            "ConnectivityLost"
        );
        assert_eq!(host.configuration(), before);

        // From a good configuration it goes back to that one.
        let mut right = wrong.clone();
        right["esx"]["network_vss"]["switches"][0]["port_groups"][1]["vlan_id"] = json!(0);
        reconcile(&switch, &right).await;
        assert!(gateway.reaches("10.0.0.5"));
        let report = attempt(&switch, &wrong).await;
        assert_eq!(report.problems[0].reason, "ConnectivityLost", "{report:?}");
        assert!(gateway.reaches("10.0.0.5"), "the last good configuration");
        assert!(run("ip -4 -o address show dev vmk0").contains("10.0.0.5/24"));
    });
}

#[test]
fn what_a_host_starts_with_is_tried_again_if_the_gateway_was_slow() {
    in_namespace(|| async {
        let (host, gateway) = fresh();
        let switch = host.switch().await;
        let base = switch.base_profile().await.unwrap();
        // As if what is before the gateway had to learn first where the host is now.
        let deaf = async {
            wait_for("the switch", || !host.vsctl("list-br").is_empty()).await;
            gateway.run("ip address del 10.0.0.1/24 dev eth0");
        };
        let (report, ()) = tokio::join!(attempt(&switch, &base), deaf);
        assert_eq!(report.problems[0].reason, "ConnectivityLost", "{report:?}");
        gateway.address("10.0.0.1/24");
        let mut left = 100;
        while !attempt(&switch, &base).await.problems.is_empty() {
            left -= 1;
            assert!(left > 0, "it is not tried again");
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        assert!(gateway.reaches("10.0.0.5"));
        assert!(run("ip -4 -o address show dev vmk0").contains("10.0.0.5/24"));
    });
}

#[test]
fn an_address_comes_by_dhcp() {
    in_namespace(|| async {
        let gateway = Peer::new("vmnic0", GATEWAY);
        gateway.address("10.0.0.1/24");
        let host = Host::new();
        let lease = host.path("leases");
        let server = gateway.enter(&format!(
            "dnsmasq -k -p 0 -C /dev/null -i eth0 --dhcp-leasefile={} --dhcp-range=10.0.0.50,10.0.0.50,300 \
             --dhcp-option=3,10.0.0.1 --dhcp-no-override --no-ping",
            lease.display()
        ));
        let _server = Process::start("sh", &["-c", &format!("exec {server}")]);
        let switch = host.switch().await;
        let base = switch.base_profile().await.unwrap();
        assert_eq!(base["esx"]["network"]["vmknics"][0]["ip"]["dhcp"], true);
        reconcile(&switch, &base).await;
        wait_for("the lease", || {
            run("ip -4 -o address show dev vmk0").contains("10.0.0.50/24")
        })
        .await;
        wait_for("the route", || {
            run("ip route").contains("default via 10.0.0.1 dev vmk0")
        })
        .await;
        assert!(gateway.reaches("10.0.0.50"));
        assert_eq!(reconcile(&switch, &base).await.changes, []);
        assert_eq!(
            switch.base_profile().await.unwrap()["esx"]["network"],
            base["esx"]["network"]
        );
    });
}

#[test]
fn neighbours_are_found_by_link_discovery() {
    in_namespace(|| async {
        let neighbour = Peer::new("vmnic0", GATEWAY);
        let host = Host::new();
        let configuration = host.path("neighbour.conf");
        let lines = "configure system hostname switch7\nconfigure lldp tx-interval 1\n";
        std::fs::write(&configuration, lines).unwrap();
        let daemon = neighbour.enter(&format!(
            "lldpd -d -I eth0 -u {} -O {}",
            host.path("neighbour.sock").display(),
            configuration.display()
        ));
        let _daemon = Process::start("sh", &["-c", &format!("exec {daemon}")]);
        let switch = host.switch().await;
        let mut base = switch.base_profile().await.unwrap();
        let discovery = json!({"protocol": "LLDP", "operation": "LISTEN"});
        base["esx"]["network_vss"]["switches"][0]["bridge"]["link_discovery_protocol"] = discovery;
        base["esx"]["network"]["vmknics"] = json!([]);
        reconcile(&switch, &base).await;
        let found = tokio::time::timeout(std::time::Duration::from_secs(20), async {
            loop {
                if let Ok(found) = switch.neighbours().await
                    && !found.is_empty()
                {
                    return found;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        });
        let found = found.await.unwrap();
        assert_eq!(
            (found[0].device.as_str(), found[0].system.as_str()),
            ("vmnic0", "switch7"),
            "{found:?}"
        );
        assert_eq!(found[0].protocol, "LLDP");
    });
}

#[test]
fn real_nics_are_known_by_number_and_renamed_if_asked() {
    in_namespace(|| async {
        let _peer = Peer::new("enp1s0", GATEWAY);
        let host = Host::new();
        // What sysfs says of a NIC on the PCI bus.
        let sysfs = host.path("sysfs");
        let pci = host.path("pci0000:00/0000:01:00.0");
        std::fs::create_dir_all(&pci).unwrap();
        std::fs::create_dir_all(sysfs.join("enp1s0")).unwrap();
        std::os::unix::fs::symlink(&pci, sysfs.join("enp1s0/device")).unwrap();
        for rename in [false, true] {
            let switch = host.switch_with(|config| {
                config.nics.sysfs = sysfs.clone();
                config.nics.rename = rename;
            });
            let nics = switch.await.nics().await.unwrap();
            let device = if rename { "vmnic0" } else { "enp1s0" };
            assert!(run("ip -o link").contains(&format!("{device}@")));
            if !rename {
                assert_eq!(
                    (nics[0].name.as_str(), nics[0].device.as_str()),
                    ("vmnic0", "enp1s0")
                );
                assert_eq!(nics[0].pci.as_deref(), Some("0000:01:00.0"));
            }
        }
    });
}
