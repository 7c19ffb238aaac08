//! Events in their two forms. `v1` is stored; `events.k8s.io/v1` is another view of the same objects, and
//! nothing is lost on the way there and back.

use serde_json::{Map, Value};

use crate::object::Object;

/// Field of the core group, field of `events.k8s.io`.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// `events.k8s.io/v1` to `v1`.
pub fn into_core(object: &mut Object) {
    rename(object, "v1", |(core, events)| (events, core));
    // A core event must say what it is about.
    if let Some(map) = object.as_object_mut() {
        map.entry("involvedObject")
            .or_insert_with(|| Value::Object(Map::new()));
    }
}

/// `v1` to `events.k8s.io/v1`.
pub fn into_events(object: &mut Object) {
    rename(object, "events.k8s.io/v1", |names| names);
}

fn rename(
    object: &mut Object,
    api_version: &str,
    order: fn((&'static str, &'static str)) -> (&'static str, &'static str),
) {
    let Some(map) = object.as_object_mut() else { return };
    map.insert("apiVersion".into(), api_version.into());
    for names in NAMES {
        let (from, to) = order(names);
        if let Some(value) = map.remove(from) {
            map.insert(to.into(), value);
        }
    }
}
