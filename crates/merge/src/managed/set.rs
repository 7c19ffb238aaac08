//! A set of field paths, as a trie.

use std::fmt;

use serde_json::{Map, Value};

use super::path::PathElement;

/// The deepest `fieldsV1` that is read.
const MAX_DEPTH: usize = 200;

/// A set of paths. A node can itself be in the set (`.`), and hold more below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    pub(crate) member: bool,
    /// Sorted; none of them is empty.
    children: Vec<(PathElement, FieldSet)>,
}

/// Why `fieldsV1` could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct FieldSetError {
    /// Where, as a chain of keys of `fieldsV1`.
    pub path: String,
    /// What is wrong there.
    pub message: &'static str,
}

impl FieldSet {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn node(member: bool) -> Self {
        Self {
            member,
            children: Vec::new(),
        }
    }

    /// Whether no path is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    /// Adds a path.
    pub fn insert(&mut self, path: impl IntoIterator<Item = PathElement>) {
        let mut node = self;
        for element in path {
            node = node.child_mut(element);
        }
        node.member = true;
    }

    /// Whether exactly this path is in the set.
    #[must_use]
    pub fn contains(&self, path: &[PathElement]) -> bool {
        let mut node = self;
        for element in path {
            match node.child(element) {
                Some(below) => node = below,
                None => return false,
            }
        }
        node.member
    }

    /// What the set holds below one step.
    #[must_use]
    pub fn child(&self, element: &PathElement) -> Option<&FieldSet> {
        let at = self.children.binary_search_by(|(e, _)| e.cmp(element)).ok()?;
        Some(&self.children[at].1)
    }

    pub(crate) fn field(&self, name: &str) -> Option<&FieldSet> {
        Some(&self.children[self.position(name)?].1)
    }

    pub(crate) fn field_mut(&mut self, name: &str) -> Option<&mut FieldSet> {
        let at = self.position(name)?;
        Some(&mut self.children[at].1)
    }

    /// Takes out a field with all that is below it.
    pub(crate) fn drop_field(&mut self, name: &str) {
        if let Some(at) = self.position(name) {
            self.children.remove(at);
        }
    }

    fn position(&self, name: &str) -> Option<usize> {
        let compare = |element: &PathElement| match element {
            PathElement::Field(own) => own.as_str().cmp(name),
            // Fields come first.
            _ => std::cmp::Ordering::Greater,
        };
        self.children
            .binary_search_by(|(element, _)| compare(element))
            .ok()
    }

    /// The steps of this node, in order.
    pub fn children(&self) -> impl Iterator<Item = (&PathElement, &FieldSet)> {
        self.children.iter().map(|(element, below)| (element, below))
    }

    pub(crate) fn child_mut(&mut self, element: PathElement) -> &mut FieldSet {
        // Maps are walked in order, so most steps come at the end.
        let at = match self.children.last() {
            Some((last, _)) if *last < element => Err(self.children.len()),
            None => Err(0),
            _ => self.children.binary_search_by(|(e, _)| e.cmp(&element)),
        };
        let at = match at {
            Ok(at) => at,
            Err(at) => {
                self.children.insert(at, (element, Self::default()));
                at
            }
        };
        &mut self.children[at].1
    }

    /// Puts a set below a step, if there is anything in it.
    pub(crate) fn attach(&mut self, element: PathElement, below: FieldSet) {
        if !below.is_empty() {
            *self.child_mut(element) = below;
        }
    }

