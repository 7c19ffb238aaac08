//! Taps, and the files of one virtual machine.

use std::{fs, io, path::Path};

use super::{Error, file};
use crate::{record::Paths, sys};

pub(super) fn make_tap(name: &str, mtu: u32) -> Result<(), Error> {
    let failed = |source| Error::Tap {
        name: name.into(),
        source,
    };
    // A running QEMU holds its tap; only the MTU can change then.
    match sys::tap_open(name) {
        Ok(_) => {}
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
        Err(error) => return Err(failed(error)),
    }
    silence(name).map_err(failed)?;
    sys::interface_up(name, mtu).map_err(failed)
}

/// Keeps the host's own network stack from a tap: frames are the switch's business alone. With the userspace
/// datapath the kernel sees them too, and would answer a guest's ARP for the host's addresses.
fn silence(name: &str) -> io::Result<()> {
    for (family, setting, value) in [
        ("ipv4", "rp_filter", "1"),
        ("ipv4", "arp_ignore", "8"),
        ("ipv6", "disable_ipv6", "1"),
    ] {
        match fs::write(format!("/proc/sys/net/{family}/conf/{name}/{setting}"), value) {
            // A kernel without IPv6 has nothing to keep quiet.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn remove_tap(name: &str) -> Result<(), Error> {
    if sys::interface_mtu(name).is_err() {
        return Ok(());
    }
    let tap = sys::tap_open(name).and_then(|tap| sys::tap_persist(&tap, false));
    tap.map_err(|source| Error::Tap {
        name: name.into(),
        source,
    })
}

pub(super) fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file("can't remove", path)(error)),
        _ => Ok(()),
    }
}

/// Removes the files that this domain makes, the record last, then the directory. A file of somebody else
/// stays, and with it the directory.
pub(super) fn remove_state(paths: &Paths) -> Result<(), Error> {
    let entries = match fs::read_dir(&paths.state) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(file("can't read", &paths.state)(error)),
    };
    let ours = |name: &str| {
        let disk = name
            .strip_prefix("disk-")
            .and_then(|rest| rest.strip_suffix(".qcow2"));
        let new = name.strip_suffix(".new").unwrap_or(name);
        disk.is_some_and(|index| index.parse::<usize>().is_ok())
            || [
                "seed.iso",
                "nvram.qcow2",
                "nvram",
                "suspended.json",
                "console.log",
                "console.log.1",
                "qemu.log",
            ]
            .contains(&new)
            || name == "vm.json.new"
    };
    for entry in entries.filter_map(Result::ok) {
        if entry.file_name().to_str().is_some_and(ours) {
            remove_file(&entry.path())?;
        }
    }
    remove_file(&paths.record())?;
    match fs::remove_dir(&paths.state) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            tracing::warn!(directory = %paths.state.display(), "has files that are not ours; they stay");
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(file("can't remove", &paths.state)(error));
        }
        _ => {
            // The namespace's directory goes with its last virtual machine.
            let _ = paths.state.parent().map(fs::remove_dir);
        }
    }
    Ok(())
}
