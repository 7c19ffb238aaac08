//! Merging associative lists.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use serde_json::Value;

use crate::managed::PathElement;
use crate::schema::ListType;

/// Merges an applied list into the one that is there. What is applied keeps the order it is applied in; items that
/// only the live list has stay where they were between their neighbours, as far as that order allows.
pub(super) fn merge(live: &mut Value, applied: &Value, list: ListType<'_>, depth: usize) {
    let Value::Array(new) = applied else { return };
    let old = match live.take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    let elements = |items: &[Value]| -> Option<Vec<PathElement>> {
        items
            .iter()
            .map(|item| super::item_element(list, item).ok())
            .collect()
    };
    let (Some(old_elements), Some(new_elements)) = (elements(&old), elements(new)) else {
        // Items without keys cannot be matched; the list is then one piece.
        *live = applied.clone();
        return;
    };
    let new_places: BTreeMap<&PathElement, usize> =
        new_elements.iter().enumerate().map(|(i, e)| (e, i)).collect();
    let mut old_items: BTreeMap<&PathElement, Option<Value>> = BTreeMap::new();
    let mut ours: Vec<Option<Value>> = Vec::with_capacity(old.len());
    for (element, item) in old_elements.iter().zip(old) {
        if new_places.contains_key(element) {
            // An item that is there twice has no one value to merge with: the applied one stands alone.
            old_items
                .entry(element)
                .and_modify(|had| *had = None)
                .or_insert(Some(item));
            ours.push(None);
        } else {
            ours.push(Some(item));
        }
    }
    let mut shared: VecDeque<&PathElement> = new_elements
        .iter()
        .filter(|e| old_items.contains_key(e))
        .collect();
    let mut next_shared = shared.pop_front();

    let mut out = Vec::with_capacity(ours.len().max(new.len()));
    let mut taken = vec![false; new.len()];
    let (mut o, mut n) = (0, 0);
    let mut take = |n: usize, out: &mut Vec<Value>| {
        let item = match old_items.get_mut(&new_elements[n]).and_then(Option::take) {
            Some(mut was) => {
                super::merge(&mut was, &new[n], list.item, depth + 1);
                was
            }
            None => new[n].clone(),
        };
        out.push(item);
    };
    while o < ours.len() || n < new.len() {
        if o < ours.len() {
            match new_places.get(&old_elements[o]) {
                // Only the live list has it.
                None => {
                    out.extend(ours[o].take());
                    o += 1;
                    continue;
                }
                Some(&place) if n < new.len() && place == n => {
                    taken[n] = true;
                    take(n, &mut out);
                    o += 1;
                    n += 1;
                    next_shared = shared.pop_front();
                    continue;
                }
                // Shared, but its turn is later or was earlier.
                Some(_) if n < new.len() && next_shared.is_some_and(|next| *next != old_elements[o]) => {
                    o += 1;
                    continue;
                }
                Some(&place) if taken[place] => o += 1,
                Some(_) => {}
            }
        }
        if n < new.len() {
            taken[n] = true;
            take(n, &mut out);
            if next_shared.is_some_and(|next| *next == new_elements[n]) {
                next_shared = shared.pop_front();
            }
            n += 1;
        }
    }
    *live = Value::Array(out);
}
