//! Reading what a virtual machine refers to.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use apiserver::Status;
use base64::{Engine, engine::general_purpose::STANDARD};
use kinds::{Object, gvr, object};
use reconcile::Key;
use serde_json::Value;

use super::{Bootstrap, Shared, classes};

/// Namespace of classes that were written without one.
const GLOBAL: &str = "default";

impl Shared {
    /// The class: in the same namespace, else the global one, else a predefined one.
    pub(super) async fn class(&self, vm: &Object) -> Result<Option<Object>, Status> {
        let name = vm["spec"]["className"].as_str().unwrap_or_default();
        let resource = gvr::virtual_machine_classes();
        for namespace in [object::namespace(vm), GLOBAL] {
            if let Some(class) = self.objects.get(&resource, namespace, name).await? {
                return Ok(Some(class));
            }
        }
        Ok(classes::named(name))
    }

    /// The ConfigMap's or Secret's content.
    pub(super) async fn bootstrap(&self, vm: &Object) -> Result<Bootstrap, Status> {
        let metadata = &vm["spec"]["vmMetadata"];
        let named = |key: &str| metadata[key].as_str().filter(|name| !name.is_empty());
        let (kind, resource, name) = match (named("configMapName"), named("secretName")) {
            (Some(name), _) => ("ConfigMap", gvr::config_maps(), name),
            (None, Some(name)) => ("Secret", gvr::secrets(), name),
            (None, None) => return Ok(Bootstrap::None),
        };
        Ok(
            match self.objects.get(&resource, object::namespace(vm), name).await? {
                Some(source) => Bootstrap::Data(content(kind, &source)),
                None => Bootstrap::Missing(kind, name.into()),
            },
        )
    }
}

/// A ConfigMap has texts in `data` and base64 in `binaryData`; a Secret has base64 in `data`, and texts in
/// `stringData` where it was stored as written.
fn content(kind: &str, source: &Object) -> BTreeMap<String, Vec<u8>> {
    let (texts, packed) = if kind == "Secret" {
        ("stringData", "data")
    } else {
        ("data", "binaryData")
    };
    let entries = |field: &str| {
        source[field]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.clone(), v.clone()))
    };
    let text = |value: Value| match value {
        Value::String(text) => text.into_bytes(),
        other => other.to_string().into_bytes(),
    };
    let mut out = BTreeMap::new();
    for (key, value) in entries(packed) {
        if let Some(bytes) = value.as_str().and_then(|v| STANDARD.decode(v.trim()).ok()) {
            out.insert(key, bytes);
        }
    }
    out.extend(entries(texts).map(|(key, value)| (key, text(value))));
    out
}

/// What an object is looked up by: plural, namespace, name.
type Reference = (String, String, String);

/// Which virtual machine refers to what, so that a change of one of thousands of ConfigMaps wakes only those that
/// it concerns.
#[derive(Debug, Default)]
pub(super) struct References(Mutex<BTreeMap<Key, Vec<Reference>>>);

impl References {
    pub(super) fn set(&self, key: &Key, references: Vec<Reference>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if references.is_empty() {
            all.remove(key)
        } else {
            all.insert(key.clone(), references)
        };
    }

    pub(super) fn users(&self, plural: &str, namespace: &str, name: &str) -> Vec<Key> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let named = |list: &Vec<Reference>| {
            list.iter()
                .any(|(p, s, n)| (p.as_str(), s.as_str(), n.as_str()) == (plural, namespace, name))
        };
        all.iter()
            .filter(|(_, list)| named(list))
            .map(|(key, _)| key.clone())
            .collect()
    }
}

/// What a virtual machine refers to, wherever it might be.
pub(super) fn references(vm: &Object) -> Vec<Reference> {
    let spec = &vm["spec"];
    let metadata = &spec["vmMetadata"];
    let namespace = object::namespace(vm);
    let mut out = Vec::new();
    let mut add = |plural: String, namespace: &str, name: &Value| {
        if let Some(name) = name.as_str().filter(|name| !name.is_empty()) {
            out.push((plural, namespace.to_owned(), name.to_owned()));
        }
    };
    add(
        gvr::virtual_machine_classes().plural,
        namespace,
        &spec["className"],
    );
    add(gvr::virtual_machine_classes().plural, GLOBAL, &spec["className"]);
    add(gvr::config_maps().plural, namespace, &metadata["configMapName"]);
    add(gvr::secrets().plural, namespace, &metadata["secretName"]);
    out
}
