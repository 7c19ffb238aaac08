//! What a VirtualMachineClass says.

use kinds::{Object, object, quantity};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Firmware;

const MIB: u64 = 1024 * 1024;
/// No host of this class of machines has more; a typing error of a power of ten is caught.
const MAX_CPUS: u64 = 512;
const MAX_MEMORY: u64 = 16 * 1024 * 1024 * MIB;

/// A class, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Virtual CPUs.
    pub cpus: u32,
    /// Cores in a socket.
    pub cores_per_socket: u32,
    /// MiB.
    pub memory_mib: u64,
    /// `bootOptions.efiSecureBootEnabled`.
    pub secure_boot: bool,
    /// `configSpec.firmware`.
    pub efi: bool,
    /// CPU and memory bounds.
    pub limits: Limits,
}

/// CPU and memory bounds; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Thousandths of a CPU that it gets even when others want them.
    pub cpu_request: u64,
    /// Thousandths of a CPU that it never exceeds.
    pub cpu_limit: u64,
    /// Bytes that are not taken from it.
    pub memory_request: u64,
    /// Bytes beyond which it is made to give memory back.
    pub memory_limit: u64,
}

impl Class {
    /// Reads a class. The error is a sentence; what has no effect yet goes to `notes`.
    pub fn of(class: &Object, notes: &mut Vec<String>) -> Result<Self, String> {
        let name = object::name(class);
        let (hardware, config) = (&class["spec"]["hardware"], &class["spec"]["configSpec"]);
        let cpus = hardware["cpus"].as_u64().filter(|n| (1..=MAX_CPUS).contains(n));
        let cpus = cpus.ok_or_else(|| {
            format!(
                "VirtualMachineClass {name:?}: spec.hardware.cpus is {}, not 1 to {MAX_CPUS}",
                hardware["cpus"]
            )
        })?;
        let memory = quantity::bytes(&hardware["memory"])
            .map_err(|error| format!("VirtualMachineClass {name:?}: spec.hardware.memory: {error}"))?;
        if !(MIB..=MAX_MEMORY).contains(&memory) {
            return Err(format!(
                "VirtualMachineClass {name:?}: spec.hardware.memory of {memory} bytes is not 1Mi to 16Ti"
            ));
        }
        let cores = config["numCoresPerSocket"]
            .as_u64()
            .filter(|n| *n > 0 && cpus.is_multiple_of(*n))
            .unwrap_or(cpus);
        not_yet(class, notes);
        let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Ok(Self {
            cpus: small(cpus),
            cores_per_socket: small(cores),
            memory_mib: memory.div_ceil(MIB),
            secure_boot: config["bootOptions"]["efiSecureBootEnabled"] == true,
            efi: config["firmware"] == "efi",
            limits: limits(class, notes),
        })
    }

    /// The firmware that the class asks for.
    #[must_use]
    pub fn firmware(&self) -> Option<Firmware> {
        match (self.secure_boot, self.efi) {
            (true, _) => Some(Firmware::EfiSecure),
            (false, true) => Some(Firmware::Efi),
            (false, false) => None,
        }
    }
}

fn limits(class: &Object, notes: &mut Vec<String>) -> Limits {
    let resources = &class["spec"]["policies"]["resources"];
    let mut read = |of: &str, what: &str, scale: fn(&Value) -> Result<u64, quantity::QuantityError>| {
        let value = &resources[of][what];
        if value.is_null() {
            return 0;
        }
        scale(value).unwrap_or_else(|error| {
            notes.push(format!(
                "class {:?}: policies.resources.{of}.{what}: {error}; it is left out",
                object::name(class)
            ));
            0
        })
    };
    Limits {
        cpu_request: read("requests", "cpu", quantity::cpu_millis),
        cpu_limit: read("limits", "cpu", quantity::cpu_millis),
        memory_request: read("requests", "memory", quantity::bytes),
        memory_limit: read("limits", "memory", quantity::bytes),
    }
}

/// What a class may ask for and this host does not do yet.
fn not_yet(class: &Object, notes: &mut Vec<String>) {
    let name = object::name(class);
    let (devices, config) = (
        &class["spec"]["hardware"]["devices"],
        &class["spec"]["configSpec"],
    );
    let filled = |value: &Value| value.as_array().is_some_and(|list| !list.is_empty());
    let mut say = |what: &str| notes.push(format!("class {name:?}: {what} has no effect on this host yet"));
    for key in ["vgpuDevices", "dynamicDirectPathIODevices"] {
        if filled(&devices[key]) {
            say(&format!("hardware.devices.{key}"));
        }
    }
    if filled(&class["spec"]["hardware"]["instanceStorage"]["volumes"]) {
        say("hardware.instanceStorage");
    }
    if config["latencySensitivity"]["level"] == "high" {
        say("configSpec.latencySensitivity");
    }
    if config["memoryReservationLockedToMax"] == true {
        say("configSpec.memoryReservationLockedToMax");
    }
    if config["flags"]["vvtdEnabled"] == true || config["flags"]["vbsEnabled"] == true {
        say("configSpec.flags");
    }
    if filled(&config["extraConfig"]) {
        say("configSpec.extraConfig");
    }
}
