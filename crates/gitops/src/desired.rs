//! What a Kustomization asks for: the objects of its folder at a commit, with everything filled in that the
//! commit does not say itself. Pure.

use std::collections::{BTreeMap, HashMap};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kinds::{
    flux::{self, Kustomization},
    object::{self, Gvr, ObjectKey},
    registry::Registry,
};
use kustomize::{
    BuildError, NotServed, Tree, check,
    order::{self, Stage},
    substitute,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Annotation: the file in the repository that an object comes from.
pub(crate) const SOURCE_PATH: &str = "selvedge.dev/source-path";

/// A short digest of content.
pub(crate) type Hash = [u8; 16];

/// What names one object wanted, without its content.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) key: ObjectKey,
    pub(crate) gvr: Gvr,
    pub(crate) stage: Stage,
    /// Of the object as it is applied.
    pub(crate) hash: Hash,
    /// File and line.
    pub(crate) place: String,
}

/// Everything that is wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Desired {
    pub(crate) wanted: Vec<Wanted>,
    pub(crate) not_served: Vec<NotServed>,
    /// For the status: unknown fields, files that were skipped.
    pub(crate) warnings: Vec<String>,
}

/// At most so many warnings in a status.
const WARNINGS: usize = 20;

/// Builds what a Kustomization wants, and the objects in the same order.
pub(crate) fn desire(
    tree: &dyn Tree,
    ignore: Option<&str>,
    kustomization: &Kustomization,
    variables: &BTreeMap<String, String>,
    registry: &Registry,
) -> Result<(Desired, Vec<Value>), Vec<BuildError>> {
    let options = kustomize::flux::options(kustomization, ignore).map_err(|e| vec![e])?;
    let mut built = kustomize::build(tree, &kustomization.spec.path, &options)?;
    let mut errors = Vec::new();
    for located in &mut built.objects {
        if let Err((field, why)) = substitute::substitute(&mut located.object, variables) {
            let error = BuildError::new(&located.file, why.to_string());
            errors.push(BuildError {
                line: located.line,
                field,
                ..error
            });
        }
    }
    let checked = check(tree, built.objects, registry);
    errors.extend(checked.errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut warnings: Vec<BuildError> = built.warnings;
    warnings.extend(checked.warnings);
    let skipped = built
        .skipped
        .iter()
        .map(|(file, why)| BuildError::new(file, format!("skipped: {why}")));
    warnings.extend(skipped);
    let mut desired = Desired {
        not_served: checked.not_served,
        warnings: check::summary(&warnings, WARNINGS),
        ..Desired::default()
    };
    let mut objects = Vec::with_capacity(checked.objects.len());
    for located in checked.objects {
        let place = located.place();
        let mut object = located.object;
        mark(&mut object, kustomization, &located.file);
        let key = ObjectKey::of(&object);
        let Some(kind) = registry.by_kind(&key.group, &key.kind) else {
            continue;
        };
        let hash = digest(&object);
        desired.wanted.push(Wanted {
            stage: order::stage(&key.kind),
            gvr: kind.gvr(),
            hash,
            place,
            key,
        });
        objects.push(object);
    }
    Ok((desired, objects))
}

/// Writes on an object whose it is and where it comes from.
fn mark(object: &mut Value, owner: &Kustomization, file: &str) {
    let labels: [(&str, &str); 2] = [
        (flux::OWNER_NAME, &owner.metadata.name),
        (flux::OWNER_NAMESPACE, &owner.metadata.namespace),
    ];
    let metadata = object::metadata_mut(object);
    // Fields that only the API writes; a manifest that was once exported may have them.
    for field in [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "generation",
        "managedFields",
        "selfLink",
    ] {
        metadata.remove(field);
    }
    put(metadata, "labels", labels);
    put(metadata, "annotations", [(SOURCE_PATH, file)]);
    if let Some(root) = object.as_object_mut() {
        root.remove("status");
    }
    if object::kind(object) == "Secret" && object::api_version(object) == "v1" {
        text_into_data(object);
    }
}

/// Puts the text of a Secret into its data, as the API would. Here already, so that a key that is gone from
/// the text is seen as one that Git no longer has.
fn text_into_data(secret: &mut Value) {
    let Some(root) = secret.as_object_mut() else {
        return;
    };
    let Some(Value::Object(text)) = root.remove("stringData") else {
        return;
    };
    let data = root.entry("data").or_insert(Value::Null);
    if data.is_null() {
        *data = Value::Object(serde_json::Map::new());
    }
    if let Some(data) = data.as_object_mut() {
        for (key, value) in text {
            let bytes = value.as_str().unwrap_or_default().as_bytes();
            data.insert(key, STANDARD.encode(bytes).into());
        }
    }
}

fn put<'a>(
    metadata: &mut serde_json::Map<String, Value>,
    field: &str,
    pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
) {
    let map = metadata.entry(field).or_insert(Value::Null);
    if !map.is_object() {
        *map = Value::Object(serde_json::Map::new());
    }
    if let Some(map) = map.as_object_mut() {
        map.extend(pairs.into_iter().map(|(k, v)| (k.to_owned(), Value::from(v))));
    }
}

/// A digest of an object. Maps are sorted, so that it does not depend on the order of fields.
pub(crate) fn digest(object: &Value) -> Hash {
    struct Into256(Sha256);
    impl std::io::Write for Into256 {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut sink = Into256(Sha256::new());
    // Neither a value nor this sink can fail.
    let _ = serde_json::to_writer(&mut sink, object);
    let whole = sink.0.finalize();
    let mut short = Hash::default();
    short.copy_from_slice(&whole[..16]);
    short
}

/// The id of an object in an inventory, as Flux writes it.
pub(crate) fn inventory_id(key: &ObjectKey) -> String {
    format!(
        "{}_{}_{}_{}",
        key.namespace,
        key.name.replace(':', "__"),
        key.group,
        key.kind
    )
}

/// The object of an inventory's id.
pub(crate) fn from_inventory_id(id: &str) -> Option<ObjectKey> {
    let (namespace, rest) = id.split_once('_')?;
    let (rest, kind) = rest.rsplit_once('_')?;
    let (name, group) = rest.rsplit_once('_')?;
    Some(ObjectKey {
        group: group.into(),
        kind: kind.into(),
        namespace: namespace.into(),
        name: name.replace("__", ":"),
    })
}

/// The wanted objects by key.
pub(crate) fn by_key(wanted: &[Wanted]) -> HashMap<&ObjectKey, usize> {
    wanted
        .iter()
        .enumerate()
        .map(|(at, wanted)| (&wanted.key, at))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inventory_ids_go_both_ways() {
        for (namespace, name, group, kind) in [
            ("shop", "till", "vmoperator.vmware.com", "VirtualMachine"),
            ("", "shop", "", "Namespace"),
            ("", "system:x", "rbac.authorization.k8s.io", "ClusterRole"),
            ("default", "a.b-c", "", "ConfigMap"),
        ] {
            let key = ObjectKey {
                group: group.into(),
                kind: kind.into(),
                namespace: namespace.into(),
                name: name.into(),
            };
            assert_eq!(from_inventory_id(&inventory_id(&key)), Some(key));
        }
        assert_eq!(from_inventory_id("junk"), None);
    }
}
