//! The rules for names, labels and annotations. Source: apimachinery's validation of `ObjectMeta`.

use serde_json::{Map, Value};

use crate::{
    object::{self, Object},
    registry::{FieldError, KindDef, reason},
    schema,
};

/// All annotations of an object together, in bytes.
const LARGEST_ANNOTATIONS: usize = 256 * 1024;

/// Why text is no DNS-1123 label (at most 63 of `a`–`z`, `0`–`9`, `-`; ends are no `-`); `None` if it is one.
#[must_use]
pub fn not_a_label(name: &str) -> Option<&'static str> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let good = (1..=63).contains(&name.len())
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-');
    (!good).then_some("must be at most 63 of a-z, 0-9 and '-', and start and end with a letter or digit")
}

/// Why text is no DNS-1123 subdomain (labels joined by dots, at most 253); `None` if it is one.
#[must_use]
pub fn not_a_subdomain(name: &str) -> Option<&'static str> {
    let part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    let good = name.len() <= 253 && name.split('.').all(part);
    (!good)
        .then_some("must be at most 253 of a-z, 0-9, '-' and '.', and start and end with a letter or digit")
}

/// Why text is no key of a label or annotation (`name` or `prefix/name`); `None` if it is one.
#[must_use]
pub fn not_a_key(key: &str) -> Option<&'static str> {
    let (prefix, name) = key
        .split_once('/')
        .map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let good = !name.is_empty()
        && word(name)
        && prefix.is_none_or(|p| not_a_subdomain(&p.to_ascii_lowercase()).is_none());
    (!good).then_some("must be a name of at most 63 letters, digits, '-', '_' and '.', with an optional DNS name and '/' in front")
}

/// Why text is no value of a label; `None` if it is one.
#[must_use]
pub fn not_a_label_value(value: &str) -> Option<&'static str> {
    (!word(value)).then_some(
        "must be at most 63 letters, digits, '-', '_' and '.', and start and end with a letter or digit",
    )
}

fn word(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let outer = |b: Option<u8>| b.is_none_or(|b| b.is_ascii_alphanumeric());
    text.len() <= 63 && text.bytes().all(inner) && outer(text.bytes().next()) && outer(text.bytes().last())
}

pub(crate) fn validate(kind: &KindDef, object: &Object, errors: &mut Vec<FieldError>) {
    let (name, namespace) = (object::name(object), object::namespace(object));
    let mut check = |path: &str, value: &str, wrong: Option<&str>| {
        if let Some(wrong) = wrong {
            errors.push(FieldError::new(
                path,
                reason::INVALID,
                format!("invalid value: {value:?}: {wrong}"),
            ));
        }
    };
    if name.is_empty() {
        if object.pointer("/metadata/generateName").is_none()
            && object
                .pointer("/metadata/name")
                .is_none_or(|n| n.is_string() || n.is_null())
        {
            errors.push(FieldError::new(
                "metadata.name",
                reason::REQUIRED,
                "required value: name or generateName is required",
            ));
        }
    } else if kind.group.is_empty() && kind.kind == "Namespace" {
        check("metadata.name", name, not_a_label(name));
    } else {
        check("metadata.name", name, not_a_subdomain(name));
    }
    if !namespace.is_empty() {
        let wrong = not_a_label(namespace);
        if let Some(wrong) = wrong {
            errors.push(FieldError::new(
                "metadata.namespace",
                reason::INVALID,
                format!("invalid value: {namespace:?}: {wrong}"),
            ));
        }
    }
    for (key, value) in strings(object, "/metadata/labels") {
        let path = schema::join("metadata.labels", key);
        if let Some(wrong) = not_a_key(key) {
            errors.push(FieldError::new(
                "metadata.labels",
                reason::INVALID,
                format!("invalid value: {key:?}: {wrong}"),
            ));
        }
        if let Some(wrong) = value.as_str().and_then(not_a_label_value) {
            errors.push(FieldError::new(
                &path,
                reason::INVALID,
                format!("invalid value: {value}: {wrong}"),
            ));
        }
    }
    let mut size = 0;
    for (key, value) in strings(object, "/metadata/annotations") {
        // Annotation keys may have capitals, which labels' prefixes may not.
        if let Some(wrong) = not_a_key(&key.to_ascii_lowercase()) {
            errors.push(FieldError::new(
                "metadata.annotations",
                reason::INVALID,
                format!("invalid value: {key:?}: {wrong}"),
            ));
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > LARGEST_ANNOTATIONS {
        let message = format!("too long: {size} bytes together, at most {LARGEST_ANNOTATIONS}");
        errors.push(FieldError::new(
            "metadata.annotations",
            "FieldValueTooLong",
            message,
        ));
    }
}

pub(crate) fn validate_update(old: &Object, new: &Object, errors: &mut Vec<FieldError>) {
    for (path, was, is) in [
        ("metadata.name", object::name(old), object::name(new)),
        (
            "metadata.namespace",
            object::namespace(old),
            object::namespace(new),
        ),
        ("metadata.uid", object::uid(old), object::uid(new)),
    ] {
        // An update need not repeat them.
        if was != is && !is.is_empty() {
            errors.push(FieldError::new(
                path,
                reason::INVALID,
                format!("invalid value: {is:?}: field is immutable; it is {was:?}"),
            ));
        }
    }
}

fn strings<'a>(object: &'a Object, pointer: &str) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
    object
        .pointer(pointer)
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(Map::iter)
}
