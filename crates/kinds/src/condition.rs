//! Status conditions, as `metav1.Condition` (and, for `vmoperator` v1alpha1, with a severity).

use serde::{Deserialize, Serialize};

/// One condition of an object's status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Type, for example `Ready`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// A word in camel case that says why.
    #[serde(default)]
    pub reason: String,
    /// A sentence for people.
    #[serde(default)]
    pub message: String,
    /// When `status` last changed, RFC 3339. Filled in by [`set`].
    #[serde(default)]
    pub last_transition_time: String,
    /// The generation that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

impl Condition {
    /// A condition that is `True`.
    #[must_use]
    pub fn yes(kind: &str, reason: &str, message: impl Into<String>) -> Self {
        Self::new(kind, "True", reason, message.into())
    }

    /// A condition that is `False`.
    #[must_use]
    pub fn no(kind: &str, reason: &str, message: impl Into<String>) -> Self {
        Self::new(kind, "False", reason, message.into())
    }

    /// A condition that is `Unknown`.
    #[must_use]
    pub fn unknown(kind: &str, reason: &str, message: impl Into<String>) -> Self {
        Self::new(kind, "Unknown", reason, message.into())
    }

    fn new(kind: &str, status: &str, reason: &str, message: String) -> Self {
        Self {
            kind: kind.into(),
            status: status.into(),
            reason: reason.into(),
            message,
            last_transition_time: String::new(),
            observed_generation: None,
        }
    }

    /// The same for a generation.
    #[must_use]
    pub fn at_generation(mut self, generation: i64) -> Self {
        self.observed_generation = Some(generation);
        self
    }

    /// Whether `status` is `True`.
    #[must_use]
    pub fn is_true(&self) -> bool {
        self.status == "True"
    }
}

/// Sets a condition in a list. The time of the last transition moves only when `status` changes, so setting
/// the same condition again changes nothing.
pub fn set(conditions: &mut Vec<Condition>, mut new: Condition, now: &str) {
    match conditions.iter_mut().find(|c| c.kind == new.kind) {
        Some(old) => {
            let same = old.status == new.status && !old.last_transition_time.is_empty();
            new.last_transition_time = if same {
                old.last_transition_time.clone()
            } else {
                now.into()
            };
            *old = new;
        }
        None => {
            new.last_transition_time = now.into();
            conditions.push(new);
        }
    }
}

/// The condition of a type.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.kind == kind)
}
