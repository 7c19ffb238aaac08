//! Who owns which field: field sets and `metadata.managedFields`.

mod entries;
mod path;
mod set;
mod update;

use serde_json::Value;

use crate::schema::Type;

pub use entries::{Entry, ManagedFields, Operation};
pub use path::PathElement;
pub(crate) use path::same;
pub use set::{FieldSet, FieldSetError, path_text};
pub use update::update_after_write;
pub(crate) use update::without_managed_fields;

/// The fields of an object, as its applier would own them, but for those that nobody owns (name, uid and the like).
#[must_use]
pub fn of(value: &Value, schema: &Value) -> FieldSet {
    let mut set = crate::typed::fields(value, Type(Some(schema)));
    strip(&mut set);
    set
}

/// Fields of every object that nobody owns.
const NOBODYS: [&str; 8] = [
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "generation",
    "managedFields",
    "resourceVersion",
];

/// Takes out what nobody owns.
pub(crate) fn strip(set: &mut FieldSet) {
    set.drop_field("apiVersion");
    set.drop_field("kind");
    let empty = set.field_mut("metadata").is_some_and(|metadata| {
        metadata.member = false;
        for name in NOBODYS {
            metadata.drop_field(name);
        }
        metadata.is_empty()
    });
    if empty {
        set.drop_field("metadata");
    }
}
