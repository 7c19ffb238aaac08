//! Reading and writing the common parts of any object held as JSON.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An API object as JSON: always a JSON object with `apiVersion`, `kind` and `metadata`.
pub type Object = Value;

/// A kind in one version of its group. The core group is the empty string.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Gvk {
    /// API group, empty for the core group.
    pub group: String,
    /// Version, for example `v1alpha1`.
    pub version: String,
    /// Kind, for example `VirtualMachine`.
    pub kind: String,
}

/// A resource in one version of its group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Gvr {
    /// API group, empty for the core group.
    pub group: String,
    /// Version, for example `v1alpha1`.
    pub version: String,
    /// Lower-case plural, for example `virtualmachines`.
    pub plural: String,
}

/// What names one object on a host, whatever its version: group, kind, namespace (empty if none) and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// API group, empty for the core group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace; empty for objects of cluster scope.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Gvk {
    /// From an `apiVersion` (`v1` or `group/version`) and a kind.
    #[must_use]
    pub fn new(api_version: &str, kind: &str) -> Self {
        let (group, version) = split_api_version(api_version);
        Self {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
        }
    }

    /// The kind that an object says it is.
    #[must_use]
    pub fn of(object: &Object) -> Self {
        Self::new(api_version(object), kind(object))
    }

    /// `v1` or `group/version`.
    #[must_use]
    pub fn api_version(&self) -> String {
        join_api_version(&self.group, &self.version)
    }
}

impl Gvr {
    /// From an `apiVersion` (`v1` or `group/version`) and a plural.
    #[must_use]
    pub fn new(api_version: &str, plural: &str) -> Self {
        let (group, version) = split_api_version(api_version);
        Self {
            group: group.into(),
            version: version.into(),
            plural: plural.into(),
        }
    }

    /// `v1` or `group/version`.
    #[must_use]
    pub fn api_version(&self) -> String {
        join_api_version(&self.group, &self.version)
    }
}

impl fmt::Display for Gvk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.api_version(), self.kind)
    }
}

impl fmt::Display for Gvr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.api_version(), self.plural)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

impl ObjectKey {
    /// The key of an object.
    #[must_use]
    pub fn of(object: &Object) -> Self {
        let gvk = Gvk::of(object);
        Self {
            group: gvk.group,
            kind: gvk.kind,
            namespace: namespace(object).into(),
            name: name(object).into(),
        }
    }
}

/// Splits an `apiVersion` into group (empty for core) and version.
#[must_use]
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

fn join_api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.into()
    } else {
        format!("{group}/{version}")
    }
}

fn text<'a>(object: &'a Object, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// `apiVersion`, empty if absent.
#[must_use]
pub fn api_version(object: &Object) -> &str {
    text(object, "/apiVersion")
}

/// `kind`, empty if absent.
#[must_use]
pub fn kind(object: &Object) -> &str {
    text(object, "/kind")
}

/// `metadata.name`, empty if absent.
#[must_use]
pub fn name(object: &Object) -> &str {
    text(object, "/metadata/name")
}

/// `metadata.namespace`, empty if absent.
#[must_use]
pub fn namespace(object: &Object) -> &str {
    text(object, "/metadata/namespace")
}

/// `metadata.uid`, empty if absent.
#[must_use]
pub fn uid(object: &Object) -> &str {
    text(object, "/metadata/uid")
}

/// `metadata.resourceVersion` as a number, 0 if absent or foreign.
#[must_use]
pub fn revision(object: &Object) -> u64 {
    text(object, "/metadata/resourceVersion").parse().unwrap_or(0)
}

/// `metadata.generation`, 0 if absent.
#[must_use]
pub fn generation(object: &Object) -> i64 {
    object
        .pointer("/metadata/generation")
        .and_then(Value::as_i64)
        .unwrap_or(0)
}

/// Whether `metadata.deletionTimestamp` is set.
#[must_use]
pub fn is_deleting(object: &Object) -> bool {
    object
        .pointer("/metadata/deletionTimestamp")
        .is_some_and(|at| !at.is_null())
}

/// A label's value.
#[must_use]
pub fn label<'a>(object: &'a Object, key: &str) -> Option<&'a str> {
    object.pointer("/metadata/labels")?.get(key)?.as_str()
}

/// An annotation's value.
#[must_use]
pub fn annotation<'a>(object: &'a Object, key: &str) -> Option<&'a str> {
    object.pointer("/metadata/annotations")?.get(key)?.as_str()
}

/// `metadata.finalizers`.
#[must_use]
pub fn finalizers(object: &Object) -> Vec<&str> {
    let list = object.pointer("/metadata/finalizers").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// `metadata` as a map, made if absent. An object whose `metadata` is no map gets an empty one.
pub fn metadata_mut(object: &mut Object) -> &mut serde_json::Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(serde_json::Map::new());
    }
    let Value::Object(map) = object else {
        unreachable!("made an object above")
    };
    let metadata = map
        .entry("metadata")
        .or_insert_with(|| Value::Object(serde_json::Map::new()));
    if !metadata.is_object() {
        *metadata = Value::Object(serde_json::Map::new());
    }
    let Value::Object(metadata) = metadata else {
        unreachable!("made an object above")
    };
    metadata
}
