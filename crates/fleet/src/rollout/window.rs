//! Maintenance windows by a site's own clock.

use jiff::{
    Timestamp, ToSpan as _,
    civil::{Date, Time, Weekday},
    tz::{AmbiguousOffset, TimeZone},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A time of day, on some days of the week, in which sites may be changed.
///
/// `from` after `to` goes over midnight; the days are those on which it begins. Equal ones are a whole day. When
/// clocks jump ahead, what would be in the gap is at the moment of the jump: a window wholly inside it is not
/// there that night. When they are put back, a window begins and ends at the first of the two times.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Window {
    /// `mon` to `sun`; every day if there are none.
    #[serde(default)]
    pub days: Vec<String>,
    /// `HH:MM`.
    pub from: String,
    /// `HH:MM`; `24:00` is the end of the day.
    pub to: String,
}

/// Whether a window is open, and until or from when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Open until then.
    Open(Timestamp),
    /// Closed until then.
    Closed(Timestamp),
    /// It does not open within the next two weeks.
    Never,
}

const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// A window that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    days: [bool; 7],
    from: Time,
    /// The end, and on which day after the beginning.
    to: Time,
    days_after: i8,
}

fn time(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':')?;
    let two = |text: &str| {
        (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit()))
            .then(|| text.parse::<i8>().ok())
            .flatten()
    };
    Time::new(two(hour)?, two(minute)?, 0, 0).ok()
}

impl Window {
    /// Everything that is wrong: field and message.
    #[must_use]
    pub fn check(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        for (at, day) in self.days.iter().enumerate() {
            if !DAYS.iter().any(|(name, _)| name == day) {
                let message = format!("{day:?} is none of mon, tue, wed, thu, fri, sat, sun");
                wrong.push((format!("days[{at}]"), message));
            }
        }
        for (field, text) in [("from", &self.from), ("to", &self.to)] {
            if time(text).is_none() && (field, text.as_str()) != ("to", "24:00") {
                let message = format!("{text:?} is no time of day such as \"22:00\"");
                wrong.push((field.into(), message));
            }
        }
        wrong
    }

    /// Reads it; `None` if something is wrong.
    #[must_use]
    pub fn hours(&self) -> Option<Hours> {
        if !self.check().is_empty() {
            return None;
        }
        let mut days = [self.days.is_empty(); 7];
        for ((name, _), wanted) in DAYS.iter().zip(&mut days) {
            *wanted |= self.days.iter().any(|day| day == name);
        }
        let from = time(&self.from)?;
        let to = time(&self.to).unwrap_or(Time::midnight());
        Some(Hours {
            days,
            from,
            to,
            days_after: i8::from(to <= from),
        })
    }
}

impl Hours {
    /// Whether it is open at a time in a time zone.
    #[must_use]
    pub fn at(&self, now: Timestamp, zone: &TimeZone) -> Opening {
        let today = zone.to_datetime(now).date();
        // A window that began yesterday may be open still; each weekday is in the two weeks ahead, even if the one
        // of this week falls into a gap.
        for ahead in -1..=14 {
            let Ok(day) = today.checked_add(i64::from(ahead).days()) else {
                continue;
            };
            if let Some((from, to)) = self.on(day, zone)
                && now < to
            {
                return if from <= now {
                    Opening::Open(self.closes(day, to, zone))
                } else {
                    Opening::Closed(from)
                };
            }
        }
        Opening::Never
    }

    /// The window that begins on a day.
    fn on(&self, day: Date, zone: &TimeZone) -> Option<(Timestamp, Timestamp)> {
        let at = DAYS.iter().position(|(_, weekday)| *weekday == day.weekday())?;
        if !self.days[at] {
            return None;
        }
        let last = day.checked_add(i64::from(self.days_after).days()).ok()?;
        let from = instant(day, self.from, zone)?;
        let to = instant(last, self.to, zone)?;
        (from < to).then_some((from, to))
    }

    /// Windows of whole days, one after the other, are one.
    fn closes(&self, day: Date, to: Timestamp, zone: &TimeZone) -> Timestamp {
        let next = day.tomorrow().ok().and_then(|next| self.on(next, zone));
        match next {
            Some((from, later)) if from <= to => later,
            _ => to,
        }
    }
}

/// The instant of a wall clock's time: the first of two, the moment of the jump if it is jumped over.
fn instant(day: Date, time: Time, zone: &TimeZone) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(day.to_datetime(time));
    match ambiguous.offset() {
        AmbiguousOffset::Gap { .. } => {
            let after = ambiguous.later().ok()?;
            zone.preceding(after).next().map(|jump| jump.timestamp())
        }
        _ => ambiguous.compatible().ok(),
    }
}

/// The time zone of a site; UTC if it has none or one that is not known.
#[must_use]
pub fn zone(name: &str) -> TimeZone {
    if name.is_empty() {
        return TimeZone::UTC;
    }
    TimeZone::get(name).unwrap_or(TimeZone::UTC)
}

#[cfg(test)]
mod tests;
