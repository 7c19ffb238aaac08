//! `metadata.managedFields` as a list of entries.

use std::cmp::Ordering;

use serde_json::{Map, Value, json};

use super::set::FieldSet;

/// How a manager came to own its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// By any other write.
    Update,
}

impl Operation {
    /// `Apply` or `Update`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// What one manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub manager: String,
    /// How.
    pub operation: Operation,
    /// The version of the object that the fields are of.
    pub api_version: String,
    /// When the fields last changed, RFC 3339; empty if unknown.
    pub time: String,
    /// The fields.
    pub fields: FieldSet,
    /// `status` and the like; empty for the object itself.
    pub subresource: String,
}

impl Entry {
    /// Whether two entries are of the same manager. An applier is the same in every version of the object.
    #[must_use]
    pub fn is_of(&self, other: &Self) -> bool {
        self.is(
            &other.manager,
            other.operation,
            &other.api_version,
            &other.subresource,
        )
    }

    pub(crate) fn is(
        &self,
        manager: &str,
        operation: Operation,
        api_version: &str,
        subresource: &str,
    ) -> bool {
        self.operation == operation
            && self.manager == manager
            && self.subresource == subresource
            && (operation == Operation::Apply || self.api_version == api_version)
    }

    fn parse(value: &Value) -> Option<Self> {
        let text = |key: &str| {
            value
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let operation = match value.get("operation")?.as_str()? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        if value.get("fieldsType").is_some_and(|t| t != "FieldsV1") {
            return None;
        }
        let fields = match value.get("fieldsV1") {
            None | Some(Value::Null) => FieldSet::new(),
            Some(fields) => FieldSet::from_fields_v1(fields).ok()?,
        };
        Some(Self {
            manager: text("manager"),
            operation,
            api_version: text("apiVersion"),
            time: text("time"),
            fields,
            subresource: text("subresource"),
        })
    }

    fn to_value(&self) -> Value {
        let mut value = json!({
            "manager": self.manager, "operation": self.operation.as_str(), "apiVersion": self.api_version,
            "fieldsType": "FieldsV1", "fieldsV1": self.fields.to_fields_v1(),
        });
        if !self.time.is_empty() {
            value["time"] = self.time.as_str().into();
        }
        if !self.subresource.is_empty() {
            value["subresource"] = self.subresource.as_str().into();
        }
        value
    }
}

/// The managers of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManagedFields {
    /// One entry per manager.
    pub entries: Vec<Entry>,
}

/// The most managers that wrote without applying; the oldest beyond it are put together.
const MAX_UPDATERS: usize = 10;

/// The manager that the oldest writers are put together under.
const ANCIENT: &str = "ancient-changes";

impl ManagedFields {
    /// Reads `metadata.managedFields` of an object. `None` if they cannot be read; none at all is an empty list.
    #[must_use]
    pub fn of(object: &Value) -> Option<Self> {
        match object.pointer("/metadata/managedFields") {
            None | Some(Value::Null) => Some(Self::default()),
            Some(list) => Self::parse(list),
        }
    }

    /// Reads a list of entries. `None` if it is none.
    #[must_use]
    pub fn parse(list: &Value) -> Option<Self> {
        let mut entries: Vec<Entry> = Vec::new();
        for item in list.as_array()? {
            let entry = Entry::parse(item)?;
            match entries.iter_mut().find(|known| known.is_of(&entry)) {
                Some(known) => *known = entry,
                None => entries.push(entry),
            }
        }
        Some(Self { entries })
    }

    /// As JSON, in upstream's order: appliers first, then by time, manager, version.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut sorted: Vec<&Entry> = self.entries.iter().collect();
        sorted.sort_by(|a, b| order(a, b));
        Value::Array(sorted.into_iter().map(Entry::to_value).collect())
    }

    /// Writes `metadata.managedFields`; without entries the field is taken away.
    pub fn write(&self, object: &mut Value) {
        let Some(object) = object.as_object_mut() else {
            return;
        };
        if self.entries.is_empty() {
            if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
                metadata.remove("managedFields");
            }
            return;
        }
        let metadata = object
            .entry("metadata")
            .or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(metadata) = metadata {
            metadata.insert("managedFields".into(), self.to_value());
        }
    }

    /// Whether two lists say the same, whatever the times and the order.
    #[must_use]
    pub fn same_but_times(&self, other: &Self) -> bool {
        let known = |entry: &Entry| {
            let found = other.entries.iter().find(|o| o.is_of(entry));
            found.is_some_and(|o| o.fields == entry.fields && o.api_version == entry.api_version)
        };
        self.entries.len() == other.entries.len() && self.entries.iter().all(known)
    }

    /// Drops entries without fields.
    pub(crate) fn drop_empty(&mut self) {
        self.entries.retain(|entry| !entry.fields.is_empty());
    }

    /// Keeps the number of updaters bounded, by putting the oldest together, one entry per version.
    pub(crate) fn cap(&mut self) {
        let mut excess = self
            .entries
            .iter()
            .filter(|e| e.operation == Operation::Update)
            .count();
        if excess <= MAX_UPDATERS {
            return;
        }
        self.entries.sort_by(order);
        let (updaters, mut kept): (Vec<Entry>, Vec<Entry>) = std::mem::take(&mut self.entries)
            .into_iter()
            .partition(|e| e.operation == Operation::Update);
        let mut buckets: Vec<Entry> = Vec::new();
        for mut entry in updaters {
            if excess <= MAX_UPDATERS {
                kept.push(entry);
                continue;
            }
            match buckets.iter_mut().find(|b| b.api_version == entry.api_version) {
                Some(bucket) => {
                    bucket.fields = bucket.fields.union(&entry.fields);
                    bucket.time = std::mem::take(&mut entry.time);
                    excess -= 1;
                }
                None => {
                    entry.manager = ANCIENT.into();
                    entry.subresource.clear();
                    buckets.push(entry);
                }
            }
        }
        kept.append(&mut buckets);
        self.entries = kept;
    }
}

fn order(a: &Entry, b: &Entry) -> Ordering {
    a.operation
        .cmp(&b.operation)
        .then_with(|| a.time.cmp(&b.time))
        .then_with(|| a.manager.cmp(&b.manager))
        .then_with(|| a.api_version.cmp(&b.api_version))
        .then_with(|| a.subresource.cmp(&b.subresource))
}
