//! Strategic merge patches, as `kubectl` sends them for kinds it knows.
//!
//! A patch has the shape of the object. Maps are merged, `null` removes, and a list is replaced unless the schema says
//! `x-kubernetes-patch-strategy: merge`: then items are matched by `x-kubernetes-patch-merge-key`, or by value if they
//! are scalars. Keys that begin with `$` are directives:
//!
//! | directive | where | does |
//! |---|---|---|
//! | `$patch: replace` | map | the map becomes what the patch has beside it |
//! | `$patch: replace` | item of a list | the list becomes the patch's other items |
//! | `$patch: delete` | map | the map becomes empty |
//! | `$patch: delete` | item of a list | the item with this key is removed |
//! | `$patch: merge` | both | the default, spelled out |
//! | `$retainKeys: [a, b]` | map | all other fields are removed first |
//! | `$deleteFromPrimitiveList/f: [x]` | map | these values are removed from the list `f` |
//! | `$setElementOrder/f: […]` | map | the list `f` is brought into this order afterwards |

use serde_json::{Map, Value};

use crate::Error;
use crate::managed::same;
use crate::schema::{MAX_DEPTH, Type};

mod list;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

/// Applies a strategic merge patch. On an error `target` is as it was.
///
/// # Errors
/// [`Error::Malformed`] with the path in the patch: an unknown directive, an item without its key, an order that does
/// not fit. [`Error::TooLarge`] if it is too deep.
pub fn patch(target: &mut Value, patch: &Value, schema: &Value) -> Result<(), Error> {
    let Value::Object(patch) = patch else {
        return Err(Error::malformed("", "a strategic merge patch is a map"));
    };
    let mut out = match target {
        Value::Object(map) => map.clone(),
        _ => Map::new(),
    };
    merge_map(&mut out, patch, Type(Some(schema)), &mut Vec::new())?;
    *target = Value::Object(out);
    Ok(())
}

/// Where we are in the patch.
type Path<'p> = Vec<&'p str>;

fn malformed(path: &Path<'_>, message: impl Into<String>) -> Error {
    Error::malformed(
        path.iter().map(|step| format!(".{step}")).collect::<String>(),
        message,
    )
}

fn merge_map<'p>(
    original: &mut Map<String, Value>,
    patch: &'p Map<String, Value>,
    ty: Type<'_>,
    path: &mut Path<'p>,
) -> Result<(), Error> {
    if path.len() >= MAX_DEPTH {
        return Err(Error::TooLarge {
            what: "levels",
            limit: MAX_DEPTH,
        });
    }
    match directive(patch, path)? {
        Some("replace") => {
            *original = cleaned_map(patch, path.len())?;
            return Ok(());
        }
        Some("delete") => {
            original.clear();
            return Ok(());
        }
        _ => {}
    }
    retain_keys(original, patch, path)?;
    for (key, value) in patch {
        if let Some(name) = key.strip_prefix(DELETE_FROM) {
            let Value::Array(gone) = value else {
                return Err(malformed(path, format!("{key} has to be a list")));
            };
            if let Some(Value::Array(items)) = original.get_mut(name) {
                items.retain(|item| !gone.iter().any(|g| same(g, item)));
            }
        } else if let Some(name) = key.strip_prefix(SET_ORDER) {
            // With a list of its own in the patch, the order is dealt with there.
            if !patch.get(name).is_some_and(Value::is_array) {
                let order = order_of(patch, name, path)?.unwrap_or_default();
                if let Some(Value::Array(items)) = original.get_mut(name) {
                    path.push(name);
                    list::merge(items, &[], Some(order), field_of(ty, name, path.len() == 1), path)?;
                    path.pop();
                }
            }
        } else if key.starts_with('$') && key != PATCH && key != RETAIN_KEYS {
            return Err(malformed(path, format!("unknown directive {key}")));
        }
    }
    for (key, value) in patch.iter().filter(|(key, _)| !key.starts_with('$')) {
        if value.is_null() {
            original.remove(key);
            continue;
        }
        let field = field_of(ty, key, path.is_empty());
        path.push(key);
        match (original.get_mut(key), value) {
            (Some(Value::Object(old)), Value::Object(new)) if !field.strategies().any(|s| s == "replace") => {
                merge_map(old, new, field, path)?;
            }
            (Some(Value::Array(old)), Value::Array(new)) if field.merges_by_patch() => {
                path.pop();
                let order = order_of(patch, key, path)?;
                path.push(key);
                list::merge(old, new, order, field, path)?;
            }
            (_, new) => {
                let new = cleaned(new, path.len())?;
                original.insert(key.clone(), new);
            }
        }
        path.pop();
    }
    Ok(())
}

