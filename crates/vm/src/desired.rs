//! What the objects ask for, in this domain's own words, fully defaulted. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kinds::{Object, network::NicIdentity, object, quantity};
use seed::Transport;
use serde::{Deserialize, Serialize};
use serde_json::Value;

mod class;

pub use class::{Class, Limits};

/// The port group that a virtual machine without network cards gets one on.
pub const DEFAULT_NETWORK: &str = "VM Network";
/// vm-operator's bound.
pub const MAX_NICS: usize = 10;
/// Disks of a virtual machine, those of the image and further ones.
pub const MAX_DISKS: usize = 10;
/// `deviceKey` of the first disk of an image.
const FIRST_DEVICE_KEY: u64 = 2000;

const ANNOTATION: &str = "vmoperator.vmware.com/";
const OWN_ANNOTATION: &str = "selvedge.dev/";

/// A power state, by the API's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Power {
    /// `poweredOn`
    #[default]
    PoweredOn,
    /// `poweredOff`
    PoweredOff,
    /// `suspended`
    Suspended,
}

/// How a power state is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// At once.
    #[default]
    Hard,
    /// By the guest only.
    Soft,
    /// By the guest; after five minutes at once.
    TrySoft,
}

/// `spec.readinessProbe`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is tried.
    pub kind: ProbeKind,
    /// Seconds after which a try has failed.
    pub timeout: u64,
    /// Seconds between tries.
    pub period: u64,
}

/// What a probe tries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// A TCP connection; no host means the virtual machine's first address.
    Tcp {
        /// Host.
        host: Option<String>,
        /// Port.
        port: u16,
    },
    /// An answer of the guest agent.
    Heartbeat,
}

/// The firmware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Firmware {
    /// SeaBIOS.
    #[default]
    Bios,
    /// OVMF.
    Efi,
    /// OVMF with secure boot.
    EfiSecure,
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Tap device.
    pub tap: String,
    /// MAC address.
    pub mac: String,
    /// Port group.
    pub port_group: String,
    /// QEMU's device.
    pub model: String,
}

/// Where the image's disks hang.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DiskBus {
    /// virtio-blk.
    #[default]
    Virtio,
    /// virtio-scsi.
    Scsi,
    /// AHCI: guests without virtio drivers.
    Sata,
}

/// The hardware that the guest sees, as far as the objects say it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// The UUID in the firmware's tables.
    pub uuid: String,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Cores in a socket.
    pub cores_per_socket: u32,
    /// MiB.
    pub memory_mib: u64,
    /// Firmware, if the objects say it; else the image does.
    pub firmware: Option<Firmware>,
    /// Network cards in order.
    pub nics: Vec<Nic>,
    /// Bus of the disks.
    pub disk_bus: DiskBus,
}

/// A size asked for a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskWish {
    /// The volume's name, for conditions.
    pub name: String,
    /// Which disk: 0 is the first of the image; none is a further one.
    pub index: Option<usize>,
    /// Bytes; none keeps the image's size.
    pub bytes: Option<u64>,
}

/// A thing that is asked for and is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Upstream's reason, for example `VirtualMachineClassNotFound`.
    pub reason: &'static str,
    /// What is missing, where it was looked for, what to do.
    pub message: String,
}

/// What a virtual machine should be.
#[derive(Clone, Debug)]
pub struct Desired {
    /// The object is being deleted.
    pub deleting: bool,
    /// Somebody asked to leave it alone.
    pub paused: bool,
    /// The built-in Kubernetes worker, which this host does not run yet.
    pub worker: bool,
    /// Power state.
    pub power: Power,
    /// How to power off.
    pub off_mode: Mode,
    /// How to suspend.
    pub suspend_mode: Mode,
    /// How to restart.
    pub restart_mode: Mode,
    /// Restart if it was started before this time.
    pub restart_at: Option<Timestamp>,
    /// The image's reference.
    pub image: String,
    /// Readiness probe.
    pub probe: Option<Probe>,
    /// Hardware; none while something is missing.
    pub hardware: Option<Hardware>,
    /// CPU and memory bounds.
    pub limits: Limits,
    /// Sizes of disks, and further disks.
    pub disks: Vec<DiskWish>,
    /// What the guest is told.
    pub seed: Option<seed::Request>,
    /// What is missing; it is not started then.
    pub missing: Vec<Missing>,
    /// What is accepted and has no effect (yet), a sentence each.
    pub notes: Vec<String>,
}

/// The data for the guest.
#[derive(Clone, Debug, Default)]
pub enum Bootstrap {
    /// None is asked for.
    #[default]
    None,
    /// The content of the ConfigMap or Secret.
    Data(BTreeMap<String, Vec<u8>>),
    /// It does not exist: kind and name.
    Missing(&'static str, String),
}

/// All that [`of`] looks at.
pub struct Inputs<'a> {
    /// The virtual machine.
    pub vm: &'a Object,
    /// The UID that its names are computed from: the object's own, or the one it had when it was made.
    pub identity: &'a str,
    /// Its class, if it exists.
    pub class: Option<&'a Object>,
    /// Data for the guest.
    pub bootstrap: Bootstrap,
}

