//! What is to be done, and why. Pure: the same wish and the same state give the same plan.
//!
//! One pass plans as far as the state at hand allows; the caller applies it, looks again and plans again until
//! nothing is left to do. What can't go on says so in [`Plan::holds`], and when to look again in [`Plan::again`].
//!
//! ```text
//!            fetch image   make disks, CD, taps        start            continue
//!   (asked) ───────────▶ (image) ────────────▶ off ─────────▶ prelaunch ─────────▶ running ⇄ paused
//!                                               ▲  bury            │  press power button, quit   │
//!                                               └──────────────────┴─────────────────────────────┘
//! ```

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kinds::network::PortGroups;
use qmp::RunState;

use crate::{
    desired::{DEFAULT_NETWORK, Desired, DiskWish, Firmware, MAX_DISKS, Mode, Nic, Power},
    images::{Image, ImageError},
    record::{DiskRecord, Launch, Record, Stop},
};

mod power;

use power::{power, stop};

/// How long `trySoft` waits for the guest.
pub const SOFT_LIMIT: SignedDuration = SignedDuration::from_secs(300);

/// When a QEMU that does not answer is asked again.
const SILENCE: Duration = Duration::from_secs(30);

/// What is known of the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ImageState {
    /// Nobody has asked for it yet.
    #[default]
    Unasked,
    /// It is being fetched; the progress for people.
    Working(String),
    /// It is there.
    Ready(Image),
    /// It could not be had; it is tried again after a while.
    Failed(ImageError),
}

/// What is known of QEMU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Guest {
    /// There is no QEMU. What the last one was started with, if it has not been buried.
    #[default]
    Gone,
    /// QEMU ended (or never came up) and its traces are still there.
    Dead(Launch),
    /// There is a QEMU that does not answer.
    Unreachable,
    /// It answers.
    Alive(RunState, Launch),
}

/// What is true now.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// What is remembered of the virtual machine.
    pub record: Option<Record>,
    /// The image, if disks are still to be made of it.
    pub image: ImageState,
    /// How long the next try to get the image has to wait.
    pub image_wait: Option<Duration>,
    /// QEMU.
    pub guest: Guest,
    /// The taps that exist of those that are wanted or remembered, with their MTU.
    pub taps: Vec<(String, u32)>,
    /// Whether the CD is as it should be (present with the right bytes, or rightly absent).
    pub cd_current: bool,
    /// Whether a suspended state is on disk.
    pub saved: bool,
    /// The host's port groups.
    pub port_groups: std::sync::Arc<PortGroups>,
    /// How long the next start has to wait after failures.
    pub start_wait: Option<Duration>,
    /// How long the next try after a disk failure has to wait.
    pub disk_wait: Option<Duration>,
}

/// A thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Writes down that the virtual machine exists, before anything is made for it.
    Remember,
    /// Asks the cache for the image.
    FetchImage,
    /// Makes the disks of the image.
    MakeDisks(Image),
    /// Makes a further, empty disk.
    AddDisk(DiskWish),
    /// Makes a disk larger.
    GrowDisk {
        /// Which.
        index: usize,
        /// New size.
        bytes: u64,
    },
    /// Writes or removes the CD.
    WriteCd,
    /// Makes a tap, or sets its MTU.
    MakeTap {
        /// Name.
        name: String,
        /// MTU of the port group.
        mtu: u32,
    },
    /// Removes a tap that is no longer wanted.
    RemoveTap(String),
    /// Asks for the ports of these cards.
    RequestPorts(Vec<Nic>),
    /// Takes away the traces of a QEMU that has ended.
    Bury {
        /// Whether somebody asked it to end.
        expected: bool,
    },
    /// Starts QEMU; the guest does not run yet.
    Start {
        /// Firmware.
        firmware: Firmware,
        /// Whether this is a restart that was asked for.
        restart: bool,
        /// Whether the suspended state is loaded.
        resume: bool,
    },
    /// Lets the guest run.
    Continue,
    /// Asks the guest to switch off.
    AskShutdown(Stop),
    /// Takes back that it was asked to stop.
    ForgetStop,
    /// Ends QEMU at once.
    Quit,
    /// Ends a QEMU that does not answer.
    Kill,
    /// Writes the guest's state to disk and ends QEMU.
    Suspend,
    /// Throws away the state of a suspended guest.
    DiscardSaved,
    /// Removes everything that the virtual machine had.
    Remove,
    /// Lets the object go.
    Release,
}

/// A thing to do, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub action: Action,
    /// Why, for logs and events.
    pub reason: String,
}

/// Why it can't go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The condition that says so.
    pub condition: &'static str,
    /// A word.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
    /// Whether it is only a matter of time.
    pub progressing: bool,
    /// Whether the virtual machine can't be started because of it.
    pub blocks: bool,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Steps in order.
    pub steps: Vec<Step>,
    /// What holds it up.
    pub holds: Vec<Hold>,
    /// When to look again at the latest.
    pub again: Option<Duration>,
}

