use proptest::prelude::*;

use super::*;

fn frames() -> impl Strategy<Value = Frame> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..2000).prop_map(Bytes::from);
    let id = || 1..=u32::MAX;
    prop_oneof![
        bytes().prop_map(Frame::Control),
        (id(), bytes()).prop_map(|(id, bytes)| Frame::Open(id, bytes)),
        (id(), bytes()).prop_map(|(id, bytes)| Frame::Data(id, bytes)),
        (id(), any::<u32>()).prop_map(|(id, by)| Frame::Credit(id, by)),
        id().prop_map(Frame::Finish),
        (id(), "\\PC{0,100}").prop_map(|(id, reason)| Frame::Reset(id, reason)),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(frame in frames()) {
        prop_assert_eq!(Frame::parse(&frame.encode()), Ok(frame));
    }

    #[test]
    fn foreign_bytes_are_a_frame_or_an_error_and_nothing_is_lost(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let bytes = Bytes::from(bytes);
        if let Ok(frame) = Frame::parse(&bytes) {
            prop_assert_eq!(frame.encode(), bytes);
        }
    }
}

#[test]
fn each_kind_has_its_bound() {
    let long = |kind: u8, length: usize| {
        let mut message = vec![kind, 0, 0, 0, 1];
        message.resize(if kind == 0 { 1 } else { 5 } + length, b'x');
        Frame::parse(&message.into())
    };
    for (kind, most) in [(0, CONTROL_MAX), (1, OPEN_MAX), (2, DATA_MAX), (5, REASON_MAX)] {
        assert!(long(kind, most).is_ok());
        let length = most + 1;
        assert_eq!(long(kind, length), Err(FrameError::TooLong { kind, length }));
    }
}

#[test]
fn a_reason_is_cut_between_characters() {
    let reason = "ä".repeat(REASON_MAX);
    let Ok(Frame::Reset(1, cut)) = Frame::parse(&Frame::Reset(1, reason).encode()) else {
        panic!("a reset was written")
    };
    assert_eq!(cut, "ä".repeat(REASON_MAX / 2));
}
