//! Walking values by their schema: which fields there are, what differs, merging, removing.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::managed::{FieldSet, PathElement, same};
use crate::schema::{Form, ListType, MAX_DEPTH, Type};

mod list;

/// What differs between two values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Comparison {
    pub(crate) removed: FieldSet,
    pub(crate) modified: FieldSet,
    pub(crate) added: FieldSet,
}

/// A field with a value that its schema cannot be merged by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadField {
    pub(crate) path: String,
    pub(crate) message: String,
}

impl<'s> Type<'s> {
    fn step(self, name: &str, root: bool) -> (Self, bool) {
        if root {
            self.root_field(name)
        } else {
            self.field(name)
        }
    }
}

/// Which step leads to an item of an associative list.
pub(crate) fn item_element(list: ListType<'_>, item: &Value) -> Result<PathElement, String> {
    let Some(keys) = list.keys else {
        return match item {
            Value::Object(_) => Err("an item of a set may not be a map".into()),
            Value::Array(_) => Err("an item of a set may not be a list".into()),
            Value::Null => Err("an item of a set may not be null".into()),
            scalar => Ok(PathElement::Value(scalar.clone())),
        };
    };
    let Value::Object(map) = item else {
        return Err("an item of a list with keys has to be a map".into());
    };
    let mut found: Vec<(String, Value)> = Vec::with_capacity(1);
    for name in keys.iter() {
        if let Some(value) = map.get(name).or_else(|| list.item.default_of(name)) {
            found.push((name.into(), value.clone()));
        }
    }
    if found.is_empty() {
        let names: Vec<&str> = keys.iter().collect();
        return Err(format!("an item of this list needs the key {}", names.join(", ")));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(PathElement::Key(found))
}

/// The fields of a value. Lists whose items have no keys are taken as one piece.
pub(crate) fn fields(value: &Value, ty: Type<'_>) -> FieldSet {
    let mut set = FieldSet::new();
    // Not strict, so there is no error.
    let _ = visit(value, ty, &mut set, 0, false);
    set.member = false;
    set
}

/// The same, but items without keys, duplicate items and too deep values are errors.
pub(crate) fn fields_strict(value: &Value, ty: Type<'_>) -> Result<FieldSet, BadField> {
    let mut set = FieldSet::new();
    visit(value, ty, &mut set, 0, true)?;
    set.member = false;
    Ok(set)
}

impl BadField {
    fn here(message: impl Into<String>) -> Self {
        Self {
            path: String::new(),
            message: message.into(),
        }
    }

    /// The same, seen from one step above.
    fn below(mut self, element: &PathElement) -> Self {
        // The path of something too deep would be too long to read.
        if self.path.len() < 1000 {
            self.path.insert_str(0, &element.to_string());
        }
        self
    }
}

fn visit(
    value: &Value,
    ty: Type<'_>,
    out: &mut FieldSet,
    depth: usize,
    strict: bool,
) -> Result<(), BadField> {
    if depth >= MAX_DEPTH {
        if strict {
            return Err(BadField::here(format!("more than {MAX_DEPTH} levels deep")));
        }
        out.member = true;
        return Ok(());
    }
    match (ty.form(value), value) {
        (Form::Map(ty), Value::Object(map)) => {
            for (name, below) in map {
                let (field, declared) = ty.step(name, depth == 0);
                let empty = below.is_null() || below.as_object().is_some_and(Map::is_empty);
                let mut node = FieldSet::node(empty || !declared);
                let element = PathElement::Field(name.clone());
                match visit(below, field, &mut node, depth + 1, strict) {
                    Ok(()) => out.attach(element, node),
                    Err(bad) => return Err(bad.below(&element)),
                }
            }
        }
        (Form::List(list), Value::Array(items)) => visit_items(list, items, out, depth, strict)?,
        (Form::Map(_) | Form::List(_), _) => {}
        (Form::Leaf, _) => out.member = true,
    }
    Ok(())
}

fn visit_items(
    list: ListType<'_>,
    items: &[Value],
    out: &mut FieldSet,
    depth: usize,
    strict: bool,
) -> Result<(), BadField> {
    let elements: Result<Vec<_>, _> = items.iter().map(|item| item_element(list, item)).collect();
    let elements = match elements {
        Ok(elements) => elements,
        Err(message) if strict => return Err(BadField::here(message)),
        Err(_) => {
            out.member = true;
            return Ok(());
        }
    };
    for (element, item) in elements.into_iter().zip(items) {
        if out.child(&element).is_some() {
            if strict {
                return Err(BadField::here("this item is there twice").below(&element));
            }
            *out.child_mut(element) = FieldSet::node(true);
            continue;
        }
        let mut node = FieldSet::node(true);
        match visit(item, list.item, &mut node, depth + 1, strict) {
            Ok(()) => out.attach(element, node),
            Err(bad) => return Err(bad.below(&element)),
        }
    }
    Ok(())
}

/// Whether merging would leave the live value as it is. False where that is not quickly seen.
pub(crate) fn covers(live: &Value, applied: &Value, ty: Type<'_>, depth: usize) -> bool {
    if live == applied {
        return true;
    }
    match (live, applied) {
        _ if depth >= MAX_DEPTH => false,
        (Value::Object(old), Value::Object(new)) if matches!(ty.form(live), Form::Map(_)) => {
            new.iter().all(|(name, value)| {
                old.get(name)
                    .is_some_and(|old| covers(old, value, ty.step(name, depth == 0).0, depth + 1))
            })
        }
        (Value::Array(old), Value::Array(new)) => {
            let Form::List(list) = ty.form(live) else {
                return false;
            };
            // The items in the order they have, with nothing but others between them.
            let mut old = old.iter();
            new.iter().all(|item| {
                item_element(list, item).is_ok_and(|element| {
                    let same_item = |old: &&Value| item_element(list, old).is_ok_and(|e| e == element);
                    old.find(same_item)
                        .is_some_and(|old| covers(old, item, list.item, depth + 1))
                })
            })
        }
        _ => same(live, applied),
    }
}

/// What differs between two objects; an absent one counts as empty.
pub(crate) fn compare(old: Option<&Value>, new: Option<&Value>, ty: Type<'_>) -> Comparison {
    let empty = Value::Object(Map::new());
    let mut found = compare_at(Some(old.unwrap_or(&empty)), Some(new.unwrap_or(&empty)), ty, 0);
    found.removed.member = false;
    found.modified.member = false;
    found.added.member = false;
    found
}

fn is_void(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    }
}

