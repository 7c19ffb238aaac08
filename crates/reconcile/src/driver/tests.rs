use std::sync::Mutex;

use async_trait::async_trait;
use tokio::sync::{oneshot, watch};

use super::*;
use crate::queue;

/// Records its runs; outcomes are scripted.
struct Script {
    keys: Vec<Key>,
    outcomes: Mutex<Vec<Outcome>>,
    ran: watch::Sender<Vec<(Key, Instant)>>,
}

impl Script {
    fn new(keys: &[&str], outcomes: Vec<Outcome>) -> Arc<Self> {
        let keys = keys.iter().map(|name| Key::new("", *name)).collect();
        Arc::new(Self {
            keys,
            outcomes: Mutex::new(outcomes),
            ran: watch::Sender::new(Vec::new()),
        })
    }

    async fn ran(&self, count: usize) -> Vec<(Key, Instant)> {
        self.ran
            .subscribe()
            .wait_for(|ran| ran.len() >= count)
            .await
            .unwrap()
            .clone()
    }
}

#[async_trait]
impl Reconciler for Script {
    fn name(&self) -> &'static str {
        "script"
    }

    async fn keys(&self) -> Vec<Key> {
        self.keys.clone()
    }

    async fn reconcile(&self, key: &Key) -> Outcome {
        self.ran
            .send_modify(|ran| ran.push((key.clone(), Instant::now())));
        let mut outcomes = self.outcomes.lock().unwrap();
        if outcomes.is_empty() {
            Outcome::Done
        } else {
            outcomes.remove(0)
        }
    }
}

fn start(script: &Arc<Script>, options: Options) -> (crate::Signal, oneshot::Sender<()>, Metrics) {
    let (signal, queue) = queue();
    let metrics = Metrics::new();
    let driver = Driver::new(script.clone(), queue, options, &metrics, Clock::system());
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(driver.run(async move {
        let _ = stopped.await;
    }));
    (signal, stop, metrics)
}

#[tokio::test(start_paused = true)]
async fn every_key_runs_at_the_start_and_each_period() {
    let script = Script::new(&["a", "b"], Vec::new());
    let begun = Instant::now();
    let (_signal, _stop, _) = start(&script, Options::default());
    let ran = script.ran(4).await;
    assert_eq!(ran[0].1, begun);
    assert_eq!(ran[3].1, begun + Duration::from_secs(300));
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_and_are_forgotten_after_a_success() {
    let failed = || Outcome::Failed("no".into());
    let again = Outcome::Again(Duration::from_secs(7));
    let script = Script::new(&["a"], vec![failed(), failed(), failed(), again, failed()]);
    let (_signal, _stop, metrics) = start(&script, Options::default());
    let ran = script.ran(6).await;
    let waits: Vec<u64> = ran
        .windows(2)
        .map(|pair| (pair[1].1 - pair[0].1).as_secs())
        .collect();
    assert_eq!(waits, [1, 2, 4, 7, 1]);
    assert!(
        metrics.encode().contains("selvedge_script_failures_total 4"),
        "{}",
        metrics.encode()
    );
}

#[tokio::test(start_paused = true)]
async fn a_signal_runs_a_failing_key_at_once() {
    let script = Script::new(&["a"], vec![Outcome::Failed("no".into())]);
    let (signal, _stop, _) = start(&script, Options::default());
    let first = script.ran(1).await[0].1;
    signal.key(Key::new("", "a"));
    assert_eq!(script.ran(2).await[1].1, first);
}

#[tokio::test(start_paused = true)]
async fn back_off_is_bounded() {
    assert_eq!(backoff(0, Options::default()), Duration::from_secs(1));
    assert_eq!(backoff(4, Options::default()), Duration::from_secs(16));
    assert_eq!(backoff(u32::MAX, Options::default()), Duration::from_secs(300));
}

/// Panics on the first run.
struct Panics(watch::Sender<u32>);

#[async_trait]
impl Reconciler for Panics {
    fn name(&self) -> &'static str {
        "panics"
    }

    async fn keys(&self) -> Vec<Key> {
        vec![Key::new("", "a")]
    }

    async fn reconcile(&self, _key: &Key) -> Outcome {
        self.0.send_modify(|runs| *runs += 1);
        assert!(*self.0.borrow() > 1, "the first run panics");
        Outcome::Done
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failure_and_the_key_runs_again() {
    let reconciler = Arc::new(Panics(watch::Sender::new(0)));
    let (_signal, queue) = queue();
    let driver = Driver::new(
        reconciler.clone(),
        queue,
        Options::default(),
        &Metrics::new(),
        Clock::system(),
    );
    tokio::spawn(driver.run(std::future::pending()));
    reconciler
        .0
        .subscribe()
        .wait_for(|runs| *runs >= 2)
        .await
        .unwrap();
}
