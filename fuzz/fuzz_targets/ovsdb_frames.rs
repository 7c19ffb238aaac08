//! OVSDB messages: however the bytes are cut, the messages are the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ovsdb::Framer;

fn all(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
    let mut framer = Framer::new(1 << 16, 64);
    let mut found = Vec::new();
    for piece in pieces {
        framer.feed(piece);
        loop {
            match framer.next_message() {
                Ok(Some(message)) => found.push(message.to_vec()),
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
    }
    (found, false)
}

fuzz_target!(|input: (u16, Vec<u8>)| {
    let (cut, data) = input;
    let cut = usize::from(cut).min(data.len());
    assert_eq!(all(&[&data]), all(&[&data[..cut], &data[cut..]]));
});
