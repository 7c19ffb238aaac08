//! Single cases, each with its reason.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in helpers too"
)]

use merge::apply::{ApplyError, ApplyOptions, server_side_apply};
use merge::managed::{FieldSet, ManagedFields, Operation, update_after_write};
use merge::{Error, json as patches, strategic};
use serde_json::{Value, json};

const NOW: &str = "2026-01-01T00:00:00Z";
const LATER: &str = "2026-01-02T00:00:00Z";

fn schema() -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "replicas": {"type": "integer"},
            "containers": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name",
                "items": {"type": "object", "properties": {"name": {"type": "string"}, "image": {"type": "string"}}}
            }
        }},
        "status": {"type": "object", "properties": {"phase": {"type": "string"}}}
    }})
}

fn thing(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Thing", "metadata": {"name": "x"}, "spec": spec})
}

fn options<'a>(manager: &'a str, schema: &'a Value) -> ApplyOptions<'a> {
    ApplyOptions {
        manager,
        force: false,
        subresource: None,
        now: NOW,
        schema,
    }
}

fn owners(object: &Value) -> Vec<(String, String)> {
    let entries = ManagedFields::of(object).unwrap().entries;
    entries
        .iter()
        .map(|e| {
            (
                format!("{} {}", e.manager, e.operation.as_str()),
                e.fields.to_json(),
            )
        })
        .collect()
}

#[test]
fn managed_fields_look_as_upstreams() {
    let applied = thing(json!({"replicas": 1, "containers": [{"name": "a", "image": "b"}]}));
    let outcome = server_side_apply(None, &applied, &options("kubectl", &schema())).unwrap();
    assert!(outcome.changed);
    assert_eq!(
        outcome.object["metadata"]["managedFields"],
        json!([{
            "manager": "kubectl", "operation": "Apply", "apiVersion": "apps/v1", "time": NOW, "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}, "f:name": {}}},
                "f:replicas": {}}}
        }])
    );
}

#[test]
fn a_conflict_says_who_and_where() {
    let schema = schema();
    let live = server_side_apply(None, &thing(json!({"replicas": 1})), &options("one", &schema))
        .unwrap()
        .object;
    let mut live = live;
    live["spec"]["containers"] = json!([{"name": "a", "image": "old"}]);
    let old = server_side_apply(None, &thing(json!({"replicas": 1})), &options("one", &schema))
        .unwrap()
        .object;
    update_after_write(Some(&old), &mut live, "edit", "apps/v1", None, NOW, &schema);
    let applied = thing(json!({"replicas": 2, "containers": [{"name": "a", "image": "new"}]}));
    let Err(ApplyError::Conflicts(found)) =
        server_side_apply(Some(&live), &applied, &options("two", &schema))
    else {
        panic!("no conflict")
    };
    let text: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        text,
        [
            "conflict with \"one\" using apps/v1: .spec.replicas",
            "conflict with \"edit\" using apps/v1 at 2026-01-01T00:00:00Z: .spec.containers[name=\"a\"].image",
        ]
    );
}

#[test]
fn equal_values_are_owned_together_and_go_with_the_last() {
    let schema = schema();
    let one = thing(json!({"replicas": 1}));
    let live = server_side_apply(None, &one, &options("a", &schema))
        .unwrap()
        .object;
    let both = server_side_apply(Some(&live), &one, &options("b", &schema)).unwrap();
    assert!(both.changed, "a new owner is a change");
    let dropped = server_side_apply(Some(&both.object), &thing(json!({})), &options("a", &schema))
        .unwrap()
        .object;
    assert_eq!(dropped["spec"]["replicas"], 1, "b still wants it");
    let gone = server_side_apply(Some(&dropped), &thing(json!({})), &options("b", &schema))
        .unwrap()
        .object;
    assert_eq!(gone["spec"].get("replicas"), None);
}

#[test]
fn an_unchanged_apply_keeps_the_time() {
    let schema = schema();
    let object = thing(json!({"replicas": 1}));
    let live = server_side_apply(None, &object, &options("a", &schema))
        .unwrap()
        .object;
    let mut object = object;
    object["metadata"]["creationTimestamp"] = Value::Null;
    let later = ApplyOptions {
        now: LATER,
        ..options("a", &schema)
    };
    let again = server_side_apply(Some(&live), &object, &later).unwrap();
    assert!(!again.changed);
    assert_eq!(again.object, live);
}

#[test]
fn an_untracked_object_is_owned_by_before_first_apply() {
    let schema = schema();
    let mut live = thing(json!({"replicas": 1, "containers": [{"name": "a", "image": "b"}]}));
    live["metadata"]["uid"] = "u".into();
    let applied = thing(json!({"replicas": 1}));
    let object = server_side_apply(Some(&live), &applied, &options("a", &schema))
        .unwrap()
        .object;
    assert_eq!(object["spec"], live["spec"]);
    let owners = owners(&object);
    assert_eq!(owners[0].0, "a Apply");
    assert_eq!(owners[1].0, "before-first-apply Update");
    assert!(owners[1].1.contains("f:image"));

    // A plain write to an untracked object leaves it untracked.
    let mut new = live.clone();
    new["spec"]["replicas"] = 2.into();
    update_after_write(Some(&live), &mut new, "edit", "apps/v1", None, NOW, &schema);
    assert_eq!(new["metadata"].get("managedFields"), None);
}

