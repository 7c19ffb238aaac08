//! Patches of a kustomization: strategic merge and JSON patch, with targets.

use kinds::object::{self, ObjectKey};
use regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    build::BuildError,
    manifest::{self, Limits},
    resource::Resource,
    yaml,
};

/// A patch: inline or in a file, with the objects that it is for. A strategic merge patch may name its one
/// object by itself.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Patch {
    /// The patch itself, YAML or JSON.
    pub patch: Option<String>,
    /// A file with the patch, relative to the folder.
    pub path: Option<String>,
    /// The objects.
    pub target: Option<Target>,
    /// What the patch may do beyond.
    pub options: PatchOptions,
}

/// `options` of a patch.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, rename_all = "camelCase")]
pub struct PatchOptions {
    /// It may change the name.
    pub allow_name_change: bool,
    /// It may change the kind.
    pub allow_kind_change: bool,
}

/// Which objects a patch is for: regular expressions that must fit as a whole, and selectors.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, rename_all = "camelCase")]
pub struct Target {
    /// API group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Labels, as `app=x,tier in (a, b),!old`.
    pub label_selector: String,
    /// Annotations, likewise.
    pub annotation_selector: String,
}

/// Applies one patch to the resources it is for.
pub(crate) fn apply(
    file: &str,
    text: &[u8],
    patch: &Patch,
    limits: &Limits,
    resources: &mut Vec<Resource>,
) -> Result<(), BuildError> {
    let text = manifest::text_of(file, text, limits)?;
    let documents = yaml::documents(file, text, limits)?;
    let fail = |message: String| BuildError::new(file, message);
    let documents: Vec<Value> = documents
        .into_iter()
        .filter(|d| !d.root.is_null())
        .map(|d| d.root.into_value())
        .collect();
    for document in documents {
        if document.is_array() {
            let Some(target) = &patch.target else {
                return Err(fail("a JSON patch needs a `target`".into()));
            };
            for at in select(target, resources).map_err(fail)? {
                let resource = &mut resources[at];
                let key = resource.key();
                merge::json::patch(&mut resource.located.object, &document)
                    .map_err(|e| fail(format!("the JSON patch does not fit {key}: {e}")))?;
                renamed(resource, key);
            }
            continue;
        }
        let chosen = match &patch.target {
            Some(target) => select(target, resources).map_err(fail)?,
            None => vec![named(&document, resources).map_err(fail)?],
        };
        let mut gone = Vec::new();
        for at in chosen {
            let resource = &mut resources[at];
            let key = resource.key();
            let (name, kind) = (
                object::name(&resource.located.object).to_owned(),
                resource.kind().to_owned(),
            );
            let keyed = is_kubernetes(&key.group);
            let mut document = document.clone();
            let namespace = object::namespace(&resource.located.object).to_owned();
            let api_version = object::api_version(&resource.located.object).to_owned();
            // What only says which object is meant does not change it.
            let identity = object::metadata_mut(&mut document);
            if !patch.options.allow_name_change || identity.get("name").is_none() {
                identity.insert("name".into(), name.into());
            }
            identity.remove("namespace");
            if !namespace.is_empty() {
                identity.insert("namespace".into(), namespace.into());
            }
            if !patch.options.allow_kind_change {
                document["kind"] = kind.into();
                document["apiVersion"] = api_version.into();
            }
            if directive(&document) == Some("delete") {
                gone.push(at);
                continue;
            }
            strategic(&mut resource.located.object, document, keyed, "");
            renamed(resource, key);
        }
        let mut at = 0;
        resources.retain(|_| {
            at += 1;
            !gone.contains(&(at - 1))
        });
    }
    Ok(())
}

/// Remembers the key that a patch changed.
fn renamed(resource: &mut Resource, old: ObjectKey) {
    if resource.key() != old {
        resource.before.push(old);
    }
}

