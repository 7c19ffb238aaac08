//! What holds for any object.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in helpers too"
)]

use merge::apply::{ApplyError, ApplyOptions, Outcome, server_side_apply};
use merge::managed::{self, FieldSet, ManagedFields, PathElement, update_after_write};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn schema() -> Value {
    let text = json!({"type": "string"});
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "text": text, "whole": {"type": "array", "items": text},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": text,
            "x-kubernetes-patch-strategy": "merge"},
        "items": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name",
            "items": {"type": "object", "properties": {"name": text}}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}
    }}}})
}

fn apply(live: Option<&Value>, object: &Value, manager: &str, force: bool) -> Result<Outcome, ApplyError> {
    let options = ApplyOptions {
        manager,
        force,
        subresource: None,
        now: "2026-01-01T00:00:00Z",
        schema: &schema(),
    };
    server_side_apply(live, object, &options)
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2_i64..3).prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map("[a-d$]", inner, 0..4).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn tables() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        (0_i64..3).prop_map(Value::from),
        "[a-c]{1,2}".prop_map(Value::from)
    ];
    let value = leaf.prop_recursive(3, 12, 3, |inner| {
        btree_map("[a-d]", inner, 1..4).prop_map(|m| Value::Object(m.into_iter().collect()))
    });
    btree_map("[a-d]", value, 0..4).prop_map(|m| Value::Object(m.into_iter().collect()))
}

fn object() -> impl Strategy<Value = Value> {
    // Not empty: an empty associative list is nobody's, here as upstream.
    let items = btree_map("[a-e]", proptest::option::of("[xy]"), 1..4).prop_map(|m| {
        let item = |(name, value): (String, Option<String>)| match value {
            Some(value) => json!({"name": name, "value": value}),
            None => json!({"name": name}),
        };
        Value::from(m.into_iter().map(item).collect::<Vec<_>>())
    });
    let tags = proptest::collection::btree_set("[a-e]", 1..4)
        .prop_map(|s| Value::from(s.into_iter().collect::<Vec<_>>()));
    let spec = (
        proptest::option::of("[a-c]".prop_map(Value::from)),
        proptest::option::of(vec("[a-c]", 0..3).prop_map(Value::from)),
        proptest::option::of(tags),
        proptest::option::of(items),
        proptest::option::of(tables()),
    );
    spec.prop_map(|(text, whole, tags, items, free)| {
        let fields = [
            ("text", text),
            ("whole", whole),
            ("tags", tags),
            ("items", items),
            ("free", free),
        ];
        let spec: Map<String, Value> = fields
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect();
        json!({"apiVersion": "example.dev/v1", "kind": "Thing", "metadata": {"name": "x"}, "spec": spec})
    })
}

fn bare(object: &Value) -> Value {
    let mut object = object.clone();
    object["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("managedFields");
    object
}

/// Prefixes every field and item, so that two objects have nothing in common but the containers.
fn renamed(object: &Value, prefix: &str) -> Value {
    let mut object = object.clone();
    let spec = object["spec"].as_object_mut().unwrap();
    spec.remove("text");
    spec.remove("whole");
    spec.entry("free").or_insert_with(|| json!({"z": 1}));
    for tag in spec
        .get_mut("tags")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        *tag = format!("{prefix}{}", tag.as_str().unwrap()).into();
    }
    for item in spec
        .get_mut("items")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        item["name"] = format!("{prefix}{}", item["name"].as_str().unwrap()).into();
    }
    if let Some(Value::Object(free)) = spec.get_mut("free") {
        *free = std::mem::take(free)
            .into_iter()
            .map(|(k, v)| (format!("{prefix}{k}"), v))
            .collect();
    }
    object
}

