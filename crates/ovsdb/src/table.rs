//! What a monitor has seen: tables of rows, kept up to date.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde_json::Value;

use crate::datum::Row;

/// Tables and columns to follow. An empty list of columns means all of them.
pub type MonitorSpec = BTreeMap<String, Vec<String>>;

/// A table: rows by UUID.
pub type Table = HashMap<String, Arc<Row>>;

/// A consistent copy of the monitored tables. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    tables: BTreeMap<String, Arc<Table>>,
}

impl Snapshot {
    /// The rows of a table by UUID.
    pub fn rows(&self, table: &str) -> impl Iterator<Item = (&str, &Row)> {
        self.tables
            .get(table)
            .into_iter()
            .flat_map(|t| t.iter().map(|(id, row)| (id.as_str(), row.as_ref())))
    }

    /// A row.
    #[must_use]
    pub fn row(&self, table: &str, uuid: &str) -> Option<&Row> {
        self.tables.get(table)?.get(uuid).map(AsRef::as_ref)
    }

    /// How many rows a table has.
    #[must_use]
    pub fn count(&self, table: &str) -> usize {
        self.tables.get(table).map_or(0, |t| t.len())
    }

    /// Takes in `<table-updates>` (RFC 7047, section 4.1.6); says whether it was understood.
    pub(crate) fn update(&mut self, updates: &Value) -> Option<()> {
        for (name, rows) in updates.as_object()? {
            let table = Arc::make_mut(self.tables.entry(name.clone()).or_default());
            for (uuid, change) in rows.as_object()? {
                match change.get("new") {
                    Some(new) => {
                        table.insert(uuid.clone(), Arc::new(Row::from_json(new)?));
                    }
                    None => {
                        table.remove(uuid);
                    }
                }
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_come_change_and_go() {
        let mut snapshot = Snapshot::default();
        snapshot
            .update(&json!({"T": {"a": {"new": {"n": 1}}, "b": {"new": {"n": 2}}}}))
            .unwrap();
        let before = snapshot.clone();
        snapshot
            .update(&json!({"T": {"a": {"old": {"n": 1}, "new": {"n": 3}}, "b": {"old": {"n": 2}}}}))
            .unwrap();
        assert_eq!(snapshot.row("T", "a").unwrap().integer("n"), Some(3));
        assert_eq!((snapshot.count("T"), before.count("T")), (1, 2));
        assert_eq!(snapshot.update(&json!({"T": {"a": {"new": {"n": {}}}}})), None);
    }
}
