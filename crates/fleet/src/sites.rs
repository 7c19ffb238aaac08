//! Sites: a name, labels, a place, variables, and a folder in a repository.
//!
//! What is reported of a site is kept in its own row (`summary` writes it in the transaction that changes a host), so
//! that lists and counts of 50,000 sites read one table.

mod read;
mod secret;
pub(crate) mod summary;
mod write;

pub(crate) use read::locked;
pub(crate) use write::{json, write_labels};

use crate::Fleet;

/// See [`Fleet::sites`].
#[derive(Clone, Copy, Debug)]
pub struct Sites<'a>(pub(crate) &'a Fleet);

impl Fleet {
    /// Sites.
    #[must_use]
    pub fn sites(&self) -> Sites<'_> {
        Sites(self)
    }
}
