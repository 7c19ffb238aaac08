//! What images may be, and what is refused.

use std::path::Path;

use image::{CachedImage, DiskFormat, Error, Firmware, Library};

use crate::support::{
    self, converted, info, open, ova, ovf, raw_disk, reference, same_content, sha1, sha256, tar,
};

const SIZE: usize = 1 << 20;

/// Imports bytes as a file of a directory.
async fn import(dir: &Path, name: &str, bytes: &[u8]) -> Result<CachedImage, Error> {
    let file = dir.join(name);
    std::fs::write(&file, bytes).unwrap();
    let cache = open(&dir.join("cache"), vec![Library::Dir(dir.into())]);
    let result = cache
        .ensure(&reference(&format!("file://{}", file.display())), |_| ())
        .await;
    let left: Vec<_> = std::fs::read_dir(dir.join("cache/.work")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    result
}

/// The error of importing bytes.
async fn refusal(name: &str, bytes: &[u8]) -> Error {
    let dir = tempfile::tempdir().unwrap();
    import(dir.path(), name, bytes).await.unwrap_err()
}

#[tokio::test]
async fn an_ova_of_a_stream_optimized_disk() {
    let dir = tempfile::tempdir().unwrap();
    let disk = raw_disk(SIZE);
    let vmdk = std::fs::read(converted(dir.path(), &disk, "vmdk", "subformat=streamOptimized")).unwrap();
    let got = import(dir.path(), "m.ova", &ova(&vmdk, SIZE)).await.unwrap();
    assert_eq!(got.disks.len(), 1);
    assert_eq!(
        (got.disks[0].format, got.disks[0].virtual_size),
        (DiskFormat::Qcow2, SIZE as u64)
    );
    assert!(same_content(dir.path(), &got.disks[0], &disk));
    let said = info(&got.disks[0].path);
    assert_eq!(
        (&said["format"], &said["virtual-size"]),
        (&"qcow2".into(), &SIZE.into())
    );
    assert_eq!(said.get("backing-filename"), None);

    let machine = got.ovf.unwrap();
    assert_eq!((machine.cpus, machine.memory), (Some(2), Some(2 << 30)));
    assert_eq!(
        (machine.firmware, machine.os_type.as_deref()),
        (Firmware::Efi, Some("ubuntu64Guest"))
    );
    assert_eq!(machine.hardware_version.as_deref(), Some("vmx-14"));
    assert_eq!(machine.nics[0].network, "VM Network");
    assert_eq!(
        machine.disks.iter().map(|d| d.capacity).collect::<Vec<_>>(),
        [SIZE as u64, 2 << 30]
    );
    assert_eq!(machine.properties[0].key, "vami.ip0.appliance");
    assert_eq!(machine.properties[0].value, "10.0.0.1 & more");
}

#[tokio::test]
async fn whatever_it_is_called() {
    let disk = raw_disk(SIZE);
    for (format, options) in [
        ("qcow2", ""),
        ("qcow2", "compat=0.10"),
        ("vmdk", "subformat=monolithicSparse"),
        ("vmdk", "subformat=streamOptimized"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let made = std::fs::read(converted(dir.path(), &disk, format, options)).unwrap();
        let got = import(dir.path(), "image.raw", &made).await.unwrap();
        assert_eq!(got.disks[0].format, DiskFormat::Qcow2, "{format} {options}");
        assert_eq!(got.disks[0].virtual_size, SIZE as u64);
        assert!(
            same_content(dir.path(), &got.disks[0], &disk),
            "{format} {options}"
        );
        assert!(got.ovf.is_none());
    }
    let dir = tempfile::tempdir().unwrap();
    let got = import(dir.path(), "image.qcow2", &disk).await.unwrap();
    assert_eq!(
        (got.disks[0].format, got.disks[0].virtual_size),
        (DiskFormat::Raw, SIZE as u64)
    );

    let dir = tempfile::tempdir().unwrap();
    let mut sparse = disk.clone();
    sparse.resize(8 << 20, 0);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &sparse).unwrap();
    let got = import(dir.path(), "image.gz", &gzip.finish().unwrap())
        .await
        .unwrap();
    assert_eq!(std::fs::read(&got.disks[0].path).unwrap(), sparse);
}

#[tokio::test]
async fn disks_that_refer_to_other_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    support::qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "backing_file=/etc/passwd,backing_fmt=raw",
        &path("a"),
        "1M",
    ]);
    support::qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        &format!("data_file={},data_file_raw=on", path("d")),
        &path("b"),
        "1M",
    ]);
    support::qemu_img(&[
        "create",
        "-q",
        "-f",
        "vmdk",
        "-o",
        "subformat=monolithicFlat",
        &path("c"),
        "1M",
    ]);
    support::qemu_img(&["create", "-q", "-f", "vmdk", &path("base"), "1M"]);
    support::qemu_img(&[
        "create",
        "-q",
        "-f",
        "vmdk",
        "-b",
        &path("base"),
        "-F",
        "vmdk",
        &path("e"),
        "1M",
    ]);
    for (name, why) in [
        ("a", "refers to a backing file"),
        ("b", "refers to an external data file"),
        ("c", "points to other files"),
        ("e", "refers to a parent disk"),
    ] {
        let bytes = std::fs::read(dir.path().join(name)).unwrap();
        let error = refusal("x.img", &bytes).await;
        assert!(
            matches!(error, Error::Unsafe { .. }) && error.to_string().contains(why),
            "{name}: {error}"
        );
        let error = refusal("x.ova", &ova(&bytes, SIZE)).await;
        assert!(
            matches!(error, Error::Unsafe { .. }) && error.to_string().contains(why),
            "{name}: {error}"
        );
    }
    // A sparse header that sends QEMU to a descriptor with extents elsewhere.
    let mut vmdk = std::fs::read(dir.path().join("base")).unwrap();
    vmdk[12..20].fill(0);
    let error = refusal("x.img", &vmdk).await;
    assert!(matches!(error, Error::Unsafe { .. }), "{error}");
}

