//! What hosts report, on its way into the database.
//!
//! ```text
//!   connected · status · events · disconnected ──bounded queue──▶ one writer (PostgreSQL: a few, by host)
//!        takes all that wait (at most 256), one transaction:
//!          section     what changed of it
//!          host, site  the columns that lists and counts read
//!          change log  one row an object
//!        commit ──▶ answers (Ack is sent to the host only now)
//!   beat ──▶ memory only
//!   every third of a heartbeat: who missed two beats is stale, four offline; only these transitions are written
//! ```
//!
//! A host that is online was heard of within two heartbeats: nothing is written to say so again.

mod apply;
mod events;
mod facts;
mod usage;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use link::message::{Event, Hello, Status};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

pub use usage::Usage;

use crate::model::{Connection, Time};
use crate::{Error, Fleet};

/// Jobs that share a transaction.
const BATCH: usize = 256;
/// Jobs that wait; who comes then waits too, and its host with it.
const QUEUE: usize = 4096;
/// Writers on PostgreSQL.
const WRITERS: usize = 4;

/// What a status report led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable: send `ack` with this generation.
    Ack(u64),
    /// It does not build on what we have: send `resync`.
    Resync,
}

/// A host that connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected {
    /// What we have of its status: goes into `welcome`.
    pub status_generation: u64,
    /// Tells this connection from earlier and later ones of the same host.
    pub session: u64,
}

/// Takes what hosts report. Cheap to clone; ends when the last clone is dropped.
#[derive(Clone)]
pub struct Ingest(Arc<Inner>);

struct Inner {
    fleet: Fleet,
    node: String,
    queues: Vec<mpsc::Sender<Job>>,
    hosts: Mutex<HashMap<Key, Entry>>,
    sessions: AtomicU64,
}

/// Tenant's and host's id.
pub(super) type Key = (Arc<str>, Arc<str>);

/// What is kept in memory of a host that this process heard of.
struct Entry {
    session: u64,
    connection: Connection,
    heard: Instant,
    heard_at: Time,
    /// How far its clock is off, as it was written last; `None`: not by this process.
    skew: Option<i64>,
}

pub(super) struct Job {
    pub(super) key: Key,
    pub(super) what: What,
    answer: oneshot::Sender<Result<Answer, Error>>,
}

pub(super) enum What {
    Connected {
        hello: Hello,
        address: String,
        /// How far its clock is off, if it said.
        skew: Option<i64>,
    },
    Status(Status),
    Events(Vec<Event>),
    /// It has this assignment in force.
    Acknowledged(i64),
    /// Its clock is off by so much, in milliseconds.
    Clock(i64),
    /// Missed beats, or has them again. The time is when it was heard of last.
    Connection(Connection, Time),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    Done,
    /// The status generation we have.
    Generation(u64),
    Resync,
    /// The host is another process's now, or gone.
    Lost,
}

impl Ingest {
    /// Starts the writers and the watch over heartbeats. `node` is this process's id.
    #[must_use]
    pub fn start(fleet: &Fleet, node: &str) -> Self {
        let writers = if fleet.db().shared() { WRITERS } else { 1 };
        let mut queues = Vec::with_capacity(writers);
        for _ in 0..writers {
            let (sender, receiver) = mpsc::channel(QUEUE);
            tokio::spawn(write(fleet.clone(), node.to_owned(), receiver));
            queues.push(sender);
        }
        let ingest = Self(Arc::new(Inner {
            fleet: fleet.clone(),
            node: node.to_owned(),
            queues,
            hosts: Mutex::default(),
            sessions: AtomicU64::new(1),
        }));
        tokio::spawn(watch(Arc::downgrade(&ingest.0), fleet.options().heartbeat / 3));
        ingest
    }

    /// A host connected and said hello. Its link is this process's now.
    pub async fn connected(
        &self,
        tenant: &str,
        host: &str,
        hello: &Hello,
        address: &str,
    ) -> Result<Connected, Error> {
        let key = key(tenant, host);
        let session = self.0.sessions.fetch_add(1, Ordering::Relaxed);
        let off = self.off(&hello.time).and_then(|off| skew(off, None));
        let what = What::Connected {
            hello: hello.clone(),
            address: address.to_owned(),
            skew: off,
        };
        let answer = self.0.job(&key, what).await?;
        self.0.hosts().insert(
            key,
            Entry {
                session,
                connection: Connection::Online,
                heard: Instant::now(),
                heard_at: self.0.fleet.db().now(),
                skew: off,
            },
        );
        match answer {
            Answer::Generation(status_generation) => Ok(Connected {
                status_generation,
                session,
            }),
            _ => Err(Error::not_found("host", host)),
        }
    }

