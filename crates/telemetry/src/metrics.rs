//! The metrics registry, handed down with a prefix.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::{
    encoding::text::encode,
    registry::{Metric, Registry},
};

/// A registry of metrics. Clones share it; [`Metrics::prefixed`] gives a view whose names start with a prefix.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    prefix: String,
}

impl Metrics {
    /// An empty registry whose names start with `selvedge_`.
    #[must_use]
    pub fn new() -> Self {
        Self {
            registry: Arc::default(),
            prefix: "selvedge_".into(),
        }
    }

    /// The same registry, for names that start with `prefix_` too.
    #[must_use]
    pub fn prefixed(&self, prefix: &str) -> Self {
        Self {
            registry: self.registry.clone(),
            prefix: format!("{}{prefix}_", self.prefix),
        }
    }

    /// Registers a metric and gives it back.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register(format!("{}{name}", self.prefix), help, metric.clone());
        metric
    }

    /// Everything in the OpenMetrics text format.
    #[must_use]
    pub fn encode(&self) -> String {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = encode(&mut text, &registry);
        text
    }
}
