//! Values of database columns (RFC 7047, section 5.1).

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// One element of a column.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Atom {
    /// An integer.
    Integer(i64),
    /// A real, kept as it was written so that atoms can be ordered and compared.
    Real(String),
    /// A boolean.
    Boolean(bool),
    /// A string.
    String(String),
    /// The name of a row.
    Uuid(String),
    /// The name of a row that the same transaction inserts.
    NamedUuid(String),
}

/// A column's value: a set (a scalar is a set of one) or a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Datum {
    /// A set, in the order received.
    Set(Vec<Atom>),
    /// A map.
    Map(BTreeMap<Atom, Atom>),
}

/// A row, or a part of one: values by column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row(pub BTreeMap<String, Datum>);

impl From<&str> for Atom {
    fn from(value: &str) -> Self {
        Self::String(value.into())
    }
}

impl From<String> for Atom {
    fn from(value: String) -> Self {
        Self::String(value)
    }
}

impl From<i64> for Atom {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<bool> for Atom {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl Atom {
    /// The wire form.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Integer(n) => json!(n),
            Self::Real(text) => serde_json::from_str(text).unwrap_or(Value::Null),
            Self::Boolean(b) => json!(b),
            Self::String(s) => json!(s),
            Self::Uuid(u) => json!(["uuid", u]),
            Self::NamedUuid(n) => json!(["named-uuid", n]),
        }
    }

    /// From the wire form; `None` if it is none.
    #[must_use]
    pub fn from_json(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Bool(b) => Self::Boolean(*b),
            Value::String(s) => Self::String(s.clone()),
            Value::Number(n) => n
                .as_i64()
                .map_or_else(|| Self::Real(n.to_string()), Self::Integer),
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(tag), Value::String(id)] if tag == "uuid" => Self::Uuid(id.clone()),
                [Value::String(tag), Value::String(id)] if tag == "named-uuid" => Self::NamedUuid(id.clone()),
                _ => return None,
            },
            _ => return None,
        })
    }

    /// The text of a string or of a row's name.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(s) | Self::Uuid(s) | Self::NamedUuid(s) => Some(s),
            _ => None,
        }
    }
}

impl Datum {
    /// The empty set.
    #[must_use]
    pub fn empty() -> Self {
        Self::Set(Vec::new())
    }

    /// A scalar.
    pub fn one(atom: impl Into<Atom>) -> Self {
        Self::Set(vec![atom.into()])
    }

    /// A set.
    pub fn set<A: Into<Atom>>(atoms: impl IntoIterator<Item = A>) -> Self {
        Self::Set(atoms.into_iter().map(Into::into).collect())
    }

    /// A map of strings.
    pub fn map<K: Into<Atom>, V: Into<Atom>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        Self::Map(pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect())
    }

    /// The wire form.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Set(atoms) => match atoms.as_slice() {
                [one] => one.to_json(),
                many => json!(["set", many.iter().map(Atom::to_json).collect::<Vec<_>>()]),
            },
            Self::Map(pairs) => {
                let pairs: Vec<_> = pairs
                    .iter()
                    .map(|(k, v)| json!([k.to_json(), v.to_json()]))
                    .collect();
                json!(["map", pairs])
            }
        }
    }

    /// From the wire form; `None` if it is none.
    #[must_use]
    pub fn from_json(value: &Value) -> Option<Self> {
        if let Value::Array(pair) = value
            && let [Value::String(tag), Value::Array(items)] = pair.as_slice()
        {
            match tag.as_str() {
                "set" => {
                    return items
                        .iter()
                        .map(Atom::from_json)
                        .collect::<Option<_>>()
                        .map(Self::Set);
                }
                "map" => {
                    return items
                        .iter()
                        .map(|pair| match pair.as_array()?.as_slice() {
                            [k, v] => Some((Atom::from_json(k)?, Atom::from_json(v)?)),
                            _ => None,
                        })
                        .collect::<Option<_>>()
                        .map(Self::Map);
                }
                _ => {}
            }
        }
        Atom::from_json(value).map(|atom| Self::Set(vec![atom]))
    }
}