/// What a virtual machine should be.
#[must_use]
pub fn of(inputs: Inputs<'_>) -> Desired {
    let vm = inputs.vm;
    let spec = &vm["spec"];
    let mut missing = Vec::new();
    let mut notes = Vec::new();

    let class = match inputs.class {
        Some(class) => match Class::of(class, &mut notes) {
            Ok(class) => Some(class),
            Err(message) => {
                missing.push(Missing {
                    reason: "VirtualMachineClassInvalid",
                    message,
                });
                None
            }
        },
        None => {
            missing.push(class_not_found(vm));
            None
        }
    };
    let nics = nics(vm, inputs.identity);
    let hardware = class.as_ref().map(|class| Hardware {
        uuid: uuid(inputs.identity),
        cpus: class.cpus,
        cores_per_socket: class.cores_per_socket,
        memory_mib: class.memory_mib,
        firmware: firmware(vm, class),
        disk_bus: disk_bus(vm, &mut notes),
        nics: nics.clone(),
    });
    if let Bootstrap::Missing(kind, name) = &inputs.bootstrap {
        missing.push(Missing {
            reason: "VirtualMachineMetadataNotFound",
            message: format!(
                "{kind} {name:?} of spec.vmMetadata does not exist in namespace {:?}",
                object::namespace(vm)
            ),
        });
    }
    Desired {
        deleting: object::is_deleting(vm),
        paused: object::annotation(vm, &format!("{ANNOTATION}pause-reconcile")).is_some()
            || object::annotation(vm, &format!("{ANNOTATION}paused")).is_some(),
        worker: is_worker(vm, inputs.class),
        power: word(&spec["powerState"]),
        off_mode: word(&spec["powerOffMode"]),
        suspend_mode: word(&spec["suspendMode"]),
        restart_mode: word(&spec["restartMode"]),
        restart_at: spec["nextRestartTime"].as_str().and_then(|at| at.parse().ok()),
        image: text(spec, "imageName").into(),
        probe: probe(&spec["readinessProbe"], &mut notes),
        limits: class.map(|class| class.limits).unwrap_or_default(),
        disks: disks(spec, &mut notes),
        seed: seed_request(vm, inputs.identity, &nics, inputs.bootstrap),
        hardware,
        missing,
        notes,
    }
}

/// Reads one of the API's words; an absent or unknown one is the default.
fn word<T: for<'de> Deserialize<'de> + Default>(value: &Value) -> T {
    T::deserialize(value).unwrap_or_default()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn class_not_found(vm: &Object) -> Missing {
    let name = text(&vm["spec"], "className");
    let namespace = object::namespace(vm);
    let places = if namespace == "default" {
        "namespace default".into()
    } else {
        format!("namespaces {namespace} and default")
    };
    Missing {
        reason: "VirtualMachineClassNotFound",
        message: format!(
            "VirtualMachineClass {name:?} was found neither in {places} nor among the predefined classes"
        ),
    }
}

fn is_worker(vm: &Object, class: Option<&Object>) -> bool {
    let controller = class.map_or("", |class| text(&class["spec"], "controllerName"));
    let by_class = matches!(
        controller.strip_prefix(ANNOTATION),
        Some("ecworker" | "keswickworker")
    );
    by_class
        || matches!(
            (object::namespace(vm), object::name(vm)),
            ("ec-system", "ec-worker") | ("keswick-system", "keswick-worker")
        )
}

/// The identity as a UUID: itself if it is one.
#[must_use]
pub fn uuid(identity: &str) -> String {
    uuid::Uuid::parse_str(identity)
        .unwrap_or_else(|_| uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, identity.as_bytes()))
        .to_string()
}

fn nics(vm: &Object, identity: &str) -> Vec<Nic> {
    let model = object::annotation(vm, &format!("{OWN_ANNOTATION}nic-model"));
    let default = [Value::Null];
    let cards = match vm["spec"]["networkInterfaces"].as_array() {
        Some(cards) if !cards.is_empty() => &cards[..],
        _ if object::annotation(vm, &format!("{ANNOTATION}no-default-nic")).is_some() => &[],
        _ => &default[..],
    };
    let each = |(index, card): (usize, &Value)| {
        let NicIdentity { tap, mac } = NicIdentity::of(identity, index);
        let named = ["networkName", "network"]
            .map(|key| text(card, key))
            .into_iter()
            .find(|name| !name.is_empty());
        Nic {
            tap,
            mac,
            port_group: named.unwrap_or(DEFAULT_NETWORK).into(),
            model: nic_model(text(card, "ethernetCardType"), model).into(),
        }
    };
    cards.iter().take(MAX_NICS).enumerate().map(each).collect()
}

