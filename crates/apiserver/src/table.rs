//! `meta.k8s.io/v1` Table and PartialObjectMetadata: what `kubectl get` shows.
//!
//! Rows are made one by one from stored bytes, so that a list of any length needs the memory of one object.

use jiff::Timestamp;
use kinds::registry::{Column, VersionDef};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

/// The beginning of a PartialObjectMetadata.
const PARTIAL: &[u8] = br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#;

/// What goes into `object` of each row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum IncludeObject {
    /// Nothing.
    None,
    /// PartialObjectMetadata.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

/// The columns of one version of a kind, ready to make rows.
pub(crate) struct Columns {
    columns: Vec<Column>,
}

impl Columns {
    /// From a kind's data. A kind without columns gets its age.
    pub(crate) fn of(version: &VersionDef) -> Self {
        let mut columns = version.columns.clone();
        if columns.is_empty() {
            columns.push(Column {
                name: "Age".into(),
                kind: "date".into(),
                format: String::new(),
                description: "Time since the object was created.".into(),
                priority: 0,
                json_path: ".metadata.creationTimestamp".into(),
                computed: None,
            });
        }
        Self { columns }
    }

    /// `columnDefinitions`.
    pub(crate) fn definitions(&self) -> Value {
        let name = json!({
            "name": "Name", "type": "string", "format": "name", "priority": 0,
            "description": "Name of the object, unique among its kind in its namespace.",
        });
        let rest = self.columns.iter().map(|c| {
            json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority})
        });
        Value::Array(std::iter::once(name).chain(rest).collect())
    }

    /// Writes one row, `raw` being the object's JSON.
    pub(crate) fn write_row(
        &self,
        out: &mut Vec<u8>,
        raw: &[u8],
        include: IncludeObject,
        now: Timestamp,
    ) -> serde_json::Result<()> {
        let object: Value = serde_json::from_slice(raw)?;
        let mut cells = vec![Value::String(kinds::object::name(&object).to_owned())];
        cells.extend(self.columns.iter().map(|column| column.cell(&object, now)));
        out.extend_from_slice(b"{\"cells\":");
        serde_json::to_writer(&mut *out, &cells)?;
        match include {
            IncludeObject::None => {}
            IncludeObject::Metadata => {
                out.extend_from_slice(b",\"object\":");
                out.extend_from_slice(PARTIAL);
                serde_json::to_writer(&mut *out, &object["metadata"])?;
                out.push(b'}');
            }
            IncludeObject::Object => {
                out.extend_from_slice(b",\"object\":");
                out.extend_from_slice(raw);
            }
        }
        out.push(b'}');
        Ok(())
    }
}

/// Writes an object's PartialObjectMetadata. The rest of the object is skipped, not decoded.
pub(crate) fn write_partial(out: &mut Vec<u8>, raw: &[u8]) -> serde_json::Result<()> {
    #[derive(Deserialize)]
    struct Outer<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let outer: Outer<'_> = serde_json::from_slice(raw)?;
    out.extend_from_slice(
        b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":",
    );
    out.extend_from_slice(outer.metadata.get().as_bytes());
    out.push(b'}');
    Ok(())
}

#[cfg(test)]
mod tests;
