//! Lists that are merged item by item.

use serde_json::{Map, Value};

use super::{PATCH, Path, cleaned, directive, is_bare, malformed, merge_map};
use crate::Error;
use crate::managed::same;
use crate::schema::Type;

/// The most items of a list, its patch and its order together; matching takes time by the square.
const MAX_ITEMS: usize = 10_000;

/// How items are matched: by the value of a key, or as they are.
#[derive(Clone, Copy)]
struct Match<'s>(Option<&'s str>);

impl Match<'_> {
    fn identity(self, item: &Value) -> Option<&Value> {
        match self.0 {
            Some(key) => item.get(key),
            None => Some(item),
        }
    }

    fn position(self, items: &[Value], wanted: &Value) -> Option<usize> {
        items
            .iter()
            .position(|item| self.identity(item).is_some_and(|id| same(id, wanted)))
    }
}

/// Merges the patch's items into the list, then brings it into order: items that the patch names in the patch's order
/// (or that of `$setElementOrder`), the others where they were between them, as far as possible.
pub(super) fn merge<'p>(
    original: &mut Vec<Value>,
    patch: &'p [Value],
    order: Option<&[Value]>,
    ty: Type<'_>,
    path: &mut Path<'p>,
) -> Result<(), Error> {
    let sample = patch
        .first()
        .or_else(|| original.first())
        .or_else(|| order.and_then(<[Value]>::first));
    let Some(sample) = sample else { return Ok(()) };
    let by_key = sample.is_object();
    let all_alike = patch
        .iter()
        .chain(original.iter())
        .all(|item| item.is_object() == by_key && !item.is_array());
    if !all_alike {
        return Err(malformed(
            path,
            "items of a merged list have to be all maps or all scalars",
        ));
    }
    let work = original.len() + patch.len() + order.map_or(0, <[Value]>::len);
    if work > MAX_ITEMS {
        return Err(Error::TooLarge {
            what: "items in a merged list",
            limit: MAX_ITEMS,
        });
    }
    let matching = match (by_key, ty.patch_key()) {
        (false, _) => Match(None),
        (true, Some(key)) => Match(Some(key)),
        (true, None) => return Err(malformed(path, "the schema has no merge key for this list")),
    };
    let before = original.clone();
    let additions = match matching.0 {
        None => {
            original.extend(patch.iter().cloned());
            patch.iter().collect()
        }
        Some(key) => merge_items(original, patch, key, Type(ty.get("items")), path)?,
    };
    if by_key {
        check_order(&additions, order, matching, path)?;
    } else {
        unique(original);
    }
    let named: Vec<&Value> = match order {
        Some(order) => order.iter().filter_map(|item| matching.identity(item)).collect(),
        None => additions
            .iter()
            .filter_map(|item| matching.identity(item))
            .collect(),
    };
    arrange(original, &named, &before, matching);
    Ok(())
}

/// Merges items by key; returns the patch's items that are no directives.
fn merge_items<'p>(
    original: &mut Vec<Value>,
    patch: &'p [Value],
    key: &str,
    item_type: Type<'_>,
    path: &mut Path<'p>,
) -> Result<Vec<&'p Value>, Error> {
    let by_key = Match(Some(key));
    let maps: Vec<(&'p Value, &'p Map<String, Value>)> = patch
        .iter()
        .filter_map(|item| Some((item, item.as_object()?)))
        .collect();
    let mut replace = false;
    let mut additions = Vec::new();
    for &(item, map) in &maps {
        match directive(map, path)? {
            Some("replace") => {
                replace = true;
                if !is_bare(item) {
                    additions.push((item, map));
                }
            }
            Some("delete") => {
                let gone = key_of(map, key, path)?;
                original.retain(|old| by_key.identity(old).is_none_or(|id| !same(id, gone)));
            }
            _ => additions.push((item, map)),
        }
    }
    if replace {
        original.clear();
    }
    for &(item, map) in &additions {
        let wanted = key_of(map, key, path)?;
        match by_key.position(original, wanted).map(|at| &mut original[at]) {
            Some(Value::Object(old)) if !replace => merge_map(old, map, item_type, path)?,
            Some(other) => *other = cleaned(item, path.len())?,
            None => original.push(cleaned(item, path.len())?),
        }
    }
    Ok(additions.into_iter().map(|(item, _)| item).collect())
}

fn key_of<'p>(map: &'p Map<String, Value>, key: &str, path: &Path<'_>) -> Result<&'p Value, Error> {
    let what = if map.contains_key(PATCH) {
        "a directive"
    } else {
        "an item"
    };
    map.get(key)
        .filter(|value| !value.is_null())
        .ok_or_else(|| malformed(path, format!("{what} in this list needs its key {key}")))
}

/// What the patch adds has to be in `$setElementOrder`, in the same order.
fn check_order(
    additions: &[&Value],
    order: Option<&[Value]>,
    matching: Match<'_>,
    path: &Path<'_>,
) -> Result<(), Error> {
    let Some(order) = order else { return Ok(()) };
    let mut from = 0;
    for id in additions.iter().filter_map(|item| matching.identity(item)) {
        match matching.position(&order[from..], id) {
            Some(at) => from += at,
            None => {
                return Err(malformed(
                    path,
                    format!("the item {id} does not come in this place of $setElementOrder"),
                ));
            }
        }
    }
    Ok(())
}

/// Removes scalars that are there already.
fn unique(items: &mut Vec<Value>) {
    let mut kept: Vec<Value> = Vec::with_capacity(items.len());
    for item in items.drain(..) {
        if !kept.iter().any(|k| same(k, &item)) {
            kept.push(item);
        }
    }
    *items = kept;
}

/// Sorts: named items in the order of `named`, the others in the order they had, the two interleaved by the places they
/// had in `before`.
fn arrange(items: &mut Vec<Value>, named: &[&Value], before: &[Value], matching: Match<'_>) {
    let rank = |item: &Value| {
        let id = matching.identity(item)?;
        named.iter().position(|n| same(n, id))
    };
    let place = |item: &Value| {
        matching
            .identity(item)
            .and_then(|id| matching.position(before, id))
    };
    let (mut ours, others): (Vec<_>, Vec<_>) = items.drain(..).partition(|item| rank(item).is_some());
    ours.sort_by_key(rank);
    let mut ours = ours.into_iter().peekable();
    let mut others = others.into_iter().peekable();
    loop {
        let other_first = match (others.peek(), ours.peek()) {
            (None, None) => break,
            (None, Some(_)) => false,
            (Some(_), None) => true,
            (Some(other), Some(our)) => place(other).zip(place(our)).is_some_and(|(a, b)| a < b),
        };
        items.extend(if other_first { others.next() } else { ours.next() });
    }
}
