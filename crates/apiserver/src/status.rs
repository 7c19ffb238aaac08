//! The `Status` object that every refusal is.

use std::fmt;

/// A refusal, as `metav1.Status`.
#[derive(Clone, Debug)]
pub struct Status {
    /// HTTP code.
    pub code: u16,
    /// `NotFound`, `AlreadyExists`, `Conflict`, `Invalid`, `Forbidden`, `BadRequest`, `Expired`, …
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// `details`, as JSON; null if none.
    pub details: serde_json::Value,
}

impl Status {
    /// A refusal.
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), message: message.into(), details: serde_json::Value::Null }
    }

    /// Whether the object does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }

    /// Whether the object was changed by another since, or field managers disagree.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code == 409 && self.reason == "Conflict"
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}