fn sorted_lists(value: &Value) -> Value {
    match value {
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), sorted_lists(v))).collect(),
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(sorted_lists).collect();
            items.sort_by_key(Value::to_string);
            items.into()
        }
        other => other.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn applying_again_changes_nothing(first in object(), second in object()) {
        let live = apply(None, &first, "a", false).unwrap().object;
        let live = apply(Some(&live), &second, "b", true).unwrap().object;
        let again = apply(Some(&live), &second, "b", false).unwrap();
        prop_assert!(!again.changed);
        prop_assert_eq!(again.object, live);
    }

    #[test]
    fn what_was_applied_alone_is_all_there_is(first in object(), second in object()) {
        // With one manager, the last apply wins whole: nothing of the first is left, but for emptied containers.
        let live = apply(None, &first, "a", false).unwrap().object;
        let live = apply(Some(&live), &second, "a", false).unwrap().object;
        let fields = managed::of(&live, &schema());
        let wanted = managed::of(&second, &schema());
        prop_assert_eq!(fields, wanted);
    }

    #[test]
    fn disjoint_managers_commute(first in object(), second in object()) {
        let (first, second) = (renamed(&first, "p"), renamed(&second, "q"));
        let one = apply(None, &first, "a", false).unwrap().object;
        let one = apply(Some(&one), &second, "b", false).unwrap().object;
        let two = apply(None, &second, "b", false).unwrap().object;
        let two = apply(Some(&two), &first, "a", false).unwrap().object;
        prop_assert_eq!(sorted_lists(&bare(&one)), sorted_lists(&bare(&two)));
        prop_assert!(ManagedFields::of(&one).unwrap().same_but_times(&ManagedFields::of(&two).unwrap()));
    }

    #[test]
    fn a_conflict_is_a_field_of_another(first in object(), second in object()) {
        let live = apply(None, &first, "a", false).unwrap().object;
        if let Err(ApplyError::Conflicts(conflicts)) = apply(Some(&live), &second, "b", false) {
            prop_assert!(!conflicts.is_empty());
            prop_assert!(conflicts.iter().all(|c| c.manager == "a"));
            let forced = apply(Some(&live), &second, "b", true).unwrap().object;
            let entries = ManagedFields::of(&forced).unwrap().entries;
            let wanted = managed::of(&second, &schema());
            prop_assert_eq!(&entries.iter().find(|e| e.manager == "b").unwrap().fields, &wanted);
        }
    }

    #[test]
    fn a_plain_write_owns_what_it_writes(first in object(), second in object()) {
        let live = apply(None, &first, "a", false).unwrap().object;
        let mut new = second.clone();
        update_after_write(Some(&live), &mut new, "edit", "example.dev/v1", None, "2026-02-02T00:00:00Z", &schema());
        prop_assert_eq!(bare(&new), second);
        // Writing the same again changes nothing.
        let mut again = new.clone();
        update_after_write(Some(&new), &mut again, "edit", "example.dev/v1", None, "2026-03-03T00:00:00Z", &schema());
        prop_assert_eq!(again, new);
    }

    #[test]
    fn field_sets_survive_json(value in object()) {
        let set = managed::of(&value, &schema());
        prop_assert_eq!(&FieldSet::from_fields_v1(&set.to_fields_v1()).unwrap(), &set);
        let text: Value = serde_json::from_str(&set.to_json()).unwrap();
        prop_assert_eq!(FieldSet::from_fields_v1(&text).unwrap(), set);
    }

    #[test]
    fn field_sets_are_sets(a in object(), b in object()) {
        let (a, b) = (managed::of(&a, &schema()), managed::of(&b, &schema()));
        let paths = |set: &FieldSet| set.paths().into_iter().collect::<std::collections::BTreeSet<Vec<PathElement>>>();
        let (pa, pb) = (paths(&a), paths(&b));
        prop_assert_eq!(paths(&a.union(&b)), pa.union(&pb).cloned().collect());
        prop_assert_eq!(paths(&a.intersection(&b)), pa.intersection(&pb).cloned().collect());
        prop_assert_eq!(paths(&a.difference(&b)), pa.difference(&pb).cloned().collect());
        prop_assert_eq!(a.includes(&b), pa.is_superset(&pb));
        prop_assert!(pa.iter().all(|path| a.contains(path)));
    }

    #[test]
    fn nothing_panics(target in any_json(), patch in any_json(), any in any_json()) {
        let mut value = target.clone();
        let _ = merge::json::patch(&mut value, &patch);
        merge::json::merge_patch(&mut value, &patch);
        let _ = merge::strategic::patch(&mut value, &patch, &any);
        let _ = FieldSet::from_fields_v1(&any);
        let mut object = json!({"apiVersion": "v1", "kind": "Thing", "spec": target, "metadata": any});
        let _ = apply(Some(&object), &json!({"apiVersion": "v1", "kind": "Thing", "spec": patch}), "a", true);
        let old = object.clone();
        update_after_write(Some(&old), &mut object, "m", "v1", None, "", &any);
    }
}
