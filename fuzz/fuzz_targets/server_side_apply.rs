//! Server-side apply: `[live, applied]`; applying again changes nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use merge::apply::{ApplyOptions, server_side_apply};

#[path = "../schema.rs"]
mod schema;

fuzz_target!(|data: &[u8]| {
    let Ok([live, applied]) = serde_json::from_slice::<[serde_json::Value; 2]>(data) else {
        return;
    };
    let options = ApplyOptions {
        manager: "fuzz",
        force: true,
        subresource: None,
        now: "2026-01-01T00:00:00Z",
        schema: &schema::SCHEMA,
    };
    let Ok(outcome) = server_side_apply(Some(&live), &applied, &options) else {
        return;
    };
    let again = server_side_apply(Some(&outcome.object), &applied, &options).expect("it went the first time");
    assert!(!again.changed, "first {}\nthen {}", outcome.object, again.object);
});
