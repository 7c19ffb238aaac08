//! What `kubectl get` shows: the value of a column for an object.

use jiff::Timestamp;
use serde_json::Value;

use crate::{jsonpath, object::Object, registry::Column};

/// A column that one JSONPath can't give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Computed {
    /// How many keys the objects at these paths have together.
    Count(Vec<String>),
    /// The first of these paths that has a value.
    FirstOf(Vec<String>),
    /// The reference at this path as `kind/name`, the kind in lower case.
    Reference(String),
}

impl Column {
    /// The cell of this column for an object, as a `Table` has it: a string, a number or null. Times become the
    /// time since, as in `5m`.
    #[must_use]
    pub fn cell(&self, object: &Object, now: Timestamp) -> Value {
        let found = match &self.computed {
            Some(Computed::Count(paths)) => {
                let keys = paths
                    .iter()
                    .filter_map(|p| jsonpath::first(object, p)?.as_object().map(serde_json::Map::len));
                return Value::from(keys.sum::<usize>());
            }
            Some(Computed::Reference(path)) => {
                let Some(to) = jsonpath::first(object, path) else {
                    return Value::Null;
                };
                let part = |key: &str| to.get(key).and_then(Value::as_str).unwrap_or_default();
                return Value::String(format!("{}/{}", part("kind").to_lowercase(), part("name")));
            }
            Some(Computed::FirstOf(paths)) => paths.iter().find_map(|p| jsonpath::first(object, p)),
            None => jsonpath::first(object, &self.json_path),
        };
        let Some(found) = found else { return Value::Null };
        if self.kind == "date" {
            return match found.as_str().and_then(|at| at.parse::<Timestamp>().ok()) {
                Some(at) => Value::String(since(at, now)),
                None => Value::String("<unknown>".into()),
            };
        }
        match (self.kind.as_str(), found) {
            ("string", Value::String(_)) => found.clone(),
            ("string", other) => Value::String(other.to_string()),
            (_, other) => other.clone(),
        }
    }
}

/// The time since, as kubectl writes it: two units at most, the finer one only while it matters.
#[must_use]
pub fn since(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - at.as_second();
    if seconds < -1 {
        return "<invalid>".into();
    }
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |whole: i64, unit: &str, rest: i64, rest_unit: &str| {
        if rest == 0 {
            format!("{whole}{unit}")
        } else {
            format!("{whole}{unit}{rest}{rest_unit}")
        }
    };
    if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        two(minutes, "m", seconds % 60, "s")
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        two(hours, "h", minutes % 60, "m")
    } else if hours < 48 {
        format!("{hours}h")
    } else if days < 8 {
        two(days, "d", hours % 24, "h")
    } else if days < 730 {
        format!("{days}d")
    } else if days < 8 * 365 {
        two(days / 365, "y", days % 365, "d")
    } else {
        format!("{}y", days / 365)
    }
}
