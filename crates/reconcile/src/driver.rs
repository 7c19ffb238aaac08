//! Runs a reconciler.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use apiserver::Client;
use kinds::object::{Gvr, Object};
use telemetry::{Clock, Metrics};
use tokio::{
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until},
};

use crate::{
    Key, Outcome, Queue, Reconciler, Wake,
    measure::Measure,
    queue::Next,
    watch::{Map, follow},
};

/// How a driver runs its reconciler.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// All keys run at least this often.
    pub period: Duration,
    /// So many keys may run at the same time.
    pub workers: usize,
    /// The wait after a first failure; it doubles with each further one.
    pub first_backoff: Duration,
    /// The longest wait after a failure.
    pub longest_backoff: Duration,
}

impl Default for Options {
    /// Every 5 minutes, 8 at a time, 1 s doubling up to 5 minutes.
    fn default() -> Self {
        Self {
            period: Duration::from_secs(300),
            workers: 8,
            first_backoff: Duration::from_secs(1),
            longest_backoff: Duration::from_secs(300),
        }
    }
}

/// Runs one reconciler until told to stop.
pub struct Driver {
    reconciler: Arc<dyn Reconciler>,
    queue: Queue,
    options: Options,
    measure: Measure,
    watches: Vec<(Client, Gvr, Map)>,
}

/// What a spawned task of a driver came back with.
enum Came {
    Keys(Vec<Key>),
    Ran {
        key: Key,
        outcome: Outcome,
        took: Duration,
    },
}

impl Driver {
    /// A driver of `reconciler` that takes its work from `queue`.
    #[must_use]
    pub fn new(
        reconciler: Arc<dyn Reconciler>,
        queue: Queue,
        options: Options,
        metrics: &Metrics,
        clock: Clock,
    ) -> Self {
        let measure = Measure::new(&metrics.prefixed(&reconciler.name().replace('-', "_")), clock);
        Self {
            reconciler,
            queue,
            options,
            measure,
            watches: Vec::new(),
        }
    }

    /// Wakes what `map` says whenever an object of a resource changes.
    #[must_use]
    pub fn watches(
        mut self,
        client: &Client,
        gvr: Gvr,
        map: impl Fn(&Object) -> Wake + Send + Sync + 'static,
    ) -> Self {
        self.watches.push((client.clone(), gvr, Arc::new(map)));
        self
    }

    /// Runs until `shutdown` is ready, then lets the runs under way end.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        let signal = self.queue.signal();
        let mut watches = JoinSet::new();
        for (client, gvr, map) in self.watches {
            watches.spawn(follow(client, gvr, map, signal.clone()));
        }
        let mut failures: BTreeMap<Key, u32> = BTreeMap::new();
        let mut tasks: JoinSet<Came> = JoinSet::new();
        let mut running = 0_usize;
        let mut period = Instant::now() + self.options.period;
        signal.all();
        tokio::pin!(shutdown);
        loop {
            let until = match self.queue.next(Instant::now(), running < self.options.workers) {
                Next::All => {
                    let reconciler = self.reconciler.clone();
                    tasks.spawn(async move { Came::Keys(reconciler.keys().await) });
                    continue;
                }
                Next::Run(key) => {
                    running += 1;
                    tasks.spawn(run_one(self.reconciler.clone(), key));
                    continue;
                }
                Next::WaitUntil(at) => at.map_or(period, |at| at.min(period)),
            };
            // Every arm is cancel-safe: a notification, a set of tasks and timers keep what they hold.
            tokio::select! {
                () = &mut shutdown => break,
                () = self.queue.woken() => {}
                () = sleep_until(until) => {
                    if Instant::now() >= period {
                        period = Instant::now() + self.options.period;
                        signal.all();
                    }
                }
                Some(came) = tasks.join_next() => match came {
                    Ok(Came::Keys(keys)) => keys.into_iter().for_each(|key| signal.key(key)),
                    Ok(Came::Ran { key, outcome, took }) => {
                        running = running.saturating_sub(1);
                        self.measure.ran(&key, took, matches!(outcome, Outcome::Failed(_)));
                        let again = next_run(self.reconciler.name(), &key, &outcome, &mut failures, self.options);
                        self.queue.done(&key, again.map(|after| Instant::now() + after));
                    }
                    Err(error) => panicked(self.reconciler.name(), &error),
                },
            }
        }
        watches.shutdown().await;
        while let Some(came) = tasks.join_next().await {
            if let Err(error) = came {
                panicked(self.reconciler.name(), &error);
            }
        }
    }
}

/// Runs one key; a panic is a failure like any other, and the key is handed back.
async fn run_one(reconciler: Arc<dyn Reconciler>, key: Key) -> Came {
    let started = Instant::now();
    let name = reconciler.name();
    let run = tokio::spawn({
        let key = key.clone();
        async move { reconciler.reconcile(&key).await }
    });
    let outcome = run.await.unwrap_or_else(|error| {
        panicked(name, &error);
        Outcome::Failed("the reconciler panicked; this is a bug, see the log".into())
    });
    Came::Ran {
        key,
        outcome,
        took: started.elapsed(),
    }
}

fn panicked(reconciler: &str, error: &JoinError) {
    if error.is_panic() {
        tracing::error!(reconciler, %error, "panicked");
    }
}

/// When a key is to run again by itself.
fn next_run(
    reconciler: &str,
    key: &Key,
    outcome: &Outcome,
    failures: &mut BTreeMap<Key, u32>,
    options: Options,
) -> Option<Duration> {
    match outcome {
        Outcome::Done => {
            failures.remove(key);
            None
        }
        Outcome::Again(after) => {
            failures.remove(key);
            Some(*after)
        }
        Outcome::Failed(error) => {
            let count = failures.entry(key.clone()).or_insert(0);
            let after = backoff(*count, options);
            *count = count.saturating_add(1);
            tracing::warn!(reconciler, %key, error, retry_after = ?after, "failed");
            Some(after)
        }
    }
}

fn backoff(failures: u32, options: Options) -> Duration {
    options
        .first_backoff
        .saturating_mul(2_u32.saturating_pow(failures))
        .min(options.longest_backoff)
}

#[cfg(test)]
mod tests;
