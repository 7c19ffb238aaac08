//! The command line, whole.

use super::*;
use crate::desired::{Hardware, Nic};

fn launch() -> Launch {
    let nic = |index: usize, model: &str| Nic {
        tap: format!("sv0123456789-{index}"),
        mac: format!("52:54:00:00:00:{index:02x}"),
        port_group: "VM Network".into(),
        model: model.into(),
    };
    Launch {
        owner: "shop/till".into(),
        hardware: Hardware {
            uuid: "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f9".into(),
            cpus: 4,
            cores_per_socket: 2,
            memory_mib: 2048,
            firmware: None,
            nics: vec![nic(0, "virtio-net-pci"), nic(1, "e1000")],
            disk_bus: DiskBus::Virtio,
        },
        disks: 2,
        cd: true,
        firmware: Firmware::Bios,
        accelerator: "tcg".into(),
        started_at: jiff::Timestamp::UNIX_EPOCH,
        stop: None,
    }
}

fn lines(launch: &Launch, state: &str) -> String {
    let key = reconcile::Key::new("shop", "till");
    let paths = Paths::new(Path::new(state), Path::new("/run/selvedge"), &key).unwrap();
    let installation = Installation {
        vhost: true,
        ..Installation::default()
    };
    arguments(launch, &paths, &installation)
        .join("\n")
        .replace("\n-", "\n\n-")
}

#[test]
fn bios_and_translator() {
    insta::assert_snapshot!(lines(&launch(), "/var/lib/selvedge"));
}

#[test]
fn secure_boot_kvm_and_scsi() {
    let mut launch = launch();
    launch.firmware = Firmware::EfiSecure;
    launch.accelerator = "kvm".into();
    launch.hardware.disk_bus = DiskBus::Scsi;
    insta::assert_snapshot!(lines(&launch, "/var/lib/selvedge"));
}

#[test]
fn commas_in_paths_do_not_begin_another_option() {
    let lines = lines(&launch(), "/data,readonly=on");
    assert!(
        lines.contains("logfile=/data,,readonly=on/vms/shop/till/console.log"),
        "{lines}"
    );
}

#[test]
fn socket_paths_are_short_whatever_the_names() {
    let key = reconcile::Key::new("n".repeat(63), "v".repeat(253));
    let paths = Paths::new(Path::new("/s"), Path::new(&"r".repeat(70)), &key).unwrap();
    assert!(paths.console().as_os_str().len() < 108);
    for bad in [("..", "x"), ("a/b", "x"), ("", "x"), ("x", ".hidden")] {
        assert!(
            Paths::new(
                Path::new("/s"),
                Path::new("/r"),
                &reconcile::Key::new(bad.0, bad.1)
            )
            .is_none()
        );
    }
}
