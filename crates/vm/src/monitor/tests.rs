//! Addresses on a real tap, and what is made of them.

use std::{fs::File, io::Write};

use super::*;

/// A tap that is gone when the test is.
struct Tap(String);

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = sys::tap_open(&self.0).and_then(|tap| sys::tap_persist(&tap, false));
    }
}

#[tokio::test]
async fn a_guest_that_speaks_is_learned_and_wakes_the_reconciler() {
    let name = format!("svt{}", std::process::id());
    let mac = "52:54:00:00:00:01";
    let guest = sys::tap_open(&name).unwrap();
    let tap = Tap(name.clone());
    sys::interface_up(&name, 1400).unwrap();
    assert_eq!(sys::interface_mtu(&name).unwrap(), 1400);

    let (wakes, mut woken) = mpsc::channel(16);
    let wake: Wake = Arc::new(move || {
        let _ = wakes.try_send(());
    });
    let sensors = Sensors {
        sender: watch::Sender::default(),
        wake,
    };
    let (kick, mut kicked) = mpsc::channel(16);
    let nic = Nic {
        tap: name,
        mac: mac.into(),
        port_group: String::new(),
        model: String::new(),
    };
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("addresses.json");
    let task = tokio::spawn(learn(sensors.clone(), nic, kept.clone(), kick));

    // A virtual network header, then ARP: 10.0.0.7 asks for 10.0.0.1.
    let mut frame = vec![0; 10];
    frame.extend([0xff; 6]);
    frame.extend([
        0x52, 0x54, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 0x52, 0x54, 0, 0, 0, 1, 10, 0, 0, 7,
    ]);
    frame.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 1]);
    let mut guest = File::from(guest);
    // The socket opens in the task; what was said before it did is said again, as guests do.
    let heard = async {
        loop {
            guest.write_all(&frame).unwrap();
            if timeout(Duration::from_millis(50), woken.recv()).await.is_ok() {
                break;
            }
        }
    };
    timeout(Duration::from_secs(10), heard).await.unwrap();
    let addresses = sensors.sender.borrow().addresses(mac);
    assert_eq!(
        addresses,
        [Learned {
            ip: "10.0.0.7".parse().unwrap(),
            prefix: None
        }]
    );
    assert_eq!(kicked.recv().await, Some(Kick::Look));
    let kept: BTreeMap<String, Vec<Learned>> = record::read(&kept).unwrap();
    assert_eq!(kept[mac], addresses, "the next process knows it too");
    task.abort();
    let _ = task.await;
    drop((guest, tap));
}

#[test]
fn newest_first_bounded_and_a_prefix_is_added() {
    let address = |n: u8, prefix| Learned {
        ip: std::net::Ipv4Addr::new(10, 0, 0, n).into(),
        prefix,
    };
    let mut list = Vec::new();
    for n in 0..12 {
        assert!(remember(&mut list, address(n, None)));
    }
    assert_eq!((list.len(), list[0]), (MAX_LEARNED, address(11, None)));
    assert!(!remember(&mut list, address(11, None)));
    assert!(remember(&mut list, address(11, Some(24))));
    assert_eq!(list[0], address(11, Some(24)));
}

#[test]
fn the_agent_knows_better_and_link_local_comes_last() {
    let mac = "52:54:00:00:00:01".to_owned();
    let learned = |text: &str| Learned {
        ip: text.parse().unwrap(),
        prefix: None,
    };
    let mut sensed = Sensed::default();
    sensed.learned.insert(
        mac.clone(),
        vec![
            learned("fe80::1"),
            learned("2001:db8::1"),
            learned("169.254.1.1"),
            learned("10.0.0.7"),
        ],
    );
    let order: Vec<String> = sensed.addresses(&mac).iter().map(|a| a.ip.to_string()).collect();
    assert_eq!(order, ["10.0.0.7", "2001:db8::1", "169.254.1.1", "fe80::1"]);
    let card = GuestInterface {
        name: "eth0".into(),
        mac: mac.clone(),
        addresses: vec![("10.0.0.8".parse().unwrap(), 24)],
    };
    sensed.agent = Some(AgentFacts {
        host_name: "till".into(),
        interfaces: vec![card],
    });
    assert_eq!(
        sensed.addresses(&mac),
        [Learned {
            ip: "10.0.0.8".parse().unwrap(),
            prefix: Some(24)
        }]
    );
    assert_eq!(sensed.first_address(), Some("10.0.0.8".parse().unwrap()));
}
