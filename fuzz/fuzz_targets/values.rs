//! Small values: durations, quantities, OVSDB's data. What is read and written is read the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ovsdb::{Datum, Row};
use serde_json::Value;

fuzz_target!(|text: &str| {
    if let Ok(span) = kinds::duration::parse(text) {
        let written = kinds::duration::format(span);
        assert_eq!(kinds::duration::parse(&written).ok(), Some(span), "{written}");
    }
    let value = Value::String(text.into());
    let _ = (
        kinds::quantity::bytes(&value),
        kinds::quantity::cpu_millis(&value),
    );
    let Ok(value) = serde_json::from_str::<Value>(text) else {
        return;
    };
    let _ = (
        kinds::quantity::bytes(&value),
        kinds::quantity::cpu_millis(&value),
    );
    if let Some(datum) = Datum::from_json(&value) {
        let again = Datum::from_json(&datum.to_json());
        // The last digit of a real may change, as serde_json reads it; nothing of ours is one.
        if !format!("{datum:?}").contains("Real(") {
            assert_eq!(again, Some(datum));
        }
    }
    let _ = Row::from_json(&value);
});
