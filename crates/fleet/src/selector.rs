//! Label selectors: `region=eu,tier!=lab,ring in (a,b),!retired`, as Kubernetes writes them.

use std::fmt;

use crate::Error;
use crate::db::Sql;
use crate::model::Map;

/// A foreign selector is at most so long,
const MAX_LENGTH: usize = 2048;
/// has at most so many terms,
const MAX_TERMS: usize = 32;
/// and a set at most so many values.
const MAX_VALUES: usize = 64;

/// Which labels a thing must have. Empty matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Term>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    key: String,
    op: Op,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Op {
    Is(String),
    /// Also true when the label is absent, as in Kubernetes.
    IsNot(String),
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

impl Selector {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |message: String| Error::invalid("selector", message);
        if text.len() > MAX_LENGTH {
            return Err(wrong(format!("is longer than {MAX_LENGTH} bytes")));
        }
        let mut terms = Vec::new();
        for part in split(text) {
            let part = part.trim();
            if part.is_empty() {
                if text.trim().is_empty() {
                    continue;
                }
                return Err(wrong("has an empty term".to_owned()));
            }
            if terms.len() == MAX_TERMS {
                return Err(wrong(format!("has more than {MAX_TERMS} terms")));
            }
            terms.push(term(part).ok_or_else(|| {
                wrong(format!(
                    "`{part}` is none of key=value, key!=value, key in (a,b), key notin (a,b), key, !key"
                ))
            })?);
        }
        Ok(Self(terms))
    }

    /// Whether it matches everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether these labels are selected.
    #[must_use]
    pub fn matches(&self, labels: &Map) -> bool {
        self.0.iter().all(|term| {
            let have = labels.get(&term.key);
            match &term.op {
                Op::Is(value) => have == Some(value),
                Op::IsNot(value) => have != Some(value),
                Op::In(values) => have.is_some_and(|v| values.contains(v)),
                Op::NotIn(values) => !have.is_some_and(|v| values.contains(v)),
                Op::Exists => have.is_some(),
                Op::Absent => have.is_none(),
            }
        })
    }

    /// Adds the same as a condition: `table` holds the labels, its `column` the id of the row `alias`.
    pub(crate) fn condition(&self, table: &str, column: &str, alias: &str, sql: &mut Sql) {
        for term in &self.0 {
            let not = match term.op {
                Op::IsNot(_) | Op::NotIn(_) | Op::Absent => "NOT ",
                _ => "",
            };
            sql.push(&format!(
                " AND {not}EXISTS (SELECT 1 FROM {table} l WHERE l.tenant={alias}.tenant AND l.{column}={alias}.id AND l.label="
            ))
            .bind(term.key.as_str());
            match &term.op {
                Op::Is(value) | Op::IsNot(value) => {
                    sql.push(" AND l.value=").bind(value.as_str());
                }
                Op::In(values) | Op::NotIn(values) => {
                    sql.push(" AND l.value IN ").list(values);
                }
                Op::Exists | Op::Absent => {}
            }
            sql.push(")");
        }
    }
}

/// Splits at commas outside parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_usize, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn term(part: &str) -> Option<Term> {
    if let Some(key) = part.strip_prefix('!') {
        return Some(Term {
            key: key_of(key)?,
            op: Op::Absent,
        });
    }
    if let Some(open) = part.find('(') {
        let values = part[open + 1..].strip_suffix(')')?;
        let (key, word) = part[..open].trim_end().rsplit_once(char::is_whitespace)?;
        let values: Vec<String> = values.split(',').map(value_of).collect::<Option<_>>()?;
        if values.len() > MAX_VALUES {
            return None;
        }
        let op = match word {
            "in" => Op::In(values),
            "notin" => Op::NotIn(values),
            _ => return None,
        };
        return Some(Term {
            key: key_of(key)?,
            op,
        });
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Some(Term {
            key: key_of(key)?,
            op: Op::IsNot(value_of(value)?),
        });
    }
    if let Some((key, value)) = part.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value);
        return Some(Term {
            key: key_of(key)?,
            op: Op::Is(value_of(value)?),
        });
    }
    Some(Term {
        key: key_of(part)?,
        op: Op::Exists,
    })
}

fn key_of(text: &str) -> Option<String> {
    let text = text.trim();
    is_label_key(text).then(|| text.to_owned())
}

fn value_of(text: &str) -> Option<String> {
    let text = text.trim();
    is_label_value(text).then(|| text.to_owned())
}

/// Whether `text` may be a label's key: an optional DNS prefix and a name, as in Kubernetes.
#[must_use]
pub fn is_label_key(text: &str) -> bool {
    let (prefix, name) = text.rsplit_once('/').unwrap_or(("", text));
    let prefix_fits = prefix.is_empty() && !text.starts_with('/')
        || !prefix.is_empty()
            && prefix.len() <= 253
            && prefix.split('.').all(|part| {
                !part.is_empty()
                    && part
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                    && !part.starts_with('-')
                    && !part.ends_with('-')
            });
    prefix_fits && !name.is_empty() && is_label_value(name)
}

/// Whether `text` may be a label's value: at most 63 letters, digits, `-`, `_`, `.`, the ends alphanumeric.
#[must_use]
pub fn is_label_value(text: &str) -> bool {
    let alphanumeric = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, term) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str(",")?;
            }
            let key = &term.key;
            match &term.op {
                Op::Is(value) => write!(f, "{key}={value}")?,
                Op::IsNot(value) => write!(f, "{key}!={value}")?,
                Op::In(values) => write!(f, "{key} in ({})", values.join(","))?,
                Op::NotIn(values) => write!(f, "{key} notin ({})", values.join(","))?,
                Op::Exists => write!(f, "{key}")?,
                Op::Absent => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}
