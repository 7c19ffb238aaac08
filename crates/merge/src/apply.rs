//! Server-side apply.

use std::fmt;

use serde_json::Value;

use crate::managed::{
    Entry, FieldSet, ManagedFields, Operation, path_text, same, strip, without_managed_fields,
};
use crate::schema::Type;
use crate::typed::{self, Emptied};

/// Who applies, and how.
#[derive(Clone, Copy, Debug)]
pub struct ApplyOptions<'a> {
    /// The field manager's name.
    pub manager: &'a str,
    /// Take over fields that others own with another value.
    pub force: bool,
    /// `status` and the like.
    pub subresource: Option<&'a str>,
    /// The time for `managedFields`, RFC 3339 in UTC.
    pub now: &'a str,
    /// The OpenAPI v3 schema of the object.
    pub schema: &'a Value,
}

/// What came out of an apply.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The object to store, with its `managedFields`.
    pub object: Value,
    /// False when the object and its managers are what they were; then `object` is the live one, times included.
    pub changed: bool,
}

/// A field that somebody else owns with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Who owns it.
    pub manager: String,
    /// Which, for example `.spec.containers[name="x"].image`.
    pub field_path: String,
    /// How it came to own it.
    pub operation: Operation,
    /// The version of the object it wrote.
    pub api_version: String,
    /// The subresource it wrote through; empty for the object itself.
    pub subresource: String,
    /// When, RFC 3339; empty if unknown.
    pub time: String,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "conflict with {:?}", self.manager)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        write!(f, " using {}", self.api_version)?;
        if self.operation == Operation::Update && !self.time.is_empty() {
            write!(f, " at {}", self.time)?;
        }
        write!(f, ": {}", self.field_path)
    }
}

/// Why an apply was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Others own fields with another value, and `force` is off.
    #[error("apply failed with {} conflict(s); the first: {}", .0.len(), .0.first().map(ToString::to_string).unwrap_or_default())]
    Conflicts(Vec<Conflict>),
    /// What is applied cannot be merged.
    #[error("{path}: {message}")]
    Invalid {
        /// Where.
        path: String,
        /// What is wrong.
        message: String,
    },
}

fn invalid(path: impl Into<String>, message: impl Into<String>) -> ApplyError {
    ApplyError::Invalid {
        path: path.into(),
        message: message.into(),
    }
}

