//! Taking back what people wrote on an object that Git owns. A server-side apply takes back the fields that
//! Git has; fields that somebody added beside them are found here, by the managers in `managedFields`.

use std::collections::BTreeSet;

use kinds::object::Object;
use serde_json::{Map, Value};

use crate::MANAGER;

/// The object without the fields that only people own; `None` if there are none. Controllers of the host
/// keep what they wrote: they are known by the prefix of their names, and they and kubelets write the status.
pub(crate) fn without_foreign(object: &Object) -> Option<Object> {
    let managers = object.pointer("/metadata/managedFields")?.as_array()?;
    let text = |entry: &Value, field: &str| {
        entry
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let mut kept: BTreeSet<Vec<String>> = BTreeSet::new();
    let mut foreign: BTreeSet<Vec<String>> = BTreeSet::new();
    let mut strangers: BTreeSet<String> = BTreeSet::new();
    for entry in managers.iter().filter(|e| text(e, "subresource").is_empty()) {
        let manager = text(entry, "manager");
        let ours = manager == MANAGER || OURS.contains(&manager.as_str());
        let into = if ours { &mut kept } else { &mut foreign };
        if !ours {
            strangers.insert(manager);
        }
        leaves(
            entry.get("fieldsV1").unwrap_or(&Value::Null),
            &mut Vec::new(),
            into,
        );
    }
    let mut clean = object.clone();
    let mut removed = false;
    for path in foreign.difference(&kept) {
        // Finalizers hold a deletion back until somebody has cleaned up: not ours to take.
        let guarded = path.first().is_some_and(|p| p == "f:metadata")
            && path
                .get(1)
                .is_some_and(|p| !matches!(p.as_str(), "f:labels" | "f:annotations"));
        let requested = path.iter().any(|p| p.contains(kinds::flux::REQUESTED_AT));
        if !guarded && !requested && path.first().is_none_or(|p| p != "f:status") {
            removed |= remove(&mut clean, path);
        }
    }
    removed.then_some(clean)
}

/// Field managers of the host's own reconcilers.
const OURS: &[&str] = &[
    "selvedge-bootstrap",
    "source-controller",
    "hostconfig",
    "vm",
    "vswitch",
    "selvedge-host",
    "selvedge",
];

/// The leaves of a field set as paths of its keys (`f:name`, `k:{…}`, `v:…`).
fn leaves(set: &Value, path: &mut Vec<String>, into: &mut BTreeSet<Vec<String>>) {
    let Some(map) = set.as_object() else { return };
    let below: Vec<(&String, &Value)> = map.iter().filter(|(key, _)| *key != ".").collect();
    if below.is_empty() {
        if !path.is_empty() {
            into.insert(path.clone());
        }
        return;
    }
    for (key, value) in below {
        path.push(key.clone());
        leaves(value, path, into);
        path.pop();
    }
}

/// Removes what a path names, and maps and lists that are empty then. Whether there was something.
fn remove(value: &mut Value, path: &[String]) -> bool {
    let Some((first, rest)) = path.split_first() else {
        return false;
    };
    if let Some(name) = first.strip_prefix("f:") {
        let Some(map) = value.as_object_mut() else {
            return false;
        };
        if rest.is_empty() {
            return map.remove(name).is_some();
        }
        let Some(child) = map.get_mut(name) else {
            return false;
        };
        let removed = remove(child, rest);
        if removed && is_empty(child) {
            map.remove(name);
        }
        return removed;
    }
    let Some(list) = value.as_array_mut() else {
        return false;
    };
    let at = if let Some(keys) = first.strip_prefix("k:") {
        let Ok(keys) = serde_json::from_str::<Map<String, Value>>(keys) else {
            return false;
        };
        list.iter()
            .position(|item| keys.iter().all(|(k, v)| item.get(k) == Some(v)))
    } else if let Some(text) = first.strip_prefix("v:") {
        let Ok(wanted) = serde_json::from_str::<Value>(text) else {
            return false;
        };
        list.iter().position(|item| *item == wanted)
    } else {
        None
    };
    let Some(at) = at else { return false };
    if rest.is_empty() {
        list.remove(at);
        return true;
    }
    let removed = remove(&mut list[at], rest);
    // An element of which only its keys are left was made by the same hand.
    if removed && is_empty(&list[at]) {
        list.remove(at);
    }
    removed
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_people_added_goes_and_the_rest_stays() {
        let object = json!({
            "metadata": {
                "labels": {"git": "1", "mine": "2"}, "annotations": {"only": "me"}, "finalizers": ["x"],
                "managedFields": [
                    {"manager": MANAGER, "operation": "Apply", "fieldsV1": {
                        "f:metadata": {"f:labels": {"f:git": {}}},
                        "f:spec": {"f:a": {}, "f:list": {"k:{\"name\":\"one\"}": {".": {}, "f:name": {}, "f:x": {}}}}}},
                    {"manager": "vm", "operation": "Update", "fieldsV1": {"f:spec": {"f:uuid": {}}}},
                    {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {
                        "f:metadata": {"f:labels": {"f:mine": {}}, "f:annotations": {".": {}, "f:only": {}}, "f:finalizers": {"v:\"x\"": {}}},
                        "f:spec": {"f:a": {}, "f:b": {"f:c": {}}, "f:list": {
                            "k:{\"name\":\"one\"}": {"f:y": {}}, "k:{\"name\":\"two\"}": {".": {}, "f:name": {}}}},
                        "f:data": {"f:k": {}}}},
                    {"manager": "kubectl", "subresource": "status", "fieldsV1": {"f:status": {"f:p": {}}}}
                ]
            },
            "spec": {"a": 1, "b": {"c": 2}, "uuid": "u", "list": [{"name": "one", "x": 1, "y": 2}, {"name": "two"}]},
            "data": {"k": "v"},
            "status": {"p": 1}
        });
        let clean = without_foreign(&object).unwrap();
        assert_eq!(
            clean["spec"],
            json!({"a": 1, "uuid": "u", "list": [{"name": "one", "x": 1}]})
        );
        assert_eq!(clean["metadata"]["labels"], json!({"git": "1"}));
        assert_eq!(clean["metadata"].get("annotations"), None);
        assert_eq!(clean["metadata"]["finalizers"], json!(["x"]));
        assert_eq!(clean.get("data"), None);
        assert_eq!(clean["status"], json!({"p": 1}));
        assert_eq!(without_foreign(&json!({"metadata": {}})), None);
    }
}
