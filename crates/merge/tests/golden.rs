//! Steps that the Go libraries of the Kubernetes API server carried out (see `oracle/main.go`), done again by us.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in helpers too"
)]

use std::collections::BTreeMap;

use merge::apply::{ApplyError, ApplyOptions, server_side_apply};
use merge::managed::{Entry, FieldSet, ManagedFields, Operation, update_after_write};
use serde_json::{Value, json};

/// The same schema as the oracle's, in OpenAPI.
fn schema() -> Value {
    let text = json!({"type": "string"});
    let number = json!({"type": "integer"});
    let texts = json!({"type": "object", "additionalProperties": text});
    let set = json!({"type": "array", "items": text, "x-kubernetes-list-type": "set",
        "x-kubernetes-patch-strategy": "merge"});
    let deep = json!({"type": "object", "properties": {"x": text, "y": text}});
    let inner = json!({"type": "object", "properties": {"a": text, "b": text, "deep": deep}});
    let mut retained = inner.clone();
    retained["x-kubernetes-patch-strategy"] = json!("retainKeys");
    let mut whole = texts.clone();
    whole["x-kubernetes-map-type"] = json!("atomic");
    whole["x-kubernetes-patch-strategy"] = json!("replace");
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "text": text, "number": number,
        "pieces": {"type": "array", "items": text},
        "tags": set,
        "items": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name",
            "items": {"type": "object", "properties": {"name": text, "value": number, "inner": inner, "tags": set}}},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
            "items": {"type": "object", "properties": {
                "port": number, "protocol": {"type": "string", "default": "TCP"}, "name": text}}},
        "labels": texts,
        "groups": {"type": "object", "additionalProperties": inner},
        "whole": whole,
        "inner": retained,
        "free": {"x-kubernetes-preserve-unknown-fields": true}
    }}}})
}

/// Line number, the line, and what it says.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str, Value)> {
    text.lines()
        .enumerate()
        .map(|(i, line)| (i + 1, line, serde_json::from_str(line).unwrap()))
}

fn as_object(bare: &Value) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "x", "uid": "u"}});
    object["spec"] = bare["spec"].clone();
    if bare.get("spec").is_none() {
        object.as_object_mut().unwrap().remove("spec");
    }
    object
}

fn managers(owners: &Value) -> ManagedFields {
    let entries = owners.as_object().unwrap().iter().map(|(name, owner)| Entry {
        manager: name.clone(),
        operation: if owner["apply"] == true {
            Operation::Apply
        } else {
            Operation::Update
        },
        api_version: "v1".into(),
        time: "2026-01-01T00:00:00Z".into(),
        fields: FieldSet::from_fields_v1(&owner["fields"]).unwrap(),
        subresource: String::new(),
    });
    ManagedFields {
        entries: entries.collect(),
    }
}

fn sets(managers: &ManagedFields) -> BTreeMap<String, String> {
    managers
        .entries
        .iter()
        .map(|e| {
            (
                format!("{} {}", e.manager, e.operation.as_str()),
                e.fields.to_json(),
            )
        })
        .collect()
}

/// Go leaves `null` where it emptied a map or a list by removing; we leave it empty, or take it away with the rest.
fn matches(ours: Option<&Value>, theirs: Option<&Value>) -> bool {
    let void = |value: &Value| {
        value.is_null()
            || value.as_object().is_some_and(serde_json::Map::is_empty)
            || value.as_array().is_some_and(Vec::is_empty)
    };
    match (ours, theirs) {
        (None | Some(Value::Null), None) | (None, Some(Value::Null)) => true,
        (Some(ours), Some(Value::Null)) => void(ours),
        (Some(Value::Object(a)), Some(Value::Object(b))) => a
            .keys()
            .chain(b.keys())
            .all(|key| matches(a.get(key), b.get(key))),
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| matches(Some(a), Some(b)))
        }
        (ours, theirs) => ours == theirs,
    }
}

