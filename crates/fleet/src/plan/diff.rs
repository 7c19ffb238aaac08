//! What changes in an object, field by field. Values that are secret are never shown.

use kinds::object::ObjectKey;
use serde_json::{Map, Value};

use crate::model::FieldPlan;

/// Fields of one object that are shown.
pub(super) const MOST_FIELDS: usize = 50;
/// Characters of a value that are shown.
const MOST_TEXT: usize = 300;
/// Entries of a list or map that are shown whole.
const MOST_ENTRIES: usize = 20;
/// Depth to which fields are told apart.
const DEEPEST: usize = 32;

/// In the place of a secret value.
pub(super) const HIDDEN: &str = "(secret)";

/// The fields in which two states of an object differ; an absent state is an empty one.
pub(super) fn fields(
    key: &ObjectKey,
    before: Option<&Value>,
    after: Option<&Value>,
) -> (Vec<FieldPlan>, usize) {
    let is_secret = key.group.is_empty() && key.kind == "Secret";
    let mut differ = Differ {
        is_secret,
        found: Vec::new(),
        more: 0,
    };
    let empty = Value::Object(Map::new());
    let (before, after) = (unfold(key, before), unfold(key, after));
    differ.value(
        "",
        before.as_ref().unwrap_or(&empty),
        after.as_ref().unwrap_or(&empty),
        0,
    );
    (differ.found, differ.more)
}

/// A host's profile is JSON in a text: looked into, so that the one value that changes is shown.
fn unfold(key: &ObjectKey, object: Option<&Value>) -> Option<Value> {
    let mut object = object?.clone();
    if key.kind == "HostConfiguration"
        && let Some(profile) = object.pointer_mut("/spec/profile")
        && let Ok(read) = hostconfig::profile::parse_unchecked(profile)
    {
        *profile = read.value;
    }
    Some(object)
}

struct Differ {
    is_secret: bool,
    found: Vec<FieldPlan>,
    more: usize,
}

impl Differ {
    fn value(&mut self, path: &str, before: &Value, after: &Value, depth: usize) {
        if before == after {
            return;
        }
        match (before, after) {
            (Value::Object(b), Value::Object(a)) if depth < DEEPEST => {
                let mut names: Vec<&String> = b.keys().chain(a.keys()).collect();
                names.sort();
                names.dedup();
                for name in names {
                    let path = format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"));
                    self.entry(&path, b.get(name), a.get(name), depth);
                }
            }
            (Value::Array(b), Value::Array(a)) if depth < DEEPEST && keyed(b) && keyed(a) => {
                let name = |item: &Value| item["name"].as_str().unwrap_or_default().to_owned();
                let mut names: Vec<String> = b.iter().chain(a).map(name).collect();
                names.sort();
                names.dedup();
                for wanted in names {
                    let find = |items: &'_ [Value]| items.iter().find(|item| name(item) == wanted).cloned();
                    self.entry(
                        &format!("{path}/{wanted}"),
                        find(b).as_ref(),
                        find(a).as_ref(),
                        depth,
                    );
                }
            }
            (Value::Array(b), Value::Array(a)) if depth < DEEPEST && b.len() == a.len() => {
                for (at, (b, a)) in b.iter().zip(a).enumerate() {
                    self.value(&format!("{path}/{at}"), b, a, depth + 1);
                }
            }
            _ => self.changed(path, Some(before), Some(after)),
        }
    }

    fn entry(&mut self, path: &str, before: Option<&Value>, after: Option<&Value>, depth: usize) {
        match (before, after) {
            (Some(before), Some(after)) => self.value(path, before, after, depth + 1),
            // A whole map that comes or goes is shown by its fields, so that a person reads values.
            (Some(Value::Object(map)), None) if !map.is_empty() && depth < DEEPEST => {
                for (name, value) in map {
                    self.entry(
                        &format!("{path}/{}", name.replace('~', "~0").replace('/', "~1")),
                        Some(value),
                        None,
                        depth + 1,
                    );
                }
            }
            (None, Some(Value::Object(map))) if !map.is_empty() && depth < DEEPEST => {
                for (name, value) in map {
                    self.entry(
                        &format!("{path}/{}", name.replace('~', "~0").replace('/', "~1")),
                        None,
                        Some(value),
                        depth + 1,
                    );
                }
            }
            (None, None) => {}
            _ => self.changed(path, before, after),
        }
    }

