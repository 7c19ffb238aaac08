//! Checks of what people send, and the merging of patches.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Error;
use crate::model::Map;
use crate::selector::{is_label_key, is_label_value};

/// A DNS label that is no UUID: a path segment takes either a name or an id.
pub(crate) fn name(field: &str, text: &str) -> Result<(), Error> {
    let bytes = text.as_bytes();
    let fits = (1..=63).contains(&bytes.len())
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        && bytes.first() != Some(&b'-')
        && bytes.last() != Some(&b'-');
    if !fits {
        return Err(Error::invalid(
            field,
            "is a DNS label: 1 to 63 of a-z, 0-9 and -, not - at its ends",
        ));
    }
    if uuid::Uuid::try_parse(text).is_ok() {
        return Err(Error::invalid(field, "looks like an id: choose another"));
    }
    Ok(())
}

/// Text for people: bounded, without control characters.
pub(crate) fn text(field: &str, text: &str, most: usize) -> Result<(), Error> {
    if text.len() > most {
        return Err(Error::invalid(field, format!("is longer than {most} bytes")));
    }
    if text.chars().any(|c| c.is_control()) {
        return Err(Error::invalid(field, "has control characters in it"));
    }
    Ok(())
}

/// Text of several lines: bounded, without NUL.
pub(crate) fn lines(field: &str, text: &str, most: usize) -> Result<(), Error> {
    if text.len() > most {
        return Err(Error::invalid(field, format!("is longer than {most} bytes")));
    }
    if text.contains('\0') {
        return Err(Error::invalid(field, "has a NUL in it"));
    }
    Ok(())
}

pub(crate) fn labels(labels: &Map) -> Result<(), Error> {
    if labels.len() > 64 {
        return Err(Error::invalid("labels", "are more than 64"));
    }
    for (key, value) in labels {
        if !is_label_key(key) {
            return Err(Error::invalid(format!("labels.{key}"), "is not a label's key"));
        }
        if !is_label_value(value) {
            return Err(Error::invalid(
                format!("labels.{key}"),
                "is not a label's value: at most 63 letters, digits, - _ .",
            ));
        }
    }
    Ok(())
}

/// Names of variables are what `${NAME}` can name in a manifest.
pub(crate) fn variables<'a>(
    field: &str,
    entries: impl ExactSizeIterator<Item = (&'a String, &'a str)>,
) -> Result<(), Error> {
    if entries.len() > 256 {
        return Err(Error::invalid(field, "are more than 256"));
    }
    let mut size = 0;
    for (key, value) in entries {
        let mut bytes = key.bytes();
        let fits = key.len() <= 128
            && bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
            && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !fits {
            return Err(Error::invalid(
                format!("{field}.{key}"),
                "is not a variable's name: letters, digits and _, not a digit first",
            ));
        }
        if value.contains('\0') {
            return Err(Error::invalid(format!("{field}.{key}"), "has a NUL in it"));
        }
        size += key.len() + value.len();
    }
    if size > 128 * 1024 {
        return Err(Error::invalid(field, "are larger than 128 KiB together"));
    }
    Ok(())
}

/// A MAC address as we keep it: lower case with colons.
pub(crate) fn mac(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase().replace('-', ":");
    let parts: Vec<&str> = text.split(':').collect();
    let fits = parts.len() == 6
        && parts
            .iter()
            .all(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()));
    // Broadcast, group and empty addresses name nobody.
    (fits
        && text != "00:00:00:00:00:00"
        && matches!(u8::from_str_radix(parts[0], 16), Ok(first) if first & 1 == 0))
    .then_some(text)
}

/// A machine's serial number or UUID as we keep it; empty if it is one of those that makers forget to fill in.
pub(crate) fn machine(text: &str) -> String {
    let text = text.trim();
    let lower = text.to_ascii_lowercase();
    let digits: String = lower.chars().filter(char::is_ascii_alphanumeric).collect();
    let filler = matches!(
        lower.as_str(),
        "" | "none"
            | "unknown"
            | "default string"
            | "not specified"
            | "not applicable"
            | "system serial number"
            | "to be filled by o.e.m."
            | "to be filled by oem"
            | "0123456789"
            | "123456789"
            | "n/a"
    ) || digits.chars().all(|c| c == '0')
        || digits.chars().all(|c| c == 'f')
        || digits == "03000200040005000006000700080009";
    if filler || text.len() > 128 || text.chars().any(char::is_control) {
        String::new()
    } else {
        lower
    }
}

/// Merges `patch` into `spec` as RFC 7396 says.
pub(crate) fn patched<T: Serialize + DeserializeOwned>(spec: &T, patch: &Value) -> Result<T, Error> {
    if !patch.is_object() {
        return Err(Error::invalid("body", "is not a JSON object"));
    }
    let mut value = serde_json::to_value(spec).map_err(|e| Error::invalid("body", e.to_string()))?;
    merge(&mut value, patch);
    serde_json::from_value(value).map_err(|e| Error::invalid("body", e.to_string()))
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Refuses when the caller read an older generation.
pub(crate) fn generation(
    kind: &'static str,
    name: &str,
    actual: i64,
    expected: Option<i64>,
) -> Result<(), Error> {
    match expected {
        Some(expected) if expected != actual => Err(Error::Precondition {
            kind,
            name: name.to_owned(),
            expected,
            actual,
        }),
        _ => Ok(()),
    }
}
