//! The kinds a host serves, as data.

mod load;

use serde_json::Value;

pub use self::load::LoadError;
pub(crate) use self::load::load_with_pieces;
use crate::{
    columns::Computed,
    event, metadata,
    object::{Gvk, Gvr, Object},
    rules, schema,
};

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
    /// Group and kind as which objects are stored, if another kind's view of the same objects is stored: the
    /// events of `events.k8s.io` are the core group's. See [`Registry::stored`].
    pub stored_as: Option<(String, String)>,
    /// Paths that field selectors may name beside `metadata.name` and `metadata.namespace`.
    pub selectable_fields: Vec<String>,
    /// Paths of fields that can't be changed after creation.
    pub immutable: Vec<String>,
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

/// A column of `kubectl get`. [`Column::cell`] gives its value for an object.
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
    /// Empty if the column is computed.
    pub json_path: String,
    /// What a JSONPath can't give.
    pub computed: Option<Computed>,
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

/// The reasons of field errors.
pub mod reason {
    /// A field is missing.
    pub const REQUIRED: &str = "FieldValueRequired";
    /// A value is malformed or out of bounds.
    pub const INVALID: &str = "FieldValueInvalid";
    /// A value is none of those that are known.
    pub const NOT_SUPPORTED: &str = "FieldValueNotSupported";
    /// A field can't be set here or now.
    pub const FORBIDDEN: &str = "FieldValueForbidden";
    /// A value is in a list twice.
    pub const DUPLICATE: &str = "FieldValueDuplicate";
    /// A value has the wrong type.
    pub const TYPE: &str = "FieldValueTypeInvalid";
}

impl FieldError {
    /// A field error; `reason` is one of [`reason`].
    pub fn new(path: &str, reason: &str, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            reason: reason.into(),
            message: message.into(),
        }
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

/// All kinds that a host serves.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    kinds: Vec<KindDef>,
}

impl Registry {
    /// The kinds of this version of Selvedge.
    ///
    /// # Panics
    /// Never in a build whose tests passed: the documents are part of the program.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "the documents are compiled in and loaded by a test"
    )]
    pub fn builtin() -> Self {
        Self {
            kinds: load::builtin().expect("the built-in kind documents are well-formed"),
        }
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
        self.kinds
            .iter()
            .find(|k| k.group == gvr.group && k.plural == gvr.plural && k.version(&gvr.version).is_some())
    }

    /// A kind by group, version and kind; `None` also if that version is not served.
    #[must_use]
    pub fn by_gvk(&self, gvk: &Gvk) -> Option<&KindDef> {
        self.by_kind(&gvk.group, &gvk.kind)
            .filter(|k| k.version(&gvk.version).is_some())
    }

    /// The kind under which objects of `kind` are stored: itself, but for kinds that are another view of the
    /// same objects ([`KindDef::stored_as`]).
    #[must_use]
    pub fn stored<'a>(&'a self, kind: &'a KindDef) -> &'a KindDef {
        kind.stored_as
            .as_ref()
            .and_then(|(group, name)| self.by_kind(group, name))
            .unwrap_or(kind)
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
        Gvr {
            group: self.group.clone(),
            version: self.storage_version.clone(),
            plural: self.plural.clone(),
        }
    }

    fn schema_for(&self, object: &Object) -> Option<&Value> {
        let gvk = Gvk::of(object);
        self.version(&gvk.version)
            .or_else(|| self.version(&self.storage_version))
            .map(|v| &v.schema)
    }

    /// Fills in the defaults of an object of this kind. Nulls in fields that can't be null are removed.
    pub fn set_defaults(&self, object: &mut Object) {
        if let Some(schema) = self.schema_for(object) {
            schema::set_defaults(schema, object);
        }
    }

    /// What admission does to an object before it is stored, beside defaults: no `status` at creation, a stray
    /// namespace of a kind of cluster scope removed, and the rules of the kind (text of a Secret into its data,
    /// the power state of a new virtual machine, `nextRestartTime: now` into a time). `old` is the stored object
    /// for an update; `now` is RFC 3339. The same call twice changes nothing more.
    pub fn admit(&self, old: Option<&Object>, new: &mut Object, now: &str) {
        if old.is_none()
            && self.has_status
            && let Some(map) = new.as_object_mut()
        {
            map.remove("status");
        }
        if self.scope == Scope::Cluster
            && let Some(metadata) = new.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.remove("namespace");
        }
        rules::admit(self, old, new, now);
    }

    /// What is wrong with an object of this kind, empty if nothing. Unknown fields are never wrong.
    #[must_use]
    pub fn validate(&self, object: &Object) -> Vec<FieldError> {
        let mut errors = Vec::new();
        metadata::validate(self, object, &mut errors);
        if let Some(schema) = self.schema_for(object) {
            schema::validate(schema::Entries::ByIndex, schema, object, "", &mut errors);
        }
        // The rules may take for granted that the shape is right.
        if errors.is_empty() {
            rules::validate(self, object, &mut errors);
        }
        errors
    }

    /// What is wrong with a change of an object of this kind (immutable fields and the like).
    #[must_use]
    pub fn validate_update(&self, old: &Object, new: &Object) -> Vec<FieldError> {
        let mut errors = Vec::new();
        metadata::validate_update(old, new, &mut errors);
        for path in &self.immutable {
            let at = |object: &Object| {
                crate::jsonpath::first(object, path)
                    .cloned()
                    .unwrap_or(Value::Null)
            };
            let (was, is) = (at(old), at(new));
            // An empty text is the same as none.
            let empty = |v: &Value| v.is_null() || v.as_str() == Some("");
            if was != is && !(empty(&was) && empty(&is)) {
                let message = format!(
                    "invalid value: {is}: field is immutable; it was {was}. Delete the object and make it anew"
                );
                errors.push(FieldError::new(path, reason::INVALID, message));
            }
        }
        rules::validate_update(self, old, new, &mut errors);
        errors
    }

    /// Paths of fields that the schema does not know, for example `spec.networkInterfaces[0].foo`; at most 100.
    /// They are kept; the caller warns.
    #[must_use]
    pub fn unknown_fields(&self, object: &Object) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(schema) = self.schema_for(object) {
            schema::unknown_fields(schema::Entries::ByIndex, schema, object, "", &mut found);
        }
        found
    }

    /// Rewrites an object of one served version into another.
    pub fn convert(&self, object: &mut Object, to_version: &str) {
        object["apiVersion"] = Value::String(
            Gvk {
                group: self.group.clone(),
                version: to_version.into(),
                kind: self.kind.clone(),
            }
            .api_version(),
        );
    }

    /// Rewrites an object of this kind, in whatever served version, into the form that is stored: the storage
    /// version of [`Registry::stored`].
    pub fn to_stored(&self, object: &mut Object) {
        if self.stored_as.is_some() {
            event::into_core(object);
        } else {
            self.convert(object, &self.storage_version);
        }
    }

    /// Rewrites a stored object into this kind in a served version: the reverse of [`KindDef::to_stored`].
    pub fn from_stored(&self, object: &mut Object, to_version: &str) {
        if self.stored_as.is_some() {
            event::into_events(object);
        } else {
            self.convert(object, to_version);
        }
    }
}
