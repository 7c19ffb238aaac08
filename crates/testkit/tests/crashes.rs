//! `kill -9` of the daemon at random points of a change: it ends right each time.

#![allow(clippy::unwrap_used, reason = "the helpers of a test are a test")]

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use testkit::Options;
use testkit::site::{BOOT, Site, Sources};
use testkit::wait::{pass, wait_for};

/// How often; `SELVEDGE_CRASHES` in the environment says otherwise.
const CRASHES: u32 = 100;
/// The longest time between a push, or a start, and the kill: by then the change is through.
const LONGEST_MS: u64 = 600;

/// Marsaglia's xorshift: enough to choose moments, and the same again for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn a_change_survives_kill_9_at_any_point() {
    let seed = from_environment("SELVEDGE_SEED").unwrap_or_else(|| RandomState::new().hash_one(0) | 1);
    println!("SELVEDGE_SEED={seed} gives the same moments again");
    let mut random = Random(seed);
    let mut site = Site::open(&Options::new("crashes"), &Sources::of_this_repository().unwrap()).unwrap();
    site.wait_ready(&site.kubectl, "hostconfigurations,virtualmachines", BOOT)
        .unwrap();
    let address = site.address("shop", "web").unwrap();
    site.wait_guest(&address, |_| Ok(())).unwrap();
    let qemu = site.qemu("shop", "web");
    assert_eq!(qemu.len(), 1);

    for number in 1..=from_environment("SELVEDGE_CRASHES").unwrap_or(CRASHES) {
        change(&site, number);
        let delay = Duration::from_millis(random.below(LONGEST_MS));
        // In turn: killed while it works on a push that it was told of, and while it starts with one to find.
        let commit = if number % 2 == 0 {
            let commit = site.lab.push(&format!("Change {number}")).unwrap();
            pass(delay);
            site.lab.kill_daemon(1).unwrap();
            commit
        } else {
            site.lab.kill_daemon(1).unwrap();
            let commit = site.lab.push(&format!("Change {number}")).unwrap();
            site.lab.start_daemon(1).unwrap();
            pass(delay);
            site.lab.kill_daemon(1).unwrap();
            commit
        };
        site.lab.start_daemon(1).unwrap();
        check(&site, number, &commit).unwrap_or_else(|error| {
            panic!(
                "after kill {number}, {} ms into it: {error:#}\nlast words:\n{}",
                delay.as_millis(),
                site.last_words()
            )
        });
        assert_eq!(
            site.qemu("shop", "web"),
            qemu,
            "after kill {number} QEMU is another one"
        );
    }
    let (guest, _) = site.wait_guest(&address, |_| Ok(())).unwrap();
    assert_eq!(guest.boots, 1);
    site.lab.down().unwrap();
}

/// Something for every part: an object that comes, one that goes, one that changes, a switch that changes.
fn change(site: &Site, number: u32) {
    let note = |number: u32| site.file(&format!("note-{number}.yaml"));
    let text = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: note-{number}\n  namespace: shop\ndata:\n  number: '{number}'\n"
    );
    std::fs::write(note(number), text).unwrap();
    if number > 1 {
        std::fs::remove_file(note(number - 1)).unwrap();
    }
    let ports = |number: u32| format!("\"num_ports\": {}", 128 + number);
    site.edit("network.yaml", &ports(number - 1), &ports(number))
        .unwrap();
}

fn check(site: &Site, number: u32, commit: &str) -> anyhow::Result<()> {
    site.wait_api()?;
    site.wait_applied(commit)?;
    site.wait_ready(&site.kubectl, "hostconfigurations,virtualmachines", BOOT)?;
    let ((), _) = wait_for("the notes", Duration::from_secs(10), || {
        let list = site.kubectl.get(["configmaps", "-n", "shop"])?;
        let names: Vec<String> = testkit::site::items(&list)
            .iter()
            .filter_map(|item| item["metadata"]["name"].as_str().map(str::to_owned))
            .filter(|name| name.starts_with("note-"))
            .collect();
        Ok(if names == [format!("note-{number}")] {
            Ok(())
        } else {
            Err(names.join(", "))
        })
    })?;
    let ports = site.guest_ports()?;
    anyhow::ensure!(ports.len() == 1, "the guests' ports are {ports:?}");
    Ok(())
}
