//! Kustomization.

use serde_json::Value;

use crate::{
    object::Object,
    registry::{FieldError, reason},
};

pub(super) fn validate_kustomization(object: &Object, errors: &mut Vec<FieldError>) {
    let path = object
        .pointer("/spec/path")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if path.split('/').any(|part| part == "..") {
        errors.push(FieldError::new(
            "spec.path",
            reason::INVALID,
            format!("invalid value: {path:?}: must stay inside the repository"),
        ));
    }
    if let Some(namespace) = object.pointer("/spec/targetNamespace").and_then(Value::as_str)
        && !namespace.is_empty()
        && let Some(wrong) = crate::metadata::not_a_label(namespace)
    {
        errors.push(FieldError::new(
            "spec.targetNamespace",
            reason::INVALID,
            format!("invalid value: {namespace:?}: {wrong}"),
        ));
    }
}
