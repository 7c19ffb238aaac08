use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn a_close_fits_its_frame_and_is_read_back(seconds in proptest::option::of(0..3600_u64), reason in "[^;]{0,60}") {
        let close = Close {
            code: BUSY,
            retry_after: seconds.map(Duration::from_secs),
            reason: reason.trim().into(),
        };
        let text = close.text();
        prop_assert!(text.len() <= 123);
        let read = Close::parse(BUSY, &text);
        prop_assert_eq!(read.retry_after, close.retry_after);
        prop_assert!(close.reason.starts_with(&read.reason));
    }

    #[test]
    fn no_text_makes_the_reader_fall(text in ".{0,123}") {
        let _ = Close::parse(1000, &text);
    }
}

#[test]
fn nobody_is_sent_away_for_a_year() {
    let close = Close::parse(BUSY, "retry-after=99999999; later");
    assert_eq!(
        (close.retry_after, close.reason.as_str()),
        (Some(Duration::from_hours(1)), "later")
    );
    assert_eq!(Close::parse(BUSY, "retry-after=soon").retry_after, None);
}
