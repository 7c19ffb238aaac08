//! Time spans as Go and Flux write them: `30s`, `1h30m`, `1.5h`, `300ms`. Source: Go's `time.ParseDuration`.

use std::time::Duration;

/// Why a time span can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// It is no number with a unit.
    #[error("{0:?} is no time span; write for example 30s, 5m or 1h30m")]
    Malformed(String),
    /// It is below zero.
    #[error("{0:?} is negative")]
    Negative(String),
    /// It is longer than 292 years.
    #[error("{0:?} is too long")]
    TooLong(String),
}

/// Reads a time span. Fractions are cut off below a nanosecond.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let malformed = || DurationError::Malformed(text.into());
    let too_long = || DurationError::TooLong(text.into());
    let trimmed = text.trim();
    if trimmed.starts_with('-') && trimmed != "-0" {
        return Err(DurationError::Negative(text.into()));
    }
    let mut rest = trimmed.trim_start_matches(['+', '-']);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() || rest.len() > 64 {
        return Err(malformed());
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(malformed)?;
        let (number, after) = rest.split_at(end);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let unit = nanos_of(unit).ok_or_else(malformed)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(malformed());
        }
        let whole: u128 = if whole.is_empty() {
            0
        } else {
            whole.parse().map_err(|_| too_long())?
        };
        nanos = whole
            .checked_mul(unit)
            .and_then(|n| nanos.checked_add(n))
            .ok_or_else(too_long)?;
        let mut scale = unit;
        for digit in fraction.bytes() {
            scale /= 10;
            nanos += u128::from(digit - b'0') * scale;
        }
        rest = after;
    }
    match u64::try_from(nanos) {
        Ok(nanos) if nanos <= i64::MAX.unsigned_abs() => Ok(Duration::from_nanos(nanos)),
        _ => Err(too_long()),
    }
}

fn nanos_of(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// Writes a time span so that [`parse`] reads it back: `1h30m`, `1m`, `1.5s`, `0s`.
#[must_use]
pub fn format(span: Duration) -> String {
    let (hours, minutes) = (span.as_secs() / 3600, span.as_secs() / 60 % 60);
    let (seconds, nanos) = (span.as_secs() % 60, span.subsec_nanos());
    let mut text = String::new();
    if hours > 0 {
        text += &format!("{hours}h");
    }
    if minutes > 0 {
        text += &format!("{minutes}m");
    }
    if nanos > 0 {
        text += format!("{seconds}.{nanos:09}").trim_end_matches('0');
        text.push('s');
    } else if seconds > 0 || text.is_empty() {
        text += &format!("{seconds}s");
    }
    text
}