#[test]
fn what_cannot_be_applied_says_where() {
    let schema = schema();
    let error = |object: Value| match server_side_apply(None, &object, &options("a", &schema)) {
        Err(ApplyError::Invalid { path, message }) => format!("{path}: {message}"),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        error(thing(json!({"containers": [{"image": "x"}]}))),
        ".spec.containers: an item of this list needs the key name"
    );
    assert_eq!(
        error(thing(json!({"containers": [{"name": "x"}, {"name": "x"}]}))),
        ".spec.containers[name=\"x\"]: this item is there twice"
    );
    assert_eq!(
        error(json!({"kind": "Thing"})),
        ".apiVersion: is required in an apply"
    );
    let mut object = thing(json!({}));
    object["metadata"]["managedFields"] = json!([{}]);
    assert_eq!(
        error(object),
        ".metadata.managedFields: may not be in what is applied"
    );
    let mut deep = json!(1);
    for _ in 0..300 {
        deep = json!({"a": deep});
    }
    assert!(error(thing(deep)).contains("levels deep"));
}

#[test]
fn status_is_tracked_apart() {
    let schema = schema();
    let live = server_side_apply(None, &thing(json!({"replicas": 1})), &options("a", &schema))
        .unwrap()
        .object;
    let mut new = live.clone();
    new["status"] = json!({"phase": "Ready"});
    update_after_write(
        Some(&live),
        &mut new,
        "controller",
        "apps/v1",
        Some("status"),
        LATER,
        &schema,
    );
    let entries = ManagedFields::of(&new).unwrap().entries;
    let entry = entries.iter().find(|e| e.manager == "controller").unwrap();
    assert_eq!(
        (entry.subresource.as_str(), entry.operation),
        ("status", Operation::Update)
    );
    assert_eq!(entry.fields.to_json(), r#"{"f:status":{".":{},"f:phase":{}}}"#);
}

#[test]
fn clients_may_rewrite_managers_but_not_lose_them() {
    let schema = schema();
    let live = server_side_apply(None, &thing(json!({"replicas": 1})), &options("a", &schema))
        .unwrap()
        .object;
    let write = |managed: Option<Value>, subresource| {
        let mut new = live.clone();
        let metadata = new["metadata"].as_object_mut().unwrap();
        match managed {
            Some(list) => metadata.insert("managedFields".into(), list),
            None => metadata.remove("managedFields"),
        };
        update_after_write(
            Some(&live),
            &mut new,
            "edit",
            "apps/v1",
            subresource,
            LATER,
            &schema,
        );
        new["metadata"].get("managedFields").cloned()
    };
    let kept = live["metadata"].get("managedFields").cloned();
    assert_eq!(write(None, None), kept, "a client that does not know them");
    assert_eq!(write(Some(json!("rubbish")), None), kept);
    assert_eq!(write(Some(json!([{}])), None), None, "the way to reset them");
    assert_eq!(
        write(Some(json!([{}])), Some("status")),
        kept,
        "not through a subresource"
    );
    let mut renamed = kept.clone().unwrap();
    renamed[0]["manager"] = "other".into();
    assert_eq!(write(Some(renamed.clone()), None), Some(renamed));
}

#[test]
fn old_updaters_are_put_together() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {}}}});
    let mut object = thing(json!({}));
    update_after_write(
        None,
        &mut object,
        "m00",
        "apps/v1",
        None,
        "2026-01-01T00:00:00Z",
        &schema,
    );
    for index in 1..14 {
        let mut new = object.clone();
        new["spec"][format!("f{index}")] = index.into();
        let time = format!("2026-01-{:02}T00:00:00Z", index + 1);
        update_after_write(
            Some(&object),
            &mut new,
            &format!("m{index:02}"),
            "apps/v1",
            None,
            &time,
            &schema,
        );
        object = new;
    }
    let entries = ManagedFields::of(&object).unwrap().entries;
    assert_eq!(entries.len(), 10);
    let ancient = entries.iter().find(|e| e.manager == "ancient-changes").unwrap();
    assert!(ancient.fields.to_json().contains("f:f3"));
    assert_eq!(entries.iter().map(|e| e.fields.leaves().len()).sum::<usize>(), 13);
}

#[test]
fn a_map_that_became_one_piece_is_owned_whole() {
    let mut schema = schema();
    let live = server_side_apply(
        None,
        &thing(json!({"containers": [{"name": "a", "image": "b"}]})),
        &options("a", &schema),
    );
    let live = live.unwrap().object;
    schema["properties"]["spec"]["properties"]["containers"]["x-kubernetes-list-type"] = "atomic".into();
    let applied = thing(json!({"containers": [{"name": "c"}]}));
    let refused = server_side_apply(Some(&live), &applied, &options("b", &schema));
    assert!(matches!(refused, Err(ApplyError::Conflicts(c)) if c[0].field_path == ".spec.containers"));
}

