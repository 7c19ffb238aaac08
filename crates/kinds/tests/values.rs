//! Quantities, time spans, paths and names of network cards: examples and properties.

use std::{collections::BTreeSet, time::Duration};

use kinds::{columns::since, duration, jsonpath, network::NicIdentity, quantity};
use proptest::prelude::*;
use serde_json::{Value, json};

#[test]
fn quantities() {
    for (value, bytes, millis) in [
        (json!(2), 2, 2000),
        (json!("2000m"), 2, 2000),
        (json!("1500m"), 2, 1500),
        (json!("1"), 1, 1000),
        (json!(0.5), 1, 500),
        (json!("1Ki"), 1024, 1_024_000),
        (json!("1.5Ki"), 1536, 1_536_000),
        (json!("1e3"), 1000, 1_000_000),
        (json!("2E2"), 200, 200_000),
        (json!("1k"), 1000, 1_000_000),
        (json!(" 3 "), 3, 3000),
        (json!("+3"), 3, 3000),
        (json!("1n"), 1, 1),
        (json!("0.0"), 0, 0),
        (json!("-0"), 0, 0),
        (json!(".5"), 1, 500),
        (json!("5."), 5, 5000),
    ] {
        assert_eq!(quantity::bytes(&value), Ok(bytes), "{value}");
        assert_eq!(quantity::cpu_millis(&value), Ok(millis), "{value}");
    }
    assert_eq!(quantity::bytes(&json!("8Gi")), Ok(8 << 30));
    assert_eq!(quantity::bytes(&json!("15Ei")), Ok(15 << 60));
    for value in [
        json!(""),
        json!("."),
        json!("Gi"),
        json!("8GiB"),
        json!("8 Gi"),
        json!("1.2.3"),
        json!("1e99"),
        json!(true),
        json!(null),
        json!("16Ei"),
        json!("-1"),
        json!("9".repeat(39)),
    ] {
        assert!(quantity::bytes(&value).is_err(), "{value}");
    }
}

#[test]
fn time_spans() {
    let seconds = |s: f64| Ok(Duration::from_secs_f64(s));
    for (text, span) in [
        ("30s", seconds(30.0)),
        ("1m0s", seconds(60.0)),
        ("1h30m", seconds(5400.0)),
        ("1.5h", seconds(5400.0)),
        ("300ms", seconds(0.3)),
        (".5s", seconds(0.5)),
        ("+1s", seconds(1.0)),
        ("0", seconds(0.0)),
        ("1us", Ok(Duration::from_micros(1))),
        ("1µs", Ok(Duration::from_micros(1))),
    ] {
        assert_eq!(duration::parse(text), span, "{text}");
    }
    for text in [
        "", "5", "5 m", "m", "1d", "-1s", "1.2.3s", ".s", "1h-1m", "9999999h", "soon",
    ] {
        assert!(duration::parse(text).is_err(), "{text}");
    }
}

#[test]
fn paths() {
    let object = json!({
        "metadata": {"labels": {"a.b/c": "x"}}, "list": [{"name": "p", "n": 1}, {"name": "q", "n": null}, {"name": "r", "n": 3}],
        "conditions": [{"type": "Ready", "status": "False"}],
    });
    for (path, found) in [
        (".metadata.labels['a.b/c']", json!("x")),
        (r".metadata.labels.a\.b/c", json!("x")),
        ("metadata.labels[\"a.b/c\"]", json!("x")),
        ("{.list[2].n}", json!(3)),
        (".list[*].n", json!(1)),
        (".list[?(@.name==\"r\")].n", json!(3)),
        (".list[?(@.n==3)].name", json!("r")),
        ("$.x", Value::Null),
        (".list[9].n", Value::Null),
        (".list[?(@.name==", Value::Null),
        (".conditions[?(@.type=='Ready')].status", json!("False")),
    ] {
        assert_eq!(
            jsonpath::first(&object, path).cloned().unwrap_or(Value::Null),
            found,
            "{path}"
        );
    }
}

#[test]
fn times_since_as_kubectl_writes_them() {
    let now = "2026-01-31T12:00:00Z".parse().unwrap();
    for (seconds, text) in [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (150, "2m30s"),
        (600, "10m"),
        (10_799, "179m"),
        (10_800, "3h"),
        (11_000, "3h3m"),
        (28_800, "8h"),
        (172_799, "47h"),
        (172_800, "2d"),
        (180_000, "2d2h"),
        (691_200, "8d"),
        (63_072_000, "2y"),
        (63_158_400, "2y1d"),
        (-5, "<invalid>"),
    ] {
        assert_eq!(
            since(now - jiff::SignedDuration::from_secs(seconds), now),
            text,
            "{seconds}"
        );
    }
}

#[test]
fn network_cards_keep_their_names() {
    let card = NicIdentity::of("4e2e6a3c-6c1e-4a52-9d25-6c8d34e6a9a1", 0);
    assert_eq!(card, NicIdentity::of("4e2e6a3c-6c1e-4a52-9d25-6c8d34e6a9a1", 0));
    insta::assert_snapshot!(format!("{} {}", card.tap, card.mac));
    let mut seen = BTreeSet::new();
    for machine in 0..200 {
        for index in 0..10 {
            let card = NicIdentity::of(&format!("uid-{machine}"), index);
            assert!(
                card.tap.len() <= 15 && card.tap.ends_with(&format!("-{index}")),
                "{}",
                card.tap
            );
            let first = u8::from_str_radix(&card.mac[..2], 16).unwrap();
            assert_eq!((first & 1, first & 2, card.mac.len()), (0, 2, 17), "{}", card.mac);
            assert!(seen.insert(card.tap) && seen.insert(card.mac));
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic(text in "\\PC{0,48}") {
        let _ = quantity::bytes(&Value::String(text.clone()));
        let _ = duration::parse(&text);
        let _ = jsonpath::first(&json!({"a": [{"b": 1}]}), &text);
    }

    #[test]
    fn whole_quantities_mean_the_same_in_both_units(n in 0_u64..1 << 30, suffix in prop::sample::select(vec!["", "k", "Ki", "M"])) {
        let text = Value::String(format!("{n}{suffix}"));
        prop_assert_eq!(quantity::bytes(&text).unwrap() * 1000, quantity::cpu_millis(&text).unwrap());
    }

    #[test]
    fn greater_numbers_are_greater_quantities(a in 0_u32..u32::MAX, suffix in prop::sample::select(vec!["n", "u", "m", "", "k", "Mi", "G"])) {
        let read = |n: u32| quantity::bytes(&Value::String(format!("{n}{suffix}"))).unwrap();
        prop_assert!(read(a) <= read(a + 1));
    }

    #[test]
    fn time_spans_are_read_back(nanos in 0_u64..1 << 60) {
        let span = Duration::from_nanos(nanos);
        prop_assert_eq!(duration::parse(&duration::format(span)), Ok(span));
    }

    #[test]
    fn any_object_is_walked_without_panic(text in "[\\[\\]{}\":,a-z0-9 ]{0,200}") {
        if let Ok(spec) = serde_json::from_str::<Value>(&text) {
            let registry = kinds::registry::Registry::builtin();
            let kind = registry.by_kind("vmoperator.vmware.com", "VirtualMachine").unwrap();
            let mut object = json!({"metadata": spec.clone(), "spec": spec});
            let _ = (kind.validate(&object), kind.unknown_fields(&object));
            kind.set_defaults(&mut object);
            kind.admit(None, &mut object, "now");
        }
    }
}