fn field_of<'s>(ty: Type<'s>, name: &str, root: bool) -> Type<'s> {
    if root {
        ty.root_field(name).0
    } else {
        ty.field(name).0
    }
}

/// The map's `$patch`.
fn directive<'p>(patch: &'p Map<String, Value>, path: &Path<'_>) -> Result<Option<&'p str>, Error> {
    match patch.get(PATCH).map(Value::as_str) {
        None => Ok(None),
        Some(Some(word @ ("replace" | "delete" | "merge"))) => Ok(Some(word)),
        Some(word) => {
            let word = word.unwrap_or("something that is no text");
            Err(malformed(
                path,
                format!("$patch is {word}; it has to be replace, delete or merge"),
            ))
        }
    }
}

fn retain_keys(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    path: &Path<'_>,
) -> Result<(), Error> {
    let Some(keys) = patch.get(RETAIN_KEYS) else {
        return Ok(());
    };
    let keys: Option<Vec<&str>> = keys
        .as_array()
        .and_then(|keys| keys.iter().map(Value::as_str).collect());
    let Some(keys) = keys else {
        return Err(malformed(path, "$retainKeys has to be a list of field names"));
    };
    let sets = |(key, value): &(&String, &Value)| !key.starts_with('$') && !value.is_null();
    if let Some((extra, _)) = patch
        .iter()
        .filter(sets)
        .find(|(key, _)| !keys.contains(&key.as_str()))
    {
        return Err(malformed(
            path,
            format!("{extra} is patched but not in $retainKeys"),
        ));
    }
    original.retain(|key, _| keys.contains(&key.as_str()));
    Ok(())
}

/// The `$setElementOrder` of a list.
fn order_of<'p>(
    patch: &'p Map<String, Value>,
    name: &str,
    path: &Path<'_>,
) -> Result<Option<&'p [Value]>, Error> {
    match patch.get(&format!("{SET_ORDER}{name}")) {
        None => Ok(None),
        Some(Value::Array(order)) => Ok(Some(order)),
        Some(_) => Err(malformed(path, format!("{SET_ORDER}{name} has to be a list"))),
    }
}

/// A value that is new to the object: what the patch says without directives and `null`s.
fn cleaned(value: &Value, depth: usize) -> Result<Value, Error> {
    if depth >= MAX_DEPTH {
        return Err(Error::TooLarge {
            what: "levels",
            limit: MAX_DEPTH,
        });
    }
    match value {
        Value::Object(map) if map.get(PATCH).is_some_and(|d| d == "delete") => Ok(Value::Object(Map::new())),
        Value::Object(map) => Ok(Value::Object(cleaned_map(map, depth)?)),
        Value::Array(items) => {
            // An item that only says what to do with others adds nothing.
            let says_only = |item: &Value| {
                item.get(PATCH)
                    .is_some_and(|d| d == "delete" || (d == "replace" && is_bare(item)))
            };
            let kept = items.iter().filter(|item| !says_only(item));
            kept.map(|item| cleaned(item, depth + 1))
                .collect::<Result<_, _>>()
                .map(Value::Array)
        }
        scalar => Ok(scalar.clone()),
    }
}

/// Whether a map holds a `$patch` and nothing else.
fn is_bare(item: &Value) -> bool {
    item.as_object().is_some_and(|map| map.len() == 1)
}

fn cleaned_map(map: &Map<String, Value>, depth: usize) -> Result<Map<String, Value>, Error> {
    let is_directive = |key: &str| {
        key == PATCH || key == RETAIN_KEYS || key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER)
    };
    map.iter()
        .filter(|(key, value)| !is_directive(key) && !value.is_null())
        .map(|(key, value)| Ok((key.clone(), cleaned(value, depth + 1)?)))
        .collect()
}