#[test]
fn steps_end_as_upstreams_do() {
    let schema = schema();
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (line, written, case) in lines(include_str!("golden/apply.jsonl")) {
        count += 1;
        let live = (!case["live"].is_null()).then(|| {
            let mut live = as_object(&case["live"]);
            managers(&case["owners"]).write(&mut live);
            live
        });
        let manager = case["manager"].as_str().unwrap();
        let now = "2026-02-02T00:00:00Z";
        let object = as_object(&case["object"]);
        let result = if case["apply"] == true {
            let force = case["force"] == true;
            let options = ApplyOptions {
                manager,
                force,
                subresource: None,
                now,
                schema: &schema,
            };
            match server_side_apply(live.as_ref(), &object, &options) {
                Ok(outcome) => Ok(outcome.object),
                Err(ApplyError::Conflicts(found)) => Err(found),
                Err(other) => {
                    wrong.push(format!("{line}: {other}"));
                    continue;
                }
            }
        } else {
            let mut new = object;
            update_after_write(live.as_ref(), &mut new, manager, "v1", None, now, &schema);
            Ok(new)
        };
        match (result, case["conflicts"].as_array()) {
            (Err(found), Some(expected)) => {
                let mut found: Vec<_> = found
                    .iter()
                    .map(|c| json!({"manager": c.manager, "path": c.field_path}))
                    .collect();
                let mut expected = expected.clone();
                found.sort_by_key(ToString::to_string);
                expected.sort_by_key(ToString::to_string);
                if found != expected {
                    wrong.push(format!(
                        "{line}: conflicts\n   ours {found:?}\n   Go   {expected:?}"
                    ));
                }
            }
            (Ok(object), None) => {
                let (ours, theirs) = (&object["spec"], &case["result"]["spec"]);
                if !matches(Some(ours), Some(theirs)) {
                    wrong.push(format!("{line}: object\n   ours {ours}\n   Go   {theirs}"));
                }
                let ours = sets(&ManagedFields::of(&object).unwrap());
                let theirs = sets(&managers(&case["after"]));
                if ours != theirs {
                    wrong.push(format!("{line}: owners\n   ours {ours:?}\n   Go   {theirs:?}"));
                }
                // The bytes of every set are upstream's.
                for (name, owner) in case["after"].as_object().unwrap() {
                    let text = FieldSet::from_fields_v1(&owner["fields"]).unwrap().to_json();
                    assert!(written.contains(&text), "{line}: {name}: {text}");
                }
            }
            (ours, theirs) => wrong.push(format!("{line}: ours {ours:?}\n   Go   {theirs:?}")),
        }
    }
    assert!(count >= 400);
    assert!(
        wrong.is_empty(),
        "{} of {count} differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(8)].join("\n")
    );
}

/// Go leaves directives and nulls in parts of the patch that are new to the object; we do not.
fn without_directives(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(k, v)| !k.starts_with('$') && !v.is_null())
            .map(|(k, v)| (k.clone(), without_directives(v)))
            .collect(),
        Value::Array(items) => items.iter().map(without_directives).collect(),
        other => other.clone(),
    }
}

/// With items deleted, Go's order of new items among others comes from writing into a slice that it still reads.
fn in_any_order(value: &Value) -> Value {
    match value {
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), in_any_order(v))).collect(),
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(in_any_order).collect();
            items.sort_by_key(Value::to_string);
            items.into()
        }
        other => other.clone(),
    }
}

#[test]
fn strategic_patches_end_as_upstreams_do() {
    let schema = schema();
    let mut wrong = Vec::new();
    for (line, _, case) in lines(include_str!("golden/strategic.jsonl")) {
        let mut object = case["current"].clone();
        match merge::strategic::patch(&mut object, &case["patch"], &schema) {
            Ok(()) if object == without_directives(&case["result"]) => {}
            Ok(())
                if case["patch"].to_string().contains(r#""$patch":"delete""#)
                    && in_any_order(&object) == in_any_order(&without_directives(&case["result"])) => {}
            result => wrong.push(format!(
                "{line}: {result:?}\n   from  {}\n   patch {}\n   ours  {object}\n   Go    {}",
                case["current"], case["patch"], case["result"]
            )),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(5)].join("\n")
    );
}