/// The one resource that a patch without target names.
fn named(document: &Value, resources: &[Resource]) -> Result<usize, String> {
    let key = ObjectKey::of(document);
    if key.kind.is_empty() || key.name.is_empty() {
        return Err("a patch without `target` needs kind and metadata.name".into());
    }
    let fits = |r: &Resource| {
        r.keys().any(|k| {
            k.group == key.group
                && k.kind == key.kind
                && k.name == key.name
                && same_namespace(&k.namespace, &key.namespace)
        })
    };
    let mut found = resources
        .iter()
        .enumerate()
        .filter(|(_, r)| fits(r))
        .map(|(at, _)| at);
    match (found.next(), found.next()) {
        (Some(at), None) => Ok(at),
        (None, _) => Err(format!("the patch is for {key}, which is not there")),
        (Some(_), Some(_)) => Err(format!(
            "the patch for {key} fits several objects; give it a namespace or a target"
        )),
    }
}

fn same_namespace(one: &str, other: &str) -> bool {
    let full = |name: &str| {
        if name.is_empty() {
            "default".to_owned()
        } else {
            name.to_owned()
        }
    };
    full(one) == full(other)
}

fn select(target: &Target, resources: &[Resource]) -> Result<Vec<usize>, String> {
    let regex = |text: &str| {
        if text.is_empty() {
            return Ok(None);
        }
        Regex::new(&format!("^(?:{text})$"))
            .map(Some)
            .map_err(|_| format!("`{text}` is no regular expression"))
    };
    let (group, version, kind) = (
        regex(&target.group)?,
        regex(&target.version)?,
        regex(&target.kind)?,
    );
    let (name, namespace) = (regex(&target.name)?, regex(&target.namespace)?);
    let labels = selector(&target.label_selector)?;
    let annotations = selector(&target.annotation_selector)?;
    let fits = |regex: &Option<Regex>, text: &str| regex.as_ref().is_none_or(|r| r.is_match(text));
    let chosen = resources.iter().enumerate().filter(|(_, resource)| {
        let root = &resource.located.object;
        let api_version = object::split_api_version(object::api_version(root));
        fits(&group, api_version.0)
            && fits(&version, api_version.1)
            && fits(&kind, resource.kind())
            && resource
                .keys()
                .any(|k| fits(&name, &k.name) && fits(&namespace, effective(&k.namespace)))
            && labels.iter().all(|r| r.holds(object::label(root, &r.key)))
            && annotations
                .iter()
                .all(|r| r.holds(object::annotation(root, &r.key)))
    });
    Ok(chosen.map(|(at, _)| at).collect())
}

fn effective(namespace: &str) -> &str {
    if namespace.is_empty() {
        "default"
    } else {
        namespace
    }
}

/// One requirement of a selector.
struct Requirement {
    key: String,
    values: Vec<String>,
    operator: Operator,
}

#[derive(PartialEq)]
enum Operator {
    In,
    NotIn,
    Exists,
    Absent,
}

impl Requirement {
    fn holds(&self, value: Option<&str>) -> bool {
        let listed = value.is_some_and(|v| self.values.iter().any(|w| w == v));
        match self.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => value.is_some(),
            Operator::Absent => value.is_none(),
        }
    }
}

/// `a=b, c!=d, e in (f, g), h notin (i), j, !k`
fn selector(text: &str) -> Result<Vec<Requirement>, String> {
    let mut requirements = Vec::new();
    let mut depth = 0_usize;
    let parts = text.split(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    for part in parts.map(str::trim).filter(|p| !p.is_empty()) {
        let set = |values: &str| -> Option<Vec<String>> {
            let inner = values.trim().strip_prefix('(')?.strip_suffix(')')?;
            Some(inner.split(',').map(|v| v.trim().to_owned()).collect())
        };
        let wrong = || format!("`{part}` is no selector");
        let (key, values, operator) = if let Some((key, values)) = part.split_once(" notin ") {
            (key, set(values).ok_or_else(wrong)?, Operator::NotIn)
        } else if let Some((key, values)) = part.split_once(" in ") {
            (key, set(values).ok_or_else(wrong)?, Operator::In)
        } else if let Some((key, value)) = part.split_once("!=") {
            (key, vec![value.trim().to_owned()], Operator::NotIn)
        } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            (key, vec![value.trim().to_owned()], Operator::In)
        } else if let Some(key) = part.strip_prefix('!') {
            (key, Vec::new(), Operator::Absent)
        } else {
            (part, Vec::new(), Operator::Exists)
        };
        requirements.push(Requirement {
            key: key.trim().into(),
            values,
            operator,
        });
    }
    Ok(requirements)
}

