//! What schemas can't say: rules between fields, and what admission changes.

mod core;
mod flux;
mod vm;

use crate::{
    object::Object,
    registry::{FieldError, KindDef},
};

pub(crate) fn admit(kind: &KindDef, old: Option<&Object>, new: &mut Object, now: &str) {
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Namespace") => core::admit_namespace(old, new),
        ("", "Secret") => core::admit_secret(new),
        ("vmoperator.vmware.com", "VirtualMachine") => vm::admit(old, new, now),
        _ => {}
    }
}

pub(crate) fn validate(kind: &KindDef, object: &Object, errors: &mut Vec<FieldError>) {
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "ConfigMap") => core::validate_config_map(object, errors),
        ("", "Secret") => core::validate_secret(object, errors),
        ("vmoperator.vmware.com", "VirtualMachine") => vm::validate(object, errors),
        ("vmoperator.vmware.com", "VirtualMachineClass") => vm::validate_class(object, errors),
        ("esx.vmware.com", "HostConfiguration") => core::validate_host_configuration(object, errors),
        ("kustomize.toolkit.fluxcd.io", "Kustomization") => flux::validate_kustomization(object, errors),
        _ => {}
    }
}

pub(crate) fn validate_update(kind: &KindDef, old: &Object, new: &Object, errors: &mut Vec<FieldError>) {
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "ConfigMap" | "Secret") => core::validate_data_update(old, new, errors),
        ("vmoperator.vmware.com", "VirtualMachine") => vm::validate_update(old, new, errors),
        _ => {}
    }
}
