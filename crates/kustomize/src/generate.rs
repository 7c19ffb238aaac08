//! `configMapGenerator` and `secretGenerator`.

use std::collections::BTreeMap;

use base64::Engine as _;
use kinds::object;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    build::{BuildError, Builder, wrong},
    manifest::Located,
    resource::Resource,
    transform, tree,
};

/// An entry of a generator.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Generator {
    name: String,
    namespace: String,
    behavior: String,
    literals: Vec<String>,
    files: Vec<String>,
    envs: Vec<String>,
    env: String,
    #[serde(rename = "type")]
    kind: String,
    options: Option<GeneratorOptions>,
}

/// `generatorOptions`, and `options` of one generator.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct GeneratorOptions {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    disable_name_suffix_hash: bool,
    immutable: bool,
}

/// Adds what a generator makes to the resources, or merges it into one that is there.
pub(crate) fn run(
    builder: &mut Builder<'_>,
    folder: &str,
    file: &str,
    kind: &str,
    generator: &Generator,
    common: Option<&GeneratorOptions>,
    resources: &mut Vec<Resource>,
) -> Result<(), BuildError> {
    if generator.name.is_empty() {
        return Err(BuildError::new(
            file,
            format!("a generator of a {kind} needs a name"),
        ));
    }
    let pairs = pairs(builder, folder, file, generator)?;
    let mut made = object_of(kind, generator, &pairs);
    let options = merged_options(generator.options.as_ref(), common);
    transform::put(&mut made, &["metadata", "labels"], &options.labels);
    transform::put(&mut made, &["metadata", "annotations"], &options.annotations);
    if options.immutable {
        made["immutable"] = true.into();
    }
    let there = resources.iter_mut().find(|r| {
        r.kind() == kind
            && r.keys().any(|k| {
                k.name == generator.name && (k.namespace == generator.namespace || k.namespace.is_empty())
            })
    });
    match (generator.behavior.as_str(), there) {
        ("merge", Some(old)) => {
            merge(&mut old.located.object, &made);
            old.hashed |= !options.disable_name_suffix_hash;
            old.generated = true;
        }
        ("replace", Some(old)) => {
            let (name, namespace) = (
                object::name(&old.located.object).to_owned(),
                object::namespace(&old.located.object).to_owned(),
            );
            old.located.object = made;
            let metadata = object::metadata_mut(&mut old.located.object);
            metadata.insert("name".into(), name.into());
            if !namespace.is_empty() {
                metadata.insert("namespace".into(), namespace.into());
            }
            old.hashed |= !options.disable_name_suffix_hash;
            old.generated = true;
        }
        ("merge" | "replace", None) => {
            let message = format!("there is no {kind} {} to {}", generator.name, generator.behavior);
            return Err(BuildError::new(file, message));
        }
        ("" | "create", Some(old)) if old.generated => {
            let message = format!(
                "the {kind} {} is generated twice; say `behavior: merge` or `replace`",
                generator.name
            );
            return Err(BuildError::new(file, message));
        }
        ("" | "create", _) => {
            let located = Located {
                object: made,
                file: file.into(),
                line: 1,
                index: 0,
                item: None,
            };
            let mut resource = Resource::new(located);
            resource.hashed = !options.disable_name_suffix_hash;
            resource.generated = true;
            resources.push(resource);
        }
        (other, _) => {
            return Err(BuildError::new(
                file,
                format!("`{other}` is no behavior; use create, merge or replace"),
            ));
        }
    }
    Ok(())
}

fn merged_options(own: Option<&GeneratorOptions>, common: Option<&GeneratorOptions>) -> GeneratorOptions {
    let mut options = common.cloned().unwrap_or_default();
    if let Some(own) = own {
        options.labels.extend(own.labels.clone());
        options.annotations.extend(own.annotations.clone());
        options.disable_name_suffix_hash |= own.disable_name_suffix_hash;
        options.immutable |= own.immutable;
    }
    options
}

