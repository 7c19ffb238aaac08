use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn duplicates_are_named() {
    let decoded = json(br#"{"a": 1, "b": [{"c": 1}, {"c": 2, "c": {"d": -1}}], "a": 2.5}"#).unwrap();
    assert_eq!(decoded.duplicates, ["b[1].c", "a"]);
    assert_eq!(
        decoded.object,
        json!({"a": 2.5, "b": [{"c": 1}, {"c": {"d": -1}}]})
    );
}

#[test]
fn what_is_no_object_is_refused() {
    for body in ["[]", "1", "{", "{} x", "\"a\""] {
        assert_eq!(
            object(body.as_bytes(), Format::Json).unwrap_err().code,
            400,
            "{body}"
        );
    }
    assert_eq!(object(b"", Format::Json).unwrap().object, Value::Null);
    let deep = "[".repeat(100_000);
    assert_eq!(object(deep.as_bytes(), Format::Json).unwrap_err().code, 400);
    assert_eq!(object(deep.as_bytes(), Format::Yaml).unwrap_err().code, 400);
    assert_eq!(object(b"k8s\0\xff\xff", Format::Protobuf).unwrap_err().code, 400);
}

#[test]
fn yaml_as_kubectl_reads_it() {
    assert_eq!(
        object(b"mode: 0644\non: yes\nhex: 0x10\n", Format::Yaml)
            .unwrap()
            .object["mode"],
        420
    );
    let error = object(b"a: 1\na: 2\n", Format::Yaml).unwrap_err();
    assert!(error.message.contains("duplicate"), "{}", error.message);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-c]{1,2}", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn json_is_read_as_serde_json_does(value in any_json()) {
        let decoded = json(value.to_string().as_bytes()).unwrap();
        prop_assert_eq!(decoded.object, value);
        prop_assert!(decoded.duplicates.is_empty());
    }
}
