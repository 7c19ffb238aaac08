//! What can be wrong with a patch.

use thiserror::Error as ThisError;

/// Why a patch could not be carried out. The target is then to be thrown away by the caller's choice: [`crate::json::patch`]
/// and [`crate::strategic::patch`] leave it as it was.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum Error {
    /// The patch is no patch of its kind. The path is inside the patch.
    #[error("{path}: {message}")]
    Malformed {
        /// Where in the patch, for example `[3].op` or `.spec.ports`.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// The patch is well formed, but this object cannot take it (a path that is not there, a `test` that fails).
    #[error("{path}: {message}")]
    NotApplicable {
        /// Where in the object.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// The patch asks for more work than is allowed.
    #[error("the patch is too large: {what}, at most {limit} allowed")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
}

impl Error {
    pub(crate) fn malformed(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Malformed {
            path: path.into(),
            message: message.into(),
        }
    }
}
