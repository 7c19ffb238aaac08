//! What a line of QMP is.

use serde_json::Value;

/// A line of QMP, read.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// The first line: version and capabilities.
    Greeting(Value),
    /// The answer to the request of this id.
    Reply {
        /// The id that the request carried; none if QEMU could not read the request.
        id: Option<u64>,
        /// `return`, or the error's class and description.
        result: Result<Value, Refusal>,
    },
    /// Something happened.
    Event(Event),
    /// Something this crate does not know; kept for the log.
    Other(Value),
}

/// QEMU's refusal of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `GenericError`, `CommandNotFound`, `DeviceNotFound`, …
    pub class: String,
    /// A sentence for people.
    pub description: String,
}

/// Something that happened in QEMU.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// For example `SHUTDOWN`.
    pub name: String,
    /// Its data; null if none.
    pub data: Value,
    /// When, in microseconds since 1970 by the host's clock; none if QEMU could not tell.
    pub at_micros: Option<i64>,
}

impl Message {
    /// Reads a line.
    #[must_use]
    pub fn of(mut line: Value) -> Self {
        if let Some(name) = line.get("event").and_then(Value::as_str) {
            let at_micros = timestamp(&line["timestamp"]);
            return Self::Event(Event {
                name: name.into(),
                at_micros,
                data: line["data"].take(),
            });
        }
        if let Some(greeting) = line.get_mut("QMP") {
            return Self::Greeting(greeting.take());
        }
        let id = line.get("id").and_then(Value::as_u64);
        if let Some(result) = line.get_mut("return") {
            return Self::Reply {
                id,
                result: Ok(result.take()),
            };
        }
        if let Some(error) = line.get("error") {
            let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
            return Self::Reply {
                id,
                result: Err(Refusal {
                    class: text("class"),
                    description: text("desc"),
                }),
            };
        }
        Self::Other(line)
    }
}

/// QEMU writes -1 for both parts when the clock can't be read.
fn timestamp(value: &Value) -> Option<i64> {
    let seconds = value.get("seconds")?.as_i64().filter(|s| *s >= 0)?;
    let micros = value.get("microseconds")?.as_i64().filter(|s| *s >= 0)?;
    seconds.checked_mul(1_000_000)?.checked_add(micros)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn each_sort_of_line_is_told_apart() {
        assert!(matches!(
            Message::of(json!({"QMP": {"version": {}}})),
            Message::Greeting(_)
        ));
        assert_eq!(
            Message::of(json!({"return": {"running": true}, "id": 7})),
            Message::Reply {
                id: Some(7),
                result: Ok(json!({"running": true}))
            }
        );
        let refusal = Refusal {
            class: "CommandNotFound".into(),
            description: "no".into(),
        };
        assert_eq!(
            Message::of(json!({"error": {"class": "CommandNotFound", "desc": "no"}, "id": 8})),
            Message::Reply {
                id: Some(8),
                result: Err(refusal)
            }
        );
        assert_eq!(
            Message::of(json!({"event": "STOP", "timestamp": {"seconds": 2, "microseconds": 5}})),
            Message::Event(Event {
                name: "STOP".into(),
                data: Value::Null,
                at_micros: Some(2_000_005)
            })
        );
        assert!(matches!(Message::of(json!({"later": 1})), Message::Other(_)));
        assert!(matches!(Message::of(json!([1])), Message::Other(_)));
    }

    #[test]
    fn a_timestamp_that_can_not_be_is_none() {
        for stamp in [
            json!({"seconds": -1, "microseconds": -1}),
            json!({"seconds": i64::MAX, "microseconds": 1}),
            json!(3),
        ] {
            assert_eq!(timestamp(&stamp), None);
        }
    }

    proptest! {
        #[test]
        fn any_json_is_some_message(text in "\\{\"(QMP|return|error|event|id|timestamp)\":(1|\"x\"|\\[\\]|null|\\{\\})\\}") {
            let _ = Message::of(serde_json::from_str(&text).unwrap());
        }
    }
}
