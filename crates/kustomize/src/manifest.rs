//! The objects of one file.

use std::fmt;

use serde_json::Value;

use crate::yaml::{self, Document, Kind, Mark, Node};

/// Bounds on one file, so that no file can take the host's memory or time.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes.
    pub bytes: usize,
    /// Documents.
    pub documents: usize,
    /// Values (scalars, lists, maps) after aliases are put in.
    pub nodes: usize,
    /// Values that anchors and aliases stand for.
    pub alias_nodes: usize,
    /// Levels of nesting.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 16 << 20,
            documents: 20_000,
            nodes: 1_000_000,
            alias_nodes: 50_000,
            depth: 128,
        }
    }
}

/// An object and where it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Located {
    /// The object.
    pub object: Value,
    /// The file, relative to the root of the tree.
    pub file: String,
    /// The first line of the object, from 1.
    pub line: usize,
    /// Which document of the file, from 0.
    pub index: usize,
    /// Which of the items, if the document is a `List`.
    pub item: Option<usize>,
}

impl Located {
    /// `file:line`.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }
}

/// A file that cannot be read as YAML or JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The file.
    pub file: String,
    /// Line, from 1; 0 if the error has no place.
    pub line: usize,
    /// Column in characters, from 1; 0 if the error has no place.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// The line, and a caret under the place; empty if there is no place.
    pub excerpt: String,
}

impl ParseError {
    pub(crate) fn at(file: &str, text: &str, mark: Mark, message: &str) -> Self {
        let excerpt = excerpt(text, mark.line, mark.column);
        Self {
            file: file.into(),
            line: mark.line,
            column: mark.column,
            message: message.into(),
            excerpt,
        }
    }

    fn whole(file: &str, message: String) -> Self {
        Self {
            file: file.into(),
            line: 0,
            column: 0,
            message,
            excerpt: String::new(),
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}: {}", self.file, self.message)
        } else {
            write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)
        }
    }
}

impl std::error::Error for ParseError {}

/// The line at a place with a caret under it, both cut to a window that fits a terminal.
#[must_use]
pub fn excerpt(text: &str, line: usize, column: usize) -> String {
    const WINDOW: usize = 100;
    let Some(source) = line.checked_sub(1).and_then(|n| text.lines().nth(n)) else {
        return String::new();
    };
    let start = column.saturating_sub(WINDOW / 2 + 1);
    let window: String = source
        .chars()
        .skip(start)
        .take(WINDOW)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let caret = " ".repeat(column.saturating_sub(start + 1));
    format!("{window}\n{caret}^")
}

/// Every object of a file: several documents, JSON, and `List`s taken apart. Empty documents are skipped.
/// The objects are not looked into: what has no `apiVersion` and `kind` is given back as it is.
pub fn parse_manifests(file: &str, text: &[u8], limits: &Limits) -> Result<Vec<Located>, ParseError> {
    let text = text_of(file, text, limits)?;
    let documents = yaml::documents(file, text, limits)?;
    let mut located = Vec::with_capacity(documents.len());
    for (index, Document { root, mark }) in documents.into_iter().enumerate() {
        if root.is_null() {
            continue;
        }
        let at = |object: Value, mark: Mark, item: Option<usize>| Located {
            object,
            file: file.into(),
            line: mark.line,
            index,
            item,
        };
        if is_list(&root) {
            let Kind::Map(entries) = root.kind else { continue };
            let items = entries
                .into_iter()
                .find(|e| e.key == "items")
                .map(|e| e.value.kind);
            if let Some(Kind::List(items)) = items {
                for (n, item) in items.into_iter().enumerate() {
                    let mark = item.mark;
                    located.push(at(item.into_value(), mark, Some(n)));
                }
            }
            continue;
        }
        located.push(at(root.into_value(), mark, None));
    }
    Ok(located)
}

/// JSON in a text. On an error: line, column and what is wrong.
pub(crate) fn parse_json(text: &str, limits: &Limits) -> Result<Value, (usize, usize, String)> {
    let value: Value = serde_json::from_str(text).map_err(|e| {
        // The decoder adds the position to its message; we say it by ourselves.
        let message = e.to_string();
        let message = message.split(" at line ").next().unwrap_or(&message).to_owned();
        // An error at the very end is on a line that is not there: it belongs to the end of the one before.
        let before = (e.column() == 0)
            .then(|| text.lines().nth(e.line().saturating_sub(2)))
            .flatten();
        match before {
            Some(line) => (
                e.line().saturating_sub(1).max(1),
                line.chars().count() + 1,
                message,
            ),
            None => (e.line().max(1), e.column().max(1), message),
        }
    })?;
    // The decoder takes a key that is there twice; the reader of manifests does not.
    match yaml::documents("", text, limits) {
        Err(error) if error.message.contains("twice") => Err((error.line, error.column, error.message)),
        _ => Ok(value),
    }
}

/// The text of a file, without a byte order mark.
pub(crate) fn text_of<'t>(file: &str, bytes: &'t [u8], limits: &Limits) -> Result<&'t str, ParseError> {
    if bytes.len() > limits.bytes {
        let message = format!(
            "{} bytes, more than the {} that a manifest may have",
            bytes.len(),
            limits.bytes
        );
        return Err(ParseError::whole(file, message));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Err(wrong) => {
            let before = &bytes[..wrong.valid_up_to()];
            let line = before.iter().filter(|b| **b == b'\n').count() + 1;
            let start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
            Err(ParseError {
                file: file.into(),
                line,
                column,
                message: "the file is not UTF-8 text".into(),
                excerpt: String::new(),
            })
        }
    }
}

/// Whether a document is a `List` (or `ConfigMapList`, …) with items.
pub(crate) fn is_list(root: &Node) -> bool {
    let kind = root.get("kind").map(|e| &e.value.kind);
    let is_list = matches!(kind, Some(Kind::Scalar(Value::String(kind))) if kind.ends_with("List"));
    is_list && matches!(root.get("items").map(|e| &e.value.kind), Some(Kind::List(_)))
}