fn object_of(kind: &str, generator: &Generator, pairs: &BTreeMap<String, Vec<u8>>) -> Value {
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let mut metadata = Map::new();
    metadata.insert("name".into(), generator.name.clone().into());
    if !generator.namespace.is_empty() {
        metadata.insert("namespace".into(), generator.namespace.clone().into());
    }
    let mut made = json!({"apiVersion": "v1", "kind": kind, "metadata": metadata});
    let mut data = Map::new();
    let mut binary = Map::new();
    for (key, bytes) in pairs {
        match std::str::from_utf8(bytes) {
            _ if kind == "Secret" => data.insert(key.clone(), base64(bytes).into()),
            Ok(text) => data.insert(key.clone(), text.into()),
            Err(_) => binary.insert(key.clone(), base64(bytes).into()),
        };
    }
    if kind == "Secret" {
        let kind = if generator.kind.is_empty() {
            "Opaque"
        } else {
            &generator.kind
        };
        made["type"] = kind.into();
    }
    if !data.is_empty() {
        made["data"] = data.into();
    }
    if !binary.is_empty() {
        made["binaryData"] = binary.into();
    }
    made
}

fn merge(old: &mut Value, new: &Value) {
    for part in ["data", "binaryData"] {
        let Some(more) = new.get(part).and_then(Value::as_object) else {
            continue;
        };
        let Some(root) = old.as_object_mut() else { continue };
        let into = root.entry(part).or_insert_with(|| Value::Object(Map::new()));
        if let Some(into) = into.as_object_mut() {
            into.extend(more.clone());
        }
    }
    for part in ["labels", "annotations"] {
        let pairs: BTreeMap<String, String> = new["metadata"][part]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
            .collect();
        transform::put(old, &["metadata", part], &pairs);
    }
}

/// The keys and their bytes, from literals, files and env files.
fn pairs(
    builder: &mut Builder<'_>,
    folder: &str,
    file: &str,
    generator: &Generator,
) -> Result<BTreeMap<String, Vec<u8>>, BuildError> {
    let mut pairs = BTreeMap::new();
    let mut add = |key: &str, bytes: Vec<u8>| {
        let ok = !key.is_empty()
            && key
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !ok {
            return Err(BuildError::new(
                file,
                format!("`{key}` can't be a key: use letters, digits, `-`, `_` and `.`"),
            ));
        }
        if pairs.insert(key.to_owned(), bytes).is_some() {
            return Err(BuildError::new(
                file,
                format!("the key `{key}` of {} is there twice", generator.name),
            ));
        }
        Ok(())
    };
    let mut read = |path: &str| -> Result<Vec<u8>, BuildError> {
        let target = tree::resolve(builder.tree, folder, path).map_err(|e| wrong(file, &e))?;
        builder.read(&target, &target).map_err(|e| BuildError {
            file: file.into(),
            ..e
        })
    };
    let single = (!generator.env.is_empty()).then_some(&generator.env);
    for path in generator.envs.iter().chain(single) {
        let bytes = read(path)?;
        for line in String::from_utf8_lossy(&bytes)
            .trim_start_matches('\u{feff}')
            .lines()
        {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            add(key, value.as_bytes().to_vec())?;
        }
    }
    for entry in &generator.files {
        let (key, path) = match entry.split_once('=') {
            Some((key, path)) => (key, path),
            None => (entry.rsplit('/').next().unwrap_or(entry), entry.as_str()),
        };
        add(key, read(path)?)?;
    }
    for literal in &generator.literals {
        let Some((key, value)) = literal.split_once('=') else {
            return Err(BuildError::new(
                file,
                format!("the literal `{literal}` has no `=`"),
            ));
        };
        add(key, unquoted(value).as_bytes().to_vec())?;
    }
    Ok(pairs)
}

/// Without the quotes around it.
fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        if value.len() >= 2 && value.starts_with(quote) && value.ends_with(quote) {
            return &value[1..value.len() - 1];
        }
    }
    value
}
