//! The lab itself: what it connects, what it serves, and that it goes away whatever happens to its maker.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use testkit::layout::{MGMT, PROD};
use testkit::process::Process;
use testkit::services::git;
use testkit::smoke::nothing_left;
use testkit::tool::run;
use testkit::trace::Trace;
use testkit::wait::{wait_for, wait_until};
use testkit::{CLIENT, Lab, Options, SVC};

#[test]
fn it_connects_and_serves_and_leaves_no_trace() {
    let name = "tconnects";
    let before = Trace::take(name).unwrap();
    let lab = Lab::up(&Options {
        hosts: 2,
        ..Options::new(name)
    })
    .unwrap();
    assert_ne!(Trace::take(name).unwrap(), before, "the picture shows a lab");
    let inside = |node: &str, words: &[&str]| run(lab.inside(node, words[0]).args(&words[1..]));

    // From the developer's shell, and between the nodes by name.
    std::fs::write(lab.layout.images().join("disk.raw"), vec![7; 300_000]).unwrap();
    let address = lab.layout.svc_address(MGMT);
    let url = format!("http://{address}:8000/disk.raw");
    let part = Command::new("curl")
        .args(["-s", "--noproxy", "*", "-r", "100-199", &url])
        .output()
        .unwrap();
    assert_eq!(part.stdout, vec![7; 100]);
    assert_eq!(
        inside(
            CLIENT,
            &["curl", "-s", "--noproxy", "*", "http://images.lab:8000/disk.raw"]
        )
        .unwrap()
        .len(),
        300_000
    );
    assert_eq!(inside("host2", &["hostname"]).unwrap(), "host2\n");

    // A push, and a shallow clone of it.
    std::fs::write(lab.layout.site().join("a.yaml"), "a: b\n").unwrap();
    let commit = lab.push("First").unwrap();
    let url = format!("http://{address}/site.git");
    let seen = git(std::path::Path::new("/"), ["ls-remote", &url, "refs/heads/main"]).unwrap();
    assert!(seen.starts_with(&commit), "{seen}");

    // A cable that is pulled takes the carrier away, and only that one.
    let carrier = |nic: &str| inside("host1", &["cat", &format!("/sys/class/net/{nic}/carrier")]).unwrap();
    lab.link_down(1, 1).unwrap();
    wait_until("the loss", Duration::from_secs(5), || carrier("vmnic1") == "0\n").unwrap();
    assert_eq!(carrier("vmnic2"), "1\n");
    lab.link_up(1, 1).unwrap();
    wait_until("the carrier", Duration::from_secs(5), || {
        carrier("vmnic1") == "1\n"
    })
    .unwrap();

    // A machine that dials in on a VLAN gets an address of it: port security is the host's, not the lab's.
    let ping = inside(
        CLIENT,
        &["ping", "-c", "1", "-W", "2", &lab.layout.svc_address(PROD)],
    )
    .unwrap();
    assert!(ping.contains("1 received"), "{ping}");

    assert!(lab.process(SVC, "dnsmasq").is_some());
    lab.down().unwrap();
    nothing_left(name, &before).unwrap();
}

#[test]
fn a_panic_takes_it_down() {
    let name = "tpanics";
    let before = Trace::take(name).unwrap();
    let result = std::thread::spawn(move || {
        let _lab = Lab::up(&Options::new(name)).unwrap();
        panic!("a test that fails");
    })
    .join();
    assert!(result.is_err());
    nothing_left(name, &before).unwrap();
}

#[test]
fn its_maker_killed_it_goes_too() {
    let name = "tkilled";
    let before = Trace::take(name).unwrap();
    // This test again, as another process: it makes a lab and waits to be killed.
    let mut maker = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_maker_to_be_killed", "--ignored", "--nocapture"])
        .env("TESTKIT_MAKER", name)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(maker.stdout.take().unwrap()).lines();
    assert!(
        lines.any(|line| line.unwrap().contains("lab is up")),
        "the maker made no lab"
    );
    let lab = Lab::open(name).unwrap();
    let switch: Process = lab.process(testkit::SWITCH, "ovs-vswitchd").unwrap().clone();
    maker.kill().unwrap();
    maker.wait().unwrap();
    wait_for("the guard", Duration::from_secs(10), || {
        Ok(if switch.runs() {
            Err("it runs".to_owned())
        } else {
            Ok(())
        })
    })
    .unwrap();
    nothing_left(name, &before).unwrap();
}

#[test]
#[ignore = "part of its_maker_killed_it_goes_too"]
fn a_maker_to_be_killed() {
    let Ok(name) = std::env::var("TESTKIT_MAKER") else {
        return;
    };
    let _lab = Lab::up(&Options::new(&name)).unwrap();
    println!("lab is up");
    let _ = std::io::stdin().lines().count();
    wait_until("the kill", Duration::from_secs(60), || false).unwrap();
}

#[test]
fn a_kept_lab_is_opened_and_taken_down_by_another() {
    let name = "tkept";
    let before = Trace::take(name).unwrap();
    Lab::up(&Options::new(name)).unwrap().keep().unwrap();
    drop(Lab::open(name).unwrap());
    assert!(
        Lab::open(name).unwrap().process(SVC, "servers").is_some(),
        "it outlives what only looked at it"
    );
    testkit::lab::down(name).unwrap();
    assert!(Lab::open(name).is_err());
    nothing_left(name, &before).unwrap();
}
