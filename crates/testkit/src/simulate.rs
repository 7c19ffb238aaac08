//! Many hosts in one process, each with its own key, certificate and connection: the real enrolment and the real link,
//! with nothing behind them. For measuring an orchestrator, and for seeing what ten thousand do to it at once.
//!
//! ```text
//!   enrol ─▶ Identity (key, certificate) ─▶ Crowd::start ─▶ connected ─▶ told a commit ─▶ reports it applied
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use identity::backoff::Backoff;
use identity::credentials::Credentials;
use identity::csr;
use identity::enrol::{Answer, Client, ClientOptions, Error, Request};
use identity::key::FileKey;
use identity::trust::ServerTrust;
use link::host::{Connector, Handler, Options, State};
use link::message::{Assignment, Open, Signal, Target};
use link::status::StatusBook;
use link::stream::Stream;
use serde_json::json;
use telemetry::Clock;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Connections from one address: fewer than there are ports for outgoing ones.
const PER_ADDRESS: u32 = 20_000;
/// Pauses of a host that is told to come back later.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Where the orchestrator is, and whom to believe.
#[derive(Clone, Debug)]
pub struct Hub {
    /// `https://…`
    pub url: String,
    /// Its authority, PEM.
    pub authority: String,
}

impl Hub {
    fn trust(&self) -> Result<ServerTrust> {
        ServerTrust::new(Some(&self.authority)).context("the orchestrator's authority can't be used")
    }
}

/// So often a host may get no answer at all; a real one would never give up.
const SILENCES: u32 = 20;

/// The serial number of a simulated host.
#[must_use]
pub fn serial(number: u32) -> String {
    format!("SIM-{number:06}")
}

/// A host that is enrolled.
#[derive(Clone, Debug)]
pub struct Identity {
    number: u32,
    credentials: Credentials,
}

/// What enrolling a crowd took.
#[derive(Debug)]
pub struct Enrolled {
    /// The hosts.
    pub hosts: Vec<Identity>,
    /// All of them together.
    pub took: Duration,
    /// Each from its first question to its certificate.
    pub each: Vec<Duration>,
    /// How often a host was told to come back later.
    pub turned_away: u64,
}

/// Enrols hosts that are expected by their serial numbers, or with an activation key, `at_once` of them at a time, each
/// over a connection of its own.
///
/// # Errors
/// When one is refused.
pub async fn enrol(hub: &Hub, numbers: Range<u32>, at_once: usize, key: Option<&str>) -> Result<Enrolled> {
    let permits = Arc::new(Semaphore::new(at_once));
    let turned_away = Arc::new(AtomicU64::new(0));
    let trust = hub.trust()?;
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for number in numbers {
        let permit = permits.clone().acquire_owned().await?;
        let options = ClientOptions {
            url: hub.url.clone(),
            trust: trust.clone(),
            proxy: None,
            clock: Clock::system(),
        };
        let turned_away = turned_away.clone();
        let activation = key.map(str::to_owned);
        tasks.spawn(async move {
            let start = Instant::now();
            let identity = enrol_one(options, number, activation, &turned_away).await;
            drop(permit);
            identity.map(|identity| (identity, start.elapsed()))
        });
    }
    let (mut hosts, mut each) = (Vec::new(), Vec::new());
    while let Some(done) = tasks.join_next().await {
        let (identity, took) = done??;
        hosts.push(identity);
        each.push(took);
    }
    let took = begun.elapsed();
    hosts.sort_by_key(|identity| identity.number);
    each.sort_unstable();
    Ok(Enrolled {
        hosts,
        took,
        each,
        turned_away: turned_away.load(Ordering::Relaxed),
    })
}

async fn enrol_one(
    options: ClientOptions,
    number: u32,
    activation_key: Option<String>,
    turned_away: &AtomicU64,
) -> Result<Identity> {
    let key = Arc::new(FileKey::generate()?);
    let request = Request {
        csr: csr::make(&*key)?,
        serial: serial(number),
        hostname: format!("sim-{number}"),
        activation_key,
        ..Request::default()
    };
    let client = Client::new(&options)?;
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    let mut silences = 0;
    loop {
        match client.request(&request).await {
            Ok(Answer::Granted(granted)) => {
                let credentials = Credentials::new(key, &granted.certificate)
                    .context("the certificate is not for the host's key")?;
                return Ok(Identity { number, credentials });
            }
            Ok(Answer::Waiting(_)) => bail!("{} is not expected: it would have to wait", serial(number)),
            Err(Error::Busy { retry_after, .. }) => {
                turned_away.fetch_add(1, Ordering::Relaxed);
                sleep(retry_after.unwrap_or_default() + backoff.next_pause()).await;
            }
            Err(Error::Unreachable(_)) if silences < SILENCES => {
                silences += 1;
                turned_away.fetch_add(1, Ordering::Relaxed);
                sleep(backoff.next_pause()).await;
            }
            Err(error) => return Err(error).with_context(|| format!("{} was refused", serial(number))),
        }
    }
}

/// What the crowd was told, and when.
#[derive(Debug, Default)]
pub struct Told {
    commit: Mutex<String>,
    times: Mutex<Vec<Instant>>,
    signals: AtomicUsize,
}

impl Told {
    /// From now on, notes when each host is told this commit.
    pub fn expect(&self, commit: &str) {
        commit.clone_into(&mut self.commit.lock().unwrap_or_else(PoisonError::into_inner));
        self.times.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// When hosts were told it, in the order of time.
    #[must_use]
    pub fn times(&self) -> Vec<Instant> {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner).clone();
        times.sort_unstable();
        times
    }

    /// How many signals came.
    #[must_use]
    pub fn signals(&self) -> usize {
        self.signals.load(Ordering::Relaxed)
    }

