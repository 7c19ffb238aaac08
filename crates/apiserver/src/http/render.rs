//! Objects in the form that the client asked for, made from their stored bytes.

use std::{io::Write, sync::Arc};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    api::WatchKind,
    table::{Columns, write_partial},
};

use super::negotiate::Output;

/// How to write objects of one kind for one request.
#[derive(Clone)]
pub(super) struct Form {
    pub(super) output: Output,
    pub(super) columns: Arc<Columns>,
    pub(super) api_version: String,
    pub(super) kind: String,
}

/// What is true of a list as a whole.
#[derive(Clone, Debug, Default)]
pub(super) struct ListMeta {
    pub(super) revision: u64,
    pub(super) next: Option<String>,
    pub(super) remaining: Option<u64>,
}

impl ListMeta {
    fn json(&self) -> Value {
        let mut metadata = json!({"resourceVersion": self.revision.to_string()});
        if let Some(next) = &self.next {
            metadata["continue"] = next.as_str().into();
        }
        if let Some(remaining) = self.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        metadata
    }
}

impl Form {
    /// Everything of a list before its first item.
    pub(super) fn list_head(&self, meta: &ListMeta) -> Vec<u8> {
        let (kind, api_version, items) = match self.output {
            Output::Json => (format!("{}List", self.kind), self.api_version.as_str(), "items"),
            Output::Partial => ("PartialObjectMetadataList".into(), "meta.k8s.io/v1", "items"),
            Output::Table(_) => ("Table".into(), "meta.k8s.io/v1", "rows"),
        };
        let mut head = format!(
            "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{}",
            Value::String(kind),
            Value::from(api_version),
            meta.json()
        );
        if let Output::Table(_) = self.output {
            head += &format!(",\"columnDefinitions\":{}", self.columns.definitions());
        }
        head += &format!(",\"{items}\":[");
        head.into_bytes()
    }

    /// One item of a list.
    pub(super) fn write_item(&self, out: &mut Vec<u8>, raw: &[u8], now: Timestamp) -> serde_json::Result<()> {
        match self.output {
            Output::Json => {
                out.extend_from_slice(raw);
                Ok(())
            }
            Output::Partial => write_partial(out, raw),
            Output::Table(include) => self.columns.write_row(out, raw, include, now),
        }
    }

    /// One object by itself.
    pub(super) fn object(&self, raw: &[u8], now: Timestamp) -> serde_json::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(raw.len());
        self.write_object(&mut out, raw, true, now)?;
        Ok(out)
    }

    /// One object by itself; a table's columns are told only with the first of a watch.
    fn write_object(
        &self,
        out: &mut Vec<u8>,
        raw: &[u8],
        first: bool,
        now: Timestamp,
    ) -> serde_json::Result<()> {
        let Output::Table(include) = self.output else {
            return self.write_item(out, raw, now);
        };
        self.write_table_head(out, raw, first);
        self.columns.write_row(out, raw, include, now)?;
        out.extend_from_slice(b"]}");
        Ok(())
    }

    /// One frame of a watch. Errors and bookmarks are as they are, but for a bookmark among tables.
    pub(super) fn write_event(
        &self,
        out: &mut Vec<u8>,
        kind: WatchKind,
        raw: &[u8],
        first: bool,
        now: Timestamp,
    ) -> serde_json::Result<()> {
        let start = out.len();
        let _ = write!(out, "{{\"type\":\"{}\",\"object\":", kind.as_str());
        let written = match (kind, self.output) {
            (WatchKind::Error, _) | (_, Output::Json) => {
                out.extend_from_slice(raw);
                Ok(())
            }
            (WatchKind::Bookmark, Output::Table(_)) => {
                self.write_table_head(out, raw, first);
                out.extend_from_slice(b"]}");
                Ok(())
            }
            _ => self.write_object(out, raw, first, now),
        };
        match written {
            Ok(()) => out.extend_from_slice(b"}\n"),
            Err(_) => out.truncate(start),
        }
        written
    }

    fn write_table_head(&self, out: &mut Vec<u8>, raw: &[u8], first: bool) {
        let definitions = if first {
            self.columns.definitions()
        } else {
            Value::Null
        };
        let metadata = json!({"resourceVersion": revision_of(raw)});
        // Writing to a Vec can't fail.
        let _ = write!(
            out,
            "{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata},\"columnDefinitions\":{definitions},\"rows\":["
        );
    }
}

fn revision_of(raw: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Outer {
        metadata: Meta,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Meta {
        #[serde(default)]
        resource_version: String,
    }
    serde_json::from_slice::<Outer>(raw)
        .map(|o| o.metadata.resource_version)
        .unwrap_or_default()
}
