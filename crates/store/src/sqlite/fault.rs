//! What SQLite's errors mean to people.

use std::{fmt, path::Path, sync::Arc};

use rusqlite::ErrorCode;

use crate::Error;

/// Translates errors of one database.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    path: Arc<str>,
}

/// An error that every write of a failed transaction gets.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    error: Arc<rusqlite::Error>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Fault {}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self {
            error: Arc::new(error),
        }
    }
}

impl Faults {
    pub(crate) fn new(path: Option<&Path>) -> Self {
        Self {
            path: path.map_or_else(|| "in memory".into(), |path| path.display().to_string().into()),
        }
    }

    /// The error as the store's callers get it.
    pub(crate) fn of(&self, fault: impl Into<Fault>) -> Error {
        let fault = fault.into();
        let path = self.path.to_string();
        let (code, extended) = match &*fault.error {
            rusqlite::Error::SqliteFailure(error, _) => (error.code, error.extended_code),
            _ => (ErrorCode::Unknown, 0),
        };
        match code {
            ErrorCode::DiskFull => Error::NoSpace { path },
            // The shared-memory file beside the database could not grow.
            ErrorCode::SystemIoFailure if extended == rusqlite::ffi::SQLITE_IOERR_SHMSIZE => {
                Error::NoSpace { path }
            }
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Error::Damaged {
                path,
                source: Box::new(fault),
            },
            _ => Error::Database(Box::new(fault)),
        }
    }

    pub(crate) fn damaged(&self, why: String) -> Error {
        Error::Damaged {
            path: self.path.to_string(),
            source: why.into(),
        }
    }

    pub(crate) fn unusable(&self, why: impl Into<String>) -> Error {
        Error::Unusable {
            path: self.path.to_string(),
            why: why.into(),
        }
    }
}
