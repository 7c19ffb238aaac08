//! Field sets: what is read is written the same, and set operations agree.
#![no_main]

use libfuzzer_sys::fuzz_target;
use merge::managed::FieldSet;

fuzz_target!(|data: &[u8]| {
    let Ok(value) = serde_json::from_slice(data) else {
        return;
    };
    let Ok(set) = FieldSet::from_fields_v1(&value) else {
        return;
    };
    let written: serde_json::Value = serde_json::from_str(&set.to_json()).expect("what we write is JSON");
    assert_eq!(
        FieldSet::from_fields_v1(&written).expect("what we write can be read"),
        set
    );
    assert!(set.difference(&set).is_empty());
    assert_eq!(set.union(&set), set);
    assert_eq!(set.intersection(&set), set);
    assert!(set.includes(&set));
});
