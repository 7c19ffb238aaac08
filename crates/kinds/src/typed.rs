//! Objects as types, for the domains that act on them. Unknown fields are passed over; whoever writes an object
//! back works on the JSON, so nothing is lost.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

use crate::object::{Object, ObjectKey};

/// Why an object can't be read as its type. Objects that passed validation can be.
#[derive(Debug, thiserror::Error)]
#[error("{key} has not the fields of its kind")]
pub struct TypedError {
    /// The object.
    pub key: ObjectKey,
    /// What is wrong.
    #[source]
    pub source: serde_json::Error,
}

/// The facts that every object has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Name.
    pub name: String,
    /// Namespace, empty for kinds of cluster scope.
    pub namespace: String,
    /// UID, empty before the object is stored.
    pub uid: String,
    /// Counts changes of the spec.
    pub generation: i64,
    /// Labels.
    #[serde(deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(deserialize_with = "null_is_default")]
    pub annotations: BTreeMap<String, String>,
    /// When it was made, RFC 3339.
    pub creation_timestamp: Option<String>,
    /// When deletion was asked for, RFC 3339.
    pub deletion_timestamp: Option<String>,
    /// Who must finish before the object goes away.
    #[serde(deserialize_with = "null_is_default")]
    pub finalizers: Vec<String>,
}

impl Metadata {
    /// `namespace/name`, or the name alone.
    #[must_use]
    pub fn full_name(&self) -> String {
        if self.namespace.is_empty() {
            self.name.clone()
        } else {
            format!("{}/{}", self.namespace, self.name)
        }
    }
}

/// Reads an object as a type.
pub fn read<T: DeserializeOwned>(object: &Object) -> Result<T, TypedError> {
    T::deserialize(object).map_err(|source| TypedError {
        key: ObjectKey::of(object),
        source,
    })
}

/// A null is the same as an absent field.
pub(crate) fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
