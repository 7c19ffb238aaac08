//! Reads the kinds from the documents in `data/`.
//!
//! A document has the names of the kind and one schema for all its versions. While reading, pieces named by
//! `use` are put in, `apiVersion`, `kind` and `metadata` are added, and every object with named fields is
//! marked to keep the fields that it does not name.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Column, KindDef, Scope, VersionDef};
use crate::columns::Computed;

const COMMON: &str = include_str!("../../data/common.yaml");

/// The documents, in the order of discovery.
pub(super) const DOCUMENTS: &[(&str, &str)] = &[
    ("namespace", include_str!("../../data/namespace.yaml")),
    ("configmap", include_str!("../../data/configmap.yaml")),
    ("secret", include_str!("../../data/secret.yaml")),
    ("event", include_str!("../../data/event.yaml")),
    ("event-events", include_str!("../../data/event-events.yaml")),
    ("lease", include_str!("../../data/lease.yaml")),
    (
        "hostconfiguration",
        include_str!("../../data/hostconfiguration.yaml"),
    ),
    ("virtualmachine", include_str!("../../data/virtualmachine.yaml")),
    (
        "virtualmachineclass",
        include_str!("../../data/virtualmachineclass.yaml"),
    ),
    ("gitrepository", include_str!("../../data/gitrepository.yaml")),
    ("kustomization", include_str!("../../data/kustomization.yaml")),
];

/// Why a document of a kind can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is no YAML of the right shape.
    #[error("kind document {name}: {message}")]
    Document {
        /// The document.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// Its schema names a piece that is not there, or pieces nest too deep.
    #[error("kind document {name}: no piece {piece:?}, or pieces nest too deep")]
    Piece {
        /// The document.
        name: String,
        /// The piece.
        piece: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    group: String,
    kind: String,
    plural: String,
    singular: String,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
    scope: String,
    storage_version: Option<String>,
    versions: Vec<String>,
    #[serde(default)]
    has_status: bool,
    #[serde(default)]
    ephemeral: bool,
    stored_as: Option<StoredAs>,
    #[serde(default)]
    selectable_fields: Vec<String>,
    #[serde(default)]
    immutable: Vec<String>,
    columns: Vec<ColumnDocument>,
    schema: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredAs {
    group: String,
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ColumnDocument {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    priority: i32,
    #[serde(default)]
    json_path: String,
    #[serde(default)]
    count: Vec<String>,
    #[serde(default)]
    first_of: Vec<String>,
    reference: Option<String>,
}

/// All kinds of this version of Selvedge.
pub(super) fn builtin() -> Result<Vec<KindDef>, LoadError> {
    let common = read::<Map<String, Value>>("common", COMMON)?;
    DOCUMENTS
        .iter()
        .map(|(name, text)| kind(name, text, &common))
        .collect()
}

/// Reads a document with a schema and, under `pieces`, the pieces that it uses.
pub(crate) fn load_with_pieces(name: &str, text: &str) -> Result<Value, LoadError> {
    let mut schema: Map<String, Value> = read(name, text)?;
    let pieces = match schema.remove("pieces") {
        Some(Value::Object(pieces)) => pieces,
        _ => Map::new(),
    };
    expand(name, Value::Object(schema), &pieces, 0)
}

fn read<T: serde::de::DeserializeOwned>(name: &str, text: &str) -> Result<T, LoadError> {
    let wrong = |message: String| LoadError::Document {
        name: name.into(),
        message,
    };
    let value: Value = serde_saphyr::from_str(text).map_err(|e| wrong(e.to_string()))?;
    serde_json::from_value(value).map_err(|e| wrong(e.to_string()))
}

fn kind(name: &str, text: &str, common: &Map<String, Value>) -> Result<KindDef, LoadError> {
    let document: Document = read(name, text)?;
    let wrong = |message: &str| LoadError::Document {
        name: name.into(),
        message: message.into(),
    };
    let scope = match document.scope.as_str() {
        "Namespaced" => Scope::Namespaced,
        "Cluster" => Scope::Cluster,
        _ => return Err(wrong("scope is neither Namespaced nor Cluster")),
    };
    let mut schema = expand(name, document.schema, common, 0)?;
    add_common_fields(&mut schema, expand(name, json!({"use": "metadata"}), common, 0)?);
    let storage_version = document
        .storage_version
        .or_else(|| document.versions.first().cloned())
        .ok_or_else(|| wrong("no versions"))?;
    let columns: Vec<Column> = document.columns.into_iter().map(column).collect();
    let versions = document.versions.into_iter().map(|version| {
        let mut schema = schema.clone();
        schema["x-kubernetes-group-version-kind"] =
            json!([{"group": document.group, "version": version, "kind": document.kind}]);
        VersionDef {
            name: version,
            schema,
            columns: columns.clone(),
        }
    });
    Ok(KindDef {
        versions: versions.collect(),
        group: document.group,
        kind: document.kind,
        plural: document.plural,
        singular: document.singular,
        short_names: document.short_names,
        categories: document.categories,
        scope,
        storage_version,
        has_status: document.has_status,
        ephemeral: document.ephemeral,
        stored_as: document.stored_as.map(|s| (s.group, s.kind)),
        selectable_fields: document.selectable_fields,
        immutable: document.immutable,
    })
}

fn column(document: ColumnDocument) -> Column {
    let computed = if !document.count.is_empty() {
        Some(Computed::Count(document.count))
    } else if !document.first_of.is_empty() {
        Some(Computed::FirstOf(document.first_of))
    } else {
        document.reference.map(Computed::Reference)
    };
    Column {
        name: document.name,
        // As in Kubernetes: a date is sent as the readable time since, which is a string.
        format: String::new(),
        kind: document.kind,
        description: document.description,
        priority: document.priority,
        json_path: document.json_path,
        computed,
    }
}

/// Puts in the pieces and marks objects, at most so deep.
fn expand(name: &str, node: Value, common: &Map<String, Value>, depth: usize) -> Result<Value, LoadError> {
    const DEEPEST: usize = 40;
    let Value::Object(mut map) = node else {
        return Ok(node);
    };
    let missing = |piece: &str| LoadError::Piece {
        name: name.into(),
        piece: piece.into(),
    };
    if depth > DEEPEST {
        return Err(missing("?"));
    }
    if let Some(piece) = map.remove("use") {
        let piece = piece.as_str().unwrap_or_default();
        let Some(Value::Object(found)) = common.get(piece) else {
            return Err(missing(piece));
        };
        for (key, value) in found {
            map.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(value) = map.remove(key) {
            map.insert(key.into(), expand(name, value, common, depth + 1)?);
        }
    }
    if let Some(Value::Object(properties)) = map.remove("properties") {
        let expanded = properties
            .into_iter()
            .map(|(k, v)| Ok((k, expand(name, v, common, depth + 1)?)));
        map.insert(
            "properties".into(),
            Value::Object(expanded.collect::<Result<_, LoadError>>()?),
        );
        map.insert("x-kubernetes-preserve-unknown-fields".into(), Value::Bool(true));
    }
    Ok(Value::Object(map))
}

fn add_common_fields(schema: &mut Value, metadata: Value) {
    schema["type"] = "object".into();
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    schema["x-kubernetes-preserve-unknown-fields"] = true.into();
    let properties = &mut schema["properties"];
    properties["apiVersion"] = json!({"type": "string", "description": "Group and version of the API that the object is written for."});
    properties["kind"] = json!({"type": "string", "description": "The kind of the object."});
    properties["metadata"] = metadata;
}
