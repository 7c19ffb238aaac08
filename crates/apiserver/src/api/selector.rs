//! Label and field selectors.

use std::{borrow::Cow, collections::BTreeMap};

use kinds::{Object, registry::KindDef};
use serde::Deserialize;
use serde_json::Value;

use crate::Status;

/// Terms of a selector, and values in a term, that are looked at.
const MOST_TERMS: usize = 200;

/// Which objects of a list or watch are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<FieldTerm>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
    Above(i64),
    Below(i64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldTerm {
    path: String,
    value: String,
    equal: bool,
}

/// The part of a stored object that label selectors look at.
#[derive(Deserialize)]
struct Labelled<'a> {
    #[serde(borrow, default)]
    metadata: Labels<'a>,
}

#[derive(Default, Deserialize)]
struct Labels<'a> {
    #[serde(borrow, default)]
    labels: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
}

impl Selector {
    /// Reads `labelSelector` and `fieldSelector`; either may be empty. `kind` says which fields may be named.
    ///
    /// # Errors
    /// 400 with what is wrong.
    pub fn parse(labels: &str, fields: &str, kind: &KindDef) -> Result<Self, Status> {
        let labels = parse_labels(labels).map_err(|why| {
            Status::bad_request(format!(
                "unable to parse requirement in label selector {labels:?}: {why}"
            ))
        })?;
        let fields = parse_fields(fields)
            .map_err(|why| Status::bad_request(format!("invalid field selector {fields:?}: {why}")))?;
        for term in &fields {
            let known = ["metadata.name", "metadata.namespace"].contains(&term.path.as_str())
                || kind.selectable_fields.contains(&term.path);
            if !known {
                return Err(Status::bad_request(format!(
                    "field label not supported: {}",
                    term.path
                )));
            }
        }
        Ok(Self { labels, fields })
    }

    /// Whether everything is wanted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The only name that can be wanted, if there is one.
    #[must_use]
    pub fn only_name(&self) -> Option<&str> {
        self.only("metadata.name")
    }

    /// The only namespace that can be wanted, if there is one.
    #[must_use]
    pub fn only_namespace(&self) -> Option<&str> {
        self.only("metadata.namespace")
    }

    fn only(&self, path: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|term| term.equal && term.path == path)
            .map(|term| term.value.as_str())
    }

    /// Whether a namespace and name can be wanted; the rest of the object need not be read if not.
    #[must_use]
    pub fn wants_key(&self, namespace: &str, name: &str) -> bool {
        self.fields.iter().all(|term| match term.path.as_str() {
            "metadata.name" => (term.value == name) == term.equal,
            "metadata.namespace" => (term.value == namespace) == term.equal,
            _ => true,
        })
    }

    /// Whether the key and labels decide alone.
    fn is_shallow(&self) -> bool {
        self.fields
            .iter()
            .all(|term| ["metadata.name", "metadata.namespace"].contains(&term.path.as_str()))
    }

    /// Whether an object is wanted.
    #[must_use]
    pub fn wants(&self, object: &Object) -> bool {
        let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
        self.labels
            .iter()
            .all(|r| r.holds(labels.and_then(|l| l.get(&r.key)).and_then(Value::as_str)))
            && self
                .fields
                .iter()
                .all(|term| (field(object, &term.path) == term.value) == term.equal)
    }

    /// Whether stored bytes are wanted, whose key [`Selector::wants_key`] already accepted; `read` decodes them
    /// fully where labels alone don't decide.
    pub(crate) fn wants_bytes(
        &self,
        bytes: &[u8],
        read: impl FnOnce() -> Result<Object, Status>,
    ) -> Result<bool, Status> {
        if self.labels.is_empty() && self.is_shallow() {
            return Ok(true);
        }
        if !self.is_shallow() {
            return Ok(self.wants(&read()?));
        }
        let Ok(object) = serde_json::from_slice::<Labelled<'_>>(bytes) else {
            return Ok(self.wants(&read()?));
        };
        let labels = object.metadata.labels.unwrap_or_default();
        Ok(self
            .labels
            .iter()
            .all(|r| r.holds(labels.get(r.key.as_str()).map(AsRef::as_ref))))
    }
}

impl Requirement {
    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match &self.test {
            Test::In(values) => value.is_some_and(|value| values.iter().any(|v| v == value)),
            Test::NotIn(values) => value.is_none_or(|value| values.iter().all(|v| v != value)),
            Test::Exists => value.is_some(),
            Test::Missing => value.is_none(),
            Test::Above(than) => number().is_some_and(|n| n > *than),
            Test::Below(than) => number().is_some_and(|n| n < *than),
        }
    }
}

