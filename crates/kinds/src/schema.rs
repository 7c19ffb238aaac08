//! Walks an object along its schema: defaults, types, unknown fields.
//!
//! The walk goes as deep as the schema does, so foreign objects can't make it deeper.

use serde_json::{Map, Value};

use crate::{
    duration, quantity,
    registry::{FieldError, reason},
};

/// At most so many problems are listed for one object.
const MOST: usize = 100;

/// Fills in defaults, and removes nulls of known fields that can't be null, as Kubernetes does.
pub(crate) fn set_defaults(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(properties) = properties(schema) {
                for (name, schema) in properties {
                    if map.get(name).is_some_and(Value::is_null) && !flag(schema, "nullable") {
                        map.remove(name);
                    }
                    if let (Some(default), false) = (schema.get("default"), map.contains_key(name)) {
                        map.insert(name.clone(), default.clone());
                    }
                    if let Some(value) = map.get_mut(name) {
                        set_defaults(schema, value);
                    }
                }
            }
            if let Some(schema) = schema.get("additionalProperties") {
                map.values_mut().for_each(|value| set_defaults(schema, value));
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                items.iter_mut().for_each(|item| set_defaults(schema, item));
            }
        }
        _ => {}
    }
}

/// How a walk names the entries of lists in paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entries {
    /// By index, as Kubernetes does: `volumes[0]`.
    ByIndex,
    /// By key where the list has keys, as people do: `switches[vSwitch1]`.
    ByKey,
}

impl Entries {
    fn path(self, list: &Value, path: &str, index: usize, item: &Value) -> String {
        let key = list
            .pointer("/x-kubernetes-list-map-keys/0")
            .and_then(Value::as_str);
        match key.and_then(|key| item.get(key)?.as_str()) {
            Some(key) if self == Self::ByKey => format!("{path}[{key}]"),
            _ => format!("{path}[{index}]"),
        }
    }
}

/// Paths of fields that the schema does not name. Places that may hold anything are not looked into.
pub(crate) fn unknown_fields(
    entries: Entries,
    schema: &Value,
    value: &Value,
    path: &str,
    found: &mut Vec<String>,
) {
    if found.len() >= MOST {
        return;
    }
    match value {
        Value::Object(map) => {
            if let Some(schema) = schema.get("additionalProperties") {
                for (name, value) in map {
                    unknown_fields(entries, schema, value, &join(path, name), found);
                }
            } else if let Some(properties) = properties(schema) {
                for (name, value) in map {
                    match properties.get(name) {
                        Some(schema) => unknown_fields(entries, schema, value, &join(path, name), found),
                        None => found.push(join(path, name)),
                    }
                }
            }
        }
        Value::Array(items) => {
            let list = schema;
            if let Some(schema) = list.get("items") {
                for (index, item) in items.iter().enumerate() {
                    unknown_fields(
                        entries,
                        schema,
                        item,
                        &entries.path(list, path, index, item),
                        found,
                    );
                }
            }
        }
        _ => {}
    }
}

/// What does not fit the schema. A null counts as absent.
pub(crate) fn validate(
    entries: Entries,
    schema: &Value,
    value: &Value,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    if errors.len() >= MOST || value.is_null() {
        return;
    }
    if let Some(message) = wrong_type(schema, value) {
        errors.push(FieldError::new(path, reason::TYPE, message));
        return;
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
        let message = format!(
            "unsupported value: {value}: supported values: {}",
            allowed.join(", ")
        );
        errors.push(FieldError::new(path, reason::NOT_SUPPORTED, message));
        return;
    }
    if let Some(message) = out_of_bounds(schema, value).or_else(|| malformed(schema, value)) {
        errors.push(FieldError::new(
            path,
            reason::INVALID,
            format!("invalid value: {value}: {message}"),
        ));
    }
    match value {
        Value::Object(map) => validate_object(entries, schema, map, path, errors),
        Value::Array(items) => validate_array(entries, schema, items, path, errors),
        _ => {}
    }
}

fn validate_object(
    entries: Entries,
    schema: &Value,
    map: &Map<String, Value>,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let required = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    for name in required {
        if map.get(name).is_none_or(Value::is_null) {
            errors.push(FieldError::new(
                &join(path, name),
                reason::REQUIRED,
                "required value",
            ));
        }
    }
    if let Some(properties) = properties(schema) {
        for (name, value) in map {
            if let Some(schema) = properties.get(name) {
                validate(entries, schema, value, &join(path, name), errors);
            }
        }
    }
    if let Some(schema) = schema.get("additionalProperties") {
        for (name, value) in map {
            validate(entries, schema, value, &join(path, name), errors);
        }
    }
}

