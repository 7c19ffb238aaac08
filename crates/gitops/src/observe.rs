//! What is true now of the objects that a Kustomization wants or has in its inventory.

use std::collections::{BTreeMap, HashMap, HashSet};

use apiserver::{Client, Status};
use kinds::{
    flux::{OWNER_NAME, OWNER_NAMESPACE},
    object::{self, Gvr, Object, ObjectKey},
};
use reconcile::Key;
use serde_json::Value;

use crate::{
    desired::{Hash, digest},
    health::{self, Health},
};

/// Up to so many objects of a resource are got one by one; more are listed.
const GETS: usize = 8;

/// An object as it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Live {
    /// Of all but the status and what every write changes.
    pub(crate) fingerprint: Hash,
    /// The Kustomization whose it is.
    pub(crate) owner: Option<Key>,
    /// It says that it must not be deleted when it is gone from Git.
    pub(crate) keep: bool,
    /// What it says about being applied: `kustomize.toolkit.fluxcd.io/ssa`, or `reconcile: disabled` as `Ignore`.
    pub(crate) mode: Mode,
    pub(crate) health: Health,
}

/// How an object is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Made as Git says, always.
    #[default]
    Override,
    /// Made if it is not there, then left alone.
    IfNotPresent,
    /// Never touched.
    Ignore,
}

/// The mode that an object asks for.
pub(crate) fn mode(object: &Object) -> Mode {
    let said = |key: &str| object::annotation(object, key).or_else(|| object::label(object, key));
    if said("kustomize.toolkit.fluxcd.io/reconcile") == Some("disabled") {
        return Mode::Ignore;
    }
    match said("kustomize.toolkit.fluxcd.io/ssa")
        .unwrap_or_default()
        .to_ascii_lowercase()
        .as_str()
    {
        "ignore" => Mode::Ignore,
        "ifnotpresent" => Mode::IfNotPresent,
        _ => Mode::Override,
    }
}

impl Live {
    pub(crate) fn of(object: &Object) -> Self {
        let said = |key: &str| object::annotation(object, key).or_else(|| object::label(object, key));
        let owner = object::label(object, OWNER_NAME)
            .map(|name| Key::new(object::label(object, OWNER_NAMESPACE).unwrap_or_default(), name));
        Self {
            fingerprint: fingerprint(object),
            owner,
            keep: said("kustomize.toolkit.fluxcd.io/prune") == Some("disabled"),
            mode: mode(object),
            health: health::of(object),
        }
    }
}

/// A digest of what people and Git write of an object: without status, and without what every write changes.
pub(crate) fn fingerprint(object: &Object) -> Hash {
    const CHANGING: [&str; 5] = [
        "resourceVersion",
        "managedFields",
        "generation",
        "creationTimestamp",
        "uid",
    ];
    let Some(root) = object.as_object() else {
        return digest(object);
    };
    let mut parts: BTreeMap<&str, &Value> = BTreeMap::new();
    for (field, value) in root
        .iter()
        .filter(|(field, _)| !matches!(field.as_str(), "status" | "metadata"))
    {
        parts.insert(field, value);
    }
    let metadata = root.get("metadata").and_then(Value::as_object);
    for (field, value) in metadata
        .into_iter()
        .flatten()
        .filter(|(f, _)| !CHANGING.contains(&f.as_str()))
    {
        // No field of an object has a dot in front.
        parts.insert(
            match field.as_str() {
                "name" => ".name",
                "namespace" => ".namespace",
                "labels" => ".labels",
                "annotations" => ".annotations",
                "finalizers" => ".finalizers",
                "deletionTimestamp" => ".deletionTimestamp",
                "ownerReferences" => ".ownerReferences",
                _ => continue,
            },
            value,
        );
    }
    digest(&serde_json::to_value(parts).unwrap_or_default())
}

/// Reads the objects of these keys.
pub(crate) async fn observe(
    client: &Client,
    keys: impl IntoIterator<Item = (ObjectKey, Gvr)>,
) -> Result<HashMap<ObjectKey, Live>, Status> {
    let mut by_resource: HashMap<Gvr, HashSet<ObjectKey>> = HashMap::new();
    for (key, gvr) in keys {
        by_resource.entry(gvr).or_default().insert(key);
    }
    let mut live = HashMap::new();
    for (gvr, keys) in by_resource {
        if keys.len() <= GETS {
            for key in keys {
                if let Some(object) = client.get(&gvr, &key.namespace, &key.name).await? {
                    live.insert(key, Live::of(&object));
                }
            }
            continue;
        }
        let namespaces: HashSet<&str> = keys.iter().map(|k| k.namespace.as_str()).collect();
        let only = if namespaces.len() == 1 {
            namespaces.into_iter().next().filter(|n| !n.is_empty())
        } else {
            None
        };
        for object in client.list(&gvr, only).await?.items {
            let key = ObjectKey::of(&object);
            if keys.contains(&key) {
                live.insert(key, Live::of(&object));
            }
        }
    }
    Ok(live)
}
