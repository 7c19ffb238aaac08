//! The kinds a host serves, as data.

use serde_json::Value;

use crate::object::{Gvk, Gvr, Object};

/// Whether objects of a kind live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In a namespace.
    Namespaced,
    /// On the host as a whole.
    Cluster,
}

/// A kind: its names, its scope and its versions.
#[derive(Clone, Debug)]
pub struct KindDef {
    /// API group, empty for core.
    pub group: String,
    /// Kind, for example `VirtualMachine`.
    pub kind: String,
    /// Lower-case plural.
    pub plural: String,
    /// Lower-case singular.
    pub singular: String,
    /// Short names for the command line.
    pub short_names: Vec<String>,
    /// Categories such as `all`.
    pub categories: Vec<String>,
    /// Scope.
    pub scope: Scope,
    /// The version that is stored.
    pub storage_version: String,
    /// All served versions, preferred first.
    pub versions: Vec<VersionDef>,
    /// Whether `status` is a subresource.
    pub has_status: bool,
    /// Kept in memory only (events, leases).
    pub ephemeral: bool,
    /// Paths that field selectors may name beside `metadata.name` and `metadata.namespace`.
    pub selectable_fields: Vec<String>,
}

/// One version of a kind.
#[derive(Clone, Debug)]
pub struct VersionDef {
    /// For example `v1alpha1`.
    pub name: String,
    /// The OpenAPI v3 schema of the object with `x-kubernetes-*` extensions, without `$ref`.
    pub schema: Value,
    /// Columns of `kubectl get` beside the name.
    pub columns: Vec<Column>,
}

/// A column of `kubectl get`.
#[derive(Clone, Debug)]
pub struct Column {
    /// Header.
    pub name: String,
    /// `string`, `integer`, `boolean`, `date`.
    pub kind: String,
    /// `date-time`, or empty.
    pub format: String,
    /// For people.
    pub description: String,
    /// 0 is always shown; greater only with `-o wide`.
    pub priority: i32,
    /// A JSONPath as in CustomResourceDefinitions: `.spec.className`, `.status.conditions[?(@.type=="Ready")].status`.
    pub json_path: String,
}

/// Something wrong with a field, for a `422 Invalid` answer or a line of `selvedge validate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// For example `spec.networkInterfaces[1].networkName`.
    pub path: String,
    /// `FieldValueRequired`, `FieldValueInvalid`, `FieldValueNotSupported`, `FieldValueForbidden`, `FieldValueDuplicate`,
    /// `FieldValueTypeInvalid`, as Kubernetes names causes.
    pub reason: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// All kinds that a host serves.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    kinds: Vec<KindDef>,
}

impl Registry {
    /// The kinds of this version of Selvedge.
    #[must_use]
    pub fn builtin() -> Self {
        Self::default()
    }

    /// Every kind, in the order of discovery.
    pub fn iter(&self) -> impl Iterator<Item = &KindDef> {
        self.kinds.iter()
    }

    /// A kind by group and kind, in whatever version.
    #[must_use]
    pub fn by_kind(&self, group: &str, kind: &str) -> Option<&KindDef> {
        self.kinds.iter().find(|k| k.group == group && k.kind == kind)
    }

    /// A kind by resource; `None` also if that version is not served.
    #[must_use]
    pub fn by_resource(&self, gvr: &Gvr) -> Option<&KindDef> {
        self.kinds.iter().find(|k| k.group == gvr.group && k.plural == gvr.plural && k.version(&gvr.version).is_some())
    }

    /// A kind by group, version and kind; `None` also if that version is not served.
    #[must_use]
    pub fn by_gvk(&self, gvk: &Gvk) -> Option<&KindDef> {
        self.by_kind(&gvk.group, &gvk.kind).filter(|k| k.version(&gvk.version).is_some())
    }
}

impl KindDef {
    /// One of its versions.
    #[must_use]
    pub fn version(&self, name: &str) -> Option<&VersionDef> {
        self.versions.iter().find(|v| v.name == name)
    }

    /// The resource in the storage version.
    #[must_use]
    pub fn gvr(&self) -> Gvr {
        Gvr { group: self.group.clone(), version: self.storage_version.clone(), plural: self.plural.clone() }
    }

    /// Fills in the defaults of an object of this kind.
    pub fn set_defaults(&self, _object: &mut Object) {}

    /// What is wrong with an object of this kind, empty if nothing. Unknown fields are never wrong.
    #[must_use]
    pub fn validate(&self, _object: &Object) -> Vec<FieldError> {
        Vec::new()
    }

    /// What is wrong with a change of an object of this kind (immutable fields and the like).
    #[must_use]
    pub fn validate_update(&self, _old: &Object, _new: &Object) -> Vec<FieldError> {
        Vec::new()
    }

    /// Paths of fields that the schema does not know. They are kept; the caller warns.
    #[must_use]
    pub fn unknown_fields(&self, _object: &Object) -> Vec<String> {
        Vec::new()
    }

    /// Rewrites an object of one served version into another.
    pub fn convert(&self, object: &mut Object, to_version: &str) {
        object["apiVersion"] =
            Value::String(Gvk { group: self.group.clone(), version: to_version.into(), kind: self.kind.clone() }.api_version());
    }
}
