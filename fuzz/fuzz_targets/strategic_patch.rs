//! Strategic merge patches: `[object, patch]` against a schema with every kind of list.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../schema.rs"]
mod schema;

fuzz_target!(|data: &[u8]| {
    let Ok([object, patch]) = serde_json::from_slice::<[serde_json::Value; 2]>(data) else {
        return;
    };
    let mut patched = object.clone();
    if merge::strategic::patch(&mut patched, &patch, &schema::SCHEMA).is_err() {
        assert_eq!(patched, object, "a patch that fails changes nothing");
    }
});
