//! The CD as real tools see it, and what is on it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::{collections::BTreeMap, path::Path, process::Command};

use seed::{
    Media, Nic, Request, Transport,
    iso::{self, File},
};

fn run(program: &str, args: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

fn text(program: &str, args: &[&str]) -> String {
    String::from_utf8(run(program, args)).unwrap()
}

fn written(bytes: &[u8]) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seed.iso");
    std::fs::write(&path, bytes).unwrap();
    let path = path.display().to_string();
    (dir, path)
}

fn request(transport: Transport, data: &[(&str, &str)]) -> Request {
    Request {
        instance_id: "0f1e2d3c".into(),
        host_name: "till-1".into(),
        nics: vec![Nic {
            mac: "52:54:00:00:00:01".into(),
        }],
        transport,
        data: data
            .iter()
            .map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec()))
            .collect::<BTreeMap<_, _>>(),
    }
}

fn content(media: &Media, name: &str) -> String {
    let file = media.files.iter().find(|f| f.name == name).unwrap();
    String::from_utf8(file.content.clone()).unwrap()
}

#[test]
fn isoinfo_and_bsdtar_and_blkid_read_it() {
    let media = Media::new(&request(
        Transport::CloudInit,
        &[("user-data", "#cloud-config\nruncmd: [ls]\n")],
    ))
    .unwrap();
    let (_dir, path) = written(&media.iso());

    let probe = text("blkid", &["-p", "-o", "export", &path]);
    assert!(
        probe.contains("LABEL=cidata\n") && probe.contains("TYPE=iso9660"),
        "{probe}"
    );
    for extension in ["-R", "-J"] {
        let list = text("isoinfo", &["-i", &path, extension, "-f"]);
        assert_eq!(
            list.split_whitespace().collect::<Vec<_>>(),
            ["/meta-data", "/network-config", "/user-data"],
            "{extension}"
        );
        assert_eq!(
            run("isoinfo", &["-i", &path, extension, "-x", "/user-data"]),
            b"#cloud-config\nruncmd: [ls]\n"
        );
    }
    let details = text("isoinfo", &["-d", "-i", &path]);
    assert!(
        details.contains("Joliet with UCS level 3 found")
            && details.contains("Rock Ridge signatures version 1 found"),
        "{details}"
    );
    let listed = text("bsdtar", &["-tf", &path]);
    assert_eq!(
        listed.lines().collect::<Vec<_>>(),
        [".", "meta-data", "network-config", "user-data"]
    );
    for name in ["meta-data", "network-config", "user-data"] {
        let options = ["", "!joliet", "!rockridge"];
        for option in options {
            let args = ["-xOf", &path, "--options", option, name];
            let args = if option.is_empty() {
                vec!["-xOf", &path, name]
            } else {
                args.to_vec()
            };
            assert_eq!(
                String::from_utf8(run("bsdtar", &args)).unwrap(),
                content(&media, name),
                "{name} {option}"
            );
        }
    }
}

/// The kernel is the reader that counts most. Loop devices need privileges that a container may lack; the tools
/// above are then the only oracle.
#[test]
fn the_kernel_mounts_it() {
    let media = Media::new(&request(Transport::CloudInit, &[])).unwrap();
    let (dir, path) = written(&media.iso());
    let at = dir.path().join("mnt");
    std::fs::create_dir(&at).unwrap();
    let mounted = Command::new("mount")
        .args(["-o", "loop,ro", "-t", "iso9660", &path])
        .arg(&at)
        .output()
        .unwrap();
    if !mounted.status.success() {
        eprintln!("no loop mount here: {}", String::from_utf8_lossy(&mounted.stderr));
        return;
    }
    let read = |name: &str| std::fs::read_to_string(Path::new(&at).join(name));
    let (meta, user) = (read("meta-data"), read("user-data"));
    run("umount", &[&at.display().to_string()]);
    assert_eq!(meta.unwrap(), content(&media, "meta-data"));
    assert_eq!(user.unwrap(), "#cloud-config\n{}\n");
}

