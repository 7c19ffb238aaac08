//! Kubernetes quantities: `2`, `2000m`, `8Gi`, `1.5G`, `1e3`. Source: apimachinery's `resource.Quantity`.

use serde_json::Value;

/// Why a quantity can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// It is neither a number nor a number with a suffix.
    #[error("{0:?} is no quantity; write for example 2, 2000m, 512Mi or 8Gi")]
    Malformed(String),
    /// It is below zero.
    #[error("{0:?} is negative")]
    Negative(String),
    /// It does not fit.
    #[error("{0:?} is too large")]
    TooLarge(String),
}

/// A quantity of CPU in thousandths, rounded up.
pub fn cpu_millis(value: &Value) -> Result<u64, QuantityError> {
    scaled(&text(value)?, 1000)
}

/// A quantity of bytes, rounded up.
pub fn bytes(value: &Value) -> Result<u64, QuantityError> {
    scaled(&text(value)?, 1)
}

fn text(value: &Value) -> Result<String, QuantityError> {
    match value {
        Value::String(text) => Ok(text.trim().into()),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(QuantityError::Malformed(other.to_string())),
    }
}

/// `text` times `unit`, rounded up to a whole number. All in integers: digits × suffix × unit ÷ 10^fraction.
fn scaled(text: &str, unit: u128) -> Result<u64, QuantityError> {
    const LONGEST: usize = 40;
    let malformed = || QuantityError::Malformed(text.into());
    let too_large = || QuantityError::TooLarge(text.into());
    if text.len() > LONGEST {
        return Err(malformed());
    }
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = unsigned
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(malformed());
    }
    // Trailing zeros mean nothing but would overflow.
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}");
    let digits: u128 = if digits.is_empty() {
        0
    } else {
        digits.parse().map_err(|_| too_large())?
    };
    let (times, exponent) = multiplier(suffix).ok_or_else(malformed)?;
    let exponent = exponent - i32::try_from(fraction.len()).map_err(|_| malformed())?;
    if digits == 0 {
        return Ok(0);
    }
    if negative {
        return Err(QuantityError::Negative(text.into()));
    }
    let product = digits
        .checked_mul(times)
        .and_then(|p| p.checked_mul(unit))
        .ok_or_else(too_large)?;
    let power = 10_u128.checked_pow(exponent.unsigned_abs());
    let result = if exponent >= 0 {
        power.and_then(|p| product.checked_mul(p)).ok_or_else(too_large)?
    } else {
        // Smaller than one of the smallest unit still rounds up to one.
        power.map_or(1, |p| product.div_ceil(p))
    };
    u64::try_from(result).map_err(|_| too_large())
}

/// A suffix as a factor and a power of ten.
fn multiplier(suffix: &str) -> Option<(u128, i32)> {
    const KI: u128 = 1024;
    Some(match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (KI, 0),
        "Mi" => (KI.pow(2), 0),
        "Gi" => (KI.pow(3), 0),
        "Ti" => (KI.pow(4), 0),
        "Pi" => (KI.pow(5), 0),
        "Ei" => (KI.pow(6), 0),
        other => {
            let exponent: i32 = other.strip_prefix(['e', 'E'])?.parse().ok()?;
            (-30..=30).contains(&exponent).then_some((1, exponent))?
        }
    })
}
