//! Doors for the fuzz targets.

use bytes::Bytes;

use crate::{
    close::Close,
    frame::{FRAME_MAX, Frame},
    mux::{MAX_STREAMS, Shared, URGENT_MAX, WINDOW},
};

/// Feeds frames to both kinds of end (each with a length of two bytes before it), with some streams open, one read and
/// one let go of. Whatever comes, no more is held than is stated.
pub fn frames(data: &[u8]) {
    for opener in [true, false] {
        let shared = Shared::new(opener, 8);
        let mut core = shared.lock();
        for _ in 0..4 {
            let _ = core.open(b"{}");
        }
        let mut rest = data;
        while let [high, low, more @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low])).min(more.len());
            let (message, after) = more.split_at(length);
            rest = after;
            let Ok(frame) = Frame::parse(&Bytes::copy_from_slice(message)) else {
                continue;
            };
            let _ = core.receive(frame);
            if length % 3 == 0 {
                core.give_credit(1);
                core.drop_stream(2);
                let _ = core.next_frame();
            }
            assert!(core.held() <= URGENT_MAX + FRAME_MAX + 2 * MAX_STREAMS * WINDOW as usize);
        }
        core.close();
    }
}

/// Reads a close reason.
pub fn close(text: &str) {
    let close = Close::parse(1012, text);
    assert!(close.text().len() <= 123);
}
