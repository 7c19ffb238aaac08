//! Objects to and from stored bytes.

use bytes::Bytes;
use kinds::Object;
use serde_json::{Map, Value};
use store::Make;

use crate::Status;

/// Longest revision, in decimal digits.
const DIGITS: usize = 20;
/// Largest object, as in Kubernetes' limit for a request.
const LARGEST: usize = 3 << 20;
/// Deepest object. Patches can make what no request could bring, and deeper ones could not be read again.
const DEEPEST: usize = 100;

/// Reads stored bytes.
pub(crate) fn decode(bytes: &[u8]) -> Result<Object, Status> {
    serde_json::from_slice(bytes)
        .map_err(|error| Status::internal(format!("a stored object can't be read: {error}")))
}

/// Makes the bytes to store: all but `metadata.resourceVersion`, which the store fills in, is written here, so
/// that the store's one writer has little to do. `apiVersion`, `kind` and `metadata` come first.
pub(crate) fn encode(object: &Object) -> Make {
    encode_sized(object).1
}

fn encode_sized(object: &Object) -> (usize, Make) {
    let empty = Map::new();
    let top = object.as_object().unwrap_or(&empty);
    let mut head = Vec::with_capacity(1024);
    head.push(b'{');
    for name in ["apiVersion", "kind"] {
        if let Some(value) = top.get(name) {
            member(&mut head, name, value);
            head.push(b',');
        }
    }
    head.extend_from_slice(b"\"metadata\":{\"resourceVersion\":\"");
    let hole = head.len();
    head.push(b'"');
    for (name, value) in top.get("metadata").and_then(Value::as_object).unwrap_or(&empty) {
        if name != "resourceVersion" {
            head.push(b',');
            member(&mut head, name, value);
        }
    }
    head.push(b'}');
    for (name, value) in top {
        if !["apiVersion", "kind", "metadata"].contains(&name.as_str()) {
            head.push(b',');
            member(&mut head, name, value);
        }
    }
    head.push(b'}');
    let size = head.len() + DIGITS;
    let make: Make = Box::new(move |revision| {
        let mut bytes = Vec::with_capacity(size);
        bytes.extend_from_slice(&head[..hole]);
        bytes.extend_from_slice(revision.to_string().as_bytes());
        bytes.extend_from_slice(&head[hole..]);
        Bytes::from(bytes)
    });
    (size, make)
}

fn member(out: &mut Vec<u8>, name: &str, value: &Value) {
    // A vector takes everything, and JSON values are always JSON.
    let _ = serde_json::to_writer(&mut *out, name);
    out.push(b':');
    let _ = serde_json::to_writer(out, value);
}

/// The same for an object that somebody asks to be stored: refused if it is too large or too deep.
pub(crate) fn encode_bounded(object: &Object) -> Result<Make, Status> {
    if is_deeper(object, DEEPEST) {
        return Err(Status::bad_request(format!(
            "the object is nested deeper than {DEEPEST} levels"
        )));
    }
    let (size, make) = encode_sized(object);
    if size > LARGEST {
        let message =
            format!("Request entity too large: the object has {size} bytes, at most {LARGEST} are allowed");
        return Err(Status::new(413, "RequestEntityTooLarge", message));
    }
    Ok(make)
}

fn is_deeper(value: &Value, levels: usize) -> bool {
    let Some(levels) = levels.checked_sub(1) else {
        return true;
    };
    match value {
        Value::Array(items) => items.iter().any(|item| is_deeper(item, levels)),
        Value::Object(map) => map.values().any(|item| is_deeper(item, levels)),
        _ => false,
    }
}

/// Bytes with another `metadata.resourceVersion`.
pub(crate) fn restamp(bytes: &[u8], revision: u64) -> Result<Bytes, Status> {
    Ok(encode(&decode(bytes)?)(revision))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_revision_is_put_in_and_nothing_else_changes() {
        let object = json!({
            "spec": {"resourceVersion": "3"}, "kind": "K", "apiVersion": "v1",
            "metadata": {"name": "a\"b", "resourceVersion": "7", "labels": {"resourceVersion": "x"}},
        });
        let bytes = encode(&object)(42);
        let mut expected = object;
        expected["metadata"]["resourceVersion"] = "42".into();
        assert_eq!(decode(&bytes).unwrap(), expected);
        assert!(bytes.starts_with(br#"{"apiVersion":"v1","kind":"K","metadata":{"#));
        assert_eq!(encode(&expected)(42), bytes);
        expected["metadata"]["resourceVersion"] = "43".into();
        assert_eq!(decode(&restamp(&bytes, 43).unwrap()).unwrap(), expected);
    }

    #[test]
    fn the_deep_and_the_large_are_refused() {
        let deep = |levels| (1..levels).fold(json!("x"), |inner, _| json!([inner]));
        assert!(encode_bounded(&deep(DEEPEST)).is_ok());
        assert_eq!(encode_bounded(&deep(DEEPEST + 1)).err().unwrap().code, 400);
        assert_eq!(
            encode_bounded(&json!({"data": "x".repeat(LARGEST)}))
                .err()
                .unwrap()
                .code,
            413
        );
    }

    proptest! {
        #[test]
        fn any_object_comes_back(name in ".*", key in ".*", number: i64, revision: u64) {
            let mut object = json!({"metadata": {"name": name}, "spec": {"n": number, key.clone(): [key]}});
            let bytes = encode(&object)(revision);
            object["metadata"]["resourceVersion"] = revision.to_string().into();
            prop_assert_eq!(decode(&bytes).unwrap(), object);
        }
    }
}
