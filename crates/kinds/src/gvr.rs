//! The resources of Selvedge's kinds, each in its storage version.

use crate::object::Gvr;

/// `v1/namespaces`.
#[must_use]
pub fn namespaces() -> Gvr {
    Gvr::new("v1", "namespaces")
}

/// `v1/configmaps`.
#[must_use]
pub fn config_maps() -> Gvr {
    Gvr::new("v1", "configmaps")
}

/// `v1/secrets`.
#[must_use]
pub fn secrets() -> Gvr {
    Gvr::new("v1", "secrets")
}

/// `v1/events`.
#[must_use]
pub fn events() -> Gvr {
    Gvr::new("v1", "events")
}

/// `coordination.k8s.io/v1/leases`.
#[must_use]
pub fn leases() -> Gvr {
    Gvr::new("coordination.k8s.io/v1", "leases")
}

/// `esx.vmware.com/v1alpha1/hostconfigurations`.
#[must_use]
pub fn host_configurations() -> Gvr {
    Gvr::new("esx.vmware.com/v1alpha1", "hostconfigurations")
}

/// `vmoperator.vmware.com/v1alpha1/virtualmachines`.
#[must_use]
pub fn virtual_machines() -> Gvr {
    Gvr::new("vmoperator.vmware.com/v1alpha1", "virtualmachines")
}

/// `vmoperator.vmware.com/v1alpha1/virtualmachineclasses`.
#[must_use]
pub fn virtual_machine_classes() -> Gvr {
    Gvr::new("vmoperator.vmware.com/v1alpha1", "virtualmachineclasses")
}

/// `source.toolkit.fluxcd.io/v1/gitrepositories`.
#[must_use]
pub fn git_repositories() -> Gvr {
    Gvr::new("source.toolkit.fluxcd.io/v1", "gitrepositories")
}

/// `kustomize.toolkit.fluxcd.io/v1/kustomizations`.
#[must_use]
pub fn kustomizations() -> Gvr {
    Gvr::new("kustomize.toolkit.fluxcd.io/v1", "kustomizations")
}
