//! One-time activation keys.
//!
//! A key is `SLV-` and six groups of five characters, for example `SLV-7K2QX-…`: 140 random bits and a check
//! of ten, in Crockford's base 32 (no I, L, O, U; read without regard to case, `O` as 0, `I` and `L` as 1, dashes
//! and spaces anywhere). It is shown once; what is stored is its [`ActivationKey::hash`]. As the key is random,
//! a plain SHA-256 is enough: there is nothing to guess.

use std::fmt;

use aws_lc_rs::digest;

use crate::x509;

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const RANDOM: usize = 28;
const CHECK: usize = 2;

/// Why a text is no activation key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Wrong length or characters.
    #[error("an activation key is SLV- and six groups of five letters and digits")]
    Malformed,
    /// A typing mistake.
    #[error("this activation key has a typing mistake in it")]
    Mistyped,
    /// No randomness.
    #[error("no activation key could be made: the random source failed")]
    Random,
}

/// A one-time key. Printing it with `{:?}` shows nothing; [`ActivationKey::text`] is the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct ActivationKey([u8; RANDOM + CHECK]);

impl ActivationKey {
    /// A new key.
    pub fn generate() -> Result<Self, Error> {
        let mut random = [0; RANDOM];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| Error::Random)?;
        Ok(Self::with(random.map(|byte| byte & 31)))
    }

    fn with(digits: [u8; RANDOM]) -> Self {
        let mut all = [0; RANDOM + CHECK];
        all[..RANDOM].copy_from_slice(&digits);
        all[RANDOM..].copy_from_slice(&check(&digits));
        Self(all)
    }

    /// Reads what a person typed.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let body = match text.get(..3) {
            Some(head) if head.eq_ignore_ascii_case("slv") => &text[3..],
            _ => text,
        };
        let mut digits = [0; RANDOM + CHECK];
        let mut count = 0;
        for c in body.chars().filter(|c| !matches!(c, '-' | ' ')) {
            let c = match c.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                other => other,
            };
            let digit = ALPHABET.iter().position(|&a| char::from(a) == c);
            let digit = digit.and_then(|d| u8::try_from(d).ok()).ok_or(Error::Malformed)?;
            *digits.get_mut(count).ok_or(Error::Malformed)? = digit;
            count += 1;
        }
        if count != RANDOM + CHECK {
            return Err(Error::Malformed);
        }
        let mut random = [0; RANDOM];
        random.copy_from_slice(&digits[..RANDOM]);
        let key = Self::with(random);
        if key.0 == digits {
            Ok(key)
        } else {
            Err(Error::Mistyped)
        }
    }

    /// The key as people see it, once.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::from("SLV");
        for (at, digit) in self.0.iter().enumerate() {
            if at % 5 == 0 {
                out.push('-');
            }
            out.push(char::from(ALPHABET[usize::from(*digit)]));
        }
        out
    }

    /// What is stored and looked up: SHA-256 in hexadecimal.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"selvedge activation key 1\0");
        context.update(&self.0);
        x509::hex(context.finish().as_ref())
    }
}

/// Ten bits that change with any one character and with any two neighbours exchanged, but for one case in a thousand.
fn check(digits: &[u8; RANDOM]) -> [u8; CHECK] {
    let sum = digest::digest(&digest::SHA256, digits);
    [sum.as_ref()[0] & 31, sum.as_ref()[1] & 31]
}

impl fmt::Debug for ActivationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ActivationKey(…)")
    }
}