impl Row {
    /// An empty row.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more column.
    #[must_use]
    pub fn with(mut self, column: &str, value: Datum) -> Self {
        self.0.insert(column.into(), value);
        self
    }

    /// The wire form.
    #[must_use]
    pub fn to_json(&self) -> Value {
        Value::Object(self.0.iter().map(|(k, v)| (k.clone(), v.to_json())).collect())
    }

    /// From the wire form; `None` if it is none.
    #[must_use]
    pub fn from_json(value: &Value) -> Option<Self> {
        let columns = value.as_object()?.iter();
        columns
            .map(|(k, v)| Some((k.clone(), Datum::from_json(v)?)))
            .collect::<Option<_>>()
            .map(Self)
    }

    /// A column's elements; none for a map or a column that is not there.
    #[must_use]
    pub fn atoms(&self, column: &str) -> &[Atom] {
        match self.0.get(column) {
            Some(Datum::Set(atoms)) => atoms,
            _ => &[],
        }
    }

    /// A string column; empty if it is not set.
    #[must_use]
    pub fn text(&self, column: &str) -> &str {
        self.atoms(column)
            .first()
            .and_then(Atom::as_str)
            .unwrap_or_default()
    }

    /// An integer column, if set.
    #[must_use]
    pub fn integer(&self, column: &str) -> Option<i64> {
        match self.atoms(column).first() {
            Some(Atom::Integer(n)) => Some(*n),
            _ => None,
        }
    }

    /// A boolean column, if set.
    #[must_use]
    pub fn boolean(&self, column: &str) -> Option<bool> {
        match self.atoms(column).first() {
            Some(Atom::Boolean(b)) => Some(*b),
            _ => None,
        }
    }

    /// The rows that a column names.
    pub fn references(&self, column: &str) -> impl Iterator<Item = &str> {
        self.atoms(column).iter().filter_map(|atom| match atom {
            Atom::Uuid(id) => Some(id.as_str()),
            _ => None,
        })
    }

    /// The value of a key in a column that maps strings to strings.
    #[must_use]
    pub fn key(&self, column: &str, key: &str) -> Option<&str> {
        match self.0.get(column)? {
            Datum::Map(pairs) => pairs.get(&Atom::from(key))?.as_str(),
            Datum::Set(_) => None,
        }
    }

    /// A column that maps strings to strings.
    #[must_use]
    pub fn strings(&self, column: &str) -> BTreeMap<&str, &str> {
        match self.0.get(column) {
            Some(Datum::Map(pairs)) => pairs
                .iter()
                .filter_map(|(k, v)| Some((k.as_str()?, v.as_str()?)))
                .collect(),
            _ => BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_forms_go_both_ways() {
        for text in [
            r#"5"#,
            r#""a""#,
            r#"true"#,
            r#"["uuid","6f1f"]"#,
            r#"["set",[]]"#,
            r#"["set",[1,2]]"#,
            r#"["set",[["uuid","a"],["uuid","b"]]]"#,
            r#"["map",[["k","v"],["l",3]]]"#,
        ] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(Datum::from_json(&value).unwrap().to_json(), value);
        }
        assert_eq!(Datum::from_json(&json!({"a": 1})), None);
        assert_eq!(Datum::from_json(&json!(["map", [["only"]]])), None);
    }

    #[test]
    fn a_row_answers_by_column() {
        let row = Row::from_json(&json!({
            "name": "br0", "tag": 7, "up": false, "ports": ["set", [["uuid", "a"]]], "ids": ["map", [["k", "v"]]],
        }))
        .unwrap();
        assert_eq!(
            (row.text("name"), row.integer("tag"), row.boolean("up")),
            ("br0", Some(7), Some(false))
        );
        assert_eq!(row.references("ports").collect::<Vec<_>>(), ["a"]);
        assert_eq!(
            (row.key("ids", "k"), row.key("ids", "x"), row.integer("none")),
            (Some("v"), None, None)
        );
    }
}
