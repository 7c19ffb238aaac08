//! Frames of the link: what is read is written again as it was; no sequence of them makes an end hold more than stated.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use link::frame::Frame;

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(frame) = Frame::parse(&bytes) {
        assert_eq!(frame.encode(), bytes);
    }
    link::fuzzing::frames(data);
});
