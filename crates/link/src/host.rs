//! The host's side of the link.
//!
//! [`Connector::run`] keeps one connection for as long as the daemon runs. It says what the host is (from the
//! [`StatusBook`]) and hands what comes to a [`Handler`].
//!
//! ```text
//!   Waiting (no certificate) ──▶ Connecting ──▶ Connected ──(closed, silent, new certificate)──▶ Pausing ──┐
//!                                    ▲  └──(failed)──▶ Pausing                                      │
//!                                    └──────────────────────────────────────────────────────────────┘
//! ```
//!
//! Pauses have full jitter, up to 1 s, 2 s, 4 s … 5 minutes, and begin anew after a minute of connection. If the
//! orchestrator says when to come back, the host comes between then and half as much later.

mod dial;
mod proxy;
mod session;

use std::{net::IpAddr, sync::Arc, time::Duration};

use identity::{
    backoff::{Backoff, jittered},
    credentials::Credentials,
    trust::ServerTrust,
};
use telemetry::{Clock, chain};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

pub use dial::DialError;
pub use proxy::{Proxy, ProxyError};

use crate::{
    close,
    message::{Assignment, Open, Signal},
    mux::MAX_STREAMS,
    socket::Ended,
    status::StatusBook,
    stream::Stream,
    tls,
};
use dial::Target;
use session::Work;

/// What a host does with what the orchestrator says.
pub trait Handler: Send + Sync + 'static {
    /// The assignment in force; 0 for none.
    fn assignment_generation(&self) -> u64;

    /// Takes an assignment. Returns when it is durable and in force, or why it can't be: the sentence is shown to
    /// people. One at a time; of those that come meanwhile only the last is handed in.
    fn assign(
        &self,
        generation: u64,
        assignment: Assignment,
    ) -> impl Future<Output = Result<(), String>> + Send;

    /// Does something now. Runs to its end also when the connection is lost.
    fn signal(&self, what: Signal) -> impl Future<Output = ()> + Send;

    /// The orchestrator closed the connection because it does not want this host: revoked, or not known there any more.
    /// The connector goes on trying.
    fn turned_away(&self) {}

    /// Serves a stream. Runs in a task of its own; a service that isn't known is `stream.reset("…")`.
    fn open(&self, request: Open, stream: Stream) -> impl Future<Output = ()> + Send;
}

/// How the link is kept. `Options::new` has what the protocol says.
#[derive(Clone, Debug)]
pub struct Options {
    /// The orchestrator: `https://orchestrator.example:8443`.
    pub url: String,
    /// Which servers to believe.
    pub trust: ServerTrust,
    /// Key and certificate, as they are renewed; the link waits while there are none.
    pub credentials: watch::Receiver<Option<Credentials>>,
    /// A proxy. None: what the environment says (see [`Proxy::from_env`]), which is `ignore_environment`'s to switch off.
    pub proxy: Option<Proxy>,
    /// Don't look at `HTTPS_PROXY` and its like.
    pub ignore_environment: bool,
    /// The address to connect from; for simulators.
    pub source_address: Option<IpAddr>,
    /// The host's Selvedge version.
    pub version: String,
    /// Changes with each start of the daemon.
    pub boot_id: String,
    /// What is reported.
    pub status: StatusBook,
    /// Where time comes from.
    pub clock: Clock,
    /// The most streams at once.
    pub max_streams: usize,
    /// The first pause is up to this.
    pub first_pause: Duration,
    /// All pauses are up to this.
    pub most_pause: Duration,
    /// At least this is between two status messages.
    pub coalesce: Duration,
}

impl Options {
    /// The usual.
    #[must_use]
    pub fn new(url: &str, trust: ServerTrust, credentials: watch::Receiver<Option<Credentials>>) -> Self {
        Self {
            url: url.into(),
            trust,
            credentials,
            proxy: None,
            ignore_environment: false,
            source_address: None,
            version: env!("CARGO_PKG_VERSION").into(),
            boot_id: String::new(),
            status: StatusBook::new(),
            clock: Clock::system(),
            max_streams: MAX_STREAMS,
            first_pause: Duration::from_secs(1),
            most_pause: Duration::from_mins(5),
            coalesce: Duration::from_secs(1),
        }
    }
}

/// What the link is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// There is no certificate yet.
    Waiting,
    /// Trying.
    Connecting,
    /// In touch with the orchestrator.
    Connected,
    /// Will try again.
    Pausing {
        /// Why it isn't connected.
        reason: String,
        /// How long.
        pause: Duration,
    },
}

/// A connection that lasted this long was a good one: pauses begin anew.
const STABLE: Duration = Duration::from_mins(1);
/// How long a revoked host waits before it asks whether that still holds.
const REVOKED_PAUSE: Duration = Duration::from_hours(1);
/// A renewed certificate is used from within this: hosts that renewed together don't reconnect together.
const SWITCH_WITHIN: Duration = Duration::from_mins(1);