fn compare_at(old: Option<&Value>, new: Option<&Value>, ty: Type<'_>, depth: usize) -> Comparison {
    let mut out = Comparison::default();
    if old == new {
        return out;
    }
    let old_form = old.map_or(Form::Leaf, |v| ty.form(v));
    let new_form = new.map_or(Form::Leaf, |v| ty.form(v));
    let leaf = match (old, new) {
        _ if depth >= MAX_DEPTH => true,
        (Some(_), Some(_)) => match (old_form, new_form) {
            (Form::Map(ty), Form::Map(_)) => compare_maps(old, new, ty, depth, &mut out),
            (Form::List(list), Form::List(_)) => compare_lists(old, new, list, depth, &mut out),
            _ => {
                // The form changed: what was inside is gone, what is inside is new, and the field itself is another.
                compare_inside(old, None, old_form, depth, &mut out);
                compare_inside(None, new, new_form, depth, &mut out);
                true
            }
        },
        (Some(_), None) => compare_inside(old, None, old_form, depth, &mut out),
        (None, Some(_)) => compare_inside(None, new, new_form, depth, &mut out),
        (None, None) => return out,
    };
    match (old, new) {
        (None, _) => out.added.member = true,
        (_, None) => out.removed.member = true,
        (Some(old), Some(new)) => out.modified.member = leaf && !same(old, new),
    }
    out
}

/// Compares what is inside; true if the value counts as one piece.
fn compare_inside(
    old: Option<&Value>,
    new: Option<&Value>,
    form: Form<'_>,
    depth: usize,
    out: &mut Comparison,
) -> bool {
    match form {
        Form::Leaf => true,
        Form::Map(ty) => compare_maps(old, new, ty, depth, out),
        Form::List(list) => compare_lists(old, new, list, depth, out),
    }
}

fn compare_maps(
    old: Option<&Value>,
    new: Option<&Value>,
    ty: Type<'_>,
    depth: usize,
    out: &mut Comparison,
) -> bool {
    if is_void(old) && is_void(new) {
        return true;
    }
    let (old, new) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
    for (name, was) in old.into_iter().flatten() {
        let is = new.and_then(|map| map.get(name));
        if is != Some(was) {
            let below = compare_at(Some(was), is, ty.step(name, depth == 0).0, depth + 1);
            out.attach(&PathElement::Field(name.clone()), below);
        }
    }
    for (name, is) in new.into_iter().flatten() {
        if old.is_none_or(|map| !map.contains_key(name)) {
            let below = compare_at(None, Some(is), ty.step(name, depth == 0).0, depth + 1);
            out.attach(&PathElement::Field(name.clone()), below);
        }
    }
    false
}