#[test]
fn key_order_in_bytes_is_upstreams() {
    let text = r#"{"f:a":{".":{},"f:b":{}},"f:list":{"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{}},"k:{\"port\":443,\"protocol\":\"TCP\"}":{".":{},"f:name":{}},"v:3":{},"v:\"x<y\"":{},"i:0":{}}}"#;
    let set = FieldSet::from_fields_v1(&serde_json::from_str(text).unwrap()).unwrap();
    let expected = text.replace(
        r#"\"protocol\":\"TCP\"}":{".":{}},"k"#,
        r#"\"protocol\":\"TCP\"}":{},"k"#,
    );
    assert_eq!(set.to_json(), expected);
    for bad in [
        json!({"x": {}}),
        json!({"f:a": 1}),
        json!({"k:{}": {}}),
        json!([]),
        json!({"i:x": {}}),
    ] {
        assert!(FieldSet::from_fields_v1(&bad).is_err(), "{bad}");
    }
}

#[test]
fn json_patches_are_bounded_and_whole() {
    let mut object = json!({"a": {"b": [1, 2]}});
    let before = object.clone();
    let error = patches::patch(
        &mut object,
        &json!([{"op": "remove", "path": "/a/b/0"}, {"op": "test", "path": "/a/b", "value": 9}]),
    );
    assert!(matches!(error, Err(Error::NotApplicable { .. })), "{error:?}");
    assert_eq!(object, before, "nothing is half done");
    let error = patches::patch(&mut object, &json!([{"op": "fly", "path": "/a"}])).unwrap_err();
    assert!(error.to_string().starts_with("[0]: "), "{error}");
    let many = vec![json!({"op": "test", "path": "/a/b/0", "value": 1}); 10_001];
    assert!(matches!(
        patches::patch(&mut object, &many.into()),
        Err(Error::TooLarge { .. })
    ));
    let doubling: Vec<_> = (0..60)
        .map(|i| json!({"op": "copy", "from": "/a", "path": format!("/a/x{i}")}))
        .collect();
    let error = patches::patch(&mut object, &doubling.into()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the patch is too large: copied values, at most 200000 allowed"
    );
    let nesting: Vec<_> = (0..200)
        .flat_map(|_| {
            [
                json!({"op": "add", "path": "/b", "value": {}}),
                json!({"op": "move", "from": "/a", "path": "/b/a"}),
                json!({"op": "move", "from": "/b", "path": "/a"}),
            ]
        })
        .collect();
    let error = patches::patch(&mut object, &nesting.into()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the patch is too large: levels, at most 120 allowed"
    );
    assert_eq!(object, before);
}

#[test]
fn strategic_directives() {
    let schema = schema();
    let start = thing(
        json!({"replicas": 1, "containers": [{"name": "a", "image": "1"}, {"name": "b"}, {"name": "c"}]}),
    );
    let patched = |patch: Value| {
        let mut object = start.clone();
        strategic::patch(&mut object, &patch, &schema).map(|()| object["spec"].clone())
    };
    let containers = |list: Value| Ok(json!({"replicas": 1, "containers": list}));
    assert_eq!(
        patched(
            json!({"spec": {"containers": [{"name": "b", "$patch": "delete"}, {"name": "a", "image": null}]}})
        ),
        containers(json!([{"name": "a"}, {"name": "c"}]))
    );
    assert_eq!(
        patched(json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "z", "image": null}]}})),
        containers(json!([{"name": "z"}]))
    );
    assert_eq!(
        patched(
            json!({"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}]}})
        ),
        containers(json!([{"name": "c"}, {"name": "b"}, {"name": "a", "image": "1"}]))
    );
    assert_eq!(
        patched(json!({"spec": {"$patch": "replace", "replicas": 2}})),
        Ok(json!({"replicas": 2}))
    );
    assert_eq!(patched(json!({"spec": {"$patch": "delete"}})), Ok(json!({})));
    assert_eq!(
        patched(json!({"spec": {"$retainKeys": ["replicas"], "replicas": 3}})),
        Ok(json!({"replicas": 3}))
    );
    let error = |patch| patched(patch).unwrap_err().to_string();
    assert_eq!(
        error(json!({"spec": {"containers": [{"image": "x"}]}})),
        ".spec.containers: an item in this list needs its key name"
    );
    assert_eq!(
        error(json!({"spec": {"$patch": "explode"}})),
        ".spec: $patch is explode; it has to be replace, delete or merge"
    );
    assert_eq!(
        error(json!({"spec": {"$unknown": 1}})),
        ".spec: unknown directive $unknown"
    );
    let mut object = thing(json!({}));
    object["metadata"]["finalizers"] = json!(["a", "b"]);
    strategic::patch(
        &mut object,
        &json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}}),
        &schema,
    )
    .unwrap();
    assert_eq!(object["metadata"]["finalizers"], json!(["c", "b"]));
}