    fn hear(&self, commit: &str) {
        if *self.commit.lock().unwrap_or_else(PoisonError::into_inner) == commit {
            self.times
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(Instant::now());
        }
    }
}

/// Hosts that keep their links.
#[derive(Debug)]
pub struct Crowd {
    hosts: Vec<Member>,
    tasks: JoinSet<()>,
    /// What they were told.
    pub told: Arc<Told>,
}

#[derive(Debug)]
struct Member {
    book: StatusBook,
    state: watch::Receiver<State>,
}

/// A host that does at once what it is told.
struct Obedient {
    book: StatusBook,
    told: Arc<Told>,
    generation: AtomicU64,
}

impl Handler for Obedient {
    fn assignment_generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    async fn assign(&self, generation: u64, assignment: Assignment) -> Result<(), String> {
        self.generation.store(generation, Ordering::Relaxed);
        if let Target::Pinned { commit } = &assignment.target
            && !commit.is_empty()
        {
            self.told.hear(commit);
            report_applied(&self.book, commit);
        }
        Ok(())
    }

    async fn signal(&self, _: Signal) {
        self.told.signals.fetch_add(1, Ordering::Relaxed);
    }

    async fn open(&self, _: Open, stream: Stream) {
        drop(stream);
    }
}

fn report_applied(book: &StatusBook, commit: &str) {
    book.set(
        "source",
        json!({"branch": "main", "fetched": commit, "applied": commit, "attempted": commit}),
    );
}

impl Crowd {
    /// Connects hosts. Each keeps its link until the crowd is dropped.
    ///
    /// # Errors
    /// When the authority cannot be used.
    pub fn start(hub: &Hub, identities: &[Identity]) -> Result<Self> {
        let trust = hub.trust()?;
        let told = Arc::new(Told::default());
        let (mut hosts, mut tasks) = (Vec::with_capacity(identities.len()), JoinSet::new());
        for identity in identities {
            let book = first_status(identity.number);
            let (_, credentials) = watch::channel(Some(identity.credentials.clone()));
            let mut options = Options::new(&hub.url, trust.clone(), credentials);
            options.ignore_environment = true;
            options.source_address = Some(source_address(identity.number));
            options.boot_id = "simulated".to_owned();
            options.status = book.clone();
            let connector = Connector::new(options);
            hosts.push(Member {
                book: book.clone(),
                state: connector.state(),
            });
            let handler = Arc::new(Obedient {
                book,
                told: told.clone(),
                generation: AtomicU64::new(0),
            });
            tasks.spawn(async move { connector.run(handler).await });
        }
        Ok(Self { hosts, tasks, told })
    }

    /// How many are in touch with the orchestrator.
    #[must_use]
    pub fn connected(&self) -> usize {
        let is_up = |member: &&Member| *member.state.borrow() == State::Connected;
        self.hosts.iter().filter(is_up).count()
    }

    /// Waits until all are.
    ///
    /// # Errors
    /// When it takes longer; with the reason that one of them gives.
    pub async fn wait_connected(&mut self, limit: Duration) -> Result<Duration> {
        let begun = Instant::now();
        for member in &mut self.hosts {
            let left = limit.saturating_sub(begun.elapsed());
            let up = member.state.wait_for(|state| *state == State::Connected);
            if timeout(left, up).await.is_err() {
                let state = member.state.borrow().clone();
                bail!(
                    "{} of {} are connected; one is {state:?}",
                    self.connected(),
                    self.hosts.len()
                );
            }
        }
        Ok(begun.elapsed())
    }

    /// Makes one host report something.
    pub fn report(&self, index: usize, section: &str, value: serde_json::Value) {
        if let Some(member) = self.hosts.get(index) {
            member.book.set(section, value);
        }
    }

    /// How many hosts it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Ends all connections at once, as a power cut in the data centre's neighbourhood does.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// What a host of a small site says when it comes for the first time.
fn first_status(number: u32) -> StatusBook {
    let book = StatusBook::new();
    book.set(
        "health",
        json!({"state": "healthy", "reason": "", "ready": 6, "total": 6, "failing": []}),
    );
    book.set(
        "compliance",
        json!({"state": "compliant", "drift": false, "message": ""}),
    );
    book.set(
        "versions",
        json!({"selvedge": env!("CARGO_PKG_VERSION"), "kernel": "6.1.0", "qemu": "7.2", "ovs": "3.1"}),
    );
    book.set(
        "inventory",
        json!({"serial": serial(number), "vendor": "Simulated", "product": "NUC",
               "cpu": {"model": "Simulated", "cores": 4, "threads": 8}, "memoryBytes": 34_359_738_368_u64,
               "disks": [{"name": "nvme0n1", "sizeBytes": 512_110_190_592_u64}]}),
    );
    book.set(
        "vm/shop/web",
        json!({"power": "poweredOn", "ready": true, "ip": "10.0.0.5", "cpus": 1, "memoryBytes": 268_435_456}),
    );
    book
}

/// One of the loopback addresses, so that ports suffice for all.
fn source_address(number: u32) -> IpAddr {
    let last = u8::try_from(number / PER_ADDRESS).unwrap_or(u8::MAX - 2) + 2;
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_has_more_hosts_than_ports() {
        assert_eq!(source_address(0), source_address(PER_ADDRESS - 1));
        assert_ne!(source_address(0), source_address(PER_ADDRESS));
        assert_eq!(source_address(u32::MAX).to_string(), "127.0.0.255");
    }

    #[test]
    fn hosts_told_another_commit_do_not_count() {
        let told = Told::default();
        told.expect("a");
        told.hear("b");
        assert!(told.times().is_empty());
        told.hear("a");
        assert_eq!(told.times().len(), 1);
        told.expect("b");
        assert!(told.times().is_empty());
    }
}
