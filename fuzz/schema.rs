//! A schema with every kind of list and map.

use std::sync::LazyLock;

use serde_json::{Value, json};

pub static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "t": {"type": "string"},
        "a": {"type": "array", "items": {"type": "string"}},
        "s": {"type": "array", "x-kubernetes-list-type": "set", "x-kubernetes-patch-strategy": "merge"},
        "l": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k", "p"],
            "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "k",
            "items": {"type": "object", "properties": {"k": {}, "p": {"default": "TCP"},
                "s": {"type": "array", "x-kubernetes-list-type": "set"}}}},
        "m": {"type": "object", "additionalProperties": {"type": "object", "properties": {"t": {"type": "string"}}}},
        "w": {"type": "object", "x-kubernetes-map-type": "atomic"},
        "r": {"type": "object", "x-kubernetes-patch-strategy": "retainKeys"},
        "f": {"x-kubernetes-preserve-unknown-fields": true}
    }}}})
});