    /// The paths in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut children = Vec::with_capacity(self.children.len().max(other.children.len()));
        let (mut left, mut right) = (self.children.iter().peekable(), other.children.iter().peekable());
        loop {
            let order = match (left.peek(), right.peek()) {
                (None, None) => break,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(l), Some(r)) => l.0.cmp(&r.0),
            };
            let next = match order {
                std::cmp::Ordering::Less => left.next().cloned(),
                std::cmp::Ordering::Greater => right.next().cloned(),
                std::cmp::Ordering::Equal => left
                    .next()
                    .zip(right.next())
                    .map(|(l, r)| (l.0.clone(), l.1.union(&r.1))),
            };
            children.extend(next);
        }
        Self {
            member: self.member || other.member,
            children,
        }
    }

    /// The paths in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut children = Vec::new();
        for (element, left) in &self.children {
            if let Some(right) = other.child(element) {
                let both = left.intersection(right);
                if !both.is_empty() {
                    children.push((element.clone(), both));
                }
            }
        }
        Self {
            member: self.member && other.member,
            children,
        }
    }

    /// The paths in this set and not in the other. A path stays when only one above or below it is in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut children = Vec::with_capacity(self.children.len());
        for (element, left) in &self.children {
            match other.child(element) {
                None => children.push((element.clone(), left.clone())),
                Some(right) => {
                    let rest = left.difference(right);
                    if !rest.is_empty() {
                        children.push((element.clone(), rest));
                    }
                }
            }
        }
        Self {
            member: self.member && !other.member,
            children,
        }
    }

    /// Whether every path of the other is in this set.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        (self.member || !other.member)
            && other
                .children
                .iter()
                .all(|(e, right)| self.child(e).is_some_and(|left| left.includes(right)))
    }

    /// Every path in the set, parents before what is below them.
    #[must_use]
    pub fn paths(&self) -> Vec<Vec<PathElement>> {
        let mut found = Vec::new();
        self.walk(&mut Vec::new(), &mut |path, _| found.push(path.to_vec()));
        found
    }

    /// The paths below which the set holds nothing.
    #[must_use]
    pub fn leaves(&self) -> Vec<Vec<PathElement>> {
        let mut found = Vec::new();
        self.walk(&mut Vec::new(), &mut |path, leaf| {
            if leaf {
                found.push(path.to_vec());
            }
        });
        found
    }

    fn walk(&self, path: &mut Vec<PathElement>, visit: &mut impl FnMut(&[PathElement], bool)) {
        if self.member {
            visit(path, self.children.is_empty());
        }
        for (element, below) in &self.children {
            path.push(element.clone());
            below.walk(path, visit);
            path.pop();
        }
    }

    /// Reads `fieldsV1`.
    ///
    /// # Errors
    /// When a key is no step, a value no map, or the whole too deep.
    pub fn from_fields_v1(value: &Value) -> Result<Self, FieldSetError> {
        let mut set = Self::read(value, &mut Vec::new())?;
        set.member = false;
        Ok(set)
    }

    fn read<'v>(value: &'v Value, path: &mut Vec<&'v str>) -> Result<Self, FieldSetError> {
        let fail = |path: &[&str], message| FieldSetError {
            path: path.join("/"),
            message,
        };
        let Value::Object(map) = value else {
            return Err(fail(path, "not a map"));
        };
        if path.len() > MAX_DEPTH {
            return Err(fail(&path[..3], "too deep"));
        }
        let mut set = Self {
            member: map.is_empty(),
            children: Vec::with_capacity(map.len()),
        };
        for (key, below) in map {
            if key == "." {
                set.member = true;
                continue;
            }
            path.push(key);
            let element =
                PathElement::parse(key).ok_or_else(|| fail(path, "not a field, key, value or index"))?;
            let read = Self::read(below, path)?;
            path.pop();
            *set.child_mut(element) = read;
        }
        Ok(set)
    }

    /// As `fieldsV1`. The order of keys in a [`Value`] is serde's; [`FieldSet::to_json`] has upstream's.
    #[must_use]
    pub fn to_fields_v1(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.children.is_empty() {
            map.insert(".".into(), Value::Object(Map::new()));
        }
        for (element, below) in &self.children {
            map.insert(element.to_text(), below.to_fields_v1());
        }
        Value::Object(map)
    }

    /// As the bytes of `fieldsV1` that upstream writes: `.` first, then fields, keys, values and indices in order.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        self.write_json(&mut out);
        out
    }

    fn write_json(&self, out: &mut String) {
        out.push('{');
        let mut first = true;
        if self.member && !self.children.is_empty() {
            out.push_str("\".\":{}");
            first = false;
        }
        for (element, below) in &self.children {
            if !first {
                out.push(',');
            }
            first = false;
            out.push_str(&Value::String(element.to_text()).to_string());
            out.push(':');
            below.write_json(out);
        }
        out.push('}');
    }
}

/// As an error message shows a path: `.spec.containers[name="x"].image`.
#[must_use]
pub fn path_text(path: &[PathElement]) -> String {
    path.iter().map(ToString::to_string).collect()
}

impl fmt::Display for FieldSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, path) in self.paths().iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{}", path_text(path))?;
        }
        Ok(())
    }
}
