//! The one driver that every reconciler runs on.
//!
//! A reconciler takes no input: it is told a key and reads everything it needs. It runs because a watched
//! object changed, because a [`Signal`] was given, because its period passed, or because it asked to be run
//! again. The next run is the retry: nothing retries inside. One key never runs twice at a time; what comes
//! in while it runs is remembered once.

//!
//! ```text
//!   watch event ─┐
//!   Signal ──────┼─► queue (one entry a key, the earliest time wins) ─► at most N workers ─► reconcile(key)
//!   period ──────┤        ▲                                                                      │
//!   start ───────┘        └──── Again(time) · Failed ⇒ growing back-off · woken while it ran ────┘
//! ```
//!
//! | item | what it is |
//! |---|---|
//! | [`Reconciler`] | what a domain writes |
//! | [`queue()`], [`Signal`] | how anything makes a key run now |
//! | [`Driver`] | runs a reconciler; its watches, period, workers, back-off and metrics |
//! | [`section`] | a part of the host's configuration that one domain enforces |

mod driver;
mod measure;
mod queue;
pub mod section;
mod watch;

pub use driver::{Driver, Options};
pub use queue::{Queue, Signal, queue};
pub use watch::Wake;

use std::{fmt, time::Duration};

use async_trait::async_trait;
use kinds::object::Object;

/// What is reconciled: an object's namespace (empty if none) and name, or any other name a reconciler chooses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Namespace, empty if none.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// A key.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of an object.
    #[must_use]
    pub fn of(object: &Object) -> Self {
        Self::new(kinds::object::namespace(object), kinds::object::name(object))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is as wanted; look again when something changes or the period passes.
    Done,
    /// Look again after this time at the latest.
    Again(Duration),
    /// It failed with this error (one line); run again after a growing back-off.
    Failed(String),
}

/// What a domain does with one key.
#[async_trait]
pub trait Reconciler: Send + Sync + 'static {
    /// Name in logs and metrics.
    fn name(&self) -> &'static str;

    /// Every key there is now. Asked at the start, when the period passes and after a watch was lost.
    async fn keys(&self) -> Vec<Key>;

    /// Makes one key true. Idempotent; safe to be killed anywhere.
    async fn reconcile(&self, key: &Key) -> Outcome;
}