fn compare_lists(
    old: Option<&Value>,
    new: Option<&Value>,
    list: ListType<'_>,
    depth: usize,
    out: &mut Comparison,
) -> bool {
    if is_void(old) && is_void(new) {
        return true;
    }
    let mut by_element: BTreeMap<PathElement, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    for (side, value) in [old, new].into_iter().enumerate() {
        for item in value.and_then(Value::as_array).into_iter().flatten() {
            // Items without keys cannot be told apart: then the list is one piece.
            let Ok(element) = item_element(list, item) else {
                return true;
            };
            let entry = by_element.entry(element).or_default();
            if side == 0 {
                entry.0.push(item);
            } else {
                entry.1.push(item);
            }
        }
    }
    for (element, (was, is)) in by_element {
        let below = match (was.as_slice(), is.as_slice()) {
            (a @ ([] | [_]), b @ ([] | [_])) => {
                compare_at(a.first().copied(), b.first().copied(), list.item, depth + 1)
            }
            // Items that are there twice are compared together, as one piece.
            ([_, _, ..], [_, _, ..]) => {
                let mut below = Comparison::default();
                below.modified.member =
                    was.len() != is.len() || was.iter().zip(&is).any(|(a, b)| !same(a, b));
                below
            }
            ([_, _, ..], single) => {
                let mut below = match single.first() {
                    Some(item) => compare_at(None, Some(item), list.item, depth + 1),
                    None => Comparison::default(),
                };
                below.removed.member = true;
                below
            }
            (single, _) => {
                let mut below = match single.first() {
                    Some(item) => compare_at(Some(item), None, list.item, depth + 1),
                    None => Comparison::default(),
                };
                below.added.member = true;
                below
            }
        };
        out.attach(&element, below);
    }
    false
}

impl Comparison {
    pub(crate) fn is_same(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    fn attach(&mut self, element: &PathElement, below: Self) {
        self.removed.attach(element.clone(), below.removed);
        self.modified.attach(element.clone(), below.modified);
        self.added.attach(element.clone(), below.added);
    }
}

/// Merges what is applied into what is there: maps field by field, associative lists item by item, the rest replaced.
pub(crate) fn merge(live: &mut Value, applied: &Value, ty: Type<'_>, depth: usize) {
    match (ty.form(live), ty.form(applied)) {
        _ if depth >= MAX_DEPTH => live.clone_from(applied),
        (Form::Map(_), Form::Map(_)) | (Form::List(_), Form::List(_))
            if is_void(Some(live)) && is_void(Some(applied)) =>
        {
            live.clone_from(applied);
        }
        (Form::Map(ty), Form::Map(_)) => {
            let Value::Object(new) = applied else { return };
            if live.is_null() {
                *live = Value::Object(Map::new());
            }
            let Value::Object(old) = live else { return };
            for (name, value) in new {
                match old.get_mut(name) {
                    Some(was) => merge(was, value, ty.step(name, depth == 0).0, depth + 1),
                    None => {
                        old.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        (Form::List(list), Form::List(_)) => list::merge(live, applied, list, depth),
        _ => live.clone_from(applied),
    }
}

/// What is left of a map or list that is emptied by removing what was in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Emptied {
    /// An empty one.
    Kept,
    /// `null`, which counts as a field even where an empty list does not.
    Null,
}

/// Removes fields and items, with all that is below them. A map or list that is emptied by it stays: it would be in the
/// set if nobody wanted it.
pub(crate) fn remove(value: &mut Value, set: &FieldSet, ty: Type<'_>, depth: usize, emptied: Emptied) {
    let is_void = match (ty.form(value), &mut *value) {
        (Form::Map(ty), Value::Object(map)) => {
            map.retain(|name, below| {
                let Some(part) = set.field(name) else { return true };
                if !part.member {
                    remove(below, part, ty.step(name, depth == 0).0, depth + 1, emptied);
                }
                !part.member
            });
            map.is_empty()
        }
        (Form::List(list), Value::Array(items)) => {
            items.retain_mut(|item| {
                let Some(part) = item_element(list, item).ok().and_then(|e| set.child(&e)) else {
                    return true;
                };
                if !part.member {
                    remove(item, part, list.item, depth + 1, emptied);
                }
                !part.member
            });
            items.is_empty()
        }
        _ => return,
    };
    if is_void && emptied == Emptied::Null {
        *value = Value::Null;
    }
}

/// The set with every field that the schema names a member as soon as something below it is one.
pub(crate) fn ensure_named(set: &FieldSet, ty: Type<'_>, depth: usize) -> FieldSet {
    let mut out = FieldSet::node(set.member);
    for (element, below) in set.children() {
        let (ty, declared) = match element {
            PathElement::Field(name) => ty.step(name, depth == 0),
            _ => (Type(ty.get("items")), false),
        };
        let mut part = ensure_named(below, ty, depth + 1);
        part.member |= declared;
        out.attach(element.clone(), part);
    }
    out
}

/// Fits a set to the schema of today: whoever owned something inside of what is one piece now owns the piece. `None` if
/// nothing is to be done.
pub(crate) fn reconcile(set: &FieldSet, ty: Type<'_>, depth: usize) -> Option<FieldSet> {
    if depth > 0 && set.children().next().is_some() && ty.is_atomic_container() {
        return Some(FieldSet::node(true));
    }
    let step = |element: &PathElement| match element {
        PathElement::Field(name) => ty.step(name, depth == 0).0,
        _ => Type(ty.get("items")),
    };
    // Mostly there is nothing to do, so first look, then copy.
    let changed: Vec<_> = set
        .children()
        .filter_map(|(e, below)| Some((e, reconcile(below, step(e), depth + 1)?)))
        .collect();
    if changed.is_empty() {
        return None;
    }
    let mut out = set.clone();
    for (element, below) in changed {
        *out.child_mut(element.clone()) = below;
    }
    Some(out)
}
