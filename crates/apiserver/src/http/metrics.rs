//! What the server counts.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
};
use telemetry::Metrics;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    verb: String,
    resource: String,
    code: u32,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct VerbLabels {
    verb: String,
}

/// The server's metrics.
#[derive(Clone, Debug)]
pub(crate) struct ServerMetrics {
    registry: Metrics,
    requests: Family<RequestLabels, Counter>,
    duration: Family<VerbLabels, Histogram>,
    /// Watches that are open.
    pub(crate) watches: Gauge,
    /// Connections that are open.
    pub(crate) connections: Gauge,
    /// Requests refused because there were too many.
    pub(crate) refused: Counter,
    /// Handlers that panicked.
    pub(crate) panics: Counter,
}

impl ServerMetrics {
    pub(crate) fn new(registry: &Metrics) -> Self {
        let metrics = registry.prefixed("api");
        let histogram: fn() -> Histogram = || Histogram::new(exponential_buckets(0.000_5, 2.0, 16));
        let duration = Family::new_with_constructor(histogram);
        Self {
            registry: registry.clone(),
            requests: metrics.register(
                "requests",
                "Requests by verb, resource and code",
                Family::default(),
            ),
            duration: metrics.register(
                "request_duration_seconds",
                "Time to the first byte of the answer, watches apart",
                duration,
            ),
            watches: metrics.register("watches", "Open watches", Gauge::default()),
            connections: metrics.register("connections", "Open connections", Gauge::default()),
            refused: metrics.register(
                "requests_refused",
                "Requests refused because there were too many",
                Counter::default(),
            ),
            panics: metrics.register("panics", "Handlers that panicked", Counter::default()),
        }
    }

    /// Counts a request. `resource` is a known one or empty, so that foreign paths make no new series.
    pub(crate) fn request(&self, verb: &'static str, resource: &str, code: u16, took: Duration) {
        let labels = RequestLabels {
            verb: verb.into(),
            resource: resource.into(),
            code: code.into(),
        };
        self.requests.get_or_create(&labels).inc();
        if verb != "watch" {
            self.duration
                .get_or_create(&VerbLabels { verb: verb.into() })
                .observe(took.as_secs_f64());
        }
    }

    pub(crate) fn encode(&self) -> String {
        self.registry.encode()
    }
}
