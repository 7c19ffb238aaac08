//! Bodies in JSON, YAML and protobuf; and what the registry makes of the object: its defaults settle, and it can be
//! checked.
#![no_main]

use std::sync::LazyLock;

use kinds::registry::Registry;
use libfuzzer_sys::fuzz_target;

static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::builtin);

fuzz_target!(|data: &[u8]| {
    let Some((&first, body)) = data.split_first() else {
        return;
    };
    let content_type = match first % 3 {
        0 => "application/json",
        1 => "application/yaml",
        _ => "application/vnd.kubernetes.protobuf",
    };
    let Some(mut object) = apiserver::http::fuzzing::request_body(content_type, body) else {
        return;
    };
    let Some(kind) = REGISTRY.by_gvk(&kinds::Gvk::of(&object)) else {
        return;
    };
    kind.set_defaults(&mut object);
    let once = object.clone();
    kind.set_defaults(&mut object);
    assert_eq!(once, object, "defaults settle at once");
    kind.admit(None, &mut object, "2026-01-02T03:04:05Z");
    let _ = kind.validate(&object);
    let _ = kind.unknown_fields(&object);
});