/// Keeps the link.
#[derive(Debug)]
pub struct Connector {
    options: Options,
    state: watch::Sender<State>,
}

/// How a connection ended, for who decides about the next.
enum Outcome {
    Dial(Box<dyn std::error::Error + Send + Sync>),
    Ended(Ended, Duration),
    /// There is another certificate.
    Switch,
}

impl Connector {
    /// A connector, not running yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            state: watch::Sender::new(State::Waiting),
        }
    }

    /// What it is doing, as it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Keeps the link for as long as it is polled. Dropping it closes the connection; assignments and signals under way
    /// go on to their end.
    pub async fn run<H: Handler>(&self, handler: Arc<H>) {
        let mut work = Work::new(handler);
        let mut backoff = Backoff::new(self.options.first_pause, self.options.most_pause);
        let mut credentials = self.options.credentials.clone();
        loop {
            let Some(now) = credentials.borrow_and_update().clone() else {
                self.state.send_replace(State::Waiting);
                if credentials.changed().await.is_err() {
                    // Nobody will ever bring a certificate.
                    std::future::pending::<()>().await;
                }
                continue;
            };
            self.state.send_replace(State::Connecting);
            let outcome = Box::pin(self.connect(now, &mut credentials, &mut work)).await;
            self.options.status.disconnected();
            if matches!(&outcome, Outcome::Ended(Ended::ByPeer(close), _) if close.code == close::FORBIDDEN) {
                work.turned_away();
            }
            let (reason, pause) = judge(outcome, &mut backoff, work.take_revoked());
            tracing::info!(reason, pause = pause.as_secs_f64(), "the link is down");
            self.state.send_replace(State::Pausing { reason, pause });
            tokio::select! {
                () = sleep(pause) => {}
                // A new certificate may be the cure.
                Ok(()) = credentials.changed() => {}
            }
        }
    }

    async fn connect<H: Handler>(
        &self,
        now: Credentials,
        credentials: &mut watch::Receiver<Option<Credentials>>,
        work: &mut Work<H>,
    ) -> Outcome {
        let ws = match Box::pin(self.dial(now)).await {
            Ok(ws) => ws,
            Err(error) => return Outcome::Dial(error),
        };
        let since = Instant::now();
        let mut session = session::Session::new(ws, &self.options);
        let serve = async {
            let ended = match timeout(session::WELCOME_TIME, session.begin(work)).await {
                Ok(Ok(())) => {
                    tracing::info!("the link is up");
                    self.state.send_replace(State::Connected);
                    session.serve(work).await
                }
                Ok(Err(ended)) => ended,
                Err(_) => Ended::Silent(session::WELCOME_TIME),
            };
            Outcome::Ended(ended, since.elapsed())
        };
        let switch = async {
            if credentials.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            sleep(SWITCH_WITHIN.mul_f64(identity::backoff::random_fraction())).await;
            Outcome::Switch
        };
        tokio::select! {
            outcome = serve => outcome,
            outcome = switch => outcome,
        }
    }

    async fn dial(
        &self,
        credentials: Credentials,
    ) -> Result<dial::Ws, Box<dyn std::error::Error + Send + Sync>> {
        let options = &self.options;
        let target = Target::parse(&options.url)?;
        let from_environment = match &options.proxy {
            None if !options.ignore_environment => Proxy::from_env(&target.host)?,
            _ => None,
        };
        let proxy = options.proxy.as_ref().or(from_environment.as_ref());
        let tls = tls::client_config(&options.trust, credentials, &options.clock)?;
        Ok(dial::dial(&target, proxy, options.source_address, tls).await?)
    }
}

/// What people are told, and how long to wait.
fn judge(outcome: Outcome, backoff: &mut Backoff, revoked: bool) -> (String, Duration) {
    match outcome {
        Outcome::Switch => ("a new certificate is used".into(), Duration::ZERO),
        Outcome::Dial(error) => (chain(&*error).to_string(), backoff.next_pause()),
        Outcome::Ended(ended, lasted) => {
            if lasted >= STABLE {
                backoff.reset();
            }
            let reason = chain(&ended).to_string();
            let pause = match &ended {
                _ if revoked => jittered(REVOKED_PAUSE, 0.2),
                Ended::ByPeer(close) => {
                    let told = close
                        .retry_after
                        .map(|after| after + after.mul_f64(0.5 * fraction()));
                    let least = match close.code {
                        close::FORBIDDEN | close::REPLACED => Duration::from_secs(30),
                        _ => Duration::ZERO,
                    };
                    told.unwrap_or_else(|| backoff.next_pause().max(jittered(least, 0.5)))
                }
                _ => backoff.next_pause(),
            };
            (reason, pause)
        }
    }
}

fn fraction() -> f64 {
    identity::backoff::random_fraction()
}

#[cfg(test)]
mod tests;
