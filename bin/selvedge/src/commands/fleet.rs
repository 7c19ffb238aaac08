//! The commands that ask an orchestrator, one file for each thing.

pub(crate) mod enroll;
pub(crate) mod hosts;
pub(crate) mod kubeconfig;
pub(crate) mod login;
pub(crate) mod plan;
pub(crate) mod repositories;
pub(crate) mod rollouts;
pub(crate) mod sites;
pub(crate) mod tenants;

use std::{io::Write, process::ExitCode};

use serde_json::{Map, Value, json};

use crate::output::{Output, table};

/// What a list may be narrowed by.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Filter {
    /// Free text.
    #[arg(short, long)]
    query: Option<String>,
    /// Labels, as `region=eu,tier!=lab`.
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// Only those in this state.
    #[arg(long)]
    state: Option<String>,
    /// The field to sort by; `-` before it turns the order round.
    #[arg(long, allow_hyphen_values = true)]
    sort: Option<String>,
    /// At most so many rows.
    #[arg(long, default_value_t = 10_000)]
    limit: usize,
}

impl Filter {
    fn pairs(&self) -> Vec<(&'static str, &str)> {
        [
            ("q", &self.query),
            ("selector", &self.selector),
            ("state", &self.state),
            ("sort", &self.sort),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_deref()?)))
        .collect()
    }
}

/// A column: its head, and where in a row the cell is.
type Column = (&'static str, fn(&Value) -> String);

/// Prints rows: a table of these columns, or the rows as they came.
fn print_rows(output: Output, rows: &[Value], columns: &[Column]) -> anyhow::Result<ExitCode> {
    output.print(&rows, || {
        if rows.is_empty() {
            return "nothing found".into();
        }
        let head: Vec<&str> = columns.iter().map(|(head, _)| *head).collect();
        table(
            &head,
            rows.iter()
                .map(|row| columns.iter().map(|(_, cell)| cell(row)).collect()),
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Prints one object: its fields one under the other, or the object as it came.
fn print_one(output: Output, object: &Value) -> anyhow::Result<ExitCode> {
    output.print(object, || {
        let fields = object.as_object().cloned().unwrap_or_default();
        let rows = fields.iter().map(|(name, value)| vec![name.clone(), cell(value)]);
        table(&["FIELD", "VALUE"], rows.filter(|row| !row[1].is_empty()))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Says what was done.
fn done(text: &str) -> ExitCode {
    // A reader that has gone is no error.
    let _ = writeln!(std::io::stdout(), "{}", crate::output::harmless(text));
    ExitCode::SUCCESS
}

/// A value in a cell.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.replace('\n', " "),
        Value::Array(list) => list.iter().map(cell).collect::<Vec<_>>().join(","),
        Value::Object(map) => {
            let pairs = map.iter().filter(|(_, value)| !value.is_null());
            let pairs = pairs.map(|(name, value)| format!("{name}={}", cell(value)));
            pairs.collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}

/// The value at a pointer as a cell.
fn at(row: &Value, pointer: &str) -> String {
    row.pointer(pointer).map(cell).unwrap_or_default()
}

/// So much of a commit as people read.
fn commit(row: &Value, pointer: &str) -> String {
    let commit = at(row, pointer);
    commit.get(..8).unwrap_or(&commit).to_owned()
}

/// `desired` and `applied` in one cell: one commit, or from where to where.
fn commits(row: &Value) -> String {
    let (desired, applied) = (commit(row, "/desired"), commit(row, "/applied"));
    match (desired.is_empty(), applied.is_empty()) {
        (true, _) => applied,
        (false, _) if desired == applied => applied,
        (false, true) => format!("- -> {desired}"),
        (false, false) => format!("{applied} -> {desired}"),
    }
}

/// Puts what was given into an object, as JSON.
fn put(map: &mut Map<String, Value>, name: &str, value: Option<impl serde::Serialize>) {
    if let Some(value) = value {
        map.insert(name.into(), json!(value));
    }
}

/// `KEY=VALUE`s as an object; an empty value takes the key away.
fn pairs(given: &[(String, String)]) -> Option<Value> {
    let value = |text: &String| {
        if text.is_empty() {
            Value::Null
        } else {
            text.as_str().into()
        }
    };
    let map: Map<String, Value> = given.iter().map(|(k, v)| (k.clone(), value(v))).collect();
    (!map.is_empty()).then_some(Value::Object(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_in_a_cell() {
        let row = |desired: Value, applied: Value| commits(&json!({"desired": desired, "applied": applied}));
        let (a, b) = (json!("a".repeat(40)), json!("b".repeat(40)));
        assert_eq!(row(a.clone(), a.clone()), "aaaaaaaa");
        assert_eq!(row(b.clone(), a.clone()), "aaaaaaaa -> bbbbbbbb");
        assert_eq!(row(b, Value::Null), "- -> bbbbbbbb");
        assert_eq!(row(Value::Null, a), "aaaaaaaa");
    }

    #[test]
    fn an_empty_value_takes_the_key_away() {
        let given = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())];
        assert_eq!(pairs(&given), Some(json!({"a": "1", "b": null})));
        assert_eq!(pairs(&[]), None);
        assert_eq!(cell(&json!({"x": 1, "y": [1, "b"], "z": null})), "x=1,y=1,b");
    }
}