/// A field as field selectors see it: absent is empty.
fn field<'a>(object: &'a Object, path: &str) -> Cow<'a, str> {
    if path == "source" {
        let component = object
            .pointer("/source/component")
            .and_then(Value::as_str)
            .filter(|c| !c.is_empty());
        let reporting = || object.get("reportingComponent").and_then(Value::as_str);
        return component.or_else(reporting).unwrap_or_default().into();
    }
    let value = path.split('.').try_fold(object, |value, step| value.get(step));
    match value {
        None | Some(Value::Null) => "".into(),
        Some(Value::String(text)) => text.as_str().into(),
        Some(other) => other.to_string().into(),
    }
}

/// `a=b,c!=d,e in (x,y),f notin (z),g,!h,i>3,j<4`.
fn parse_labels(text: &str) -> Result<Vec<Requirement>, String> {
    let mut requirements = Vec::new();
    for term in split_outside_parentheses(text) {
        let term = term.trim();
        if term.is_empty() {
            if text.trim().is_empty() {
                continue;
            }
            return Err("a term is empty".into());
        }
        let requirement = parse_label(term)?;
        if let Some(wrong) = kinds::metadata::not_a_key(&requirement.key) {
            return Err(format!("key {:?}: {wrong}", requirement.key));
        }
        if let Test::In(values) | Test::NotIn(values) = &requirement.test {
            for value in values {
                if let Some(wrong) = kinds::metadata::not_a_label_value(value) {
                    return Err(format!("value {value:?}: {wrong}"));
                }
            }
        }
        requirements.push(requirement);
        if requirements.len() > MOST_TERMS {
            return Err(format!("more than {MOST_TERMS} terms"));
        }
    }
    Ok(requirements)
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_i32);
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth = depth.saturating_add(1),
            ')' => depth = depth.saturating_sub(1),
            ',' if depth <= 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_label(term: &str) -> Result<Requirement, String> {
    let requirement = |key: &str, test| {
        Ok(Requirement {
            key: key.trim().into(),
            test,
        })
    };
    if let Some(key) = term.strip_prefix('!') {
        return requirement(key, Test::Missing);
    }
    if let Some((left, set)) = term.split_once('(') {
        let set = set
            .trim_end()
            .strip_suffix(')')
            .ok_or("a parenthesis is not closed")?;
        let values: Vec<String> = set.split(',').map(|value| value.trim().to_owned()).collect();
        let mut words = left.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => requirement(key, Test::In(values)),
            (Some(key), Some("notin"), None) => requirement(key, Test::NotIn(values)),
            _ => Err(format!("{term:?} is neither `key in (…)` nor `key notin (…)`")),
        };
    }
    if let Some((key, value)) = term.split_once("!=") {
        return requirement(key, Test::NotIn(vec![value.trim().into()]));
    }
    if let Some((key, value)) = term.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value);
        return requirement(key, Test::In(vec![value.trim().into()]));
    }
    for (sign, test) in [('>', Test::Above as fn(i64) -> Test), ('<', Test::Below)] {
        if let Some((key, value)) = term.split_once(sign) {
            let value = value
                .trim()
                .parse()
                .map_err(|_| format!("{value:?} is no whole number"))?;
            return requirement(key, test(value));
        }
    }
    requirement(term, Test::Exists)
}

/// `a=b,c!=d,e==f`, where `\,`, `\=` and `\\` stand for themselves in values.
fn parse_fields(text: &str) -> Result<Vec<FieldTerm>, String> {
    let (mut terms, mut term, mut escaped) = (Vec::new(), String::new(), false);
    for character in text.chars().chain([',']) {
        if escaped {
            if !matches!(character, ',' | '=' | '\\') {
                return Err(format!("\\{character} stands for nothing"));
            }
            // A private mark, so that what was escaped is not taken for a sign.
            term.push(match character {
                ',' => '\u{e000}',
                '=' => '\u{e001}',
                _ => '\\',
            });
            escaped = false;
        } else if character == '\\' {
            escaped = true;
        } else if character == ',' {
            if !term.trim().is_empty() {
                terms.push(parse_field(&term)?);
            }
            if terms.len() > MOST_TERMS {
                return Err(format!("more than {MOST_TERMS} terms"));
            }
            term.clear();
        } else {
            term.push(character);
        }
    }
    if escaped {
        Err("it ends within an escape".into())
    } else {
        Ok(terms)
    }
}

fn parse_field(term: &str) -> Result<FieldTerm, String> {
    let (path, value, equal) = if let Some((path, value)) = term.split_once("!=") {
        (path, value, false)
    } else if let Some((path, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (path, value, true)
    } else {
        return Err(format!("{term:?} is neither `field=value` nor `field!=value`"));
    };
    let value = value.replace('\u{e000}', ",").replace('\u{e001}', "=");
    Ok(FieldTerm {
        path: path.trim().into(),
        value,
        equal,
    })
}

#[cfg(test)]
mod tests;
