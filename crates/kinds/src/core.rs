//! ConfigMap and Secret as types: keys and bytes.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use crate::{
    object::Object,
    typed::{self, Metadata, TypedError, null_is_default},
};

/// A ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigMap {
    /// Name, namespace and so on.
    pub metadata: Metadata,
    /// Text and bytes by key, both as bytes.
    pub data: BTreeMap<String, Vec<u8>>,
}

/// A Secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret {
    /// Name, namespace and so on.
    pub metadata: Metadata,
    /// What it is for, for example `Opaque`.
    pub kind: String,
    /// Decoded bytes by key.
    pub data: BTreeMap<String, Vec<u8>>,
}

impl std::fmt::Debug for Secret {
    // What is secret stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret")
            .field("metadata", &self.metadata.full_name())
            .field("keys", &self.data.keys())
            .finish()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default, deserialize_with = "null_is_default")]
    data: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_is_default")]
    binary_data: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_is_default")]
    string_data: BTreeMap<String, String>,
}

impl ConfigMap {
    /// From an object.
    pub fn from_object(object: &Object) -> Result<Self, TypedError> {
        let raw: Raw = typed::read(object)?;
        let mut data = decode(raw.binary_data);
        data.extend(raw.data.into_iter().map(|(key, text)| (key, text.into_bytes())));
        Ok(Self {
            metadata: raw.metadata,
            data,
        })
    }
}

impl Secret {
    /// From an object; `stringData`, if the object has not been through admission, wins.
    pub fn from_object(object: &Object) -> Result<Self, TypedError> {
        let raw: Raw = typed::read(object)?;
        let mut data = decode(raw.data);
        data.extend(
            raw.string_data
                .into_iter()
                .map(|(key, text)| (key, text.into_bytes())),
        );
        Ok(Self {
            metadata: raw.metadata,
            kind: raw.kind,
            data,
        })
    }

    /// A value as text, if it is there and is UTF-8.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        std::str::from_utf8(self.data.get(key)?).ok()
    }
}

/// What is no base64 has not passed validation; it is left out.
fn decode(data: BTreeMap<String, String>) -> BTreeMap<String, Vec<u8>> {
    let plain = |text: String| text.replace(['\n', '\r'], "");
    data.into_iter()
        .filter_map(|(key, text)| Some((key, STANDARD.decode(plain(text)).ok()?)))
        .collect()
}
