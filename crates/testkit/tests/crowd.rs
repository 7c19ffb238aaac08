//! Many hosts at one orchestrator: all enrol, all connect, and all come back when it is killed. `SELVEDGE_CROWD` says how
//! many; the figures are printed with `--nocapture`.

#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap in a helper of tests is a failed test"
)]

use std::fs;
use std::time::Duration;

use testkit::Programs;
use testkit::loopback::Loopback;
use testkit::simulate::{Crowd, enrol};

/// Memory in use, in bytes.
fn memory(orchestrator: &Loopback) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", orchestrator.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes * 1024
}

#[test]
fn a_crowd_enrols_connects_and_comes_back() {
    let count: u32 = std::env::var("SELVEDGE_CROWD").map_or(200, |text| text.parse().unwrap());
    // An error means that a provider is there already, which is what we want.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let programs = Programs::find();
    let mut orchestrator = Loopback::start(&programs, dir.path(), "").unwrap();
    let cli = orchestrator.found(&programs).unwrap();
    cli.run(["repo", "create", "shops", "--hosted"]).unwrap();
    cli.run(["site", "create", "berlin", "--repo", "shops", "--path", "."])
        .unwrap();
    let uses = count.to_string();
    let key = cli
        .json(["enroll", "key", "create", "--site", "berlin", "--max-uses", &uses])
        .unwrap();
    let hub = orchestrator.hub().unwrap();

    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let empty = memory(&orchestrator);
        let enrolled = enrol(&hub, 0..count, 32, key["key"].as_str()).await.unwrap();
        println!(
            "{count} enrolled in {:.1} s: {:.0} a second; {} were told to come back later",
            enrolled.took.as_secs_f64(),
            f64::from(count) / enrolled.took.as_secs_f64(),
            enrolled.turned_away
        );
        assert_eq!(enrolled.hosts.len(), usize::try_from(count).unwrap());
        let before = memory(&orchestrator);
        let mut crowd = Crowd::start(&hub, &enrolled.hosts).unwrap();
        let took = crowd.wait_connected(Duration::from_secs(600)).await.unwrap();
        println!(
            "all connected after {:.1} s; the orchestrator has {:.1} MB empty, {:.1} MB after enrolment, {:.1} MB connected: {:.1} kB a host",
            took.as_secs_f64(),
            megabytes(empty),
            megabytes(before),
            megabytes(memory(&orchestrator)),
            (megabytes(memory(&orchestrator)) - megabytes(before)) * 1000.0 / f64::from(count)
        );
        orchestrator.kill().unwrap();
        while crowd.connected() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        orchestrator.start_again().unwrap();
        let took = crowd.wait_connected(Duration::from_secs(600)).await.unwrap();
        println!("all back {:.1} s after it was started again", took.as_secs_f64());
        let site = cli.json(["site", "get", "berlin"]).unwrap();
        assert_eq!(site["hosts"]["online"], count, "{}", site["hosts"]);
        crowd.stop().await;
    });
}

#[expect(clippy::cast_precision_loss, reason = "a memory's size is far below 2^53")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
