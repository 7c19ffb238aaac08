//! The order in which objects are applied: what others need comes first.

use serde_json::Value;

/// A stage of an apply. All of a stage is applied before the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// CustomResourceDefinitions.
    Definitions,
    /// Namespaces.
    Namespaces,
    /// What is referred to: configuration, secrets, classes, accounts, the host's configuration.
    Configuration,
    /// Everything else.
    Rest,
}

/// The stage of a kind.
#[must_use]
pub fn stage(kind: &str) -> Stage {
    match kind {
        "CustomResourceDefinition" => Stage::Definitions,
        "Namespace" => Stage::Namespaces,
        "ConfigMap"
        | "Secret"
        | "ServiceAccount"
        | "Role"
        | "RoleBinding"
        | "ClusterRole"
        | "ClusterRoleBinding"
        | "StorageClass"
        | "PriorityClass"
        | "RuntimeClass"
        | "IngressClass"
        | "ResourceQuota"
        | "LimitRange"
        | "PersistentVolume"
        | "VirtualMachineClass"
        | "HostConfiguration" => Stage::Configuration,
        _ => Stage::Rest,
    }
}

/// Sorts by stage, keeping the order of files within one.
pub fn sort<T>(objects: &mut [T], object: impl Fn(&T) -> &Value) {
    objects.sort_by_key(|o| stage(kinds::object::kind(object(o))));
}
