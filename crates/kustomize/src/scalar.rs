//! What a plain scalar means: the rules of `kubectl`, which are those of YAML 1.1 with a few of 1.2.
//!
//! `yes`, `on` and their like are booleans; `0644`, `0o644`, `0x1F`, `0b11` and `1_000` are integers; dates
//! stay text.

use serde_json::{Number, Value};

/// The meaning of a scalar that is written without quotes. `None` for the floats that JSON cannot hold
/// (infinity, not-a-number).
pub(crate) fn resolve(text: &str) -> Option<Value> {
    let Some(first) = text.bytes().next() else {
        return Some(Value::Null);
    };
    match text {
        "~" | "null" | "Null" | "NULL" => return Some(Value::Null),
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Some(Value::Bool(true));
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Some(Value::Bool(false));
        }
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf" | "-.INF" | ".nan"
        | ".NaN" | ".NAN" => return None,
        _ => {}
    }
    if !first.is_ascii_digit() && !matches!(first, b'+' | b'-' | b'.') {
        return Some(Value::String(text.into()));
    }
    Some(number(text).map_or_else(|| Value::String(text.into()), Value::Number))
}

/// A number, if the text is one.
pub(crate) fn number(text: &str) -> Option<Number> {
    let digits = text.replace('_', "");
    if let Some(integer) = integer(&digits) {
        return Some(integer);
    }
    if !is_float(&digits) {
        return None;
    }
    let value: f64 = digits.parse().ok()?;
    narrow(value)
}

/// A float as kubectl hands it on: whole ones become integers, as they do on its way through JSON.
fn narrow(value: f64) -> Option<Number> {
    // 2^63 is the first whole float past the integers; below it a whole float converts without loss.
    if value.fract() == 0.0 && value.abs() < 9_223_372_036_854_775_808.0 {
        #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
        return Some(Number::from(value as i64));
    }
    Number::from_f64(value)
}

fn integer(text: &str) -> Option<Number> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match rest.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &rest[2..]),
        [b'0', b'o' | b'O', ..] => (8, &rest[2..]),
        [b'0', b'b' | b'B', ..] => (2, &rest[2..]),
        [b'0', _, ..] => (8, &rest[1..]),
        _ => (10, rest),
    };
    // `from_str_radix` would take a second sign.
    if !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    if !negative {
        return Some(Number::from(magnitude));
    }
    let signed = 0_i128 - i128::from(magnitude);
    i64::try_from(signed).ok().map(Number::from)
}

/// `[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?`
fn is_float(text: &str) -> bool {
    let rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match rest.find(['e', 'E']) {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    };
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let mantissa_ok = match mantissa.split_once('.') {
        Some((whole, fraction)) => {
            all_digits(whole) && all_digits(fraction) && !(whole.is_empty() && fraction.is_empty())
        }
        None => !mantissa.is_empty() && all_digits(mantissa),
    };
    let exponent_ok = exponent.is_none_or(|e| {
        let digits = e.strip_prefix(['-', '+']).unwrap_or(e);
        !digits.is_empty() && all_digits(digits)
    });
    mantissa_ok && exponent_ok
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_scalars_mean_what_kubectl_takes_them_for() {
        let cases = [
            ("", json!(null)),
            ("~", json!(null)),
            ("yes", json!(true)),
            ("off", json!(false)),
            ("0x10DE", json!(4318)),
            ("-0x10", json!(-16)),
            ("0644", json!(420)),
            ("0o644", json!(420)),
            ("0b101", json!(5)),
            ("1_000", json!(1000)),
            ("089", json!(89)),
            ("1.0", json!(1)),
            ("1.5", json!(1.5)),
            ("1e3", json!(1000)),
            ("+12", json!(12)),
            ("18446744073709551615", json!(18446744073709551615_u64)),
            ("1.2.3", json!("1.2.3")),
            ("2001-12-14", json!("2001-12-14")),
            ("10.0.0.0/8", json!("10.0.0.0/8")),
            ("00:1a", json!("00:1a")),
            ("-", json!("-")),
            (".", json!(".")),
            ("1e400", json!("1e400")),
            ("e3", json!("e3")),
            ("1e", json!("1e")),
            ("--1", json!("--1")),
            ("0x", json!("0x")),
            ("2Gi", json!("2Gi")),
        ];
        for (text, meaning) in cases {
            assert_eq!(resolve(text), Some(meaning), "{text}");
        }
        assert_eq!(resolve(".inf"), None);
    }
}
