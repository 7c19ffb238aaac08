//! The known part of a profile as a schema: types, bounds, and the keys by which lists are merged.

use std::sync::OnceLock;

use serde_json::Value;

use crate::{
    registry::{self, FieldError},
    schema::{self as walk, Entries},
};

const DOCUMENT: &str = include_str!("../../data/profile.yaml");

/// The schema of a profile `{"esx": {…}}`.
///
/// # Panics
/// Never in a build whose tests passed: the document is part of the program.
#[must_use]
#[expect(
    clippy::expect_used,
    reason = "the document is compiled in and loaded by a test"
)]
pub fn schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        registry::load_with_pieces("profile", DOCUMENT).expect("the built-in profile document is well-formed")
    })
}

/// The field that tells the entries of a list apart, if the list is merged entry by entry: of the list's schema,
/// or `option_name` for lists of advanced options, which have no schema.
#[must_use]
pub fn list_key<'a>(schema: Option<&'a Value>, items: &[Value]) -> Option<&'a str> {
    if let Some(key) = schema.and_then(|s| s.pointer("/x-kubernetes-list-map-keys/0")) {
        return key.as_str();
    }
    const OPTION: &str = "option_name";
    (!items.is_empty()
        && items
            .iter()
            .all(|item| item.get(OPTION).is_some_and(Value::is_string)))
    .then_some(OPTION)
}

/// The path of a field: `esx.network_vss`, or `esx["a b"]` for a name that is no plain word.
#[must_use]
pub fn field_path(path: &str, name: &str) -> String {
    walk::join(path, name)
}

/// The path of a list's entry: by its key if the list has one, else by its index.
#[must_use]
pub fn entry_path(path: &str, key: Option<&str>, index: usize, item: &Value) -> String {
    match key.and_then(|key| item.get(key)?.as_str()) {
        Some(key) => format!("{path}[{key}]"),
        None => format!("{path}[{index}]"),
    }
}

/// What does not fit the schema. Paths name list entries by their keys:
/// `esx.network_vss.switches[vSwitch1].port_groups[Cameras].vlan_id`.
#[must_use]
pub fn check(profile: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    walk::validate(Entries::ByKey, schema(), profile, "", &mut errors);
    errors
}

/// Paths of fields that the schema does not know in places where it knows the others.
#[must_use]
pub fn unknown_fields(profile: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk::unknown_fields(Entries::ByKey, schema(), profile, "", &mut found);
    // Groups and keys that the schema has no word for are vocabulary of later versions, not slips: they are listed
    // as not enforced. What this version enforces it knows completely.
    found.retain(|path| {
        let vocabulary = path.strip_prefix("esx.").is_some_and(|rest| {
            !rest.contains('[') && rest.matches('.').count() < 2 && !rest.starts_with("network_vss.")
        });
        !vocabulary
    });
    found
}
