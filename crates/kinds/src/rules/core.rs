//! Namespace, ConfigMap, Secret, HostConfiguration.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::{
    object::{self, Object},
    registry::{FieldError, reason},
    schema::join,
};

/// All values of a ConfigMap or Secret together, in bytes.
const LARGEST_DATA: usize = 1024 * 1024;

pub(super) fn admit_namespace(old: Option<&Object>, new: &mut Object) {
    let name = object::name(new).to_owned();
    if !name.is_empty() {
        let labels = object::metadata_mut(new)
            .entry("labels")
            .or_insert_with(|| json!({}));
        if let Some(labels) = labels.as_object_mut() {
            labels.insert("kubernetes.io/metadata.name".into(), name.into());
        }
    }
    if old.is_none() {
        new["status"] = json!({"phase": "Active"});
    }
}

pub(super) fn admit_secret(new: &mut Object) {
    let Some(map) = new.as_object_mut() else { return };
    // What is no map of texts is left for validation to complain about.
    let all_text = map
        .get("stringData")
        .and_then(Value::as_object)
        .is_some_and(|t| t.values().all(Value::is_string));
    if !all_text || map.get("data").is_some_and(|d| !d.is_object() && !d.is_null()) {
        return;
    }
    let Some(Value::Object(texts)) = map.remove("stringData") else {
        return;
    };
    let data = map.entry("data").or_insert_with(|| Value::Object(Map::new()));
    if data.is_null() {
        *data = Value::Object(Map::new());
    }
    for (key, text) in texts {
        data[key] = STANDARD.encode(text.as_str().unwrap_or_default()).into();
    }
}

pub(super) fn validate_config_map(object: &Object, errors: &mut Vec<FieldError>) {
    data(object, &["data", "binaryData"], errors);
    let (data, binary) = (
        object.get("data").and_then(Value::as_object),
        object.get("binaryData").and_then(Value::as_object),
    );
    for key in binary.into_iter().flat_map(Map::keys) {
        if data.is_some_and(|data| data.contains_key(key)) {
            errors.push(FieldError::new(
                &join("binaryData", key),
                reason::INVALID,
                "the key is in data too; remove one of the two",
            ));
        }
    }
}

pub(super) fn validate_secret(object: &Object, errors: &mut Vec<FieldError>) {
    data(object, &["data", "stringData"], errors);
    let required: &[&str] = match object.get("type").and_then(Value::as_str).unwrap_or_default() {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        _ => &[],
    };
    for key in required {
        // Before admission the key may still be in stringData.
        if !["data", "stringData"]
            .iter()
            .any(|field| object.get(field).and_then(|d| d.get(key)).is_some())
        {
            errors.push(FieldError::new(
                &join("data", key),
                reason::REQUIRED,
                "required value for a secret of this type",
            ));
        }
    }
}

fn data(object: &Object, fields: &[&str], errors: &mut Vec<FieldError>) {
    let mut size = 0;
    for field in fields {
        for (key, value) in object.get(field).and_then(Value::as_object).into_iter().flatten() {
            let good = (1..=253).contains(&key.len())
                && key
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
                && key != "."
                && !key.starts_with("..");
            if !good {
                let message =
                    format!("invalid value: {key:?}: a key is at most 253 letters, digits, '-', '_' and '.'");
                errors.push(FieldError::new(field, reason::INVALID, message));
            }
            size += value.as_str().map_or(0, str::len);
        }
    }
    // Base64 is a third larger than what it stands for; allow for it.
    if size > LARGEST_DATA / 3 * 4 {
        errors.push(FieldError::new(
            "",
            "FieldValueTooLong",
            format!("too long: {size} bytes of data, at most {LARGEST_DATA}"),
        ));
    }
}

pub(super) fn validate_data_update(old: &Object, new: &Object, errors: &mut Vec<FieldError>) {
    if old.get("immutable") != Some(&Value::Bool(true)) {
        return;
    }
    for field in ["immutable", "data", "binaryData"] {
        if old.get(field) != new.get(field) {
            errors.push(FieldError::new(
                field,
                reason::FORBIDDEN,
                "the object is immutable; delete it and make it anew",
            ));
        }
    }
}

pub(super) fn validate_host_configuration(object: &Object, errors: &mut Vec<FieldError>) {
    // What is in a profile is for the host to judge: a broken one is kept, so that the last good one can
    // stay in force and the status can say where it is broken.
    if let Some(profile) = object.pointer("/spec/profile")
        && !matches!(profile, Value::String(_) | Value::Object(_) | Value::Null)
    {
        errors.push(FieldError::new(
            "spec.profile",
            reason::TYPE,
            "must be JSON in a string, or a mapping",
        ));
    }
}
