//! Results for people and for metrics.

use std::time::Duration;

use prometheus_client::metrics::{counter::Counter, gauge::Gauge, histogram::Histogram};
use reconcile::section::{Problem, SectionReport};
use telemetry::{Metrics, chain};

/// A problem that is about no particular path.
pub(crate) fn problem(reason: &str, message: impl Into<String>) -> Problem {
    Problem {
        path: String::new(),
        reason: reason.into(),
        message: message.into(),
    }
}

/// A report of a run that could not look.
pub(crate) fn failed(reason: &str, error: &(dyn std::error::Error + 'static)) -> SectionReport {
    SectionReport {
        problems: vec![problem(reason, chain(error).to_string())],
        ..SectionReport::default()
    }
}

/// What is measured.
pub(crate) struct Measures {
    passes: Counter,
    seconds: Histogram,
    problems: Gauge,
    pub(crate) flow_changes: Counter,
}

impl Measures {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let buckets = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];
        Self {
            passes: metrics.register(
                "passes",
                "Comparisons of what is wanted with what is",
                Counter::default(),
            ),
            seconds: metrics.register("pass_seconds", "How long they took", Histogram::new(buckets)),
            problems: metrics.register("problems", "Problems found by the last one", Gauge::default()),
            flow_changes: metrics.register(
                "flow_changes",
                "Flows changed after the first",
                Counter::default(),
            ),
        }
    }

    pub(crate) fn pass(&self, took: Duration, problems: usize) {
        self.passes.inc();
        self.seconds.observe(took.as_secs_f64());
        self.problems.set(i64::try_from(problems).unwrap_or(i64::MAX));
    }
}
