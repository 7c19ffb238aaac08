//! The queue of a driver: which keys are to run, and when.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Notify, time::Instant};

use crate::Key;

/// Makes a reconciler run now. Cheap to clone; made by [`queue`] before the reconciler, so that a reconciler's
/// own listeners (a monitor of a database, a process that ended) can hold one.
#[derive(Clone, Debug)]
pub struct Signal(Arc<Shared>);

/// The driver's side of a [`Signal`].
#[derive(Debug)]
pub struct Queue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    woken: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Every key that is to run, with the time from which it may.
    due: BTreeMap<Key, Instant>,
    running: BTreeSet<Key>,
    /// Keys that were asked for while they ran: they run once more.
    again: BTreeMap<Key, Instant>,
    /// Whether all keys are to be asked for.
    all: bool,
}

/// A queue and the signal that fills it.
#[must_use]
pub fn queue() -> (Signal, Queue) {
    let shared = Arc::new(Shared::default());
    (Signal(shared.clone()), Queue(shared))
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Signal {
    /// Runs a key soon. Asking for it many times before it runs is asking once.
    pub fn key(&self, key: Key) {
        self.key_at(key, Instant::now());
    }

    /// Asks the reconciler for all its keys and runs them.
    pub fn all(&self) {
        self.0.state().all = true;
        self.0.woken.notify_one();
    }

    /// Runs a key at a time; an earlier wish for it stands.
    pub(crate) fn key_at(&self, key: Key, at: Instant) {
        let mut state = self.0.state();
        let times = if state.running.contains(&key) {
            &mut state.again
        } else {
            &mut state.due
        };
        let time = times.entry(key).or_insert(at);
        *time = at.min(*time);
        drop(state);
        self.0.woken.notify_one();
    }
}

/// What the driver is to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Ask for all keys.
    All,
    /// Run this key; it counts as running until [`Queue::done`].
    Run(Key),
    /// Nothing before this time, if any.
    WaitUntil(Option<Instant>),
}

impl Queue {
    /// The signal of this queue.
    #[must_use]
    pub fn signal(&self) -> Signal {
        Signal(self.0.clone())
    }

    /// What to do at `now`. With `room` false, no key is handed out.
    pub(crate) fn next(&self, now: Instant, room: bool) -> Next {
        let mut state = self.0.state();
        if state.all {
            state.all = false;
            return Next::All;
        }
        if !room {
            return Next::WaitUntil(None);
        }
        let Some((key, at)) = state
            .due
            .iter()
            .min_by_key(|(_, at)| **at)
            .map(|(k, at)| (k.clone(), *at))
        else {
            return Next::WaitUntil(None);
        };
        if at > now {
            return Next::WaitUntil(Some(at));
        }
        state.due.remove(&key);
        state.running.insert(key.clone());
        Next::Run(key)
    }

    /// A key has run; `again` is when it wants to run again.
    pub(crate) fn done(&self, key: &Key, again: Option<Instant>) {
        let mut state = self.0.state();
        state.running.remove(key);
        let asked = state.again.remove(key);
        if let Some(at) = asked.into_iter().chain(again).min() {
            state.due.insert(key.clone(), at);
        }
        drop(state);
        self.0.woken.notify_one();
    }

    /// Waits until something was added since the last wait.
    pub(crate) async fn woken(&self) {
        self.0.woken.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(name: &str) -> Key {
        Key::new("", name)
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_asked_for_twice_runs_once() {
        let (signal, queue) = queue();
        signal.key(key("a"));
        signal.key(key("a"));
        let now = Instant::now();
        assert_eq!(queue.next(now, true), Next::Run(key("a")));
        assert_eq!(queue.next(now, true), Next::WaitUntil(None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_asked_for_while_it_runs_runs_again_after_it() {
        let (signal, queue) = queue();
        signal.key(key("a"));
        let now = Instant::now();
        assert_eq!(queue.next(now, true), Next::Run(key("a")));
        signal.key(key("a"));
        assert_eq!(
            queue.next(now, true),
            Next::WaitUntil(None),
            "one key never runs twice at a time"
        );
        queue.done(&key("a"), Some(now + Duration::from_secs(60)));
        assert_eq!(queue.next(now, true), Next::Run(key("a")));
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_wish_wins() {
        let (signal, queue) = queue();
        let now = Instant::now();
        signal.key_at(key("a"), now + Duration::from_secs(60));
        assert_eq!(
            queue.next(now, true),
            Next::WaitUntil(Some(now + Duration::from_secs(60)))
        );
        signal.key(key("a"));
        assert_eq!(queue.next(now, true), Next::Run(key("a")));
        queue.done(&key("a"), None);
        assert_eq!(queue.next(now, true), Next::WaitUntil(None));
    }

    #[tokio::test(start_paused = true)]
    async fn all_comes_before_keys_and_needs_no_room() {
        let (signal, queue) = queue();
        signal.key(key("a"));
        signal.all();
        let now = Instant::now();
        assert_eq!(queue.next(now, false), Next::All);
        assert_eq!(queue.next(now, false), Next::WaitUntil(None));
        assert_eq!(queue.next(now, true), Next::Run(key("a")));
    }
}