/// Conditions that holds go to.
pub mod condition {
    /// Class, image, data for the guest.
    pub const PREREQUISITES: &str = "VirtualMachinePrereqReady";
    /// Port groups.
    pub const NETWORK: &str = "VirtualMachineNetworkReady";
    /// Disks.
    pub const STORAGE: &str = "VirtualMachineStorageReady";
    /// QEMU and the guest.
    pub const POWER: &str = "VirtualMachinePowerReady";
}

impl Plan {
    fn step(&mut self, action: Action, reason: impl Into<String>) {
        self.steps.push(Step {
            action,
            reason: reason.into(),
        });
    }

    fn hold(&mut self, condition: &'static str, reason: &'static str, message: impl Into<String>) {
        self.holds.push(Hold {
            condition,
            reason,
            message: message.into(),
            progressing: false,
            blocks: true,
        });
    }

    fn wait(&mut self, condition: &'static str, reason: &'static str, message: impl Into<String>) {
        self.holds.push(Hold {
            condition,
            reason,
            message: message.into(),
            progressing: true,
            blocks: true,
        });
    }

    fn warn(&mut self, condition: &'static str, reason: &'static str, message: impl Into<String>) {
        self.holds.push(Hold {
            condition,
            reason,
            message: message.into(),
            progressing: false,
            blocks: false,
        });
    }

    fn again_in(&mut self, wait: Duration) {
        self.again = Some(self.again.map_or(wait, |again| again.min(wait)));
    }
}

/// What is to be done now.
#[must_use]
pub fn plan(desired: &Desired, observed: &Observed, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if desired.paused && !desired.deleting {
        return plan;
    }
    if desired.deleting {
        delete(&mut plan, desired, observed, now);
        return plan;
    }
    if desired.worker {
        return plan;
    }
    let Some(record) = &observed.record else {
        plan.step(Action::Remember, "it is new");
        return plan;
    };
    if let Guest::Dead(launch) = &observed.guest {
        let expected = launch.stop.is_some() || desired.power != Power::PoweredOn;
        let reason = if expected {
            "QEMU has ended as asked"
        } else {
            "QEMU has ended by itself"
        };
        plan.step(Action::Bury { expected }, reason);
        return plan;
    }
    prepare(&mut plan, desired, observed, record);
    power(&mut plan, desired, observed, record, now);
    plan
}

fn delete(plan: &mut Plan, desired: &Desired, observed: &Observed, now: Timestamp) {
    const REASON: &str = "the virtual machine is being deleted";
    match &observed.guest {
        Guest::Unreachable => plan.step(Action::Kill, REASON),
        Guest::Alive(state, launch) => {
            // A guest that ignores the button must not hold a deletion for ever.
            let mode = if desired.off_mode == Mode::Hard {
                Mode::Hard
            } else {
                Mode::TrySoft
            };
            stop(plan, state, launch, mode, now, REASON);
        }
        Guest::Gone | Guest::Dead(_) => {
            plan.step(Action::Remove, REASON);
            plan.step(Action::Release, REASON);
        }
    }
}

/// Image, disks, CD, taps: whatever the power state is to be.
fn prepare(plan: &mut Plan, desired: &Desired, observed: &Observed, record: &Record) {
    for missing in &desired.missing {
        plan.hold(condition::PREREQUISITES, missing.reason, &missing.message);
    }
    if record.disks.is_empty() {
        image(plan, observed);
    } else if record.image != desired.image {
        let message = format!(
            "{}/{} has disks that were made of image {:?}, from a virtual machine whose object was lost; move them away to begin with {:?}",
            record.namespace, record.name, record.image, desired.image
        );
        plan.hold(condition::STORAGE, "DisksOfAnotherImage", message);
    } else {
        sizes(
            plan,
            desired,
            record,
            matches!(observed.guest, Guest::Unreachable),
        );
    }
    let Some(hardware) = &desired.hardware else { return };
    if !observed.cd_current {
        plan.step(Action::WriteCd, "what the guest is told has changed");
    }
    network(plan, observed, record, &hardware.nics);
}

fn image(plan: &mut Plan, observed: &Observed) {
    let condition = condition::PREREQUISITES;
    if let Some(wait) = observed.image_wait {
        plan.again_in(wait);
    }
    match &observed.image {
        ImageState::Unasked => plan.step(Action::FetchImage, "its disks are made of the image"),
        ImageState::Working(progress) => plan.wait(condition, "VirtualMachineImageNotReady", progress),
        ImageState::Failed(ImageError::NotFound(message)) => {
            plan.hold(condition, "VirtualMachineImageNotFound", message);
        }
        ImageState::Failed(ImageError::NotReady(message)) => {
            plan.hold(condition, "VirtualMachineImageNotReady", message);
        }
        ImageState::Ready(image) if image.disks.is_empty() => {
            plan.hold(condition, "VirtualMachineImageNotReady", "the image has no disk");
        }
        ImageState::Ready(image) if image.disks.len() > MAX_DISKS => {
            let message = format!(
                "the image has {} disks; at most {MAX_DISKS} are possible",
                image.disks.len()
            );
            plan.hold(condition, "VirtualMachineImageNotReady", message);
        }
        ImageState::Ready(image) => plan.step(Action::MakeDisks(image.clone()), "they do not exist yet"),
    }
}

