//! Which fields a write may set, and which of them it changed.

use kinds::{
    object::{self, Object},
    registry::{FieldError, Scope, reason},
};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Target, kind::Served};
use crate::Status;

/// Letters and digits that can't make words.
const SUFFIX: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Puts the namespace and name of the path into the body; what is there already must be the same.
pub(super) fn place(object: &mut Object, target: Target<'_>, scope: Scope) -> Result<(), Status> {
    if !object.is_object() {
        return Err(Status::bad_request("the body is no object"));
    }
    let metadata = object::metadata_mut(object);
    if scope == Scope::Namespaced {
        let given = metadata
            .get("namespace")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if !given.is_empty() && given != target.namespace {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        metadata.insert("namespace".into(), target.namespace.into());
    } else {
        metadata.remove("namespace");
    }
    if !target.name.is_empty() {
        let given = metadata.get("name").and_then(Value::as_str).unwrap_or_default();
        if !given.is_empty() && given != target.name {
            return Err(Status::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({})",
                target.name
            )));
        }
        metadata.insert("name".into(), target.name.into());
    }
    Ok(())
}

pub(super) fn generate_name(object: &mut Object) {
    let base = object
        .pointer("/metadata/generateName")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if base.is_empty() {
        return;
    }
    let base: String = base.chars().take(58).collect();
    let random = Uuid::new_v4();
    let suffix = random
        .as_bytes()
        .iter()
        .take(5)
        .map(|byte| char::from(SUFFIX[usize::from(*byte) % SUFFIX.len()]));
    let name: String = base.chars().chain(suffix).collect();
    object::metadata_mut(object).insert("name".into(), name.into());
}

pub(super) fn check_preconditions(
    served: &Served<'_>,
    name: &str,
    old: &Object,
    new: &Object,
) -> Result<(), Status> {
    let uid = object::uid(new);
    if !uid.is_empty() && uid != object::uid(old) {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            object::uid(old)
        );
        return Err(Status::conflict(served.kind, name, &why));
    }
    let revision = new
        .pointer("/metadata/resourceVersion")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if revision.is_empty() || revision == "0" {
        return Ok(());
    }
    match revision.parse::<u64>() {
        Ok(revision) if revision == object::revision(old) => Ok(()),
        Ok(_) => Err(Status::modified(served.kind, name)),
        Err(_) => {
            let message = format!("Invalid value: {revision:?}: is no resource version");
            let wrong = FieldError::new("metadata.resourceVersion", reason::INVALID, message);
            Err(Status::invalid(served.kind, name, &[wrong]))
        }
    }
}

/// What only the server sets stays as it is.
pub(super) fn keep_server_fields(old: &Object, new: &mut Object) {
    let empty = Map::new();
    let before = old.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    let metadata = object::metadata_mut(new);
    metadata.remove("selfLink");
    for field in [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
    ] {
        match before.get(field) {
            Some(value) => metadata.insert(field.into(), value.clone()),
            None => metadata.remove(field),
        };
    }
}

pub(super) fn keep_status(old: &Object, new: &mut Object) {
    if let Some(map) = new.as_object_mut() {
        match old.get("status") {
            Some(status) => map.insert("status".into(), status.clone()),
            None => map.remove("status"),
        };
    }
}

/// A write of the status changes nothing else; an apply has its managers with it.
pub(super) fn keep_all_but_status(old: &Object, new: &mut Object, managed: bool) {
    let status = new.get_mut("status").map(Value::take);
    let managers = new.pointer_mut("/metadata/managedFields").map(Value::take);
    *new = old.clone();
    if let Some(map) = new.as_object_mut() {
        match status {
            Some(status) => map.insert("status".into(), status),
            None => map.remove("status"),
        };
    }
    if let Some(managers) = managers.filter(|_| managed) {
        object::metadata_mut(new).insert("managedFields".into(), managers);
    }
}

/// Whether anything but metadata and status differs.
pub(super) fn differs_in_what_is_wanted(old: &Object, new: &Object) -> bool {
    let empty = Map::new();
    let (old, new) = (
        old.as_object().unwrap_or(&empty),
        new.as_object().unwrap_or(&empty),
    );
    let ours = |name: &&String| !["metadata", "status", "apiVersion", "kind"].contains(&name.as_str());
    old.keys().filter(ours).any(|name| !new.contains_key(name))
        || new
            .iter()
            .any(|(name, value)| ours(&name) && old.get(name) != Some(value))
}

/// Whether two objects differ at most in the times of their `managedFields`.
pub(super) fn same_but_times(old: &Object, new: &Object) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else {
        return old == new;
    };
    let rest_is_same = old.len() == new.len()
        && old
            .iter()
            .all(|(name, value)| name == "metadata" || new.get(name) == Some(value));
    let metadata = |map: &Map<String, Value>| map.get("metadata").and_then(Value::as_object).cloned();
    if !rest_is_same {
        return false;
    }
    let (Some(mut old), Some(mut new)) = (metadata(old), metadata(new)) else {
        return false;
    };
    let managers = |map: &mut Map<String, Value>| {
        let mut managers = map.remove("managedFields").unwrap_or_default();
        for manager in managers
            .as_array_mut()
            .into_iter()
            .flatten()
            .filter_map(Value::as_object_mut)
        {
            manager.remove("time");
        }
        managers
    };
    managers(&mut old) == managers(&mut new) && old == new
}

pub(super) fn stamp(object: &mut Object, revision: u64) {
    object::metadata_mut(object).insert("resourceVersion".into(), revision.to_string().into());
}
