//! The v2 document, made from the parts of the v3 ones, for clients of before 1.24.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Parts, schemas::OBJECT_META};

/// One document of all groups.
pub(super) fn document(info: &Value, groups: &BTreeMap<String, Parts>) -> Value {
    let mut paths = Map::new();
    let mut definitions = Map::new();
    for (group_paths, components) in groups.values() {
        for (path, item) in group_paths {
            paths.insert(path.clone(), path_item(item));
        }
        for (name, component) in components {
            if name != OBJECT_META || !definitions.contains_key(name) {
                definitions.insert(name.clone(), schema(component));
            }
        }
    }
    json!({"swagger": "2.0", "info": info, "paths": paths, "definitions": definitions})
}

fn path_item(item: &Value) -> Value {
    let mut out = Map::new();
    for (key, value) in item.as_object().into_iter().flatten() {
        let value = if key == "parameters" {
            Value::Array(parameters(value))
        } else {
            operation(value)
        };
        out.insert(key.clone(), value);
    }
    Value::Object(out)
}

fn operation(operation: &Value) -> Value {
    let mut out = operation.clone();
    let mut list = parameters(&operation["parameters"]);
    if let Some(content) = operation
        .pointer("/requestBody/content")
        .and_then(Value::as_object)
    {
        out["consumes"] = content.keys().cloned().collect();
        let body = content
            .values()
            .next()
            .map_or(Value::Null, |c| schema(&c["schema"]));
        let required = operation
            .pointer("/requestBody/required")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        list.push(json!({"name": "body", "in": "body", "required": required, "schema": body}));
    }
    out["produces"] = json!(["application/json"]);
    out["parameters"] = Value::Array(list);
    let mut responses = Map::new();
    for (code, response) in operation["responses"].as_object().into_iter().flatten() {
        let mut new = json!({"description": response["description"]});
        if let Some(content) = response.pointer("/content/application~1json/schema") {
            new["schema"] = schema(content);
        }
        responses.insert(code.clone(), new);
    }
    out["responses"] = Value::Object(responses);
    if let Some(map) = out.as_object_mut() {
        map.remove("requestBody");
    }
    out
}

fn parameters(list: &Value) -> Vec<Value> {
    let one = |parameter: &Value| {
        let mut out = parameter.clone();
        let kind = parameter["schema"]["type"].clone();
        if let Some(map) = out.as_object_mut() {
            map.remove("schema");
            map.insert("type".into(), kind);
            map.insert("uniqueItems".into(), true.into());
        }
        out
    };
    list.as_array().into_iter().flatten().map(one).collect()
}

/// A v3 schema in the words of v2. What v2 can't say is left out. Named fields stay also where others are allowed:
/// old clients could not explain an object otherwise, nor merge it.
fn schema(node: &Value) -> Value {
    let Some(map) = node.as_object() else {
        return node.clone();
    };
    let is = |key: &str| map.get(key).and_then(Value::as_bool).unwrap_or(false);
    if is("x-kubernetes-int-or-string") {
        return json!({"type": "string", "format": "int-or-string", "description": map.get("description").unwrap_or(&Value::Null)});
    }
    let mut out = Map::new();
    for (key, value) in map {
        match key.as_str() {
            "$ref" => {
                let name = value
                    .as_str()
                    .unwrap_or_default()
                    .replace("#/components/schemas/", "#/definitions/");
                out.insert(key.clone(), name.into());
            }
            // References stand alone in v2; the one form that we make is a list of one.
            "allOf" => {
                if let Some(Value::Object(only)) = value.as_array().and_then(|a| a.first()).map(schema) {
                    out.extend(only);
                }
            }
            "nullable" | "oneOf" | "anyOf" | "not" => {}
            "properties" => {
                let all = value
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(name, v)| (name.clone(), schema(v)));
                out.insert(key.clone(), Value::Object(all.collect()));
            }
            "items" | "additionalProperties" => {
                out.insert(key.clone(), schema(value));
            }
            _ => {
                out.insert(key.clone(), value.clone());
            }
        }
    }
    Value::Object(out)
}
