use crate::Role;

/// Why the fleet refused. None of these carries a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is none, or it is another tenant's, or outside the caller's scope: the three can't be told apart.
    #[error("there is no {kind} {name}")]
    NotFound {
        /// Kind, as `site`.
        kind: &'static str,
        /// What was asked for.
        name: String,
    },
    /// There is one already, or it is in use, or its state does not allow it.
    #[error("{message}")]
    Conflict {
        /// What, and what to do.
        message: String,
    },
    /// It was changed since the caller read it.
    #[error("{kind} {name} is at generation {actual}, not {expected}: read it again")]
    Precondition {
        /// Kind.
        kind: &'static str,
        /// Name.
        name: String,
        /// What the caller had.
        expected: i64,
        /// What is.
        actual: i64,
    },
    /// A value can't be accepted.
    #[error("{field}: {message}")]
    Invalid {
        /// The field, as `location.timezone`.
        field: String,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// The caller may not.
    #[error("this needs the role {need}")]
    Denied {
        /// The role that may.
        need: Role,
    },
    /// It may not, whoever asks. The text says why.
    #[error("{message}")]
    Forbidden {
        /// Why.
        message: String,
    },
    /// Name, password, code or token is wrong; which of them is not said.
    #[error("sign-in failed")]
    Unauthenticated,
    /// The password was right; a code of the second factor is needed.
    #[error("a code of the second factor is needed")]
    SecondFactor,
    /// Too many tries.
    #[error("too many tries: wait {retry_after} s")]
    Throttled {
        /// Seconds to wait.
        retry_after: u64,
    },
    /// The change log no longer has what was asked for.
    #[error("changes after {asked} are no longer kept")]
    TooOld {
        /// What was asked for.
        asked: i64,
    },
    /// The database can't be used now; a later try may work.
    #[error("the database can't be used now")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The database failed otherwise.
    #[error("the database failed")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What is stored can't be read: a wrong master key, or damage.
    #[error("what is stored of {what} can't be read")]
    Damaged {
        /// What.
        what: String,
    },
    /// The certificate authority or the sealing failed.
    #[error("{what} failed")]
    Identity {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database belongs to a newer version of Selvedge.
    #[error("the database has schema {found}, this version knows {known}: use the newer version")]
    Newer {
        /// In the database.
        found: i64,
        /// Ours.
        known: i64,
    },
}

impl Error {
    /// There is no such thing.
    pub fn not_found(kind: &'static str, name: impl Into<String>) -> Self {
        Self::NotFound {
            kind,
            name: name.into(),
        }
    }

    /// A value can't be accepted.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            message: message.into(),
        }
    }

    /// It is in the way of something.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::Conflict {
            message: message.into(),
        }
    }
}
