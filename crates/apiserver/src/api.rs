//! The verbs over a store.

use std::sync::Arc;

use kinds::registry::Registry;
use store::Store;
use telemetry::Clock;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// User name.
    pub user: String,
    /// Groups.
    pub groups: Vec<String>,
}

/// The verbs over a store. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    pub(crate) registry: Arc<Registry>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
}

impl Api {
    /// An API over a store.
    #[must_use]
    pub fn new(registry: Arc<Registry>, store: Arc<dyn Store>, clock: Clock) -> Self {
        Self { registry, store, clock }
    }

    /// The kinds that it serves.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Its clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }
}
