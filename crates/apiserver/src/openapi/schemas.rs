//! The schemas of a group version: each kind, its list, and what all kinds share.

use kinds::registry::{KindDef, VersionDef};
use serde_json::{Map, Value, json};

/// Name of `ObjectMeta` among the schemas.
pub(super) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
/// Name of `Status` among the schemas.
pub(super) const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
/// Name of `DeleteOptions` among the schemas.
pub(super) const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
/// Name of the patch type among the schemas.
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// A kind's name among the schemas: that of Kubernetes for its own groups, else the group reversed.
pub(super) fn name(kind: &KindDef, version: &str) -> String {
    let group = match kind.group.strip_suffix(".k8s.io") {
        None if !kind.group.contains('.') => {
            format!(
                "io.k8s.api.{}",
                if kind.group.is_empty() {
                    "core"
                } else {
                    &kind.group
                }
            )
        }
        Some(first) => format!("io.k8s.api.{}", first.split('.').next().unwrap_or(first)),
        None => kind.group.split('.').rev().collect::<Vec<_>>().join("."),
    };
    format!("{group}.{version}.{}", kind.kind)
}

pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// Adds the schemas of one version of a kind.
pub(super) fn add(components: &mut Map<String, Value>, kind: &KindDef, version: &VersionDef) {
    let name = name(kind, &version.name);
    let gvk = |kind_name: &str| json!([{"group": kind.group, "kind": kind_name, "version": version.name}]);
    let mut schema = version.schema.clone();
    if !schema.is_object() {
        schema = json!({"type": "object"});
    }
    let list_kind = format!("{}List", kind.kind);
    let metadata = schema
        .pointer("/properties/metadata")
        .cloned()
        .unwrap_or_else(|| json!({"type": "object"}));
    schema["x-kubernetes-group-version-kind"] = gvk(&kind.kind);
    schema["properties"]["metadata"] = json!({
        "allOf": [reference(OBJECT_META)], "default": {},
        "description": metadata.get("description").cloned().unwrap_or_else(|| "Standard object metadata.".into()),
    });
    for (field, text) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        schema["properties"][field] = json!({"type": "string", "description": text});
    }
    let list = json!({
        "type": "object",
        "description": format!("A list of {}.", kind.plural),
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": API_VERSION},
            "kind": {"type": "string", "description": KIND},
            "metadata": {"allOf": [reference(LIST_META)], "default": {}, "description": "What is true of the list as a whole."},
            "items": {"type": "array", "description": "The objects.", "items": {"allOf": [reference(&name)], "default": {}}},
        },
        "x-kubernetes-group-version-kind": gvk(&list_kind),
    });
    components.insert(format!("{name}List"), list);
    components.insert(name, schema);
    components.entry(OBJECT_META).or_insert(metadata);
    for (name, make) in SHARED {
        components.entry(name).or_insert_with(make);
    }
}

const API_VERSION: &str = "Group and version of the form that the object is written in.";
const KIND: &str = "What the object is, as a word in camel case.";
/// A name and what makes the schema.
type Shared = (&'static str, fn() -> Value);

const SHARED: [Shared; 4] = [
    (LIST_META, list_meta),
    (STATUS, status),
    (DELETE_OPTIONS, delete_options),
    (PATCH, patch),
];

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn list_meta() -> Value {
    json!({"type": "object", "description": "What is true of a list as a whole.", "properties": {
        "continue": text("Send it with the next request to go on where this page ends."),
        "remainingItemCount": {"type": "integer", "format": "int64", "description": "How many objects come after this page."},
        "resourceVersion": text("The revision that the list shows; watch from there."),
        "selfLink": text("No longer used."),
    }})
}

fn status() -> Value {
    json!({"type": "object", "description": "The outcome of a request that gives no object.",
    "x-kubernetes-group-version-kind": [{"group": "", "kind": "Status", "version": "v1"}],
    "properties": {
        "apiVersion": text(API_VERSION),
        "kind": text(KIND),
        "metadata": {"allOf": [reference(LIST_META)], "default": {}},
        "code": {"type": "integer", "format": "int32", "description": "The HTTP code."},
        "status": text("`Success` or `Failure`."),
        "reason": text("A word that programs can go by."),
        "message": text("A sentence for people."),
        "details": {"type": "object", "description": "What the outcome is about.", "properties": {
            "group": text("The group."), "kind": text("The resource."), "name": text("The name."), "uid": text("The UID."),
            "retryAfterSeconds": {"type": "integer", "format": "int32", "description": "Ask again after so many seconds."},
            "causes": {"type": "array", "description": "Each single thing that is wrong.", "items": {"type": "object", "properties": {
                "field": text("The field."), "message": text("What is wrong with it."), "reason": text("A word for it."),
            }}},
        }},
    }})
}

fn delete_options() -> Value {
    json!({"type": "object", "description": "How to delete.",
    "x-kubernetes-group-version-kind": [{"group": "", "kind": "DeleteOptions", "version": "v1"}],
    "properties": {
        "apiVersion": text(API_VERSION),
        "kind": text(KIND),
        "dryRun": {"type": "array", "items": {"type": "string"}, "description": "`All` changes nothing."},
        "gracePeriodSeconds": {"type": "integer", "format": "int64", "description": "Seconds to give the object; 0 is at once."},
        "orphanDependents": {"type": "boolean", "description": "Use propagationPolicy."},
        "propagationPolicy": text("What happens to dependents: `Orphan`, `Background` or `Foreground`."),
        "preconditions": {"type": "object", "description": "What must hold, else the request is refused.", "properties": {
            "uid": text("The UID."), "resourceVersion": text("The revision."),
        }},
    }})
}

fn patch() -> Value {
    json!({"type": "object", "description": "A patch, in the form that its content type names."})
}
