//! The five metrics that every reconciler has.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64},
    },
    time::Duration,
};

use prometheus_client::metrics::{counter::Counter, gauge::Gauge, histogram::Histogram};
use telemetry::{Clock, Metrics};

use crate::Key;

/// Runs, failures, duration, last success, items out of sync.
pub(crate) struct Measure {
    runs: Counter<u64, AtomicU64>,
    failures: Counter<u64, AtomicU64>,
    duration: Histogram,
    last_success: Gauge<i64, AtomicI64>,
    out_of_sync: Gauge<i64, AtomicI64>,
    failing: Mutex<BTreeSet<Key>>,
    clock: Clock,
}

/// 1 ms to about 1 min.
const BUCKETS: [f64; 9] = [0.001, 0.004, 0.016, 0.064, 0.256, 1.0, 4.0, 16.0, 64.0];

impl Measure {
    pub(crate) fn new(metrics: &Metrics, clock: Clock) -> Self {
        Self {
            runs: metrics.register("runs", "Runs of the reconciler", Counter::default()),
            failures: metrics.register("failures", "Runs that failed", Counter::default()),
            duration: metrics.register("duration_seconds", "Duration of a run", Histogram::new(BUCKETS)),
            last_success: metrics.register(
                "last_success_timestamp_seconds",
                "When a run last succeeded, seconds since 1970",
                Gauge::default(),
            ),
            out_of_sync: metrics.register(
                "items_out_of_sync",
                "Keys whose last run failed",
                Gauge::default(),
            ),
            failing: Mutex::default(),
            clock,
        }
    }

    pub(crate) fn ran(&self, key: &Key, took: Duration, failed: bool) {
        self.runs.inc();
        self.duration.observe(took.as_secs_f64());
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        if failed {
            self.failures.inc();
            failing.insert(key.clone());
        } else {
            self.last_success.set(self.clock.now().as_second());
            failing.remove(key);
        }
        self.out_of_sync
            .set(i64::try_from(failing.len()).unwrap_or(i64::MAX));
    }
}
