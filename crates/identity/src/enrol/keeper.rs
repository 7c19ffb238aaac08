//! A host's identity for as long as it runs: enrols, keeps, renews.

use std::{path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;
use telemetry::{Clock, chain};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

use super::{Answer, Client, Error, Granted, Request};
use crate::{
    backoff::{Backoff, jittered},
    credentials::{Credentials, Enrolment},
    csr::{self, HostKey},
};

/// Clocks jump (a host without a battery gets the time from the network): how often the calendar is looked at.
const LOOK: Duration = Duration::from_mins(5);
/// Pauses after a refusal, which only a person can end.
const REFUSED_PAUSE: Duration = Duration::from_mins(1);
/// The most that is waited when the orchestrator says how long.
const MOST_TOLD: Duration = Duration::from_hours(1);

/// What a host says of itself, and where its enrolment is kept.
#[derive(Clone, Debug)]
pub struct KeeperOptions {
    /// Asks the orchestrator.
    pub client: Client,
    /// The host's key.
    pub key: Arc<dyn HostKey>,
    /// Where the enrolment (certificate, names) is kept.
    pub file: PathBuf,
    /// What the host says of itself; its `csr` is filled in.
    pub request: Request,
    /// Where time comes from.
    pub clock: Clock,
    /// The first pause is up to this.
    pub first_pause: Duration,
    /// All pauses are up to this.
    pub most_pause: Duration,
}

impl KeeperOptions {
    /// With pauses from 1 s to 5 minutes.
    #[must_use]
    pub fn new(client: Client, key: Arc<dyn HostKey>, file: PathBuf, request: Request, clock: Clock) -> Self {
        Self {
            client,
            key,
            file,
            request,
            clock,
            first_pause: Duration::from_secs(1),
            most_pause: Duration::from_mins(5),
        }
    }
}

/// How it stands with a host's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Asking to be let in.
    Enrolling,
    /// The orchestrator has the request, and somebody must approve it.
    WaitsForApproval {
        /// The request's id.
        request: String,
    },
    /// There is a certificate.
    Enrolled {
        /// Until when it is valid.
        not_after: Timestamp,
    },
    /// It didn't work; it is tried again.
    Failing {
        /// Why.
        reason: String,
        /// Whether the orchestrator answered no (and not just nothing).
        refused: bool,
    },
}

/// Keeps a host's certificate. `credentials` goes to the link.
#[derive(Debug)]
pub struct Keeper {
    options: KeeperOptions,
    credentials: watch::Sender<Option<Credentials>>,
    granted: watch::Sender<Option<Arc<Granted>>>,
    state: watch::Sender<State>,
    renew: Notify,
}

