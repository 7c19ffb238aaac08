//! VirtualMachine and VirtualMachineClass (`vmoperator.vmware.com/v1alpha1`) as types.
//!
//! A virtual machine's class is looked for in its own namespace, then in [`GLOBAL_CLASSES`], where a class
//! without a namespace goes too ([`class_namespaces`]). The classes that manifests in the field use without
//! bringing them are in [`predefined_classes`].

mod class;

use serde::{Deserialize, Serialize};

pub use self::class::{GLOBAL_CLASSES, Sizing, VirtualMachineClass, class_namespaces, predefined_classes};
use crate::{
    condition::Condition,
    object::Object,
    typed::{self, Metadata, TypedError, is_default, null_is_default},
};

/// The port group of a card that names none.
pub const DEFAULT_NETWORK: &str = "VM Network";

/// Annotation: a virtual machine without cards stays so.
pub const NO_DEFAULT_NIC: &str = "vmoperator.vmware.com/no-default-nic";

/// Annotation: leave the virtual machine as it is.
pub const PAUSE: &str = "vmoperator.vmware.com/pause-reconcile";

/// Annotation: the firmware, `efi` or `bios`.
pub const FIRMWARE: &str = "vmoperator.vmware.com/firmware";

/// Annotation: the instance ID that cloud-init is told.
pub const CLOUD_INIT_INSTANCE_ID: &str = "vmoperator.vmware.com/cloud-init-instance-id";

/// A virtual machine.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct VirtualMachine {
    /// Name, namespace and so on.
    pub metadata: Metadata,
    /// What it should be like.
    pub spec: VirtualMachineSpec,
    /// What it is like.
    #[serde(deserialize_with = "null_is_default")]
    pub status: VirtualMachineStatus,
}

/// What a virtual machine should be like.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualMachineSpec {
    /// The disk image: an address with or without a scheme, or a file name.
    pub image_name: String,
    /// The class.
    pub class_name: String,
    /// Whether it should run.
    #[serde(deserialize_with = "null_is_default")]
    pub power_state: PowerState,
    /// How it is switched off.
    #[serde(deserialize_with = "null_is_default")]
    pub power_off_mode: PowerMode,
    /// How it is suspended.
    #[serde(deserialize_with = "null_is_default")]
    pub suspend_mode: PowerMode,
    /// How it is restarted.
    #[serde(deserialize_with = "null_is_default")]
    pub restart_mode: PowerMode,
    /// When it was last asked to restart, RFC 3339.
    pub next_restart_time: Option<String>,
    /// Network cards as written; [`VirtualMachine::cards`] gives them with defaults.
    #[serde(deserialize_with = "null_is_default")]
    pub network_interfaces: Vec<NetworkInterface>,
    /// What the guest is told.
    pub vm_metadata: Option<VmMetadata>,
    /// Further disks.
    #[serde(deserialize_with = "null_is_default")]
    pub volumes: Vec<Volume>,
    /// Where disks are; empty for the host's own datastore.
    pub storage_class: Option<String>,
    /// The oldest virtual hardware that will do.
    pub min_hardware_version: Option<u32>,
    /// How to tell that the guest is of use.
    pub readiness_probe: Option<ReadinessProbe>,
    /// Rarely used settings.
    pub advanced_options: Option<AdvancedOptions>,
}

/// Whether a virtual machine runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PowerState {
    /// It runs.
    #[default]
    PoweredOn,
    /// It does not.
    PoweredOff,
    /// It is stopped with its memory kept.
    Suspended,
}

/// How the power of a virtual machine is changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PowerMode {
    /// At once.
    #[default]
    Hard,
    /// By the guest.
    Soft,
    /// By the guest, and after five minutes at once.
    TrySoft,
}

/// A network card.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "RawInterface")]
pub struct NetworkInterface {
    /// The port group; [`DEFAULT_NETWORK`] if the manifest names none.
    pub network_name: String,
    /// The card that the guest sees, `vmxnet3` if the manifest names none.
    pub card_type: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawInterface {
    network_name: Option<String>,
    network: Option<String>,
    ethernet_card_type: Option<String>,
}

impl From<RawInterface> for NetworkInterface {
    fn from(raw: RawInterface) -> Self {
        let some = |text: Option<String>| text.filter(|t| !t.is_empty());
        Self {
            network_name: some(raw.network_name)
                .or(some(raw.network))
                .unwrap_or_else(|| DEFAULT_NETWORK.into()),
            card_type: some(raw.ethernet_card_type).unwrap_or_else(|| "vmxnet3".into()),
        }
    }
}

/// What the guest is told at its first start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VmMetadata {
    /// The ConfigMap with the data.
    pub config_map_name: Option<String>,
    /// The Secret with the data.
    pub secret_name: Option<String>,
    /// How the data gets into the guest.
    pub transport: Option<Transport>,
}

/// How data gets into the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    /// `guestinfo` keys.
    ExtraConfig,
    /// Properties of an OVF environment, and guest customization.
    OvfEnv,
    /// Properties of an OVF environment only.
    #[serde(rename = "vAppConfig")]
    VAppConfig,
    /// cloud-init.
    CloudInit,
    /// A Windows answer file.
    Sysprep,
}

