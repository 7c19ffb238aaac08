//! Classes: sizes of virtual machines.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    object::Object,
    quantity::{self, QuantityError},
    typed::{self, Metadata, TypedError, null_is_default},
};

/// The namespace of the classes for all namespaces. A class without a namespace goes there.
pub const GLOBAL_CLASSES: &str = "default";

/// Where a virtual machine's class is looked for, in this order; [`predefined_classes`] come last.
#[must_use]
pub fn class_namespaces(vm_namespace: &str) -> Vec<&str> {
    if vm_namespace == GLOBAL_CLASSES {
        vec![GLOBAL_CLASSES]
    } else {
        vec![vm_namespace, GLOBAL_CLASSES]
    }
}

/// A class.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct VirtualMachineClass {
    /// Name, namespace and so on.
    pub metadata: Metadata,
    /// What a virtual machine of this class is like.
    #[serde(deserialize_with = "null_is_default")]
    pub spec: ClassSpec,
}

/// What a virtual machine of a class is like; see [`VirtualMachineClass::sizing`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClassSpec {
    /// Who runs virtual machines of this class.
    pub controller_name: String,
    /// The virtual hardware.
    #[serde(deserialize_with = "null_is_default")]
    pub hardware: Hardware,
    /// What the host promises and withholds.
    #[serde(deserialize_with = "null_is_default")]
    pub policies: Policies,
    /// Further settings, as vSphere's VirtualMachineConfigSpec.
    pub config_spec: Value,
}

/// The virtual hardware.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hardware {
    /// Number of virtual CPUs.
    pub cpus: Option<u32>,
    /// Memory, a quantity.
    pub memory: Value,
    /// Devices of the host, kept as written.
    pub devices: Value,
}

/// What the host promises and withholds.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Policies {
    /// Reservations and limits.
    #[serde(deserialize_with = "null_is_default")]
    pub resources: Resources,
}

/// Reservations and limits.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// What is always there.
    #[serde(deserialize_with = "null_is_default")]
    pub requests: Amounts,
    /// What is never exceeded.
    #[serde(deserialize_with = "null_is_default")]
    pub limits: Amounts,
}

/// Amounts of CPU and memory, as quantities; null if absent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Amounts {
    /// CPU.
    pub cpu: Value,
    /// Memory.
    pub memory: Value,
}

/// A class in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizing {
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// CPU that is always there, in thousandths.
    pub cpu_request_millis: Option<u64>,
    /// CPU that is never exceeded, in thousandths.
    pub cpu_limit_millis: Option<u64>,
    /// Memory that is always there, in bytes.
    pub memory_request: Option<u64>,
    /// Memory that is never exceeded, in bytes.
    pub memory_limit: Option<u64>,
    /// Virtual CPUs in one socket.
    pub cores_per_socket: Option<u32>,
    /// Whether the guest may run virtual machines itself.
    pub nested: bool,
    /// Whether the firmware checks signatures.
    pub secure_boot: bool,
    /// Whether all memory is held from the start.
    pub memory_locked: bool,
}

impl VirtualMachineClass {
    /// From an object.
    pub fn from_object(object: &Object) -> Result<Self, TypedError> {
        typed::read(object)
    }

    /// Whether the class is for the built-in worker.
    #[must_use]
    pub fn is_worker(&self) -> bool {
        matches!(
            self.spec.controller_name.as_str(),
            "vmoperator.vmware.com/ecworker" | "vmoperator.vmware.com/keswickworker"
        )
    }

    /// The class in numbers. What it leaves out is 2 CPUs and 2 GiB; a limit of zero is none.
    pub fn sizing(&self) -> Result<Sizing, QuantityError> {
        fn amount(
            value: &Value,
            read: fn(&Value) -> Result<u64, QuantityError>,
        ) -> Result<Option<u64>, QuantityError> {
            let read = if value.is_null() { None } else { Some(read(value)?) };
            Ok(read.filter(|amount| *amount > 0))
        }
        let (hardware, resources, config) = (
            &self.spec.hardware,
            &self.spec.policies.resources,
            &self.spec.config_spec,
        );
        Ok(Sizing {
            cpus: hardware.cpus.filter(|cpus| *cpus > 0).unwrap_or(2),
            memory: amount(&hardware.memory, quantity::bytes)?.unwrap_or(2 << 30),
            cpu_request_millis: amount(&resources.requests.cpu, quantity::cpu_millis)?,
            cpu_limit_millis: amount(&resources.limits.cpu, quantity::cpu_millis)?,
            memory_request: amount(&resources.requests.memory, quantity::bytes)?,
            memory_limit: amount(&resources.limits.memory, quantity::bytes)?,
            cores_per_socket: config["numCoresPerSocket"]
                .as_u64()
                .and_then(|n| u32::try_from(n).ok())
                .filter(|n| *n > 0),
            nested: config["nestedHVEnabled"] == true,
            secure_boot: config["bootOptions"]["efiSecureBootEnabled"] == true,
            memory_locked: config["memoryReservationLockedToMax"] == true,
        })
    }
}

/// The classes that a host has from the start, in [`GLOBAL_CLASSES`]: `best-effort-*`, and `guaranteed-*` which
/// reserve all they have. `best-effort-ec-small` is the size of the built-in worker.
#[must_use]
pub fn predefined_classes() -> Vec<Object> {
    const SIZES: [(&str, u32, &str); 8] = [
        ("xsmall", 2, "2Gi"),
        ("small", 2, "4Gi"),
        ("medium", 2, "8Gi"),
        ("large", 4, "16Gi"),
        ("xlarge", 4, "32Gi"),
        ("2xlarge", 8, "64Gi"),
        ("4xlarge", 16, "128Gi"),
        ("8xlarge", 32, "128Gi"),
    ];
    let class = |name: String, cpus: u32, memory: &str| {
        json!({
            "apiVersion": "vmoperator.vmware.com/v1alpha1",
            "kind": "VirtualMachineClass",
            "metadata": {"name": name, "namespace": GLOBAL_CLASSES, "labels": {"selvedge.dev/predefined": "true"}},
            "spec": {"hardware": {"cpus": cpus, "memory": memory}},
        })
    };
    let mut classes = Vec::new();
    for (size, cpus, memory) in SIZES {
        classes.push(class(format!("best-effort-{size}"), cpus, memory));
        let mut guaranteed = class(format!("guaranteed-{size}"), cpus, memory);
        guaranteed["spec"]["policies"] =
            json!({"resources": {"requests": {"cpu": format!("{}m", cpus * 1000), "memory": memory}}});
        classes.push(guaranteed);
    }
    let mut worker = class("best-effort-ec-small".into(), 2, "8Gi");
    worker["spec"]["controllerName"] = "vmoperator.vmware.com/ecworker".into();
    classes.push(worker);
    classes
}