fn validate_array(entries: Entries, list: &Value, items: &[Value], path: &str, errors: &mut Vec<FieldError>) {
    if let Some(schema) = list.get("items") {
        for (index, item) in items.iter().enumerate() {
            validate(
                entries,
                schema,
                item,
                &entries.path(list, path, index, item),
                errors,
            );
        }
    }
    let list_type = list.get("x-kubernetes-list-type").and_then(Value::as_str);
    let keys: Vec<&str> = list
        .get("x-kubernetes-list-map-keys")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut seen = std::collections::BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let key = match list_type {
            Some("set") => item.to_string(),
            Some("map") => keys
                .iter()
                .map(|k| item.get(k).unwrap_or(&Value::Null).to_string())
                .collect::<Vec<_>>()
                .join(" "),
            _ => return,
        };
        if !seen.insert(key.clone()) {
            errors.push(FieldError::new(
                &format!("{path}[{index}]"),
                reason::DUPLICATE,
                format!("duplicate value: {key}"),
            ));
        }
    }
}

fn wrong_type(schema: &Value, value: &Value) -> Option<String> {
    let expected = if flag(schema, "x-kubernetes-int-or-string") {
        "integer or string"
    } else {
        schema.get("type").and_then(Value::as_str)?
    };
    let fits = match expected {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0),
        "number" => value.is_number(),
        // Fractions are numbers too: `cpu: 0.5`.
        "integer or string" => value.is_string() || value.is_number(),
        _ => true,
    };
    if fits {
        return None;
    }
    let got = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    Some(format!("must be of type {expected}, not {got}"))
}

fn out_of_bounds(schema: &Value, value: &Value) -> Option<String> {
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    let (size, unit) = match value {
        Value::Number(number) => {
            let number = number.as_f64()?;
            if let Some(least) = bound("minimum").filter(|least| number < *least) {
                return Some(format!("must be {least} or more"));
            }
            let most = bound("maximum").filter(|most| number > *most)?;
            return Some(format!("must be {most} or less"));
        }
        Value::String(text) => (text.chars().count(), "Length"),
        Value::Array(items) => (items.len(), "Items"),
        _ => return None,
    };
    let limit = |prefix: &str| {
        schema
            .get(format!("{prefix}{unit}"))
            .and_then(Value::as_u64)
            .and_then(|n| usize::try_from(n).ok())
    };
    if let Some(least) = limit("min").filter(|least| size < *least) {
        return Some(if least == 1 {
            "must not be empty".into()
        } else {
            format!("must have {least} or more, has {size}")
        });
    }
    let most = limit("max").filter(|most| size > *most)?;
    Some(format!("must have {most} or fewer, has {size}"))
}

fn malformed(schema: &Value, value: &Value) -> Option<String> {
    match (schema.get("format")?.as_str()?, value) {
        ("quantity", value) => quantity::bytes(value).err().map(|e| e.to_string()),
        ("go-duration", Value::String(text)) => duration::parse(text).err().map(|e| e.to_string()),
        ("date-time", Value::String(text)) => text
            .parse::<jiff::Timestamp>()
            .is_err()
            .then(|| "must be a time such as 2026-01-31T12:00:00Z".into()),
        ("byte", Value::String(text)) => (!is_base64(text)).then(|| "must be base64".into()),
        ("git-url", Value::String(text)) => {
            let known = ["http://", "https://", "ssh://", "file://"]
                .iter()
                .any(|scheme| text.starts_with(scheme));
            (!known).then(|| "must start with https://, http://, ssh:// or file://; for git@host:path write ssh://git@host/path".into())
        }
        ("int32", Value::Number(n)) => {
            let fits = n.as_i64().is_none_or(|n| i32::try_from(n).is_ok());
            (!fits).then(|| "does not fit 32 bits".into())
        }
        _ => None,
    }
}

/// Whether text is standard base64 with padding; line breaks inside are fine, as for Go.
fn is_base64(text: &str) -> bool {
    let text: Vec<u8> = text.bytes().filter(|b| !matches!(b, b'\n' | b'\r')).collect();
    let body = text.iter().rev().skip_while(|b| **b == b'=').count();
    text.len().is_multiple_of(4)
        && text.len() - body <= 2
        && text[..body]
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema.get("properties")?.as_object()
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool).unwrap_or(false)
}

/// A path with one more field: `a.b`, or `a["b.c"]` for names that are no plain words.
pub(crate) fn join(path: &str, name: &str) -> String {
    let plain = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'$'));
    match (plain, path.is_empty()) {
        (true, true) => name.into(),
        (true, false) => format!("{path}.{name}"),
        (false, _) => format!("{path}[{name:?}]"),
    }
}
