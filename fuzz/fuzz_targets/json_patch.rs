//! JSON patches and merge patches: `[object, patch]`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok([object, patch]) = serde_json::from_slice::<[serde_json::Value; 2]>(data) else {
        return;
    };
    let mut patched = object.clone();
    match merge::json::patch(&mut patched, &patch) {
        Ok(()) => {
            // The store has to be able to read it back.
            let text = patched.to_string();
            assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
        Err(_) => assert_eq!(patched, object, "a patch that fails changes nothing"),
    }
    let mut merged = object;
    merge::json::merge_patch(&mut merged, &patch);
});