    fn changed(&mut self, path: &str, before: Option<&Value>, after: Option<&Value>) {
        if self.found.len() >= MOST_FIELDS {
            self.more += 1;
            return;
        }
        let secret = self.is_secret
            && ["/data", "/stringData"]
                .iter()
                .any(|start| path.starts_with(start));
        let shown =
            |value: Option<&Value>| value.map(|value| if secret { HIDDEN.into() } else { short(value, 0) });
        self.found.push(FieldPlan {
            path: path.into(),
            before: shown(before),
            after: shown(after),
        });
    }
}

/// A list of entries that each have a name of their own.
fn keyed(items: &[Value]) -> bool {
    let mut names: Vec<&str> = items.iter().filter_map(|item| item["name"].as_str()).collect();
    let whole = names.len() == items.len();
    names.sort_unstable();
    names.dedup();
    whole && names.len() == items.len()
}

/// A value, bounded.
fn short(value: &Value, depth: usize) -> Value {
    match value {
        Value::String(text) if text.chars().count() > MOST_TEXT => {
            let shown: String = text.chars().take(MOST_TEXT).collect();
            format!("{shown}…").into()
        }
        Value::Array(items) if items.len() > MOST_ENTRIES || depth > 4 => {
            format!("({} entries)", items.len()).into()
        }
        Value::Object(map) if map.len() > MOST_ENTRIES || depth > 4 => {
            format!("({} fields)", map.len()).into()
        }
        Value::Array(items) => items.iter().map(|item| short(item, depth + 1)).collect(),
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(k, v)| (k.clone(), short(v, depth + 1)))
                .collect(),
        ),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(key: &str, before: Option<Value>, after: Option<Value>) -> Vec<String> {
        let key = ObjectKey {
            group: String::new(),
            kind: key.into(),
            namespace: "n".into(),
            name: "x".into(),
        };
        let (found, _) = fields(&key, before.as_ref(), after.as_ref());
        let value = |value: &Option<Value>| value.as_ref().map_or("-".into(), Value::to_string);
        found
            .iter()
            .map(|f| format!("{} {} {}", f.path, value(&f.before), value(&f.after)))
            .collect()
    }

    #[test]
    fn fields_that_differ() {
        let before = json!({"spec": {"a": 1, "list": [{"name": "x", "v": 1}, {"name": "y"}], "plain": [1, 2], "gone": {"d": 1}}});
        let after = json!({"spec": {"a": 2, "list": [{"name": "y"}, {"name": "x", "v": 2}], "plain": [1, 3], "new/er": true}});
        assert_eq!(
            paths("ConfigMap", Some(before), Some(after)),
            [
                "/spec/a 1 2",
                "/spec/gone/d 1 -",
                "/spec/list/x/v 1 2",
                "/spec/new~1er - true",
                "/spec/plain/1 2 3"
            ]
        );
    }

    #[test]
    fn secrets_stay_secret() {
        let before = json!({"data": {"password": "aHVudGVyMg=="}, "stringData": {"a": "hunter2"}, "metadata": {"labels": {"l": "1"}}});
        let shown = paths(
            "Secret",
            Some(before),
            Some(json!({"data": {"password": "c2VjcmV0"}})),
        );
        assert_eq!(
            shown,
            [
                "/data/password \"(secret)\" \"(secret)\"",
                "/metadata/labels/l \"1\" -",
                "/stringData/a \"(secret)\" -"
            ]
        );
        assert!(!shown.concat().contains("hunter2"));
    }

    #[test]
    fn results_are_bounded() {
        let many: Map<String, Value> = (0..200)
            .map(|n| (format!("k{n:03}"), json!("v".repeat(1000))))
            .collect();
        let key = ObjectKey {
            group: String::new(),
            kind: "ConfigMap".into(),
            namespace: String::new(),
            name: "x".into(),
        };
        let (found, more) = fields(&key, None, Some(&json!({"data": many})));
        assert_eq!((found.len(), more), (MOST_FIELDS, 200 - MOST_FIELDS));
        assert!(found[0].after.as_ref().unwrap().as_str().unwrap().len() < 400);
    }
}
