use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn all(framer: &mut Framer) -> Result<Vec<Bytes>, FrameError> {
    let mut messages = Vec::new();
    while let Some(message) = framer.next_message()? {
        messages.push(message);
    }
    Ok(messages)
}

#[test]
fn brackets_and_quotes_inside_strings_do_not_count() {
    let mut framer = Framer::new(1000, 10);
    framer.feed(br#" {"a":"}]\"\\"} [1,[2]]"#);
    let messages = all(&mut framer).unwrap();
    assert_eq!(messages, [&br#"{"a":"}]\"\\"}"#[..], b"[1,[2]]"]);
}

#[test]
fn bounds_are_errors_and_stay() {
    let mut framer = Framer::new(8, 10);
    framer.feed(b"[1,2,3,4,5,6]");
    assert_eq!(framer.next_message(), Err(FrameError::TooLong(8)));
    framer.feed(b"{}");
    assert_eq!(framer.next_message(), Err(FrameError::TooLong(8)));

    let mut framer = Framer::new(1000, 3);
    framer.feed(b"[[[[");
    assert_eq!(framer.next_message(), Err(FrameError::TooDeep(3)));
    let mut framer = Framer::new(1000, 3);
    framer.feed(b"[}");
    assert_eq!(framer.next_message(), Err(FrameError::Unbalanced(1)));
    let mut framer = Framer::new(1000, 3);
    framer.feed(b"  hello");
    assert_eq!(framer.next_message(), Err(FrameError::NotJson(b'h')));
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..6)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
    .prop_map(|v| Value::Array(vec![v]))
}

proptest! {
    #[test]
    fn messages_come_out_whole_however_they_are_cut(
        values in prop::collection::vec(json(), 0..5),
        cuts in prop::collection::vec(1usize..40, 1..50),
    ) {
        let stream: Vec<u8> = values.iter().flat_map(|v| v.to_string().into_bytes()).collect();
        let mut framer = Framer::new(1 << 20, 64);
        let mut got = Vec::new();
        let mut rest = &stream[..];
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            framer.feed(now);
            for message in all(&mut framer).unwrap() {
                got.push(serde_json::from_slice::<Value>(&message).unwrap());
            }
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(got, values);
    }

    #[test]
    fn no_bytes_make_it_panic(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20)) {
        let mut framer = Framer::new(200, 8);
        for chunk in chunks {
            framer.feed(&chunk);
            let _ = all(&mut framer);
        }
    }
}
