//! JSON Patch (RFC 6902) and JSON Merge Patch (RFC 7386).

use json_patch::PatchOperation;
use serde_json::Value;

use crate::Error;

/// The most operations in one JSON patch, as Kubernetes allows.
pub const MAX_OPERATIONS: usize = 10_000;

/// The most values that the `copy` operations of one patch may make. Each copy can double the object, so without a
/// bound forty operations fill any memory.
pub const MAX_COPIED: usize = 200_000;

/// The deepest object that a patch may make; what is deeper cannot be read back from the store.
pub const MAX_LEVELS: usize = 120;

/// Applies a JSON patch. On an error `target` is as it was.
///
/// # Errors
/// [`Error::Malformed`] if it is no JSON patch, [`Error::NotApplicable`] if a path is missing or a `test` fails,
/// [`Error::TooLarge`] beyond [`MAX_OPERATIONS`], [`MAX_COPIED`] and [`MAX_LEVELS`].
pub fn patch(target: &mut Value, patch: &Value) -> Result<(), Error> {
    let Some(list) = patch.as_array() else {
        return Err(Error::malformed("", "a JSON patch is a list of operations"));
    };
    if list.len() > MAX_OPERATIONS {
        return Err(Error::TooLarge {
            what: "operations",
            limit: MAX_OPERATIONS,
        });
    }
    let mut operations: Vec<PatchOperation> = Vec::with_capacity(list.len());
    for (index, item) in list.iter().enumerate() {
        let operation = serde::Deserialize::deserialize(item)
            .map_err(|error: serde_json::Error| Error::malformed(format!("[{index}]"), error.to_string()))?;
        operations.push(operation);
    }
    let mut scratch = target.clone();
    let mut copied = 0_usize;
    // The object is at most this deep; measured again when the bound is reached.
    let mut levels = depth(&scratch);
    // One at a time, so that what is copied can be counted, and what is nested measured, before it is too much.
    for operation in &operations {
        if let PatchOperation::Copy(copy) = operation {
            copied = copied.saturating_add(scratch.pointer(copy.from.as_str()).map_or(0, count));
            if copied > MAX_COPIED {
                return Err(Error::TooLarge {
                    what: "copied values",
                    limit: MAX_COPIED,
                });
            }
        }
        json_patch::patch(&mut scratch, std::slice::from_ref(operation)).map_err(|e| not_applicable(&e))?;
        levels += match operation {
            PatchOperation::Remove(_) | PatchOperation::Test(_) => 0,
            PatchOperation::Add(add) => deepened(levels, add.path.count() + depth(&add.value)),
            PatchOperation::Replace(replace) => {
                deepened(levels, replace.path.count() + depth(&replace.value))
            }
            PatchOperation::Copy(_) | PatchOperation::Move(_) => operation.path().count(),
        };
        if levels > MAX_LEVELS {
            levels = depth(&scratch);
        }
        if levels > MAX_LEVELS {
            return Err(Error::TooLarge {
                what: "levels",
                limit: MAX_LEVELS,
            });
        }
    }
    *target = scratch;
    Ok(())
}

/// By how much something this deep adds to what is known of the whole.
fn deepened(levels: usize, part: usize) -> usize {
    part.saturating_sub(levels)
}

/// How deep a value is: 0 for a scalar.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn not_applicable(error: &json_patch::PatchError) -> Error {
    Error::NotApplicable {
        path: error.path.to_string(),
        message: error.kind.to_string(),
    }
}

/// How much a copy makes: values, and text by the 64 bytes.
fn count(value: &Value) -> usize {
    let below = match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(map) => map.iter().map(|(key, value)| key.len() / 64 + count(value)).sum(),
        Value::String(text) => text.len() / 64,
        _ => 0,
    };
    below + 1
}

/// Applies a JSON merge patch: maps are merged, `null` removes, everything else replaces.
pub fn merge_patch(target: &mut Value, patch: &Value) {
    json_patch::merge(target, patch);
}
