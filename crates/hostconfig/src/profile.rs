//! Reading the profile of one layer: JSON in a string, in both wrappings, or a mapping.

use serde_json::{Map, Value, json};

use crate::position;
pub use crate::position::Position;

/// A profile that can be used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// `{"esx": {…}}`, without nulls.
    pub value: Value,
    /// Paths that look like slips: fields that are not known where all others are.
    pub unknown: Vec<String>,
}

/// Why a profile can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// It is no JSON.
    #[error("line {}, column {}: {message}{}", .position.line, .position.column, at(path))]
    Syntax {
        /// Where in the profile.
        position: Position,
        /// The innermost value that was being read, for example `esx.network_vss.switches[0]`.
        path: String,
        /// What the parser says.
        message: String,
    },
    /// It is JSON of the wrong shape.
    #[error("{0}")]
    Shape(String),
    /// Values have wrong types or are out of bounds.
    #[error("{}", list(.0))]
    Fields(Vec<FieldProblem>),
}

/// A value that has the wrong type or is out of bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldProblem {
    /// For example `esx.network_vss.switches[vSwitch1].mtu`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// Where in the profile, if it is text.
    pub position: Option<Position>,
}

fn at(path: &str) -> String {
    if path.is_empty() {
        String::new()
    } else {
        format!(" (in {path})")
    }
}

fn list(problems: &[FieldProblem]) -> String {
    let line = |p: &FieldProblem| match p.position {
        Some(Position { line, column }) => format!("line {line}, column {column}: {}: {}", p.path, p.message),
        None => format!("{}: {}", p.path, p.message),
    };
    problems.iter().map(line).collect::<Vec<_>>().join("; ")
}

/// Reads `spec.profile`. Absent or empty is a profile that asks for nothing.
pub fn parse(profile: &Value) -> Result<Profile, ProfileError> {
    let empty = || {
        Ok(Profile {
            value: json!({"esx": {}}),
            unknown: Vec::new(),
        })
    };
    let (document, text) = match profile {
        Value::Null => return empty(),
        Value::String(text) if text.trim().is_empty() => return empty(),
        Value::String(text) => (read(text)?, Some(text.as_str())),
        other => (other.clone(), None),
    };
    let (mut value, wrapped) = unwrap(document)?;
    drop_nulls(&mut value);
    let errors = kinds::host::check(&value);
    if errors.is_empty() {
        return Ok(Profile {
            unknown: kinds::host::unknown_fields(&value),
            value,
        });
    }
    let locate = |path: &str| {
        let text = text?;
        // Nulls count for positions, so look in the text as it is.
        let document: Value = serde_json::from_str(text).ok()?;
        let mut steps = if wrapped {
            vec![position::Step::Field("profile".into())]
        } else {
            Vec::new()
        };
        steps.extend(position::steps(
            if wrapped { &document["profile"] } else { &document },
            path,
        ));
        position::find(text, &steps).map(|offset| position::position(text, offset))
    };
    let problem = |e: &kinds::registry::FieldError| FieldProblem {
        path: e.path.clone(),
        message: e.message.clone(),
        position: locate(&e.path),
    };
    Err(ProfileError::Fields(errors.iter().map(problem).collect()))
}

/// The same without a look at types and bounds.
pub fn parse_unchecked(profile: &Value) -> Result<Profile, ProfileError> {
    let (value, _) = document(profile)?;
    Ok(Profile {
        unknown: kinds::host::unknown_fields(&value),
        value,
    })
}

/// `{"esx": {…}}` without nulls, and whether it was inside `profile`.
fn document(profile: &Value) -> Result<(Value, bool), ProfileError> {
    let document = match profile {
        Value::Null => json!({}),
        Value::String(text) if text.trim().is_empty() => json!({}),
        Value::String(text) => read(text)?,
        other => other.clone(),
    };
    let (mut value, wrapped) = unwrap(document)?;
    drop_nulls(&mut value);
    Ok((value, wrapped))
}

fn read(text: &str) -> Result<Value, ProfileError> {
    serde_json::from_str(text).map_err(|error| {
        let offset = position::offset(text, error.line(), error.column());
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        ProfileError::Syntax {
            position: position::position(text, offset),
            path: position::show(&position::path_at(text, offset)),
            message: message.into(),
        }
    })
}

/// Takes off the outer `profile`, and says whether there was one.
fn unwrap(document: Value) -> Result<(Value, bool), ProfileError> {
    let Value::Object(mut map) = document else {
        return Err(ProfileError::Shape(
            "the profile must be an object with \"esx\"".into(),
        ));
    };
    let wrapped = !map.contains_key("esx") && map.get("profile").is_some_and(Value::is_object);
    if wrapped && let Some(Value::Object(inner)) = map.remove("profile") {
        map = inner;
    }
    match map.get("esx") {
        Some(Value::Object(_)) => Ok((Value::Object(map), wrapped)),
        None if map.is_empty() => Ok((json!({"esx": {}}), wrapped)),
        None => Err(ProfileError::Shape(
            "the profile has no \"esx\"; write {\"esx\": {…}} or {\"profile\": {\"esx\": {…}}}".into(),
        )),
        Some(_) => Err(ProfileError::Shape("\"esx\" must be an object".into())),
    }
}

/// A null is the same as an absent field.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            *map = std::mem::take(map)
                .into_iter()
                .filter(|(_, v)| !v.is_null())
                .collect::<Map<_, _>>();
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
