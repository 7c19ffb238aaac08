use kinds::registry::Registry;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn wants(labels: &str, fields: &str) -> Result<bool, Status> {
    let registry = Registry::builtin();
    let kind = registry.by_kind("", "Event").unwrap();
    let object = json!({
        "metadata": {"name": "n", "namespace": "ns", "labels": {"app": "web", "tier": "front", "n": "5", "empty": ""}},
        "involvedObject": {"name": "vm=1,a", "kind": "VirtualMachine"}, "type": "Warning", "source": {"component": "vm"},
    });
    let selector = Selector::parse(labels, fields, kind)?;
    let bytes = serde_json::to_vec(&object).unwrap();
    let by_bytes = selector.wants_key("ns", "n") && selector.wants_bytes(&bytes, || Ok(object.clone()))?;
    assert_eq!(by_bytes, selector.wants(&object), "{labels} {fields}");
    Ok(by_bytes)
}

#[test]
fn label_selectors() {
    for (text, expected) in [
        ("", true),
        ("app=web", true),
        ("app==web", true),
        ("app = web , tier=front", true),
        ("app!=web", false),
        ("app!=db", true),
        ("none!=x", true),
        ("app in (db, web)", true),
        ("app in (db)", false),
        ("app notin (db,cache)", true),
        ("app notin (web)", false),
        ("none notin (a)", true),
        ("app", true),
        ("none", false),
        ("!none", true),
        ("!app", false),
        ("n>4", true),
        ("n>5", false),
        ("n<6", true),
        ("app>1", false),
        ("empty=", true),
        ("app=", false),
        ("app in (web),tier in (front,back),!x", true),
        ("app in (web),tier in (back),!x", false),
    ] {
        assert_eq!(wants(text, "").unwrap(), expected, "{text}");
    }
}

#[test]
fn field_selectors() {
    for (text, expected) in [
        ("metadata.name=n", true),
        ("metadata.name==n,metadata.namespace=ns", true),
        ("metadata.name!=n", false),
        ("metadata.namespace!=other", true),
        (r"involvedObject.name=vm\=1\,a", true),
        ("involvedObject.kind=VirtualMachine,type!=Normal", true),
        ("involvedObject.uid=", true),
        ("reason!=", false),
        ("source=vm", true),
    ] {
        assert_eq!(wants("", text).unwrap(), expected, "{text}");
    }
}

#[test]
fn wrong_selectors_say_what_is_wrong() {
    for (labels, fields, says) in [
        ("app in (a", "", "not closed"),
        ("app isin (a)", "", "neither"),
        ("a,,b", "", "empty"),
        ("-bad=x", "", "key"),
        ("app=not allowed", "", "value"),
        ("n>x", "", "whole number"),
        ("", "spec.foo=x", "field label not supported: spec.foo"),
        ("", "metadata.name", "neither"),
        ("", r"metadata.name=\x", "stands for nothing"),
    ] {
        let status = wants(labels, fields).unwrap_err();
        assert_eq!(
            (status.code, status.message.contains(says)),
            (400, true),
            "{status}"
        );
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(labels in ".{0,60}", fields in ".{0,60}") {
        let _ = wants(&labels, &fields);
    }
}