/// QEMU's device for a card type. VMware's paravirtual cards become virtio: every guest that has a driver for
/// the one in a current kernel has one for the other, and it is much faster.
fn nic_model(card_type: &str, annotation: Option<&str>) -> &'static str {
    match annotation.unwrap_or_default() {
        "vmxnet3" => return "vmxnet3",
        "e1000" => return "e1000",
        "e1000e" => return "e1000e",
        "virtio" => return "virtio-net-pci",
        _ => {}
    }
    match card_type {
        "e1000" => "e1000",
        "e1000e" => "e1000e",
        "pcnet32" => "pcnet",
        _ => "virtio-net-pci",
    }
}

fn firmware(vm: &Object, class: &Class) -> Option<Firmware> {
    match object::annotation(vm, &format!("{ANNOTATION}firmware")) {
        Some("efi") if class.secure_boot => Some(Firmware::EfiSecure),
        Some("efi") => Some(Firmware::Efi),
        Some("bios") => Some(Firmware::Bios),
        _ => class.firmware(),
    }
}

fn disk_bus(vm: &Object, notes: &mut Vec<String>) -> DiskBus {
    match object::annotation(vm, &format!("{OWN_ANNOTATION}disk-bus")) {
        None | Some("virtio") => DiskBus::Virtio,
        Some("scsi") => DiskBus::Scsi,
        Some("sata") => DiskBus::Sata,
        Some(other) => {
            notes.push(format!(
                "annotation {OWN_ANNOTATION}disk-bus: {other:?} is none of virtio, scsi, sata; virtio is used"
            ));
            DiskBus::Virtio
        }
    }
}

fn probe(spec: &Value, notes: &mut Vec<String>) -> Option<Probe> {
    let number = |key: &str| spec[key].as_u64().filter(|n| *n > 0).unwrap_or(10);
    let kind = if let Some(tcp) = spec.get("tcpSocket").filter(|t| t.is_object()) {
        let port = match &tcp["port"] {
            Value::String(name) => name.parse().ok(),
            number => number.as_u64().and_then(|n| u16::try_from(n).ok()),
        };
        let Some(port) = port.filter(|p| *p > 0) else {
            notes.push(format!(
                "spec.readinessProbe.tcpSocket.port: {} is no port number; the probe is left out",
                tcp["port"]
            ));
            return None;
        };
        let host = Some(text(tcp, "host")).filter(|h| !h.is_empty()).map(Into::into);
        ProbeKind::Tcp { host, port }
    } else if spec.get("guestHeartbeat").is_some_and(Value::is_object) {
        ProbeKind::Heartbeat
    } else {
        return None;
    };
    Some(Probe {
        kind,
        timeout: number("timeoutSeconds").min(60),
        period: number("periodSeconds"),
    })
}

fn disks(spec: &Value, notes: &mut Vec<String>) -> Vec<DiskWish> {
    let mut out = Vec::new();
    for volume in spec["volumes"].as_array().into_iter().flatten().take(64) {
        let name = text(volume, "name").to_owned();
        if volume.get("persistentVolumeClaim").is_some_and(Value::is_object) {
            notes.push(format!("volume {name:?}: PersistentVolumeClaims are not supported by this host yet; the disk is left out"));
            continue;
        }
        let Some(disk) = volume.get("vSphereVolume").filter(|d| d.is_object()) else {
            continue;
        };
        let bytes = match disk.get("capacity").and_then(|c| c.get("ephemeral-storage")) {
            None => None,
            Some(size) => match quantity::bytes(size) {
                Ok(bytes) => Some(bytes),
                Err(error) => {
                    notes.push(format!("volume {name:?}: {error}; the volume is left out"));
                    continue;
                }
            },
        };
        let index = disk["deviceKey"]
            .as_u64()
            .and_then(|key| key.checked_sub(FIRST_DEVICE_KEY));
        out.push(DiskWish {
            name,
            index: index.and_then(|i| usize::try_from(i).ok()),
            bytes,
        });
    }
    out
}

fn seed_request(vm: &Object, identity: &str, nics: &[Nic], bootstrap: Bootstrap) -> Option<seed::Request> {
    let metadata = &vm["spec"]["vmMetadata"];
    if !metadata.is_object() {
        return None;
    }
    let data = match bootstrap {
        Bootstrap::Data(data) => data,
        Bootstrap::None => BTreeMap::new(),
        Bootstrap::Missing(..) => return None,
    };
    let instance = object::annotation(vm, &format!("{ANNOTATION}cloud-init-instance-id"));
    Some(seed::Request {
        instance_id: instance.unwrap_or(identity).into(),
        host_name: object::name(vm).into(),
        nics: nics
            .iter()
            .map(|nic| seed::Nic { mac: nic.mac.clone() })
            .collect(),
        transport: Transport::of(text(metadata, "transport")),
        data,
    })
}

#[cfg(test)]
mod tests;
