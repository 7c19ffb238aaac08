//! Where time comes from.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

/// The time of day, real or set by a test. Cheap to clone; clones share a set time.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<Mutex<Timestamp>>>);

impl Clock {
    /// The clock of the machine.
    #[must_use]
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands still at `at` until [`Clock::advance`] moves it.
    #[must_use]
    pub fn fixed(at: Timestamp) -> Self {
        Self(Some(Arc::new(Mutex::new(at))))
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            None => system_now(),
            Some(at) => *at.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// The time now as Kubernetes writes it: RFC 3339, UTC, whole seconds.
    #[must_use]
    pub fn now_rfc3339(&self) -> String {
        self.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// Moves a fixed clock forward; the system clock ignores it.
    pub fn advance(&self, by: SignedDuration) {
        if let Some(at) = &self.0 {
            let mut at = at.lock().unwrap_or_else(PoisonError::into_inner);
            *at = at.checked_add(by).unwrap_or(*at);
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that asks the machine"
)]
fn system_now() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_clock_moves_only_when_told() {
        let clock = Clock::fixed("2026-01-02T03:04:05Z".parse().unwrap());
        assert_eq!(clock.now_rfc3339(), "2026-01-02T03:04:05Z");
        clock.clone().advance(SignedDuration::from_secs(5));
        assert_eq!(clock.now_rfc3339(), "2026-01-02T03:04:10Z");
    }
}