/// A further disk.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume {
    /// Its name in the list.
    pub name: String,
    /// A disk from a claim.
    pub persistent_volume_claim: Option<ClaimVolume>,
    /// A disk of the image, made larger.
    #[serde(rename = "vSphereVolume")]
    pub vsphere_volume: Option<VsphereVolume>,
}

/// A disk from a claim.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimVolume {
    /// The claim.
    pub claim_name: String,
    /// A disk that lives and dies with the virtual machine.
    pub instance_volume_claim: Option<InstanceVolumeClaim>,
}

/// A disk that lives and dies with the virtual machine.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InstanceVolumeClaim {
    /// Where it is.
    pub storage_class: String,
    /// Its size, see [`crate::quantity::bytes`].
    pub size: serde_json::Value,
}

/// A disk of the image, made larger.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VsphereVolume {
    /// Which disk: 2000 is the first of the image.
    pub device_key: Option<i64>,
    /// Its size under `ephemeral-storage`, see [`crate::quantity::bytes`].
    pub capacity: std::collections::BTreeMap<String, serde_json::Value>,
}

/// How to tell that the guest is of use.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReadinessProbe {
    /// A TCP connection must succeed.
    pub tcp_socket: Option<TcpSocket>,
    /// The guest agent must answer.
    pub guest_heartbeat: Option<serde_json::Value>,
    /// Seconds after which a try has failed.
    pub timeout_seconds: Option<u32>,
    /// Seconds between tries.
    pub period_seconds: Option<u32>,
}

/// A TCP connection that must succeed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpSocket {
    /// Where to; the first address of the guest if absent.
    pub host: Option<String>,
    /// A number, or a number as text.
    pub port: serde_json::Value,
}

/// Rarely used settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AdvancedOptions {
    /// How disks are laid out.
    pub default_volume_provisioning_options: Option<ProvisioningOptions>,
}

/// How disks are laid out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProvisioningOptions {
    /// Space is taken as it is written.
    pub thin_provisioned: Option<bool>,
    /// All space is taken and zeroed at once.
    pub eager_zeroed: Option<bool>,
}

/// What a virtual machine is like. Serializes to the object's `status`; empty fields are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualMachineStatus {
    /// `Creating`, `Created`, `Deleting`, `Deleted` or `Unknown`.
    #[serde(skip_serializing_if = "is_default")]
    pub phase: String,
    /// Whether it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_state: Option<PowerState>,
    /// The host.
    #[serde(skip_serializing_if = "is_default")]
    pub host: String,
    /// The name that the guest calls itself.
    #[serde(skip_serializing_if = "is_default")]
    pub host_name: String,
    /// Its first address, without prefix length.
    #[serde(skip_serializing_if = "is_default")]
    pub vm_ip: String,
    /// Its name on the host.
    #[serde(rename = "uniqueID", skip_serializing_if = "is_default")]
    pub unique_id: String,
    /// The UUID in its firmware.
    #[serde(rename = "biosUUID", skip_serializing_if = "is_default")]
    pub bios_uuid: String,
    /// The UUID of this instance.
    #[serde(rename = "instanceUUID", skip_serializing_if = "is_default")]
    pub instance_uuid: String,
    /// When it was last restarted by `nextRestartTime`, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_restart_time: Option<String>,
    /// Network cards, in the order of the spec.
    #[serde(skip_serializing_if = "is_default")]
    pub network_interfaces: Vec<NetworkInterfaceStatus>,
    /// Further disks.
    #[serde(skip_serializing_if = "is_default")]
    pub volumes: Vec<VolumeStatus>,
    /// Conditions.
    #[serde(skip_serializing_if = "is_default")]
    pub conditions: Vec<Condition>,
    /// What looks wrong without being an error.
    #[serde(skip_serializing_if = "is_default")]
    pub warnings: Vec<String>,
}

/// A network card as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkInterfaceStatus {
    /// Whether it has its port.
    pub connected: bool,
    /// MAC address.
    #[serde(skip_serializing_if = "is_default")]
    pub mac_address: String,
    /// Addresses with prefix lengths.
    #[serde(skip_serializing_if = "is_default")]
    pub ip_addresses: Vec<String>,
}

/// A further disk as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeStatus {
    /// Its name in the spec.
    pub name: String,
    /// Whether it is attached.
    pub attached: bool,
    /// Its UUID.
    #[serde(rename = "diskUUID")]
    pub disk_uuid: String,
    /// What went wrong last.
    pub error: String,
}

impl VirtualMachine {
    /// From an object.
    pub fn from_object(object: &Object) -> Result<Self, TypedError> {
        typed::read(object)
    }

    /// The network cards with defaults: without any there is one on [`DEFAULT_NETWORK`], unless the annotation
    /// [`NO_DEFAULT_NIC`] is there.
    #[must_use]
    pub fn cards(&self) -> Vec<NetworkInterface> {
        let cards = self.spec.network_interfaces.clone();
        if cards.is_empty() && !self.metadata.annotations.contains_key(NO_DEFAULT_NIC) {
            return vec![RawInterface::default().into()];
        }
        cards
    }

    /// Whether it is the built-in worker, whatever its class says: `ec-system/ec-worker`, or its older name
    /// `keswick-system/keswick-worker`.
    #[must_use]
    pub fn is_worker(&self) -> bool {
        matches!(
            (self.metadata.namespace.as_str(), self.metadata.name.as_str()),
            ("ec-system", "ec-worker") | ("keswick-system", "keswick-worker")
        )
    }
}
