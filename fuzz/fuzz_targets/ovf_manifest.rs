//! The checksums in an OVA.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = image::manifest::parse(text);
});