    /// A host beat. Costs nothing unless it had missed some.
    pub fn beat(&self, tenant: &str, host: &str) {
        let key = key(tenant, host);
        let mut back = false;
        if let Some(entry) = self.0.hosts().get_mut(&key) {
            entry.heard = Instant::now();
            entry.heard_at = self.0.fleet.db().now();
            back = entry.connection != Connection::Online;
            entry.connection = Connection::Online;
        }
        if back {
            let inner = self.0.clone();
            tokio::spawn(async move {
                let at = inner.fleet.db().now();
                let answer = inner.job(&key, What::Connection(Connection::Online, at)).await;
                if answer.is_err() {
                    // The next beat tries again.
                    if let Some(entry) = inner.hosts().get_mut(&key) {
                        entry.connection = Connection::Stale;
                    }
                }
            });
        }
    }

    /// A host said what time it is there, RFC 3339. Written only if that makes a difference; what is no time is not known.
    pub async fn clock(&self, tenant: &str, host: &str, time: &str) -> Result<(), Error> {
        let Some(off) = self.off(time) else {
            return Ok(());
        };
        let key = key(tenant, host);
        let off = match self.0.hosts().get_mut(&key) {
            Some(entry) => match skew(off, entry.skew) {
                Some(off) => *entry.skew.insert(off),
                None => return Ok(()),
            },
            None => return Ok(()),
        };
        let answer = self.0.job(&key, What::Clock(off)).await;
        if answer.is_err()
            && let Some(entry) = self.0.hosts().get_mut(&key)
        {
            entry.skew = None;
        }
        answer.map(drop)
    }

    /// How far a clock is ahead of ours, in milliseconds.
    fn off(&self, time: &str) -> Option<i64> {
        let there = time.parse::<jiff::Timestamp>().ok()?;
        Some(
            there
                .as_millisecond()
                .saturating_sub(self.0.fleet.db().now().millis()),
        )
    }

    /// A host reported. Returns when it is durable.
    pub async fn status(&self, tenant: &str, host: &str, status: Status) -> Result<Outcome, Error> {
        self.beat(tenant, host);
        let generation = status.generation;
        match self.0.job(&key(tenant, host), What::Status(status)).await? {
            Answer::Resync => Ok(Outcome::Resync),
            Answer::Lost => Err(Error::not_found("host", host)),
            Answer::Done | Answer::Generation(_) => Ok(Outcome::Ack(generation)),
        }
    }

    /// A host has in force what it was told. Returns when that is durable.
    pub async fn acknowledged(&self, tenant: &str, host: &str, generation: u64) -> Result<(), Error> {
        let generation = i64::try_from(generation).unwrap_or(0);
        self.0
            .job(&key(tenant, host), What::Acknowledged(generation))
            .await
            .map(drop)
    }

    /// Things happened on a host.
    pub async fn events(&self, tenant: &str, host: &str, items: Vec<Event>) -> Result<(), Error> {
        self.0
            .job(&key(tenant, host), What::Events(items))
            .await
            .map(drop)
    }

    /// A link ended. The host stays online until its beats are missed: most come back at once.
    pub fn disconnected(&self, _tenant: &str, _host: &str, _session: u64) {
        // Beats that do not come are what counts; a later session's beats must not be taken away by an earlier's end.
    }

    /// Hosts that this process heard of and has not given up.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.hosts().len()
    }

    /// The newest session of a host at this process.
    #[must_use]
    pub fn session(&self, tenant: &str, host: &str) -> Option<u64> {
        self.0.hosts().get(&key(tenant, host)).map(|entry| entry.session)
    }
}

impl std::fmt::Debug for Ingest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingest")
            .field("node", &self.0.node)
            .finish_non_exhaustive()
    }
}