fn sizes(plan: &mut Plan, desired: &Desired, record: &Record, unreachable: bool) {
    let of_image = record.disks.iter().filter(|disk| disk.volume.is_empty()).count();
    let mut count = record.disks.len();
    for wish in &desired.disks {
        let existing = match wish.index {
            Some(index) if index < of_image => Some(index),
            _ => record.disks.iter().position(|disk| disk.volume == wish.name),
        };
        match (existing, wish.bytes) {
            (Some(index), Some(bytes)) => size(plan, wish, index, &record.disks[index], bytes, unreachable),
            (Some(_), None) => {}
            (None, None) => {
                let message = format!(
                    "volume {:?} has no capacity ephemeral-storage, so it can't be made",
                    wish.name
                );
                plan.hold(condition::STORAGE, "CapacityMissing", message);
            }
            (None, Some(_)) if count >= MAX_DISKS => {
                let message = format!(
                    "volume {:?} would be disk {}; at most {MAX_DISKS} are possible",
                    wish.name,
                    count + 1
                );
                plan.hold(condition::STORAGE, "TooManyDisks", message);
            }
            (None, Some(_)) => {
                count += 1;
                plan.step(
                    Action::AddDisk(wish.clone()),
                    format!("volume {:?} is new", wish.name),
                );
            }
        }
    }
}

fn size(plan: &mut Plan, wish: &DiskWish, index: usize, disk: &DiskRecord, bytes: u64, unreachable: bool) {
    if bytes < disk.bytes {
        let message = format!(
            "volume {:?} asks for {bytes} bytes, but disk {index} has {}; ask for at least that",
            wish.name, disk.bytes
        );
        if disk.volume.is_empty() && !disk.grown {
            plan.hold(condition::STORAGE, "ImageLargerThanDisk", message);
        } else {
            plan.warn(condition::STORAGE, "DiskCannotShrink", message);
        }
    } else if bytes > disk.bytes && !unreachable {
        plan.step(
            Action::GrowDisk { index, bytes },
            format!("volume {:?} asks for {bytes} bytes", wish.name),
        );
    }
}

fn network(plan: &mut Plan, observed: &Observed, record: &Record, nics: &[Nic]) {
    for port in &record.ports {
        // A suspended guest goes on with the cards that it had.
        let unused = matches!(observed.guest, Guest::Gone) && !observed.saved;
        if unused && !nics.iter().any(|nic| nic.tap == port.interface) {
            plan.step(
                Action::RemoveTap(port.interface.clone()),
                "its network card is gone",
            );
        }
    }
    let mut unknown = Vec::new();
    for nic in nics {
        let Some(group) = observed.port_groups.get(&nic.port_group) else {
            if !unknown.contains(&&nic.port_group) {
                unknown.push(&nic.port_group);
            }
            continue;
        };
        let mtu = observed
            .taps
            .iter()
            .find(|(name, _)| *name == nic.tap)
            .map(|(_, mtu)| *mtu);
        if mtu != Some(group.mtu) {
            let reason = if mtu.is_none() {
                "it does not exist".into()
            } else {
                format!("port group {:?} has MTU {}", group.name, group.mtu)
            };
            plan.step(
                Action::MakeTap {
                    name: nic.tap.clone(),
                    mtu: group.mtu,
                },
                reason,
            );
        }
    }
    let same = record.ports.len() == nics.len()
        && record.ports.iter().zip(nics).all(|(port, nic)| {
            (&port.interface, &port.port_group, &port.mac) == (&nic.tap, &nic.port_group, &nic.mac)
        });
    if !same {
        plan.step(
            Action::RequestPorts(nics.to_vec()),
            "its network cards have changed",
        );
    }
    if !unknown.is_empty() {
        let list = |names: &mut dyn Iterator<Item = &String>| {
            names.map(|n| format!("{n:?}")).collect::<Vec<_>>().join(", ")
        };
        let known = list(&mut observed.port_groups.keys());
        let known = if known.is_empty() {
            "there is none on this host".into()
        } else {
            format!("this host has {known}")
        };
        let hint = if unknown.iter().any(|name| *name == DEFAULT_NETWORK) {
            " (the default of a virtual machine's network cards)"
        } else {
            ""
        };
        let message = format!(
            "port group {}{hint} does not exist; {known}",
            list(&mut unknown.into_iter())
        );
        plan.hold(condition::NETWORK, "PortGroupNotFound", message);
    }
}

#[cfg(test)]
mod tests;