/// Applies a configuration: merges it into the live object, removes fields that this manager applied before and does not
/// any more (unless somebody else owns them), and writes down who owns what.
///
/// `resourceVersion` and `uid` of `applied`, if given, are in the outcome, for the caller to hold against the live ones.
/// The caller leaves out what this manager may not write here: `status` for the object itself of a kind with a status
/// subresource, all but `status` for that subresource.
///
/// # Errors
/// [`ApplyError::Conflicts`] without `force`; [`ApplyError::Invalid`] if `applied` is no object with `apiVersion` and
/// `kind`, brings `managedFields`, or has list items without keys or twice.
pub fn server_side_apply(
    live: Option<&Value>,
    applied: &Value,
    options: &ApplyOptions<'_>,
) -> Result<Outcome, ApplyError> {
    let ty = Type(Some(options.schema));
    let api_version = check(applied)?;
    let mut set = typed::fields_strict(applied, ty).map_err(|bad| invalid(bad.path, bad.message))?;
    strip(&mut set);
    if let Some(live) = live
        && is_applied_already(live, applied, &set, api_version, options)
    {
        return Ok(Outcome {
            object: live.clone(),
            changed: false,
        });
    }

    let before = live.map(without_managed_fields);
    let mut merged = before
        .clone()
        .unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    typed::merge(&mut merged, applied, ty, 0);
    keep_servers_fields(&mut merged, before.as_ref());

    let original = live.and_then(ManagedFields::of).unwrap_or_default();
    let subresource = options.subresource.unwrap_or_default();
    let is_own = |e: &Entry| e.is(options.manager, Operation::Apply, api_version, subresource);
    let mut managers = original.clone();
    if let Some(before) = &before {
        if managers.entries.is_empty() {
            managers
                .entries
                .extend(before_first_apply(before, ty, options.now));
        }
        for entry in &mut managers.entries {
            if let Some(fitted) = typed::reconcile(&entry.fields, ty, 0) {
                entry.fields = fitted;
            }
        }
    }
    let last = managers
        .entries
        .iter()
        .position(is_own)
        .map(|at| managers.entries.remove(at));

    if let Some(last) = &last
        && !set.includes(&last.fields)
    {
        prune(&mut merged, &last.fields, &set, &managers, ty);
    }

    let unchanged = before.as_ref().is_some_and(|before| same(before, &merged));
    if !unchanged {
        let change = typed::compare(before.as_ref(), Some(&merged), ty);
        let taken = change.modified.union(&change.added);
        if !options.force {
            let conflicts = conflicts(&managers, &taken);
            if !conflicts.is_empty() {
                return Err(ApplyError::Conflicts(conflicts));
            }
        }
        for entry in &mut managers.entries {
            entry.fields = entry.fields.difference(&taken).difference(&change.removed);
        }
    }
    let same_set = last
        .as_ref()
        .is_some_and(|l| l.fields == set && l.api_version == api_version);
    let time = match &last {
        Some(last) if unchanged && same_set => last.time.clone(),
        _ => options.now.to_owned(),
    };
    managers.entries.push(Entry {
        manager: options.manager.into(),
        operation: Operation::Apply,
        api_version: api_version.into(),
        time,
        fields: set,
        subresource: subresource.into(),
    });
    managers.drop_empty();
    if let Some(live) = live
        && unchanged
        && managers.same_but_times(&original)
    {
        return Ok(Outcome {
            object: live.clone(),
            changed: false,
        });
    }
    managers.write(&mut merged);
    Ok(Outcome {
        object: merged,
        changed: true,
    })
}

/// What is applied has to be an object that says what it is.
fn check(applied: &Value) -> Result<&str, ApplyError> {
    if !applied.is_object() {
        return Err(invalid("", "what is applied has to be an object"));
    }
    let text = |key: &str| applied.get(key).and_then(Value::as_str).filter(|t| !t.is_empty());
    let api_version = text("apiVersion").ok_or_else(|| invalid(".apiVersion", "is required in an apply"))?;
    text("kind").ok_or_else(|| invalid(".kind", "is required in an apply"))?;
    match applied.get("metadata") {
        None | Some(Value::Null | Value::Object(_)) => {}
        Some(_) => return Err(invalid(".metadata", "has to be a map")),
    }
    match applied.pointer("/metadata/managedFields") {
        None | Some(Value::Null) => Ok(api_version),
        Some(Value::Array(list)) if list.is_empty() => Ok(api_version),
        Some(_) => Err(invalid(
            ".metadata.managedFields",
            "may not be in what is applied",
        )),
    }
}