/// What is to be written of a clock's error, if that is news: one that is right to a minute is right, and one that is
/// always as wrong is written once, whatever the network adds to it.
fn skew(millis: i64, known: Option<i64>) -> Option<i64> {
    let off = match millis.abs() {
        0..=60_000 => 0,
        _ => millis / 1000 * 1000,
    };
    match known {
        Some(known) if known == off => None,
        Some(known) if known != 0 && off != 0 && (known - off).abs() < 10_000 => None,
        _ => Some(off),
    }
}

fn key(tenant: &str, host: &str) -> Key {
    (tenant.into(), host.into())
}

impl Inner {
    fn hosts(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Entry>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn job(&self, key: &Key, what: What) -> Result<Answer, Error> {
        use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
        let gone = || Error::Unavailable("the writer is gone".into());
        let (answer, answered) = oneshot::channel();
        // One host's jobs keep their order: they go to one writer.
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
        let count = u64::try_from(self.queues.len()).unwrap_or(1);
        let queue = usize::try_from(hash % count).unwrap_or(0);
        let job = Job {
            key: key.clone(),
            what,
            answer,
        };
        self.queues[queue].send(job).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

/// One writer.
async fn write(fleet: Fleet, node: String, mut queue: mpsc::Receiver<Job>) {
    let mut jobs = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut jobs, BATCH).await > 0 {
        match apply::all(&fleet, &node, &jobs).await {
            Ok(answers) => {
                for (job, answer) in jobs.drain(..).zip(answers) {
                    let _ = job.answer.send(Ok(answer));
                }
            }
            Err(Error::Unavailable(why)) => {
                let why = why.to_string();
                for job in jobs.drain(..) {
                    let _ = job.answer.send(Err(Error::Unavailable(why.clone().into())));
                }
            }
            // One that the database refuses must not take the others with it.
            Err(_) => {
                for job in jobs.drain(..) {
                    let alone = apply::all(&fleet, &node, std::slice::from_ref(&job)).await;
                    let answer = alone.map(|answers| answers.first().copied().unwrap_or(Answer::Done));
                    let _ = job.answer.send(answer);
                }
            }
        }
    }
}

/// Looks for missed beats until the last [`Ingest`] is gone.
async fn watch(inner: std::sync::Weak<Inner>, every: Duration) {
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        look(&inner).await;
    }
}

/// Writes the transitions of those that missed beats. A beat comes within 110 % of the heartbeat.
async fn look(inner: &Arc<Inner>) {
    let beat = inner.fleet.options().heartbeat;
    let (two, four) = (beat.mul_f64(2.2), beat.mul_f64(4.4));
    let now = Instant::now();
    let mut late = Vec::new();
    for (key, entry) in inner.hosts().iter_mut() {
        let silent = now.saturating_duration_since(entry.heard);
        let is = if silent >= four {
            Connection::Offline
        } else if silent >= two {
            Connection::Stale
        } else {
            continue;
        };
        if entry.connection != is {
            // Said in memory first: a beat that comes from now on is queued behind this.
            let was = std::mem::replace(&mut entry.connection, is);
            late.push((key.clone(), is, was, entry.heard_at));
        }
    }
    let written = late.into_iter().map(|(key, is, was, at)| async move {
        let answer = inner.job(&key, What::Connection(is, at)).await;
        let mut hosts = inner.hosts();
        // It may have come back meanwhile.
        let Some(entry) = hosts.get_mut(&key).filter(|entry| entry.connection == is) else {
            return;
        };
        match answer {
            Ok(Answer::Lost) => {
                hosts.remove(&key);
            }
            Ok(_) if is == Connection::Offline => {
                hosts.remove(&key);
            }
            Ok(_) => {}
            // Tried again at the next look.
            Err(_) => entry.connection = was,
        }
    });
    futures::future::join_all(written).await;
}

impl Fleet {
    /// Makes hosts stale and offline that no living process has. For the leader, every few seconds; after
    /// [`crate::nodes::Nodes::reap`].
    pub async fn sweep(&self) -> Result<u64, Error> {
        let beat = i64::try_from(self.options().heartbeat.as_millis()).unwrap_or(30_000);
        self.db()
            .write(|tx| Box::pin(async move { apply::sweep(tx, beat).await }))
            .await
    }
}
