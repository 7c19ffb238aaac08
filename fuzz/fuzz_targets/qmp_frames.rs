//! QMP messages: however the bytes are cut, the messages are the same.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use qmp::codec::JsonLines;
use tokio_util::codec::Decoder;

fn all(pieces: &[&[u8]]) -> (Vec<String>, bool) {
    let mut lines = JsonLines::new(1 << 16);
    let mut buffer = BytesMut::new();
    let mut found = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match lines.decode(&mut buffer) {
                Ok(Some(Ok(value))) => {
                    found.push(value.to_string());
                    let _ = qmp::Message::of(value);
                }
                Ok(Some(Err(_))) => found.push("no JSON".into()),
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
    }
    (found, false)
}

fuzz_target!(|data: &[u8]| {
    all(&[data]);
    // Cut at line ends only: what is skipped as noise within a line may depend on where the bytes were cut.
    if let Some(at) = data.iter().position(|&byte| byte == b'\n') {
        assert_eq!(all(&[data]), all(&[&data[..=at], &data[at + 1..]]));
    }
});