/// Fields of `metadata` that only the server writes.
const SERVERS: [&str; 5] = [
    "creationTimestamp",
    "generation",
    "selfLink",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

/// The common case, looked at without copying: the same manager applies the same again, and it is all there.
fn is_applied_already(
    live: &Value,
    applied: &Value,
    set: &FieldSet,
    api_version: &str,
    options: &ApplyOptions<'_>,
) -> bool {
    let ty = Type(Some(options.schema));
    let subresource = options.subresource.unwrap_or_default();
    let list = live.pointer("/metadata/managedFields").and_then(Value::as_array);
    let own = list.into_iter().flatten().find(|entry| {
        let is = |key: &str, value: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default() == value;
        is("manager", options.manager)
            && is("operation", "Apply")
            && is("subresource", subresource)
            && is("apiVersion", api_version)
    });
    let Some(fields) = own.and_then(|entry| entry.get("fieldsV1")) else {
        return false;
    };
    let skipped = |name: &str, value: &Value| {
        SERVERS.contains(&name)
            || name == "managedFields"
            || (matches!(name, "uid" | "resourceVersion") && value.as_str().is_none_or(str::is_empty))
    };
    let all_there = applied.as_object().into_iter().flatten().all(|(name, value)| {
        let Some(old) = live.get(name) else { return false };
        let ty = ty.root_field(name).0;
        match value {
            Value::Object(new) if name == "metadata" => new.iter().all(|(name, value)| {
                let covered = |old| typed::covers(old, value, ty.field(name).0, 2);
                skipped(name, value) || old.get(name).is_some_and(covered)
            }),
            _ => typed::covers(old, value, ty, 1),
        }
    });
    all_there && FieldSet::from_fields_v1(fields).is_ok_and(|last| last == *set)
}

/// Fields that only the server writes are never taken from what is applied.
fn keep_servers_fields(merged: &mut Value, before: Option<&Value>) {
    let Some(Value::Object(metadata)) = merged.get_mut("metadata") else {
        return;
    };
    metadata.remove("managedFields");
    let old = before.and_then(|b| b.get("metadata"));
    let names = [
        "creationTimestamp",
        "generation",
        "selfLink",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ];
    for name in names {
        match old.and_then(|m| m.get(name)) {
            Some(value) => metadata.insert(name.into(), value.clone()),
            None => metadata.remove(name),
        };
    }
    // An empty one asks for nothing.
    for name in ["resourceVersion", "uid"] {
        let given = metadata
            .get(name)
            .and_then(Value::as_str)
            .is_some_and(|text| !text.is_empty());
        if !given {
            match old.and_then(|m| m.get(name)) {
                Some(value) => metadata.insert(name.into(), value.clone()),
                None => metadata.remove(name),
            };
        }
    }
}

/// An object that nobody tracked so far belongs to a manager of its own, so that the first applier takes nothing unseen.
fn before_first_apply(before: &Value, ty: Type<'_>, now: &str) -> Option<Entry> {
    let mut fields = typed::compare(None, Some(before), ty).added;
    strip(&mut fields);
    let api_version = before
        .get("apiVersion")
        .and_then(Value::as_str)
        .unwrap_or_default();
    (!fields.is_empty()).then(|| Entry {
        manager: "before-first-apply".into(),
        operation: Operation::Update,
        api_version: api_version.into(),
        time: now.into(),
        fields,
        subresource: String::new(),
    })
}

/// Removes what was applied last time, is not this time, and nobody else owns.
fn prune(merged: &mut Value, last: &FieldSet, set: &FieldSet, managers: &ManagedFields, ty: Type<'_>) {
    let managed = managers
        .entries
        .iter()
        .fold(set.clone(), |all, entry| all.union(&entry.fields));
    let managed = typed::ensure_named(&managed, ty, 0);
    let last = typed::ensure_named(last, ty, 0);
    let all = typed::ensure_named(&typed::fields(merged, ty), ty, 0);

    let without = |gone: &FieldSet| {
        let mut value = merged.clone();
        typed::remove(&mut value, gone, ty, 0, Emptied::Null);
        typed::ensure_named(&typed::fields(&value, ty), ty, 0)
    };
    // Three steps, because removing a field removes what is below it: first all that was applied last time, then that
    // without what somebody owns, then only of that what was applied last time.
    let left = without(&last);
    let left = without(&all.difference(&left).difference(&managed));
    let gone = all.difference(&left).intersection(&last);
    typed::remove(merged, &gone, ty, 0, Emptied::Kept);
}

fn conflicts(managers: &ManagedFields, taken: &FieldSet) -> Vec<Conflict> {
    let mut found = Vec::new();
    for entry in &managers.entries {
        for path in entry.fields.intersection(taken).paths() {
            found.push(Conflict {
                manager: entry.manager.clone(),
                field_path: path_text(&path),
                operation: entry.operation,
                api_version: entry.api_version.clone(),
                subresource: entry.subresource.clone(),
                time: entry.time.clone(),
            });
        }
    }
    found
}
