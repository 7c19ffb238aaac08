//! Bytes to lines of JSON and back.
//!
//! A line is one JSON text ended by `\n` (`\r\n` is read too). A line longer than the bound is an error, not
//! an allocation. Nesting is bounded by `serde_json` (128 levels). The byte 0xFF, which is never part of
//! UTF-8, drops everything before it: the guest agent sends it ahead of the answer to
//! `guest-sync-delimited`, so that a client can get back into step.

use bytes::{Buf, BufMut, BytesMut};
use serde_json::Value;
use tokio_util::codec::{Decoder, Encoder};

/// The greatest line taken unless told otherwise: `query-qmp-schema` of QEMU 10 answers with about 600 KiB.
pub const MAX_LINE: usize = 8 * 1024 * 1024;

/// Marks a new start in the guest agent's stream.
const SENTINEL: u8 = 0xff;

/// Reads and writes JSON lines.
#[derive(Clone, Debug)]
pub struct JsonLines {
    max_line: usize,
    /// Bytes at the buffer's start that are known to hold no line end.
    scanned: usize,
}

/// Why bytes are no JSON lines.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The line does not end within the bound.
    #[error("a line is longer than {max} bytes")]
    TooLong {
        /// The bound.
        max: usize,
    },
    /// The socket failed.
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
}

/// A line that is no JSON. The lines after it can still be read.
#[derive(Debug, thiserror::Error)]
#[error("a line of {length} bytes is no JSON")]
pub struct NotJson {
    /// Length of the line.
    pub length: usize,
    /// Where and why.
    pub source: serde_json::Error,
}

impl JsonLines {
    /// With a bound on the length of a line that is read.
    #[must_use]
    pub fn new(max_line: usize) -> Self {
        Self { max_line, scanned: 0 }
    }
}

impl Default for JsonLines {
    fn default() -> Self {
        Self::new(MAX_LINE)
    }
}

impl Decoder for JsonLines {
    type Item = Result<Value, NotJson>;
    type Error = Error;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Self::Item>, Error> {
        loop {
            if let Some(at) = source[self.scanned..].iter().rposition(|b| *b == SENTINEL)
                && !source[self.scanned..self.scanned + at].contains(&b'\n')
            {
                source.advance(self.scanned + at + 1);
                self.scanned = 0;
            }
            let Some(end) = source[self.scanned..].iter().position(|b| *b == b'\n') else {
                if source.len() > self.max_line {
                    return Err(Error::TooLong { max: self.max_line });
                }
                self.scanned = source.len();
                return Ok(None);
            };
            let end = self.scanned + end;
            self.scanned = 0;
            let line = source.split_to(end + 1);
            if line.len() > self.max_line {
                return Err(Error::TooLong { max: self.max_line });
            }
            let start = line.iter().rposition(|b| *b == SENTINEL).map_or(0, |at| at + 1);
            let text = line[start..].trim_ascii();
            if text.is_empty() {
                continue;
            }
            return Ok(Some(serde_json::from_slice(text).map_err(|source| NotJson {
                length: text.len(),
                source,
            })));
        }
    }
}

impl Encoder<Value> for JsonLines {
    type Error = Error;

    fn encode(&mut self, item: Value, target: &mut BytesMut) -> Result<(), Error> {
        target.extend_from_slice(item.to_string().as_bytes());
        target.put_u8(b'\n');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn all(codec: &mut JsonLines, bytes: &[u8]) -> Vec<Value> {
        let mut buffer = BytesMut::from(bytes);
        let mut out = Vec::new();
        while let Some(value) = codec.decode(&mut buffer).unwrap() {
            out.push(value.unwrap());
        }
        out
    }

    #[test]
    fn empty_lines_and_carriage_returns_are_skipped() {
        let got = all(&mut JsonLines::default(), b"\r\n{\"a\":1}\r\n\n[]\n{\"rest");
        assert_eq!(got, vec![json!({"a": 1}), json!([])]);
    }

    #[test]
    fn a_sentinel_drops_what_came_before_it() {
        let got = all(&mut JsonLines::default(), b"{\"half\": \xff{\"return\":5}\n");
        assert_eq!(got, vec![json!({"return": 5})]);
    }

    #[test]
    fn a_sentinel_in_a_later_line_leaves_earlier_lines_alone() {
        let got = all(&mut JsonLines::default(), b"1\n2\n{\"half\xff3\n");
        assert_eq!(got, vec![json!(1), json!(2), json!(3)]);
    }

    #[test]
    fn a_line_over_the_bound_is_an_error_before_it_ends() {
        let mut codec = JsonLines::new(16);
        let mut buffer = BytesMut::from(&b"\"0123456789abcdefgh"[..]);
        assert!(matches!(
            codec.decode(&mut buffer),
            Err(Error::TooLong { max: 16 })
        ));
    }

    #[test]
    fn deep_nesting_is_an_error_not_a_crash() {
        let mut line = vec![b'['; 100_000];
        line.push(b'\n');
        assert!(matches!(
            JsonLines::default().decode(&mut BytesMut::from(&line[..])),
            Ok(Some(Err(_)))
        ));
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[^\u{0}]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z\n]{0,5}", inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut codec = JsonLines::new(64);
            let mut buffer = BytesMut::from(&bytes[..]);
            for _ in 0..bytes.len() + 1 {
                if let Ok(None) = codec.decode(&mut buffer) { break }
            }
        }

        #[test]
        fn what_was_written_is_read_however_it_is_cut(
            values in prop::collection::vec(json_value(), 0..6),
            cuts in prop::collection::vec(1usize..9, 1..40),
        ) {
            let mut wire = BytesMut::new();
            for value in &values {
                JsonLines::default().encode(value.clone(), &mut wire).unwrap();
            }
            let (mut codec, mut buffer, mut got) = (JsonLines::default(), BytesMut::new(), Vec::new());
            let mut cuts = cuts.iter().cycle();
            while !wire.is_empty() {
                let n = wire.len().min(*cuts.next().unwrap());
                buffer.extend_from_slice(&wire.split_to(n));
                while let Some(value) = codec.decode(&mut buffer).unwrap() {
                    got.push(value.unwrap());
                }
            }
            prop_assert_eq!(got, values);
        }
    }
}
