//! The physical NICs and their names.
//!
//! A NIC is called `vmnicN` in profiles. The number is given once, in the order of PCI addresses (NICs without
//! one come after, in the kernel's order), and kept in a file, so that a NIC keeps its number when another is
//! added or fails to appear. The kernel's own device name stays unless renaming is configured.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::kernel::Kernel;
use crate::desired::NicDevices;

/// How NICs are named.
#[derive(Clone, Debug)]
pub struct NicNaming {
    /// Where numbers are kept.
    pub file: PathBuf,
    /// Whether the kernel's devices are renamed to `vmnicN`. Only sensible on a host of our own, at its start.
    pub rename: bool,
    /// Where sysfs is.
    pub sysfs: PathBuf,
}

/// A physical NIC as `selvedge nic list` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// `vmnicN`.
    pub name: String,
    /// The kernel's device.
    pub device: String,
    /// PCI address, for example `0000:01:00.0`, if it has one.
    pub pci: Option<String>,
    /// MAC address.
    pub mac: String,
    /// The kernel's driver.
    pub driver: Option<String>,
    /// Megabits per second, while the link is up and the driver knows.
    pub speed_mbps: Option<u32>,
    /// Whether there is a link.
    pub link: bool,
    /// Bytes.
    pub mtu: u32,
    /// The vSwitch that it is an uplink of.
    pub switch: Option<String>,
}

/// The NICs, by number.
pub type Nics = Vec<Nic>;

/// A number given to a NIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Given {
    name: String,
    /// PCI address if there is one, else the MAC address.
    key: String,
}

impl NicNaming {
    /// Names kept in `state_dir`, nothing renamed.
    #[must_use]
    pub fn in_dir(state_dir: &Path) -> Self {
        Self {
            file: state_dir.join("nic-names.json"),
            rename: false,
            sysfs: "/sys/class/net".into(),
        }
    }

    /// The host's NICs with their names. New numbers are written down.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn read(&self, kernel: &Kernel) -> io::Result<Nics> {
        let mut found: Vec<(String, Nic)> = kernel
            .links
            .iter()
            .filter_map(|(device, link)| {
                let dir = self.sysfs.join(device);
                let hardware = dir.join("device");
                let made_for_it = number(device).is_some();
                if link.kind == "openvswitch" || link.kind == "tun" || !(hardware.exists() || made_for_it) {
                    return None;
                }
                let pci = fs::canonicalize(&hardware)
                    .ok()
                    .and_then(|path| pci_address(&path));
                let driver = fs::read_link(hardware.join("driver")).ok();
                let speed = fs::read_to_string(dir.join("speed")).ok();
                let nic = Nic {
                    device: device.clone(),
                    pci,
                    mac: link.mac.clone(),
                    driver: driver.and_then(|p| Some(p.file_name()?.to_str()?.to_owned())),
                    speed_mbps: speed.and_then(|s| s.trim().parse().ok()),
                    link: link.running,
                    mtu: link.mtu,
                    ..Nic::default()
                };
                Some((format!("{:010}", link.index), nic))
            })
            .collect();
        // PCI addresses have a fixed width, so their text sorts as they do.
        found.sort_by(|(i, a), (j, b)| (a.pci.is_none(), &a.pci, i).cmp(&(b.pci.is_none(), &b.pci, j)));
        let given = self.load();
        let (nics, now) = give(&given, found.into_iter().map(|(_, nic)| nic).collect());
        if now != given {
            self.save(&now)?;
        }
        Ok(nics)
    }

    fn load(&self) -> Vec<Given> {
        fs::read(&self.file)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    fn save(&self, given: &[Given]) -> io::Result<()> {
        if let Some(dir) = self.file.parent() {
            fs::create_dir_all(dir)?;
        }
        let new = self.file.with_extension("new");
        fs::write(&new, serde_json::to_vec_pretty(given)?)?;
        fs::File::open(&new)?.sync_all()?;
        fs::rename(&new, &self.file)
    }
}

/// The names as the rest of this crate needs them.
#[must_use]
pub(crate) fn devices(nics: &[Nic]) -> NicDevices {
    nics.iter()
        .map(|n| (n.name.clone(), n.device.clone()))
        .collect::<BTreeMap<_, _>>()
}

