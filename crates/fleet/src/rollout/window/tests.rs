use proptest::prelude::*;

use super::*;

fn window(days: &[&str], from: &str, to: &str) -> Hours {
    Window {
        days: days.iter().map(ToString::to_string).collect(),
        from: from.into(),
        to: to.into(),
    }
    .hours()
    .unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[track_caller]
fn is(hours: Hours, zone_name: &str, now: &str, wanted: Opening) {
    let zone = TimeZone::get(zone_name).unwrap();
    assert_eq!(hours.at(at(now), &zone), wanted, "{now} in {zone_name}");
}

#[test]
fn over_midnight_the_day_is_that_of_the_beginning() {
    // 2026-11-20 is a Friday.
    let hours = window(&["fri"], "22:00", "04:00");
    let open = Opening::Open(at("2026-11-21T03:00:00Z"));
    is(
        hours,
        "Europe/Berlin",
        "2026-11-20T20:59:59Z",
        Opening::Closed(at("2026-11-20T21:00:00Z")),
    );
    is(hours, "Europe/Berlin", "2026-11-20T21:00:00Z", open);
    is(hours, "Europe/Berlin", "2026-11-21T02:59:59Z", open);
    is(
        hours,
        "Europe/Berlin",
        "2026-11-21T03:00:00Z",
        Opening::Closed(at("2026-11-27T21:00:00Z")),
    );
    // Early on Friday it is Thursday's night.
    is(
        hours,
        "Europe/Berlin",
        "2026-11-20T01:00:00Z",
        Opening::Closed(at("2026-11-20T21:00:00Z")),
    );
}

#[test]
fn each_site_has_its_own_clock() {
    let hours = window(&[], "02:00", "03:00");
    let noon = "2026-11-20T12:00:00Z";
    is(hours, "UTC", noon, Opening::Closed(at("2026-11-21T02:00:00Z")));
    is(
        hours,
        "Asia/Tokyo",
        noon,
        Opening::Closed(at("2026-11-20T17:00:00Z")),
    );
    is(
        hours,
        "Pacific/Auckland",
        noon,
        Opening::Closed(at("2026-11-20T13:00:00Z")),
    );
    is(
        hours,
        "Pacific/Kiritimati",
        noon,
        Opening::Open(at("2026-11-20T13:00:00Z")),
    );
    is(
        hours,
        "Asia/Kolkata",
        "2026-11-20T20:45:00Z",
        Opening::Open(at("2026-11-20T21:30:00Z")),
    );
}

#[test]
fn clocks_that_jump_ahead() {
    // Berlin, 2026-03-29: 02:00 becomes 03:00 at 01:00Z.
    let before = "2026-03-28T23:00:00Z";
    // Wholly in the gap: not on that night.
    is(
        window(&[], "02:15", "02:45"),
        "Europe/Berlin",
        before,
        Opening::Closed(at("2026-03-30T00:15:00Z")),
    );
    // Begins in the gap.
    is(
        window(&[], "02:30", "04:00"),
        "Europe/Berlin",
        before,
        Opening::Closed(at("2026-03-29T01:00:00Z")),
    );
    is(
        window(&[], "02:30", "04:00"),
        "Europe/Berlin",
        "2026-03-29T01:00:00Z",
        Opening::Open(at("2026-03-29T02:00:00Z")),
    );
    // Ends in the gap: at the jump, not an hour after.
    is(
        window(&[], "01:00", "02:30"),
        "Europe/Berlin",
        "2026-03-29T00:30:00Z",
        Opening::Open(at("2026-03-29T01:00:00Z")),
    );
    // Over it.
    is(
        window(&[], "22:00", "04:00"),
        "Europe/Berlin",
        before,
        Opening::Open(at("2026-03-29T02:00:00Z")),
    );
}

#[test]
fn clocks_that_are_put_back() {
    // Berlin, 2026-10-25: 03:00 becomes 02:00 at 01:00Z; 02:30 is at 00:30Z and at 01:30Z.
    let hours = window(&[], "02:30", "02:45");
    is(
        hours,
        "Europe/Berlin",
        "2026-10-25T00:30:00Z",
        Opening::Open(at("2026-10-25T00:45:00Z")),
    );
    is(
        hours,
        "Europe/Berlin",
        "2026-10-25T01:30:00Z",
        Opening::Closed(at("2026-10-26T01:30:00Z")),
    );
    // Over the night: an hour more.
    let hours = window(&[], "22:00", "04:00");
    is(
        hours,
        "Europe/Berlin",
        "2026-10-24T20:00:00Z",
        Opening::Open(at("2026-10-25T03:00:00Z")),
    );
    // Lord Howe moves by half an hour: on 2026-04-05 at 02:00 back to 01:30.
    let hours = window(&[], "01:45", "03:00");
    is(
        hours,
        "Australia/Lord_Howe",
        "2026-04-04T14:45:00Z",
        Opening::Open(at("2026-04-04T16:30:00Z")),
    );
}

#[test]
fn a_day_that_a_country_left_out() {
    // Samoa had no 30 December 2011.
    let hours = window(&["fri"], "10:00", "11:00");
    is(
        hours,
        "Pacific/Apia",
        "2011-12-29T10:00:00Z",
        Opening::Closed(at("2012-01-05T20:00:00Z")),
    );
}

#[test]
fn whole_days() {
    let hours = window(&["sat", "sun"], "00:00", "24:00");
    is(
        hours,
        "UTC",
        "2026-11-21T10:00:00Z",
        Opening::Open(at("2026-11-23T00:00:00Z")),
    );
    is(
        hours,
        "UTC",
        "2026-11-23T00:00:00Z",
        Opening::Closed(at("2026-11-28T00:00:00Z")),
    );
    assert!(matches!(
        window(&[], "00:00", "00:00").at(at("2026-11-21T10:00:00Z"), &TimeZone::UTC),
        Opening::Open(_)
    ));
}

proptest! {
    /// Looking minute by minute at the wall clock, which is how a person would tell, outside of the nights on
    /// which clocks change.
    #[test]
    fn as_the_clock_on_the_wall_says(
        minute in 0..527_040_i64, from in 0..1440_i64, to in 0..1440_i64, mask in 1..128_u8,
        name in proptest::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Chatham", "Australia/Lord_Howe"]),
    ) {
        let zone = TimeZone::get(name).unwrap();
        let now = at("2026-01-01T00:00:00Z") + minute.minutes();
        let around = |hours: i64| zone.to_offset(now + hours.hours());
        prop_assume!(around(-30) == around(30));
        let text = |minutes: i64| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        let names: Vec<&str> = DAYS.iter().enumerate().filter(|(n, _)| mask & (1 << n) != 0).map(|(_, (name, _))| *name).collect();
        let hours = window(&names, &text(from), &text(to));
        let wall = zone.to_datetime(now);
        let minutes = i64::from(wall.hour()) * 60 + i64::from(wall.minute());
        let allowed = |day: Date| mask & (1 << (day.weekday().to_monday_zero_offset())) != 0;
        let (today, yesterday) = (allowed(wall.date()), allowed(wall.date().yesterday().unwrap()));
        let wanted = if from < to {
            today && from <= minutes && minutes < to
        } else {
            (today && minutes >= from) || (yesterday && minutes < to)
        };
        prop_assert_eq!(matches!(hours.at(now, &zone), Opening::Open(_)), wanted);
    }

    /// What is promised holds: it opens when it says, and is open until it says.
    #[test]
    fn openings_are_when_they_are_said(
        minute in 0..527_040_i64, from in 0..1440_i64, to in 0..1440_i64, mask in 1..128_u8,
        name in proptest::sample::select(vec!["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo"]),
    ) {
        let zone = TimeZone::get(name).unwrap();
        let now = at("2026-01-01T00:00:00Z") + minute.minutes();
        let text = |minutes: i64| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        let names: Vec<&str> = DAYS.iter().enumerate().filter(|(n, _)| mask & (1 << n) != 0).map(|(_, (name, _))| *name).collect();
        let hours = window(&names, &text(from), &text(to));
        match hours.at(now, &zone) {
            Opening::Open(until) => {
                prop_assert!(until > now);
                prop_assert!(matches!(hours.at(until - 1.second(), &zone), Opening::Open(_)));
            }
            Opening::Closed(from) => {
                prop_assert!(from > now);
                prop_assert!(matches!(hours.at(from, &zone), Opening::Open(_)));
                prop_assert!(matches!(hours.at(from - 1.second(), &zone), Opening::Closed(_)));
            }
            Opening::Never => prop_assert!(false, "it opens at least once a week"),
        }
    }
}
