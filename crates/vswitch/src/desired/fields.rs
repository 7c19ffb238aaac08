//! Reading JSON objects field by field, with the path of everything that is wrong and of everything unknown.

use std::{cell::RefCell, collections::BTreeSet};

use reconcile::section::Problem;
use serde_json::{Map, Value};

/// What came up while reading.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) problems: RefCell<Vec<Problem>>,
    pub(super) not_enforced: RefCell<Vec<String>>,
}

impl Notes {
    pub(super) fn problem(&self, path: impl Into<String>, reason: &str, message: impl Into<String>) {
        let problem = Problem {
            path: path.into(),
            reason: reason.into(),
            message: message.into(),
        };
        self.problems.borrow_mut().push(problem);
    }

    pub(super) fn not_enforced(&self, path: impl Into<String>) {
        self.not_enforced.borrow_mut().push(path.into());
    }
}

/// One JSON object. Fields that nobody asked for when it is dropped are noted as not enforced.
pub(super) struct Fields<'a> {
    pub(super) path: String,
    pub(super) notes: &'a Notes,
    map: Option<&'a Map<String, Value>>,
    asked: RefCell<BTreeSet<&'a str>>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(path: impl Into<String>, value: Option<&'a Value>, notes: &'a Notes) -> Self {
        let path = path.into();
        let map = match value {
            None | Some(Value::Null) => None,
            Some(Value::Object(map)) => Some(map),
            Some(_) => {
                notes.problem(&path, "InvalidType", format!("{path} must be an object"));
                None
            }
        };
        Self {
            path,
            notes,
            map,
            asked: RefCell::default(),
        }
    }

    pub(super) fn at(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    /// Fields that nobody asks for belong to another part of the configuration.
    pub(super) fn rest_is_not_ours(&self) {
        self.asked
            .borrow_mut()
            .extend(self.map.into_iter().flat_map(Map::keys).map(String::as_str));
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.map.is_some_and(|m| m.get(key).is_some_and(|v| !v.is_null()))
    }

    pub(super) fn value(&self, key: &'static str) -> Option<&'a Value> {
        self.asked.borrow_mut().insert(key);
        self.map?.get(key).filter(|v| !v.is_null())
    }

    fn typed<T>(&self, key: &'static str, what: &str, get: impl Fn(&'a Value) -> Option<T>) -> Option<T> {
        let value = self.value(key)?;
        let typed = get(value);
        if typed.is_none() {
            let path = self.at(key);
            self.notes.problem(
                &path,
                "InvalidType",
                format!("{path} must be {what}, not {value}"),
            );
        }
        typed
    }

    pub(super) fn object(&self, key: &'static str) -> Fields<'a> {
        Fields::new(self.at(key), self.value(key), self.notes)
    }

    pub(super) fn text(&self, key: &'static str) -> Option<&'a str> {
        self.typed(key, "a string", Value::as_str)
    }

    pub(super) fn boolean(&self, key: &'static str) -> Option<bool> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// An integer in a range; outside of it a problem with this reason.
    pub(super) fn integer(&self, key: &'static str, low: u32, high: u32, reason: &str) -> Option<u32> {
        let number = self.typed(key, "an integer", Value::as_i64)?;
        match u32::try_from(number) {
            Ok(n) if (low..=high).contains(&n) => Some(n),
            _ => {
                let path = self.at(key);
                self.notes.problem(
                    &path,
                    reason,
                    format!("{path} is {number}; it must be from {low} to {high}"),
                );
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, t)| *t);
        if found.is_none() {
            let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            let path = self.at(key);
            let message = format!("{path} is {text:?}; it must be one of {}", known.join(", "));
            self.notes.problem(&path, "InvalidValue", message);
        }
        found
    }

    pub(super) fn texts(&self, key: &'static str) -> Option<Vec<String>> {
        self.typed(key, "a list of strings", |v| {
            v.as_array()?.iter().map(|v| v.as_str().map(Into::into)).collect()
        })
    }

    /// A list of objects that are named by one of their fields: path, name, fields. An entry without its name
    /// is a problem.
    pub(super) fn named(&self, key: &'static str, name: &'static str) -> Vec<(String, Fields<'a>)> {
        let Some(list) = self.typed(key, "a list", Value::as_array) else {
            return Vec::new();
        };
        let entry = |(index, value): (usize, &'a Value)| {
            let by_index = format!("{}[{index}]", self.at(key));
            let Some(text) = value.get(name).and_then(Value::as_str).filter(|t| !t.is_empty()) else {
                self.notes
                    .problem(&by_index, "MissingName", format!("{by_index} has no {name}"));
                return None;
            };
            let fields = Fields::new(format!("{}[{text}]", self.at(key)), Some(value), self.notes);
            fields.asked.borrow_mut().insert(name);
            Some((text.to_owned(), fields))
        };
        list.iter().enumerate().filter_map(entry).collect()
    }
}

impl Drop for Fields<'_> {
    fn drop(&mut self) {
        let asked = self.asked.borrow();
        for key in self.map.into_iter().flat_map(Map::keys) {
            if !asked.contains(key.as_str()) {
                self.notes.not_enforced(self.at(key));
            }
        }
    }
}
