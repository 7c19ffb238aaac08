//! The classes that every host has, whether or not Git defines them: vm-operator's own set.

use kinds::Object;
use serde_json::json;

/// Name, virtual CPUs, GiB of memory.
const SIZES: [(&str, u32, u32); 8] = [
    ("xsmall", 2, 2),
    ("small", 2, 4),
    ("medium", 2, 8),
    ("large", 4, 16),
    ("xlarge", 4, 32),
    ("2xlarge", 8, 64),
    ("4xlarge", 16, 128),
    ("8xlarge", 32, 128),
];

/// All predefined classes as objects in the namespace `default`. A class of the same name that Git brings is
/// used instead.
#[must_use]
pub fn predefined() -> Vec<Object> {
    let each = |(size, cpus, memory): &(&str, u32, u32)| {
        let memory = format!("{memory}Gi");
        let guaranteed =
            json!({"resources": {"requests": {"cpu": format!("{}m", cpus * 1000), "memory": memory}}});
        [
            class(&format!("best-effort-{size}"), *cpus, &memory, json!({})),
            class(&format!("guaranteed-{size}"), *cpus, &memory, guaranteed),
        ]
    };
    SIZES.iter().flat_map(each).collect()
}

/// A predefined class by name.
#[must_use]
pub fn named(name: &str) -> Option<Object> {
    predefined()
        .into_iter()
        .find(|class| kinds::object::name(class) == name)
}

fn class(name: &str, cpus: u32, memory: &str, policies: serde_json::Value) -> Object {
    json!({
        "apiVersion": "vmoperator.vmware.com/v1alpha1",
        "kind": "VirtualMachineClass",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "controllerName": "vmoperator.vmware.com/vsphere",
            "hardware": {"cpus": cpus, "memory": memory},
            "policies": policies,
        },
    })
}
