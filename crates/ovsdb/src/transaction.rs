//! Building a transaction (RFC 7047, section 5.2).

use serde_json::{Value, json};

use crate::datum::{Datum, Row};

/// A condition on a row: column, function, value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    column: String,
    function: &'static str,
    value: Datum,
}

impl Condition {
    /// The row with this name.
    pub fn uuid(id: impl Into<String>) -> Self {
        Self {
            column: "_uuid".into(),
            function: "==",
            value: Datum::one(crate::Atom::Uuid(id.into())),
        }
    }

    /// `column == value`.
    #[must_use]
    pub fn equals(column: &str, value: Datum) -> Self {
        Self {
            column: column.into(),
            function: "==",
            value,
        }
    }

    /// `column != value`.
    #[must_use]
    pub fn differs(column: &str, value: Datum) -> Self {
        Self {
            column: column.into(),
            function: "!=",
            value,
        }
    }

    /// The set or map in `column` holds all of `value`.
    #[must_use]
    pub fn includes(column: &str, value: Datum) -> Self {
        Self {
            column: column.into(),
            function: "includes",
            value,
        }
    }

    fn to_json(&self) -> Value {
        json!([self.column, self.function, self.value.to_json()])
    }
}

fn conditions(list: &[Condition]) -> Value {
    list.iter().map(Condition::to_json).collect()
}

/// A list of operations that the server carries out together or not at all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transaction {
    operations: Vec<Value>,
}

impl Transaction {
    /// An empty transaction.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// How many operations there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// The operations as they go over the wire.
    #[must_use]
    pub fn operations(&self) -> &[Value] {
        &self.operations
    }

    /// Adds a row. Others in the same transaction name it as [`Atom::NamedUuid`](crate::Atom::NamedUuid)
    /// `uuid_name`, which must be an identifier (letters, digits, underscores).
    pub fn insert(&mut self, table: &str, row: &Row, uuid_name: Option<&str>) -> &mut Self {
        let mut operation = json!({"op": "insert", "table": table, "row": row.to_json()});
        if let Some(name) = uuid_name {
            operation["uuid-name"] = json!(name);
        }
        self.push(operation)
    }

    /// Sets columns of the rows that match.
    pub fn update(&mut self, table: &str, rows: &[Condition], row: &Row) -> &mut Self {
        self.push(json!({"op": "update", "table": table, "where": conditions(rows), "row": row.to_json()}))
    }

    /// Changes columns of the rows that match: column, mutator (`insert`, `delete`, `+=`, …), value.
    pub fn mutate(
        &mut self,
        table: &str,
        rows: &[Condition],
        mutations: &[(&str, &str, Datum)],
    ) -> &mut Self {
        let mutations: Vec<_> = mutations
            .iter()
            .map(|(c, m, v)| json!([c, m, v.to_json()]))
            .collect();
        self.push(json!({"op": "mutate", "table": table, "where": conditions(rows), "mutations": mutations}))
    }

    /// Reads columns of the rows that match.
    pub fn select(&mut self, table: &str, rows: &[Condition], columns: &[&str]) -> &mut Self {
        self.push(json!({"op": "select", "table": table, "where": conditions(rows), "columns": columns}))
    }

    /// Deletes the rows that match.
    pub fn delete(&mut self, table: &str, rows: &[Condition]) -> &mut Self {
        self.push(json!({"op": "delete", "table": table, "where": conditions(rows)}))
    }

    /// Goes on only if the rows that match have exactly these columns now; the transaction fails otherwise.
    /// With it a plan made from what was seen is not applied to something else.
    pub fn wait(&mut self, table: &str, rows: &[Condition], columns: &[&str], expected: &[Row]) -> &mut Self {
        let expected: Vec<_> = expected.iter().map(Row::to_json).collect();
        self.push(json!({
            "op": "wait", "table": table, "timeout": 0, "where": conditions(rows),
            "columns": columns, "until": "==", "rows": expected,
        }))
    }

    /// A note in the server's log.
    pub fn comment(&mut self, text: &str) -> &mut Self {
        self.push(json!({"op": "comment", "comment": text}))
    }

    fn push(&mut self, operation: Value) -> &mut Self {
        self.operations.push(operation);
        self
    }
}
