//! Variables in texts: what has none stays, and what is filled in once needs no second time.
#![no_main]

use std::collections::BTreeMap;

use kustomize::substitute::fill;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let variables = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("empty".into(), String::new())]);
    match fill(text, &variables) {
        Ok(filled) if !text.contains('$') => assert_eq!(filled, text),
        Ok(_) => {}
        Err(error) => {
            assert!(text.contains("${"));
            let _ = error.to_string();
        }
    }
});
