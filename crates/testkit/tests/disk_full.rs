//! The host's disk runs full: the daemon goes on, answers, says why it can't write, loses nothing that it
//! acknowledged, and goes on by itself when there is room again.

#![allow(clippy::unwrap_used, reason = "the helpers of a test are a test")]

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use testkit::Options;
use testkit::site::{BOOT, SOON, Site, Sources, items};
use testkit::wait::wait_for;

/// Room for the repository, the database and the demo guest.
const SIZE: &str = "size=192m";

/// A small file system of its own under a folder. It is in a mount namespace of this test and of all that it starts,
/// so that it is gone with them whatever happens.
struct Small(PathBuf);

impl Small {
    fn mount(folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        let none = None::<&str>;
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some(SIZE)).unwrap();
        Self(folder.to_owned())
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// To the last page.
    fn fill(&self) {
        let mut file = fs::File::options()
            .create(true)
            .append(true)
            .open(self.filler())
            .unwrap();
        let mut piece = vec![b'x'; 1 << 20];
        while !piece.is_empty() {
            match file.write(&piece) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => piece.truncate(piece.len() / 2),
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // The lab removes the folder.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// Writes an object of some size; what it was told if it was refused.
fn write(site: &Site, name: &str) -> Result<(), String> {
    let text = format!("--from-literal=text={}", "x".repeat(30_000));
    let output = site
        .kubectl
        .output(["create", "configmap", name, "-n", "default", &text])
        .unwrap();
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn names(site: &Site) -> Vec<String> {
    let list = site.kubectl.get(["configmaps", "-n", "default"]).unwrap();
    let mut names: Vec<String> = items(&list)
        .iter()
        .filter_map(|item| item["metadata"]["name"].as_str().map(str::to_owned))
        .filter(|name| name.starts_with("kept-"))
        .collect();
    names.sort();
    names
}

#[test]
fn a_full_disk_is_said_loses_nothing_and_heals_by_itself() {
    let mut site = Site::prepare(&Options::new("fulldisk"), &Sources::of_this_repository().unwrap()).unwrap();
    let disk = Small::mount(&site.lab.layout.node_state("host1").join("state"));
    site.edit("web.yaml", "powerState: poweredOn", "powerState: poweredOff")
        .unwrap();
    site.lab.start_host(1).unwrap();
    site.wait_api().unwrap();
    let commit = site.lab.push("Open the shop").unwrap();
    site.wait_applied(&commit).unwrap();
    site.wait_ready(&site.kubectl, "hostconfigurations,virtualmachines", BOOT)
        .unwrap();
    let daemon = site.lab.process("host1", "selvedge-host").unwrap().clone();

    // What is written until the disk is full is acknowledged, and only that.
    disk.fill();
    let mut kept = Vec::new();
    let refusal = loop {
        let name = format!("kept-{:03}", kept.len());
        match write(&site, &name) {
            Ok(()) => kept.push(name),
            Err(refusal) => break refusal,
        }
        assert!(kept.len() < 500, "the disk is full and everything can be written");
    };
    for words in ["no space left for the database", "free some on its device"] {
        assert!(refusal.contains(words), "{refusal}");
    }
    assert_eq!(names(&site), kept);

    // A change from Git can't be taken in. It is said, where there is room: events are in memory.
    fs::write(
        site.file("note.yaml"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: note\n  namespace: shop\n",
    )
    .unwrap();
    let commit = site.lab.push("Leave a note").unwrap();
    let told = wait_for("an event that tells of the full disk", SOON, || {
        let events = site.kubectl.get(["events", "-A"])?.to_string();
        Ok(
            if events.contains("no space left") || events.contains("No space left") {
                Ok(())
            } else {
                Err(events)
            },
        )
    });
    told.unwrap();
    let ready = site.kubectl.output(["get", "--raw", "/livez"]).unwrap();
    assert!(ready.status.success());
    assert_eq!(
        site.lab.process("host1", "selvedge-host"),
        Some(&daemon),
        "the daemon went on"
    );

    // The power fails meanwhile. The host comes up with what it had.
    site.lab.kill_daemon(1).unwrap();
    site.lab.start_daemon(1).unwrap();
    site.wait_api().unwrap();
    assert_eq!(names(&site), kept);
    assert!(write(&site, "not-kept").unwrap_err().contains("no space left"));
    assert_eq!(
        testkit::ovs::vsctl(&site.lab.layout, "host1", ["br-exists", "vSwitch1"]).unwrap(),
        ""
    );

    // Room again: nobody has to do anything.
    disk.free();
    site.wait_applied(&commit).unwrap();
    site.wait_ready(
        &site.kubectl,
        "hostconfigurations,virtualmachines,kustomizations",
        BOOT,
    )
    .unwrap();
    write(&site, "kept-999").unwrap();
    kept.push("kept-999".to_owned());
    assert_eq!(names(&site), kept);
    site.lab.kill_daemon(1).unwrap();
    site.lab.start_daemon(1).unwrap();
    site.wait_api().unwrap();
    assert_eq!(names(&site), kept);
    drop(disk);
    site.lab.down().unwrap();
}