/// Whether lists of a group's kinds are merged by key. Of other kinds nobody knows the keys, so that a list
/// in a patch takes the place of the old one, as in kustomize.
fn is_kubernetes(group: &str) -> bool {
    matches!(
        group,
        "" | "apps" | "batch" | "autoscaling" | "policy" | "extensions"
    ) || group.ends_with(".k8s.io")
}

/// The field by which elements of a list are told apart.
fn list_key(field: &str, element: &Value) -> Option<&'static str> {
    match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets"
        | "secrets" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        "volumeDevices" => Some("devicePath"),
        "hostAliases" => Some("ip"),
        "topologySpreadConstraints" => Some("topologyKey"),
        "ownerReferences" => Some("uid"),
        "conditions" => Some("type"),
        "ports" if element.get("containerPort").is_some() => Some("containerPort"),
        "ports" if element.get("port").is_some() => Some("port"),
        _ => None,
    }
}

fn directive(value: &Value) -> Option<&str> {
    value.get("$patch").and_then(Value::as_str)
}

/// Merges a strategic merge patch in. `field` is the name of the field that `base` stands in.
fn strategic(base: &mut Value, patch: Value, keyed: bool, field: &str) {
    match (base, patch) {
        (base, patch @ Value::Object(_)) if directive(&patch) == Some("replace") => *base = plain(patch),
        (Value::Object(into), Value::Object(from)) => merge_map(into, from, keyed),
        (Value::Array(into), Value::Array(from)) => merge_list(into, from, keyed, field),
        (base, patch) => *base = plain(patch),
    }
}

fn merge_map(into: &mut Map<String, Value>, from: Map<String, Value>, keyed: bool) {
    for (key, value) in from {
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().cloned().unwrap_or_default();
            if let Some(items) = into.get_mut(list).and_then(Value::as_array_mut) {
                items.retain(|item| !gone.contains(item));
            }
        } else if key.starts_with('$') {
            // Orders and retained keys carry no content; `$patch` is dealt with above.
        } else if value.is_null() || directive(&value) == Some("delete") {
            into.remove(&key);
        } else if let Some(old) = into.get_mut(&key) {
            strategic(old, value, keyed, &key);
        } else {
            let mut new = plain(value);
            drop_nulls(&mut new);
            into.insert(key, new);
        }
    }
}

fn merge_list(into: &mut Vec<Value>, from: Vec<Value>, keyed: bool, field: &str) {
    let key = from
        .iter()
        .chain(into.iter())
        .find_map(|element| list_key(field, element))
        .filter(|_| keyed);
    if from.iter().any(|element| directive(element) == Some("replace")) {
        *into = from
            .into_iter()
            .filter(|e| directive(e) != Some("replace"))
            .map(plain)
            .collect();
        return;
    }
    let Some(key) = key else {
        if keyed && field == "finalizers" {
            let new: Vec<Value> = from.into_iter().filter(|f| !into.contains(f)).collect();
            into.splice(0..0, new);
        } else {
            *into = from.into_iter().map(plain).collect();
        }
        return;
    };
    // The patch's elements come first, in its order, each over the old one of its key.
    let mut merged = Vec::with_capacity(into.len() + from.len());
    for element in from {
        let old = into
            .iter()
            .position(|old| old.get(key).is_some() && old.get(key) == element.get(key));
        let old = old.map(|at| into.remove(at));
        if directive(&element) == Some("delete") {
            continue;
        }
        let mut new = old.unwrap_or_else(|| Value::Object(Map::new()));
        strategic(&mut new, element, keyed, "");
        merged.push(new);
    }
    merged.append(into);
    *into = merged;
}

/// Without directives.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .filter(|(k, _)| !k.starts_with('$'))
                .map(|(k, v)| (k, plain(v)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(plain).collect()),
        other => other,
    }
}

/// In a map that the patch brings along, `null` means absent.
fn drop_nulls(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, v| !v.is_null());
        map.values_mut().for_each(drop_nulls);
    }
}