#[test]
fn many_files_of_all_sizes_come_back() {
    let files: Vec<File> = [0usize, 1, 2047, 2048, 2049, 5000]
        .iter()
        .cycle()
        .take(40)
        .enumerate()
        .map(|(i, size)| File {
            name: format!("A-longer_Name.{i}"),
            content: vec![u8::try_from(i).unwrap(); *size],
        })
        .collect();
    let (_dir, path) = written(&iso::image("many", &files));
    for file in &files {
        assert_eq!(
            run("bsdtar", &["-xOf", &path, &file.name]),
            file.content,
            "{}",
            file.name
        );
        assert_eq!(
            run("isoinfo", &["-i", &path, "-J", "-x", &format!("/{}", file.name)]),
            file.content,
            "{}",
            file.name
        );
    }
}

#[test]
fn the_same_request_gives_the_same_bytes() {
    let one = Media::new(&request(Transport::CloudInit, &[("user-data", "x")]))
        .unwrap()
        .iso();
    let two = Media::new(&request(Transport::CloudInit, &[("user-data", "x")]))
        .unwrap()
        .iso();
    assert_eq!(one, two);
    assert!(one.len().is_multiple_of(iso::SECTOR));
}

#[test]
fn every_key_that_the_field_uses_for_user_data() {
    for (transport, key) in [
        (Transport::CloudInit, "user-data"),
        (Transport::CloudInit, "value"),
        (Transport::ExtraConfig, "userdata"),
        (Transport::ExtraConfig, "guestinfo.userdata"),
    ] {
        let media = Media::new(&request(transport, &[(key, "#cloud-config\na: {{ b }}\n")])).unwrap();
        assert_eq!(content(&media, "user-data"), "#cloud-config\na: {{ b }}\n");
        assert_eq!(media.notes, Vec::<String>::new());
    }
    let data = [
        ("guestinfo.userdata", "I2Nsb3VkLWNvbmZpZwo="),
        ("guestinfo.userdata.encoding", "base64"),
        ("guestinfo.x", "1"),
    ];
    let media = Media::new(&request(Transport::ExtraConfig, &data)).unwrap();
    assert_eq!(content(&media, "user-data"), "#cloud-config\n");
    assert_eq!(media.notes, ["not delivered to the guest: guestinfo.x"]);
}

#[test]
fn metadata_names_the_instance_and_keys_and_a_given_network_wins() {
    let data = [
        (
            "ssh-public-keys",
            "ssh-ed25519 AAAA one\n\nssh-ed25519 BBBB two\n",
        ),
        (
            "networkconfig",
            "ethernets:\n  eth0:\n    addresses: [192.0.2.7/24]\n",
        ),
        ("user-data", "ip={{ V1alpha1_FirstIP }}"),
    ];
    let media = Media::new(&request(Transport::CloudInit, &data)).unwrap();
    let metadata: serde_json::Value = serde_json::from_str(&content(&media, "meta-data")).unwrap();
    assert_eq!(metadata["instance-id"], "0f1e2d3c");
    assert_eq!(metadata["local-hostname"], "till-1");
    assert_eq!(metadata["public-keys"][1], "ssh-ed25519 BBBB two");
    assert!(content(&media, "network-config").contains("192.0.2.7/24"));
    assert_eq!(content(&media, "user-data"), "ip=192.0.2.7/24");
}

#[test]
fn properties_and_answer_files() {
    let media = Media::new(&request(Transport::OvfEnv, &[("password", "a<b&\"c\"\n")])).unwrap();
    let document = content(&media, "ovf-env.xml");
    assert!(
        document.contains("oe:key=\"password\" oe:value=\"a&lt;b&amp;&quot;c&quot;&#10;\""),
        "{document}"
    );
    assert!(document.contains("oe:key=\"hostname\" oe:value=\"till-1\""));
    let media = Media::new(&request(Transport::Sysprep, &[("unattend", "<unattend/>")])).unwrap();
    assert_eq!(content(&media, "unattend.xml"), "<unattend/>");
    assert_eq!(
        Media::new(&request(Transport::Sysprep, &[])).unwrap().notes.len(),
        1
    );
}
