//! What is remembered on disk about one virtual machine, and where its files are.
//!
//! `vm.json` in the state directory lives as long as the virtual machine: its identity, its disks, the ports it
//! asked for. `running.json` in the run directory lives as long as its QEMU: what it was started with.
//! Each is written whole to a new file that replaces the old one, so a cut of power leaves the one or the other.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use kinds::network::PortRequest;
use reconcile::Key;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use crate::desired::{Firmware, Hardware, Mode};

/// What is known of a virtual machine for as long as it exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The UID that MAC addresses, taps and the instance ID come from: that of the object it was made for.
    pub identity: String,
    /// The image's reference.
    pub image: String,
    /// The image's checksum.
    #[serde(default)]
    pub digest: String,
    /// Firmware that the image asks for.
    #[serde(default)]
    pub firmware: Firmware,
    /// Its disks; empty until they have been made.
    #[serde(default)]
    pub disks: Vec<DiskRecord>,
    /// The ports it asks for.
    #[serde(default)]
    pub ports: Vec<PortRequest>,
    /// When it was last restarted on somebody's wish.
    #[serde(default)]
    pub last_restart: Option<Timestamp>,
}

/// A disk that has been made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskRecord {
    /// The volume in the object that it belongs to; empty for a disk of the image.
    #[serde(default)]
    pub volume: String,
    /// The image's file beneath it, if any.
    #[serde(default)]
    pub backing: Option<PathBuf>,
    /// Size that the guest sees, in bytes.
    pub bytes: u64,
    /// Whether it was made larger than the image's disk.
    #[serde(default)]
    pub grown: bool,
}

/// What a QEMU was started with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Launch {
    /// Namespace and name, for people who look at the file.
    pub owner: String,
    /// The hardware.
    pub hardware: Hardware,
    /// Number of disks.
    pub disks: usize,
    /// Whether there is a CD.
    pub cd: bool,
    /// Firmware.
    pub firmware: Firmware,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// When.
    pub started_at: Timestamp,
    /// Set once it has been asked to stop.
    #[serde(default)]
    pub stop: Option<Stop>,
}

/// A stop that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stop {
    /// Since when.
    pub at: Timestamp,
    /// How.
    pub mode: Mode,
}

/// Where the files of one virtual machine are.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Disks, CD, logs; survives a restart of the host.
    pub state: PathBuf,
    /// Sockets, process number; gone after a restart of the host.
    pub run: PathBuf,
    /// A short name for what the kernel limits in length.
    pub id: String,
}

impl Paths {
    /// The paths for a key. Names are checked by the API; one that would leave the directory is refused again.
    #[must_use]
    pub fn new(state_dir: &Path, run_dir: &Path, key: &Key) -> Option<Self> {
        let plain = |name: &str| !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
        if !plain(&key.namespace) || !plain(&key.name) {
            return None;
        }
        let hash = Sha256::digest(format!("{}/{}", key.namespace, key.name));
        let id: String = hash.iter().take(8).map(|b| format!("{b:02x}")).collect();
        // A socket's path has at most 107 bytes; names may have 63 + 253.
        let run = run_dir.join("vm").join(&id);
        Some(Self {
            state: state_dir.join("vms").join(&key.namespace).join(&key.name),
            run,
            id,
        })
    }

    /// `vm.json`.
    #[must_use]
    pub fn record(&self) -> PathBuf {
        self.state.join("vm.json")
    }

    /// A disk.
    #[must_use]
    pub fn disk(&self, index: usize) -> PathBuf {
        self.state.join(format!("disk-{index}.qcow2"))
    }

    /// The CD that the guest is set up from.
    #[must_use]
    pub fn cd(&self) -> PathBuf {
        self.state.join("seed.iso")
    }

    /// The firmware's variables.
    #[must_use]
    pub fn nvram(&self) -> PathBuf {
        self.state.join("nvram.qcow2")
    }

    /// What a suspended guest was started with; its state is in its first disk.
    #[must_use]
    pub fn saved(&self) -> PathBuf {
        self.state.join("suspended.json")
    }

    /// What the serial console said.
    #[must_use]
    pub fn console_log(&self) -> PathBuf {
        self.state.join("console.log")
    }

    /// What QEMU itself said.
    #[must_use]
    pub fn qemu_log(&self) -> PathBuf {
        self.state.join("qemu.log")
    }

    /// `running.json`.
    #[must_use]
    pub fn launch(&self) -> PathBuf {
        self.run.join("running.json")
    }

    /// Addresses learned on its cards.
    #[must_use]
    pub fn addresses(&self) -> PathBuf {
        self.run.join("addresses.json")
    }

    /// QEMU's machine protocol.
    #[must_use]
    pub fn qmp(&self) -> PathBuf {
        self.run.join("qmp.sock")
    }

    /// The guest agent.
    #[must_use]
    pub fn agent(&self) -> PathBuf {
        self.run.join("agent.sock")
    }

    /// The serial console.
    #[must_use]
    pub fn console(&self) -> PathBuf {
        self.run.join("console.sock")
    }

    /// The screen.
    #[must_use]
    pub fn vnc(&self) -> PathBuf {
        self.run.join("vnc.sock")
    }

    /// QEMU's process number, written by QEMU.
    #[must_use]
    pub fn pid(&self) -> PathBuf {
        self.run.join("qemu.pid")
    }
}

/// Reads a JSON file; one that is absent or damaged is `None`.
#[must_use]
pub fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = std::fs::read(path).ok()?;
    match serde_json::from_slice(&bytes) {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "damaged file is ignored");
            None
        }
    }
}

/// Writes a file whole: to a new file, to disk, into place. The directory is made if absent.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = directory.join(name);
    let mut file = std::fs::File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    std::fs::File::open(directory)?.sync_all()
}

/// [`write()`] of a value as JSON.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    write(path, &serde_json::to_vec_pretty(value)?)
}

/// The records of all virtual machines that have one.
#[must_use]
pub fn all(state_dir: &Path) -> Vec<Record> {
    let entries = |path: PathBuf| {
        std::fs::read_dir(path)
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
            .map(|entry| entry.path())
    };
    entries(state_dir.join("vms"))
        .flat_map(entries)
        .filter_map(|path| read(&path.join("vm.json")))
        .collect()
}

/// The image files that disks of virtual machines rest on: they must stay in the cache.
#[must_use]
pub fn images_in_use(state_dir: &Path) -> BTreeSet<PathBuf> {
    all(state_dir)
        .into_iter()
        .flat_map(|record| record.disks)
        .filter_map(|disk| disk.backing)
        .collect()
}
