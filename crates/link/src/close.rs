//! How a link ends.

use std::time::Duration;

/// Nothing in particular.
pub const NORMAL: u16 = 1000;
/// The peer broke the protocol.
pub const PROTOCOL: u16 = 1002;
/// The host may not be here (revoked, deleted).
pub const FORBIDDEN: u16 = 1008;
/// The process restarts: come back, spread out.
pub const RESTART: u16 = 1012;
/// The process has too much to do: come back later.
pub const BUSY: u16 = 1013;
/// The host has a newer connection: this one is over, and there is nothing to come back for.
pub const REPLACED: u16 = 4001;

/// A host that is told to come back later than this comes back after this.
const MAX_RETRY: u64 = 3600;

/// A WebSocket close: why, and when to come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The code: one of this module's, or what the peer says.
    pub code: u16,
    /// When the host shall come back at the earliest.
    pub retry_after: Option<Duration>,
    /// For people. At most 80 bytes are sent.
    pub reason: String,
}

impl Close {
    /// A close with a reason.
    #[must_use]
    pub fn new(code: u16, reason: &str) -> Self {
        Self {
            code,
            retry_after: None,
            reason: reason.into(),
        }
    }

    /// With a time before which the host shall not come back.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// What goes into the close frame: at most 123 bytes may.
    pub(crate) fn text(&self) -> String {
        let mut end = self.reason.len().min(80);
        while !self.reason.is_char_boundary(end) {
            end -= 1;
        }
        let reason = &self.reason[..end];
        match self.retry_after {
            Some(after) if reason.is_empty() => format!("retry-after={}", after.as_secs()),
            Some(after) => format!("retry-after={}; {reason}", after.as_secs()),
            None => reason.into(),
        }
    }

    pub(crate) fn parse(code: u16, text: &str) -> Self {
        let (retry_after, reason) = match text.strip_prefix("retry-after=") {
            Some(rest) => {
                let (seconds, reason) = rest.split_once(';').unwrap_or((rest, ""));
                let seconds: Option<u64> = seconds.trim().parse().ok();
                let after = seconds.map(|s| Duration::from_secs(s.min(MAX_RETRY)));
                (after, reason.trim())
            }
            None => (None, text),
        };
        Self {
            code,
            retry_after,
            reason: reason.into(),
        }
    }
}

#[cfg(test)]
mod tests;