#[tokio::test]
async fn a_damaged_ova_says_which_file() {
    let disk = raw_disk(SIZE);
    let ovf = ovf("disk.img", disk.len(), SIZE);
    let with = |manifest: String| {
        tar(&[
            ("m.ovf", ovf.as_bytes()),
            ("disk.img", &disk),
            ("m.mf", manifest.as_bytes()),
        ])
    };
    let lines = |disk_sum: &str| {
        format!(
            "SHA1(m.ovf)= {}\nSHA1(disk.img)= {disk_sum}\n",
            sha1(ovf.as_bytes())
        )
    };

    let dir = tempfile::tempdir().unwrap();
    import(dir.path(), "m.ova", &with(lines(&sha1(&disk))))
        .await
        .unwrap();
    let error = refusal("m.ova", &with(lines(&sha1(b"other")))).await;
    let Error::ChecksumMismatch {
        file,
        algorithm,
        expected,
        actual,
        ..
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!((file.as_str(), *algorithm), ("disk.img", "SHA1"));
    assert_eq!((expected, actual), (&sha1(b"other"), &sha1(&disk)));

    for (manifest, why) in [
        (
            format!("SHA256(m.ovf)= {}\n", sha256(ovf.as_bytes())),
            "no checksum of \"disk.img\"",
        ),
        (
            format!("{}SHA1(gone)= {}\n", lines(&sha1(&disk)), sha1(b"")),
            "names \"gone\"",
        ),
        ("what?".into(), "malformed: line 1"),
    ] {
        let error = refusal("m.ova", &with(manifest)).await;
        assert!(
            matches!(error, Error::NotAnImage { .. }) && error.to_string().contains(why),
            "{error}"
        );
    }
}

#[tokio::test]
async fn archives_that_reach_out_are_refused() {
    let disk = raw_disk(SIZE);
    let good = ovf("disk.img", disk.len(), SIZE);
    for name in ["../evil", "/etc/evil", "a/b", "..", "a\\b"] {
        let error = refusal(
            "m.ova",
            &tar(&[("m.ovf", good.as_bytes()), ("disk.img", &disk), (name, b"x")]),
        )
        .await;
        assert!(matches!(error, Error::Unsafe { .. }), "{name}: {error}");
    }
    let error = refusal(
        "m.ova",
        &tar(&[
            ("m.ovf", good.as_bytes()),
            ("disk.img", &disk),
            ("./disk.img", b"x"),
        ]),
    )
    .await;
    assert!(error.to_string().contains("is there twice"), "{error}");
    for (href, unsafe_) in [
        ("../../etc/passwd", true),
        ("http://elsewhere/disk", true),
        ("missing.vmdk", false),
    ] {
        let text = ovf(href, 3, SIZE);
        let error = refusal("m.ova", &tar(&[("m.ovf", text.as_bytes()), ("disk.img", &disk)])).await;
        assert_eq!(matches!(error, Error::Unsafe { .. }), unsafe_, "{error}");
        assert!(error.to_string().contains(href), "{error}");
    }
    // A link as a member.
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_ustar();
    header.set_entry_type(::tar::EntryType::Symlink);
    header.set_size(0);
    builder
        .append_link(&mut header, "disk.img", "/etc/passwd")
        .unwrap();
    let error = refusal("m.ova", &builder.into_inner().unwrap()).await;
    assert!(error.to_string().contains("is no plain file"), "{error}");
}

#[tokio::test]
async fn what_is_no_image_says_what_it_is() {
    let cut = {
        let mut whole = ova(&raw_disk(SIZE), SIZE);
        whole.truncate(SIZE / 2);
        whole
    };
    let two = tar(&[("a.ovf", b"x"), ("b.ovf", b"x")]);
    for (bytes, why) in [
        (
            b"<!DOCTYPE html>\n<title>Please log in</title>".to_vec(),
            "text that begins with \"<!DOCTYPE html>\"",
        ),
        (vec![], "the file is empty"),
        (vec![0; 513], "no whole number of sectors"),
        (b"vhdxfile0000".to_vec(), "a VHDX disk"),
        (b"\xfd7zXZ\0 and so on".to_vec(), "compressed by xz"),
        (cut, "cut off"),
        (two, "more than one .ovf"),
        (tar(&[("readme", b"x")]), "no .ovf description"),
        (tar(&[("a.ovf", b"<Envelope>")]), "cut off"),
        (tar(&[("a.ovf", b"<Envelope/>")]), "describes no virtual machine"),
        (b"QFI\xfb\0\0\0\x03".to_vec(), "header is cut off"),
    ] {
        let error = refusal("x", &bytes).await;
        assert!(matches!(error, Error::NotAnImage { .. }), "{error}");
        assert!(error.to_string().contains(why), "{why}: {error}");
    }
}

#[tokio::test]
async fn a_disk_too_large_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("big");
    support::qemu_img(&["create", "-q", "-f", "qcow2", path.to_str().unwrap(), "2G"]);
    let error = refusal("x", &std::fs::read(path).unwrap()).await;
    assert!(
        matches!(error, Error::TooLarge { what: "a disk", size, .. } if size == 2 << 30),
        "{error}"
    );
}

#[tokio::test]
async fn a_broken_vmdk_is_told_from_a_broken_tool() {
    let dir = tempfile::tempdir().unwrap();
    let vmdk = converted(dir.path(), &raw_disk(SIZE), "vmdk", "subformat=streamOptimized");
    let mut bytes = std::fs::read(vmdk).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0xff);
    let error = refusal("x.vmdk", &bytes).await;
    assert!(matches!(error, Error::NotAnImage { .. }), "{error}");
}
