//! Revisioned objects with watch: the [`Store`] trait and, behind it, SQLite.
//!
//! A store keeps raw JSON bytes; it never decodes them. Every write gets the next revision of one counter
//! that all resources share; the writer is told the revision before the bytes are made, so that the stored
//! bytes carry it as `metadata.resourceVersion` and lists are sent as they are stored.
//!
//! | module | what it is |
//! |---|---|
//! | [`sqlite`] | [`SqliteStore`]: opening, options, maintenance |
//! | `sqlite::writer` | the one thread that writes: group commit, history, compaction |
//! | `sqlite::reader` | get, list at a revision, replay of history, on a small pool of read-only connections |
//! | `recent` | the changes that watchers are woken with, and the ephemeral objects |
//! | `sqlite::feed` | what a watcher reads: recent changes, else history |
//! | `watch` | [`Watch`], the stream that a watcher holds |
//!
//! # The path of a write
//!
//! ```text
//! create/update/delete ──bounded queue──▶ writer thread
//!    takes all that wait (at most 256), gives each a revision, one transaction:
//!       objects   the value as it is now, one row an object
//!       history   the value as it was before, one row a write; the oldest rows go when there are too many
//!    commit (one fsync for all) ──▶ recent changes (memory, bounded) ──▶ watchers woken ──▶ answers
//! ```
//!
//! Nobody sees a write before it is durable: neither its writer nor a watcher. A process killed at any point
//! comes back with every answered write and perhaps with some that were not answered yet.
//!
//! # Reading the past
//!
//! `history` is an undo log. An object at revision *r* is the row in `objects` if that was not written since,
//! else the `previous` of its first write after *r*. So the newest value of an object is stored once, and a
//! database in which nothing happens for long has no more than one value an object and a short log.
//!
//! A watcher reads from the recent changes in memory; one that is further behind reads `history`; one that is
//! behind that too ends, and its client lists again ([`Error::TooOld`]).
//!
//! # Ephemeral resources
//!
//! Events and leases would wear out flash and are worth nothing after a restart: they live in memory, share the
//! revision counter and are bounded in number, bytes and (events) age. So that revisions never go backwards
//! although some are not in the database, blocks of revisions are reserved durably before they are used.

mod recent;
pub mod sqlite;
mod watch;

use std::sync::Arc;

use bytes::Bytes;

pub use sqlite::{Ephemeral, Options, SqliteStore};
pub use watch::{Changes, Watch};

/// Names one object: `resource` is `group/plural` (`/configmaps` for the core group).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// `group/plural`.
    pub resource: Arc<str>,
    /// Empty for objects of cluster scope.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            resource,
            namespace,
            name,
        } = self;
        if namespace.is_empty() {
            write!(f, "{resource} {name}")
        } else {
            write!(f, "{resource} {namespace}/{name}")
        }
    }
}

/// An object as stored.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its key.
    pub key: Key,
    /// The revision of its last write.
    pub revision: u64,
    /// Its JSON, with `metadata.resourceVersion` = `revision`.
    pub value: Bytes,
}

/// Makes the bytes to store, told the revision of the write.
pub type Make = Box<dyn FnOnce(u64) -> Bytes + Send>;

/// What happened to an object.
#[derive(Clone, Debug)]
pub struct Change {
    /// The key.
    pub key: Key,
    /// The revision of the change.
    pub revision: u64,
    /// The value after the change. For a deletion: the last value, with `metadata.resourceVersion` = `revision`.
    pub value: Bytes,
    /// The value before the change; none if it was created. Watchers with selectors need it.
    pub previous: Option<Bytes>,
    /// Whether the object is gone.
    pub deleted: bool,
}

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// `group/plural`.
    pub resource: Arc<str>,
    /// One namespace, or all.
    pub namespace: Option<String>,
    /// At most so many; 0 is no limit.
    pub limit: usize,
    /// Start after this namespace and name (the end of the page before).
    pub after: Option<(String, String)>,
    /// The state at this revision; `None` is now.
    pub at: Option<u64>,
}

/// A page of a list.
#[derive(Clone, Debug, Default)]
pub struct ListPage {
    /// Entries ordered by namespace, then name.
    pub entries: Vec<Entry>,
    /// The revision that the list shows.
    pub revision: u64,
    /// Whether there is more after the last entry.
    pub more: bool,
    /// How many there are after this page, if cheap to know.
    pub remaining: Option<u64>,
}

/// Why a store refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is an object of that key.
    #[error("{0} exists already")]
    Exists(Key),
    /// There is none.
    #[error("{0} does not exist")]
    NotFound(Key),
    /// The object was written by another since.
    #[error("{key} is at revision {actual}, not {expected}")]
    Conflict {
        /// The key.
        key: Key,
        /// What the writer had read.
        expected: u64,
        /// What is stored.
        actual: u64,
    },
    /// The revision is older than what is kept.
    #[error("revision {asked} is too old: the oldest kept is {oldest}")]
    TooOld {
        /// What was asked for.
        asked: u64,
        /// The oldest that can be had.
        oldest: u64,
    },
    /// The revision has not happened yet.
    #[error("revision {asked} is in the future: the newest is {newest}")]
    Future {
        /// What was asked for.
        asked: u64,
        /// The newest there is.
        newest: u64,
    },
    /// The device is full. Reading works; writing works again when there is room.
    #[error("no space left for the database {path}: free some on its device, writes then work again")]
    NoSpace {
        /// The database.
        path: String,
    },
    /// The database is damaged.
    #[error(
        "the database {path} is damaged: stop the daemon, move {path} and {path}-wal away and start it again (what is in \
         Git comes back by itself), or rescue the rest with `sqlite3 {path} .recover | sqlite3 new.db`"
    )]
    Damaged {
        /// The database.
        path: String,
        /// What SQLite said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An ephemeral resource has as many objects as it may.
    #[error("{resource} is full: it may have {limit} objects")]
    Full {
        /// The resource.
        resource: Arc<str>,
        /// Its bound.
        limit: usize,
    },
    /// The database can't be used.
    #[error("the database {path} can't be used: {why}")]
    Unusable {
        /// The database.
        path: String,
        /// Why, and what to do.
        why: String,
    },
    /// The database failed otherwise.
    #[error("the store's database failed")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

/// A revisioned object store. A write that returned is durable (but for ephemeral resources).
#[async_trait::async_trait]
pub trait Store: Send + Sync + 'static {
    /// Creates an object.
    async fn create(&self, key: &Key, make: Make) -> Result<Entry, Error>;
    /// Replaces an object that is at revision `expected`.
    async fn update(&self, key: &Key, expected: u64, make: Make) -> Result<Entry, Error>;
    /// Deletes an object that is at revision `expected`; `make` gives the last value, told the revision of the deletion.
    async fn delete(&self, key: &Key, expected: u64, make: Make) -> Result<Entry, Error>;
    /// Reads an object.
    async fn get(&self, key: &Key) -> Result<Option<Entry>, Error>;
    /// Lists objects.
    async fn list(&self, query: ListQuery) -> Result<ListPage, Error>;
    /// All changes of a resource after revision `after`, oldest first, without gaps. [`Error::TooOld`] if they
    /// are no longer kept.
    fn watch(&self, resource: &str, after: u64) -> Result<Watch, Error>;
    /// The newest revision.
    fn revision(&self) -> u64;
}
