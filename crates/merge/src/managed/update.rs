//! Ownership after a write that is no apply.

use serde_json::Value;

use super::entries::{Entry, ManagedFields, Operation};
use super::strip;
use crate::schema::Type;
use crate::typed;

/// An object without `metadata.managedFields`.
pub(crate) fn without_managed_fields(object: &Value) -> Value {
    let Some(map) = object.as_object() else {
        return object.clone();
    };
    // Not copied first: managedFields are often half of the object.
    map.iter()
        .map(|(key, value)| match value {
            Value::Object(metadata) if key == "metadata" => {
                let rest = metadata.iter().filter(|(name, _)| *name != "managedFields");
                (
                    key.clone(),
                    Value::Object(rest.map(|(n, v)| (n.clone(), v.clone())).collect()),
                )
            }
            _ => (key.clone(), value.clone()),
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Brings `metadata.managedFields` of `new` up to date after a create, update or patch by `manager`.
///
/// Fields that the write added or changed are `manager`'s now and nobody else's; fields that it removed are nobody's.
/// A write that changes nothing changes no entry and no time. An existing object without managers is not tracked until
/// somebody applies. `new` may bring its own `managedFields`: a readable list is taken as given (that is how clients take
/// over or drop managers), `[{}]` drops all, none at all keeps those of `old`; through a subresource they are ignored.
pub fn update_after_write(
    old: Option<&Value>,
    new: &mut Value,
    manager: &str,
    api_version: &str,
    subresource: Option<&str>,
    now: &str,
    schema: &Value,
) {
    let mut managers = base(old, new, subresource.is_some());
    let tracked = old.is_none() || !managers.entries.is_empty();
    let old = old.map(without_managed_fields);
    let bare = without_managed_fields(new);
    if tracked {
        record(
            &mut managers,
            old.as_ref(),
            &bare,
            manager,
            api_version,
            subresource,
            now,
            schema,
        );
    }
    *new = bare;
    managers.write(new);
}

/// The managers to start from.
fn base(old: Option<&Value>, new: &Value, is_subresource: bool) -> ManagedFields {
    let of_old = || old.and_then(ManagedFields::of).unwrap_or_default();
    if is_subresource {
        return of_old();
    }
    let given = new.pointer("/metadata/managedFields").and_then(Value::as_array);
    if let Some([Value::Object(entry)]) = given.map(Vec::as_slice)
        && entry.is_empty()
    {
        return ManagedFields::default();
    }
    match ManagedFields::of(new) {
        Some(managers) if !managers.entries.is_empty() => managers,
        _ => of_old(),
    }
}

#[expect(clippy::too_many_arguments, reason = "one call, of the function above")]
fn record(
    managers: &mut ManagedFields,
    old: Option<&Value>,
    new: &Value,
    manager: &str,
    api_version: &str,
    subresource: Option<&str>,
    now: &str,
    schema: &Value,
) {
    let ty = Type(Some(schema));
    let change = typed::compare(old, Some(new), ty);
    if change.is_same() {
        return;
    }
    let mut taken = change.modified.union(&change.added);
    for entry in &mut managers.entries {
        if let Some(fitted) = typed::reconcile(&entry.fields, ty, 0) {
            entry.fields = fitted;
        }
        entry.fields = entry.fields.difference(&taken).difference(&change.removed);
    }
    strip(&mut taken);
    if !taken.is_empty() {
        let subresource = subresource.unwrap_or_default();
        let own = managers
            .entries
            .iter_mut()
            .find(|e| e.is(manager, Operation::Update, api_version, subresource));
        match own {
            Some(own) => {
                own.fields = own.fields.union(&taken);
                own.time = now.into();
            }
            None => managers.entries.push(Entry {
                manager: manager.into(),
                operation: Operation::Update,
                api_version: api_version.into(),
                time: now.into(),
                fields: taken,
                subresource: subresource.into(),
            }),
        }
    }
    managers.drop_empty();
    managers.cap();
}
