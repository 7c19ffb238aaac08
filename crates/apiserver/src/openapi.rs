//! OpenAPI v3 and v2, made from the registry: what `kubectl explain`, `apply` and `diff` read.
//!
//! The documents are made when first asked for and kept compressed.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
};

use bytes::Bytes;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use kinds::registry::Registry;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

mod gnostic;
mod paths;
mod schemas;
mod v2;

/// What clients name to get the v2 document as protobuf.
pub(crate) const V2_PROTOBUF_ACCEPT: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// What it is called in answers: media types have no `@`.
pub(crate) const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// A document, compressed.
#[derive(Debug)]
pub(crate) struct Document {
    gzip: Bytes,
    /// Changes when the content does.
    pub(crate) etag: String,
}

/// All documents of one registry.
#[derive(Debug)]
pub(crate) struct OpenApi {
    /// `/openapi/v3`.
    pub(crate) index: Document,
    /// `/openapi/v3/<key>`, for example `apis/esx.vmware.com/v1alpha1`.
    pub(crate) v3: BTreeMap<String, Document>,
    /// `/openapi/v2` as JSON.
    pub(crate) v2_json: Document,
    /// `/openapi/v2` as protobuf.
    pub(crate) v2_protobuf: Document,
}

/// The paths and the schemas of a group version.
type Parts = (Map<String, Value>, Map<String, Value>);

impl Document {
    fn new(content: &[u8]) -> Self {
        let digest = Sha256::digest(content);
        let etag = digest.iter().map(|b| format!("{b:02X}")).collect();
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        // Writing to a Vec can't fail.
        let _ = encoder.write_all(content);
        Self {
            gzip: encoder.finish().unwrap_or_default().into(),
            etag,
        }
    }

    fn json(value: &Value) -> Self {
        Self::new(value.to_string().as_bytes())
    }

    /// The document as gzip.
    pub(crate) fn gzip(&self) -> Bytes {
        self.gzip.clone()
    }

    /// The document as it is.
    pub(crate) fn plain(&self) -> Bytes {
        let mut plain = Vec::new();
        // We compressed it ourselves.
        let _ = GzDecoder::new(&self.gzip[..]).read_to_end(&mut plain);
        plain.into()
    }
}

impl OpenApi {
    /// The documents of a registry.
    pub(crate) fn of(registry: &Registry, version: &str) -> Self {
        let mut groups: BTreeMap<String, Parts> = BTreeMap::new();
        for kind in registry.iter() {
            for version in &kind.versions {
                let key = gv_key(&kind.group, &version.name);
                let (paths, components) = groups.entry(key).or_default();
                schemas::add(components, kind, version);
                paths::add(paths, kind, version);
            }
        }
        let info = json!({"title": "Selvedge", "version": version});
        let v2 = v2::document(&info, &groups);
        let mut index = Map::new();
        let mut v3 = BTreeMap::new();
        for (key, (paths, components)) in groups {
            let document = Document::json(&json!({
                "openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": components},
            }));
            let url = format!("/openapi/v3/{key}?hash={}", document.etag);
            index.insert(key.clone(), json!({"serverRelativeURL": url}));
            v3.insert(key, document);
        }
        let index = Document::json(&json!({"paths": index}));
        Self {
            index,
            v3,
            v2_json: Document::json(&v2),
            v2_protobuf: Document::new(&gnostic::encode(&v2)),
        }
    }
}

/// `api/v1` or `apis/<group>/<version>`.
fn gv_key(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

#[cfg(test)]
mod tests;
