//! Reading the OpenAPI v3 schema: which lists and maps are merged, by which keys, and which are one piece.

use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// Deeper than this, a value is taken as one piece. JSON from the wire is at most 128 deep.
pub(crate) const MAX_DEPTH: usize = 200;

/// What the schema says of one value; `None` where it says nothing, and the form is deduced from the value: maps are
/// granular, lists are one piece.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Type<'s>(pub(crate) Option<&'s Value>);

/// How a value is merged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form<'s> {
    /// One piece: a scalar, or an atomic list or map.
    Leaf,
    /// Field by field.
    Map(Type<'s>),
    /// Item by item.
    List(ListType<'s>),
}

/// An associative list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListType<'s> {
    /// The names of the key fields; `None` for a set.
    pub(crate) keys: Option<Keys<'s>>,
    /// Its items.
    pub(crate) item: Type<'s>,
}

/// The key fields of a list of maps.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Keys<'s> {
    Many(&'s [Value]),
    One(&'s str),
}

impl<'s> Keys<'s> {
    pub(crate) fn iter(self) -> impl Iterator<Item = &'s str> {
        let (many, one) = match self {
            Keys::Many(names) => (names, None),
            Keys::One(name) => (&[][..], Some(name)),
        };
        many.iter().filter_map(Value::as_str).chain(one)
    }
}

/// `metadata` is the same in every kind, and schemas of custom kinds leave it out.
static METADATA: LazyLock<Value> = LazyLock::new(|| {
    let strings = json!({"type": "object", "additionalProperties": {"type": "string"}});
    json!({"type": "object", "properties": {
        "labels": strings, "annotations": strings,
        "finalizers": {
            "type": "array", "items": {"type": "string"},
            "x-kubernetes-list-type": "set", "x-kubernetes-patch-strategy": "merge"
        },
        "ownerReferences": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uid"],
            "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "uid",
            "items": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"uid": {"type": "string"}}}
        },
        "managedFields": {"type": "array", "x-kubernetes-list-type": "atomic"}
    }})
});

impl<'s> Type<'s> {
    pub(crate) fn get(self, key: &str) -> Option<&'s Value> {
        self.0?.get(key)
    }

    fn text(self, key: &str) -> Option<&'s str> {
        self.get(key)?.as_str()
    }

    fn properties(self) -> Option<&'s Map<String, Value>> {
        self.get("properties")?.as_object()
    }

    /// The type of a field, and whether the schema names it (else it is an entry of a map, or unknown).
    pub(crate) fn field(self, name: &str) -> (Self, bool) {
        if let Some(schema) = self.properties().and_then(|p| p.get(name)) {
            return (Self(Some(schema)), true);
        }
        (
            Self(self.get("additionalProperties").filter(|a| a.is_object())),
            false,
        )
    }

    /// The type of a field of the object's top; `metadata` is known without a schema.
    pub(crate) fn root_field(self, name: &str) -> (Self, bool) {
        if name == "metadata" {
            (Self(Some(&METADATA)), true)
        } else {
            self.field(name)
        }
    }

    /// The default of a field, with which a list item may be known by a key it does not spell out.
    pub(crate) fn default_of(self, name: &str) -> Option<&'s Value> {
        self.properties()?.get(name)?.get("default")
    }

    /// How this value is merged. `null` counts as an empty map or list where the schema says so.
    pub(crate) fn form(self, value: &Value) -> Form<'s> {
        match value {
            Value::Object(_) => self.map_form(),
            Value::Array(_) => self.list_form(),
            Value::Null => match self.text("type") {
                Some("object") | None => self.map_form(),
                Some("array") => self.list_form(),
                Some(_) => Form::Leaf,
            },
            _ => Form::Leaf,
        }
    }

    /// Whether the schema says of a map or list that it is one piece.
    pub(crate) fn is_atomic_container(self) -> bool {
        match self.text("type") {
            Some("object") => matches!(self.map_form(), Form::Leaf),
            Some("array") => matches!(self.list_form(), Form::Leaf),
            _ => false,
        }
    }

    fn map_form(self) -> Form<'s> {
        if self.text("x-kubernetes-map-type") == Some("atomic") {
            Form::Leaf
        } else {
            Form::Map(self)
        }
    }

    fn list_form(self) -> Form<'s> {
        let item = Self(self.get("items"));
        match self.text("x-kubernetes-list-type") {
            Some("set") => Form::List(ListType { keys: None, item }),
            Some("map") => match self.get("x-kubernetes-list-map-keys").and_then(Value::as_array) {
                Some(names) if !names.is_empty() => Form::List(ListType {
                    keys: Some(Keys::Many(names)),
                    item,
                }),
                _ => Form::Leaf,
            },
            Some(_) => Form::Leaf,
            None if self.merges_by_patch() => Form::List(ListType {
                keys: self.text("x-kubernetes-patch-merge-key").map(Keys::One),
                item,
            }),
            None => Form::Leaf,
        }
    }

    /// Whether strategic merge patches merge this list.
    pub(crate) fn merges_by_patch(self) -> bool {
        self.strategies().any(|s| s == "merge")
    }

    /// The words of `x-kubernetes-patch-strategy`.
    pub(crate) fn strategies(self) -> impl Iterator<Item = &'s str> {
        self.text("x-kubernetes-patch-strategy")
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
    }

    /// The key by which strategic merge patches know this list's items.
    pub(crate) fn patch_key(self) -> Option<&'s str> {
        self.text("x-kubernetes-patch-merge-key")
    }
}