impl Keeper {
    /// Reads what is kept. A file that is damaged, or is of another key, counts as none: the host enrols again.
    #[must_use]
    pub fn new(options: KeeperOptions) -> Self {
        let kept = match Enrolment::read(&options.file) {
            Ok(kept) => kept,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the stored enrolment can't be read: enrolling again");
                None
            }
        };
        let kept = kept.and_then(
            |kept| match Credentials::new(options.key.clone(), &kept.certificate) {
                Ok(credentials) => Some(credentials),
                Err(error) => {
                    tracing::warn!(%error, "the stored enrolment can't be used: enrolling again");
                    None
                }
            },
        );
        let state = kept.as_ref().map_or(State::Enrolling, enrolled);
        Self {
            credentials: watch::Sender::new(kept),
            granted: watch::Sender::new(None),
            state: watch::Sender::new(state),
            renew: Notify::new(),
            options,
        }
    }

    /// Key and certificate, as they are renewed.
    #[must_use]
    pub fn credentials(&self) -> watch::Receiver<Option<Credentials>> {
        self.credentials.subscribe()
    }

    /// What the orchestrator answered when it let this host in or renewed it, in this run: it may hold an assignment.
    #[must_use]
    pub fn granted(&self) -> watch::Receiver<Option<Arc<Granted>>> {
        self.granted.subscribe()
    }

    /// How it stands.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Renews now (the orchestrator said so).
    pub fn renew_now(&self) {
        self.renew.notify_one();
    }

    /// Enrols, and renews at two thirds of each certificate's life, for as long as it is polled.
    pub async fn run(&self) {
        loop {
            let now = self.credentials.borrow().clone();
            match now {
                None => self.enrol().await,
                Some(now) => {
                    self.until_due(&now).await;
                    self.renew(&now).await;
                }
            }
        }
    }

    async fn enrol(&self) {
        let mut backoff = self.backoff();
        let mut waiting: Option<String> = None;
        loop {
            let asked = match &waiting {
                Some(request) => self.options.client.poll(&*self.options.key, request).await,
                None => self.request().await,
            };
            let pause = match asked {
                Ok(Answer::Granted(granted)) => match self.take(*granted) {
                    Ok(()) => return,
                    Err(reason) => {
                        self.failing(reason, true);
                        backoff.next_pause()
                    }
                },
                Ok(Answer::Waiting(told)) => {
                    backoff.reset();
                    let poll = Duration::from_secs(told.poll.clamp(1, 3600));
                    let request = told.request;
                    self.state.send_replace(State::WaitsForApproval {
                        request: request.clone(),
                    });
                    waiting = Some(request);
                    jittered(poll, 0.2)
                }
                Err(error) => {
                    // A request that is forgotten or refused is made anew next time.
                    if matches!(error, Error::Refused { .. }) {
                        waiting = None;
                    }
                    self.failed(&error, &mut backoff)
                }
            };
            sleep(pause).await;
        }
    }

    async fn request(&self) -> Result<Answer, Error> {
        let request = Request {
            csr: csr::make(&*self.options.key)?,
            ..self.options.request.clone()
        };
        self.options.client.request(&request).await
    }

    /// Waits until the certificate is to be renewed.
    async fn until_due(&self, now: &Credentials) {
        let due = now.renew_at();
        loop {
            let left = due.duration_since(self.options.clock.now());
            let Ok(left) = Duration::try_from(left) else {
                return;
            };
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = sleep(left.min(LOOK)) => {}
                () = self.renew.notified() => return,
            }
        }
    }

    async fn renew(&self, now: &Credentials) {
        let mut backoff = self.backoff();
        loop {
            let pem = now.certificate_pem();
            let error = match self.options.client.renew(&*self.options.key, &pem).await {
                Ok(granted) => match self.take(granted) {
                    Ok(()) => return,
                    Err(reason) => Err(reason),
                },
                Err(error) => Ok(error),
            };
            let pause = match error {
                // The orchestrator doesn't know this host any more: it was restored from before the enrolment, or the
                // host was deleted. Either way it may ask again.
                Ok(Error::Refused {
                    status: 404 | 410, ..
                }) => {
                    tracing::warn!("the orchestrator does not know this host any more: enrolling again");
                    self.credentials.send_replace(None);
                    self.state.send_replace(State::Enrolling);
                    return;
                }
                Ok(error) => self.failed(&error, &mut backoff),
                Err(reason) => {
                    self.failing(reason, true);
                    backoff.next_pause()
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.renew.notified() => {}
            }
        }
    }

    /// Keeps a certificate: on disk before it counts.
    fn take(&self, granted: Granted) -> Result<(), String> {
        let credentials = Credentials::new(self.options.key.clone(), &granted.certificate)
            .map_err(|error| format!("the orchestrator sent a certificate that can't be used: {error}"))?;
        Enrolment::from(&granted)
            .write(&self.options.file)
            .map_err(|error| chain(&error).to_string())?;
        let peer = credentials.peer();
        tracing::info!(host = peer.host, until = %peer.not_after, "the host has a certificate");
        self.state.send_replace(enrolled(&credentials));
        self.granted.send_replace(Some(Arc::new(granted)));
        self.credentials.send_replace(Some(credentials));
        Ok(())
    }

    fn failed(&self, error: &Error, backoff: &mut Backoff) -> Duration {
        let refused = matches!(error, Error::Refused { .. });
        self.failing(chain(error).to_string(), refused);
        let pause = backoff.next_pause();
        match error {
            Error::Busy {
                retry_after: Some(told),
                ..
            } => told
                .min(&MOST_TOLD)
                .mul_f64(1.0 + 0.5 * crate::backoff::random_fraction()),
            // As patient as its backoff, but never quick: nothing changes by asking.
            Error::Refused { .. } => pause.max(jittered(REFUSED_PAUSE.min(self.options.most_pause), 0.5)),
            _ => pause,
        }
    }

    fn failing(&self, reason: String, refused: bool) {
        tracing::warn!(reason, "no certificate from the orchestrator");
        self.state.send_replace(State::Failing { reason, refused });
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(self.options.first_pause, self.options.most_pause)
    }
}

fn enrolled(credentials: &Credentials) -> State {
    State::Enrolled {
        not_after: credentials.peer().not_after,
    }
}