/// Gives each NIC its name: the one it has in `given`, else the kernel's if that is `vmnicN` and free, else the
/// lowest free number. Names of NICs that are not there stay taken.
fn give(given: &[Given], found: Vec<Nic>) -> (Nics, Vec<Given>) {
    let shared: BTreeSet<Option<String>> = {
        let mut seen = BTreeSet::new();
        found
            .iter()
            .map(|n| n.pci.clone())
            .filter(|pci| !seen.insert(pci.clone()))
            .collect()
    };
    let mut now = given.to_vec();
    let mut taken: BTreeSet<String> = given.iter().map(|g| g.name.clone()).collect();
    let mut named = Vec::new();
    let mut nameless = Vec::new();
    for mut nic in found {
        // Some cards have several ports on one PCI function.
        let key = match &nic.pci {
            Some(pci) if shared.contains(&nic.pci) => format!("{pci} {}", nic.mac),
            Some(pci) => pci.clone(),
            None => nic.mac.clone(),
        };
        // A virtual NIC may have another MAC address each time it is made: its kernel name decides.
        let own_name = number(&nic.device).is_some() && nic.pci.is_none();
        match given.iter().find(|g| g.key == key) {
            _ if own_name => {
                nic.name.clone_from(&nic.device);
                named.push(nic);
            }
            Some(old) => {
                nic.name.clone_from(&old.name);
                named.push(nic);
            }
            None => nameless.push((key, nic)),
        }
    }
    taken.extend(named.iter().map(|n| n.name.clone()));
    for (key, mut nic) in nameless {
        let own = Some(nic.device.clone()).filter(|d| number(d).is_some() && !taken.contains(d));
        let lowest = (0..u32::MAX)
            .map(|n| format!("vmnic{n}"))
            .find(|name| !taken.contains(name));
        nic.name = own.or(lowest).unwrap_or_default();
        taken.insert(nic.name.clone());
        now.push(Given {
            name: nic.name.clone(),
            key,
        });
        named.push(nic);
    }
    named.sort_by_key(|n| number(&n.name));
    (named, now)
}

fn number(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("vmnic")?;
    digits.parse().ok().filter(|n: &u32| n.to_string() == digits)
}

/// The last PCI address in a sysfs path: a virtio NIC's device is below its PCI device. A USB NIC has none, it
/// only hangs off a controller that has one.
fn pci_address(path: &Path) -> Option<String> {
    let is_pci = |part: &str| {
        let bytes = part.as_bytes();
        bytes.len() == 12 && (bytes[4], bytes[7], bytes[10]) == (b':', b':', b'.')
    };
    let parts: Vec<&str> = path.iter().filter_map(|p| p.to_str()).collect();
    let on_usb = parts
        .iter()
        .any(|p| p.strip_prefix("usb").is_some_and(|n| n.parse::<u16>().is_ok()));
    parts
        .into_iter()
        .rfind(|p| is_pci(p))
        .filter(|_| !on_usb)
        .map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nic(device: &str, pci: Option<&str>, mac: &str) -> Nic {
        Nic {
            device: device.into(),
            pci: pci.map(Into::into),
            mac: mac.into(),
            ..Nic::default()
        }
    }

    fn names(nics: &[Nic]) -> Vec<(&str, &str)> {
        nics.iter()
            .map(|n| (n.name.as_str(), n.device.as_str()))
            .collect()
    }

    #[test]
    fn numbers_follow_the_pci_bus_and_stay() {
        let first = nic("enp1s0", Some("0000:01:00.0"), "a");
        let second = nic("enp2s0", Some("0000:02:00.0"), "b");
        let between = nic("enp1s1", Some("0000:01:01.0"), "c");
        let (nics, given) = give(&[], vec![first.clone(), second.clone()]);
        assert_eq!(names(&nics), [("vmnic0", "enp1s0"), ("vmnic1", "enp2s0")]);
        let (nics, given) = give(&given, vec![first, between.clone(), second.clone()]);
        assert_eq!(
            names(&nics),
            [("vmnic0", "enp1s0"), ("vmnic1", "enp2s0"), ("vmnic2", "enp1s1")]
        );
        let (nics, same) = give(&given, vec![between, second]);
        assert_eq!(names(&nics), [("vmnic1", "enp2s0"), ("vmnic2", "enp1s1")]);
        assert_eq!(same, given);
    }

    #[test]
    fn ports_that_share_a_pci_function_are_told_apart() {
        let port = |device, mac| nic(device, Some("0000:01:00.0"), mac);
        let (nics, given) = give(&[], vec![port("enp1s0", "a"), port("enp1s0d1", "b")]);
        assert_eq!(names(&nics), [("vmnic0", "enp1s0"), ("vmnic1", "enp1s0d1")]);
        let (nics, _) = give(&given, vec![port("enp1s0d1", "b"), port("enp1s0", "a")]);
        assert_eq!(names(&nics), [("vmnic0", "enp1s0"), ("vmnic1", "enp1s0d1")]);
    }

    #[test]
    fn virtual_nics_with_our_names_keep_them() {
        let (nics, given) = give(
            &[],
            vec![
                nic("vmnic1", None, "x"),
                nic("vmnic0", None, "y"),
                nic("eth7", None, "z"),
            ],
        );
        assert_eq!(
            names(&nics),
            [("vmnic0", "vmnic0"), ("vmnic1", "vmnic1"), ("vmnic2", "eth7")]
        );
        assert_eq!(given.len(), 1);
    }

    #[test]
    fn the_pci_address_is_found_below_bridges_and_above_virtio() {
        let path = Path::new("/sys/devices/pci0000:00/0000:00:1c.0/0000:02:00.0/virtio3");
        assert_eq!(pci_address(path).as_deref(), Some("0000:02:00.0"));
        assert_eq!(pci_address(Path::new("/sys/devices/virtual/net/lo")), None);
        assert_eq!(
            pci_address(Path::new("/sys/devices/pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0")),
            None
        );
    }
}
