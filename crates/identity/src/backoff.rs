//! Pauses between attempts, with full jitter.
//!
//! The n-th pause is uniformly random between zero and `first × 2ⁿ`, at most `most`. Ten thousand hosts that lost
//! the same server at the same moment thus come back spread out, and no host waits for nothing when it was alone.

use std::time::Duration;

/// The pauses of one thing that is tried again and again.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    attempts: u32,
}

impl Backoff {
    /// Pauses up to `first`, then up to twice that, and so on up to `most`.
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            attempts: 0,
        }
    }

    /// The pause before the next attempt.
    pub fn next_pause(&mut self) -> Duration {
        let ceiling = self.ceiling();
        self.attempts = self.attempts.saturating_add(1);
        ceiling.mul_f64(random_fraction())
    }

    /// The longest that the next pause can be.
    #[must_use]
    pub fn ceiling(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.attempts).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.most)
    }

    /// It went well: begin anew.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// How many attempts failed in a row.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

/// Between 0 and 1.
#[must_use]
pub fn random_fraction() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness there is no jitter but still a pause.
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        return 0.5;
    }
    f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX)
}

/// `around` ± `share` of it, uniformly: for what many do at the same interval but shall not do at the same moment.
#[must_use]
pub fn jittered(around: Duration, share: f64) -> Duration {
    around.mul_f64((1.0 - share + 2.0 * share * random_fraction()).max(0.0))
}
