use proptest::prelude::*;
use prost_reflect::prost::Message;
use serde_json::json;

use super::*;

/// Encodes an object as a Go client does, through the same descriptors.
fn encode(api_version: &str, kind: &str, name: &str, fill: impl FnOnce(&mut DynamicMessage)) -> Vec<u8> {
    let pool = pool().unwrap();
    let mut inner = DynamicMessage::new(pool.get_message_by_name(name).unwrap());
    fill(&mut inner);
    let mut unknown = DynamicMessage::new(
        pool.get_message_by_name("k8s.io.apimachinery.pkg.runtime.Unknown")
            .unwrap(),
    );
    let mut meta = DynamicMessage::new(
        pool.get_message_by_name("k8s.io.apimachinery.pkg.runtime.TypeMeta")
            .unwrap(),
    );
    meta.set_field_by_name("apiVersion", Proto::String(api_version.into()));
    meta.set_field_by_name("kind", Proto::String(kind.into()));
    unknown.set_field_by_name("typeMeta", Proto::Message(meta));
    unknown.set_field_by_name("raw", Proto::Bytes(inner.encode_to_vec().into()));
    let mut bytes = MAGIC.to_vec();
    unknown.encode(&mut bytes).unwrap();
    bytes
}

fn sub(name: &str) -> DynamicMessage {
    DynamicMessage::new(pool().unwrap().get_message_by_name(name).unwrap())
}

#[test]
fn a_secret_has_base64_data_and_no_empty_fields() {
    let bytes = encode("v1", "Secret", "k8s.io.api.core.v1.Secret", |secret| {
        let mut meta = sub("k8s.io.apimachinery.pkg.apis.meta.v1.ObjectMeta");
        meta.set_field_by_name("name", Proto::String("s".into()));
        meta.set_field_by_name("generateName", Proto::String(String::new()));
        meta.set_field_by_name(
            "creationTimestamp",
            Proto::Message(sub("k8s.io.apimachinery.pkg.apis.meta.v1.Time")),
        );
        secret.set_field_by_name("metadata", Proto::Message(meta));
        secret.set_field_by_name("type", Proto::String("Opaque".into()));
        let data = [(
            MapKey::String("k".into()),
            Proto::Bytes(b"value".as_slice().into()),
        )];
        secret.set_field_by_name("data", Proto::Map(data.into_iter().collect()));
    });
    let expected = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "type": "Opaque", "data": {"k": "dmFsdWU="}});
    assert_eq!(decode(&bytes).unwrap(), expected);
}

#[test]
fn times_and_options() {
    let bytes = encode(
        "coordination.k8s.io/v1",
        "Lease",
        "k8s.io.api.coordination.v1.Lease",
        |lease| {
            let mut spec = sub("k8s.io.api.coordination.v1.LeaseSpec");
            let mut at = sub("k8s.io.apimachinery.pkg.apis.meta.v1.MicroTime");
            at.set_field_by_name("seconds", Proto::I64(1_700_000_000));
            at.set_field_by_name("nanos", Proto::I32(1_500));
            spec.set_field_by_name("renewTime", Proto::Message(at));
            spec.set_field_by_name("leaseDurationSeconds", Proto::I32(40));
            lease.set_field_by_name("spec", Proto::Message(spec));
        },
    );
    let spec = json!({"renewTime": "2023-11-14T22:13:20.000001Z", "leaseDurationSeconds": 40});
    assert_eq!(decode(&bytes).unwrap()["spec"], spec);
    let bytes = encode(
        "v1",
        "DeleteOptions",
        "k8s.io.apimachinery.pkg.apis.meta.v1.DeleteOptions",
        |options| {
            options.set_field_by_name("gracePeriodSeconds", Proto::I64(0));
            options.set_field_by_name("propagationPolicy", Proto::String("Background".into()));
        },
    );
    let expected = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "propagationPolicy": "Background"});
    assert_eq!(decode(&bytes).unwrap(), expected);
}

#[test]
fn what_it_is_not_is_refused() {
    assert!(matches!(decode(b"{}"), Err(Error::Magic)));
    let bytes = encode("v1", "Nothing", "k8s.io.api.core.v1.Secret", |_| {});
    assert_eq!(
        decode(&bytes).unwrap_err().to_string(),
        "there is no protobuf form of Nothing in v1: send JSON"
    );
}

proptest! {
    #[test]
    fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut body = MAGIC.to_vec();
        body.extend(bytes);
        let _ = decode(&body);
    }
}
