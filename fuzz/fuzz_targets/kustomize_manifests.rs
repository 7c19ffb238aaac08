//! Manifests: any YAML, within its bounds.
#![no_main]

use kustomize::{Limits, parse_manifests};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Err(error) = parse_manifests("fuzz.yaml", data, &Limits::default()) {
        let _ = error.to_string();
    }
});
