//! A host's identity for as long as it runs: enrols, keeps, renews.

use std::{path::PathBuf, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use telemetry::{Clock, chain};
use tokio::{sync::watch, time::sleep};

use super::{Answer, Client, Error, Granted, Request};
use crate::{
    backoff::{Backoff, jittered, random_fraction},
    credentials::{Credentials, Enrolment},
    csr::{self, HostKey},
    key::KeyStore,
};

/// Clocks jump (a host without a battery gets the time from the network): how often the calendar is looked at.
const LOOK: Duration = Duration::from_mins(5);
/// The most that is waited when the orchestrator says how long.
const MOST_TOLD: Duration = Duration::from_hours(1);
/// How often it is asked whether the host was approved, whatever the orchestrator says.
const POLL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(10));

/// Pauses with full jitter: the first is up to the first value, the longest up to the second.
#[derive(Clone, Copy, Debug)]
pub struct Pauses {
    /// After a request that was not answered.
    pub unanswered: (Duration, Duration),
    /// After a refusal, which only a person can end; and before a host that was forgotten asks anew.
    pub refused: (Duration, Duration),
    /// Between tries to renew: as many as fit into the last third of a certificate's life.
    pub renewal: (Duration, Duration),
}

impl Default for Pauses {
    fn default() -> Self {
        Self {
            unanswered: (Duration::from_secs(1), Duration::from_mins(5)),
            refused: (Duration::from_secs(15), Duration::from_mins(15)),
            renewal: (Duration::from_secs(5), Duration::from_hours(1)),
        }
    }
}

/// What a host says of itself, and where its identity is kept.
#[derive(Clone, Debug)]
pub struct KeeperOptions {
    /// Asks the orchestrator.
    pub client: Client,
    /// The host's key.
    pub keys: KeyStore,
    /// Where the enrolment (certificate, names) is kept.
    pub file: PathBuf,
    /// What the host says of itself; its `csr` is filled in.
    pub request: Request,
    /// Where time comes from.
    pub clock: Clock,
    /// How patient it is.
    pub pauses: Pauses,
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
    /// It didn't work; it is tried again. There may be a certificate nevertheless.
    Failing {
        /// Why.
        reason: String,
        /// Whether the orchestrator answered no (and not just nothing).
        refused: bool,
    },
}

/// A certificate with its key, and whose host this is.
#[derive(Clone, Debug)]
struct Held {
    credentials: Credentials,
    enrolment: Enrolment,
}

/// Keeps a host's certificate. `credentials` goes to the link.
///
/// Its key survives everything but `KeyStore::forget`: a host that the orchestrator forgot (404 or 410 on renewal: it was
/// deleted there, or a backup was restored from before it came) asks anew with the same key. One that was refused (403:
/// revoked) goes on asking for a renewal now and then, and never enrols anew.
#[derive(Debug)]
pub struct Keeper {
    options: KeeperOptions,
    credentials: watch::Sender<Option<Credentials>>,
    enrolment: watch::Sender<Option<Enrolment>>,
    state: watch::Sender<State>,
    renew: watch::Sender<()>,
}

impl Keeper {
    /// A keeper, not running yet.
    #[must_use]
    pub fn new(options: KeeperOptions) -> Self {
        Self {
            options,
            credentials: watch::Sender::new(None),
            enrolment: watch::Sender::new(None),
            state: watch::Sender::new(State::Enrolling),
            renew: watch::Sender::new(()),
        }
    }

    /// Key and certificate, as they are renewed. One that is over is not shown: nobody is let in with it.
    #[must_use]
    pub fn credentials(&self) -> watch::Receiver<Option<Credentials>> {
        self.credentials.subscribe()
    }

    /// Whose host this is.
    #[must_use]
    pub fn enrolment(&self) -> watch::Receiver<Option<Enrolment>> {
        self.enrolment.subscribe()
    }

    /// How it stands.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Renews now: the orchestrator said so, or turned the host away. Does nothing while a renewal or an enrolment is
    /// under way.
    pub fn renew_now(&self) {
        self.renew.send_replace(());
    }

    /// Enrols, and renews at two thirds of each certificate's life, for as long as it is polled.
    pub async fn run(&self) {
        let key = self.key().await;
        let mut held = self.kept(&key);
        let mut again = backoff(self.options.pauses.refused);
        let mut forgotten = false;
        loop {
            let now = match held {
                Some(held) => held,
                None => self.enrol(&key, forgotten).await,
            };
            self.show(&now);
            self.until_due(&now.credentials).await;
            held = self.renew(&now).await;
            if held.is_some() {
                again.reset();
                continue;
            }
            forgotten = true;
            let pause = again.next_pause();
            tracing::warn!(in_ = ?pause, "the orchestrator does not know this host any more: it asks anew");
            self.credentials.send_replace(None);
            self.state.send_replace(State::Enrolling);
            sleep(pause).await;
        }
    }

    /// The key: for as long as it can't be had (a disk, a TPM), it is tried again.
    async fn key(&self) -> Arc<dyn HostKey> {
        let mut slow = backoff(self.options.pauses.refused);
        loop {
            match self.options.keys.open() {
                Ok(key) => return key,
                Err(error) => {
                    self.failing(chain(&error).to_string(), false);
                    sleep(slow.next_pause()).await;
                }
            }
        }
    }

    /// What is on disk. A file that is damaged, or is of another key, counts as none: the host enrols again.
    fn kept(&self, key: &Arc<dyn HostKey>) -> Option<Held> {
        let enrolment = match Enrolment::read(&self.options.file) {
            Ok(kept) => kept?,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the stored enrolment can't be read: enrolling again");
                return None;
            }
        };
        match Credentials::new(key.clone(), &enrolment.certificate) {
            Ok(credentials) => Some(Held {
                credentials,
                enrolment,
            }),
            Err(error) => {
                tracing::warn!(%error, "the stored enrolment can't be used: enrolling again");
                None
            }
        }
    }

    fn show(&self, held: &Held) {
        self.enrolment.send_replace(Some(held.enrolment.clone()));
        // With an expired one nobody is let in: the proof of its key brings a new one first.
        if held.credentials.is_expired(self.options.clock.now()) {
            return;
        }
        self.state.send_replace(State::Enrolled {
            not_after: held.credentials.peer().not_after,
        });
        self.credentials.send_replace(Some(held.credentials.clone()));
    }

    /// Asks until the host is let in. `again`: it was in before, so its activation key may be used up, and one that
    /// is refused hides that the host is expected or could wait: every other request does without.
    async fn enrol(&self, key: &Arc<dyn HostKey>, again: bool) -> Held {
        let mut activation = true;
        let mut quick = backoff(self.options.pauses.unanswered);
        let mut slow = backoff(self.options.pauses.refused);
        let mut waiting: Option<String> = None;
        loop {
            let asked = match &waiting {
                Some(request) => self.options.client.poll(&**key, request).await,
                None => self.request(&**key, activation).await,
            };
            let pause = match asked {
                Ok(Answer::Granted(granted)) => match self.take(key, *granted, None) {
                    Ok(held) => return held,
                    Err(reason) => {
                        self.failing(reason, true);
                        slow.next_pause()
                    }
                },
                Ok(Answer::Waiting(told)) => {
                    quick.reset();
                    if waiting.as_ref() != Some(&told.request) {
                        tracing::info!(request = told.request, "somebody must approve this host");
                    }
                    self.state.send_replace(State::WaitsForApproval {
                        request: told.request.clone(),
                    });
                    waiting = Some(told.request);
                    jittered(Duration::from_secs(told.poll).clamp(POLL.0, POLL.1), 0.25)
                }
                Err(error) => {
                    let refused = matches!(error, Error::Refused { .. });
                    // A request that is forgotten or refused is made anew next time; one that waits waits there while
                    // the orchestrator is away.
                    if refused || waiting.is_none() {
                        waiting = None;
                        activation ^= again && refused;
                        self.failing(chain(&error).to_string(), refused);
                    }
                    pause_after(&error, &mut quick, &mut slow)
                }
            };
            sleep(pause).await;
        }
    }

    async fn request(&self, key: &dyn HostKey, activation: bool) -> Result<Answer, Error> {
        let mut request = Request {
            csr: csr::make(key)?,
            ..self.options.request.clone()
        };
        if !activation {
            request.activation_key = None;
        }
        self.options.client.request(&request).await
    }

    /// Waits until the certificate is to be renewed, by its age or because somebody asks for it.
    async fn until_due(&self, now: &Credentials) {
        let mut asked = self.renew.subscribe();
        // Hosts that were enrolled together don't renew together: each somewhere in the first tenth of the last third.
        let rest = now.peer().not_after.duration_since(now.renew_at());
        let later = rest.as_secs_f64().max(0.0) * 0.1 * random_fraction();
        let later = SignedDuration::try_from_secs_f64(later).unwrap_or_default();
        loop {
            let left = now.renew_at().duration_since(self.options.clock.now()) + later;
            // What is over is negative, which no Duration is.
            let left = Duration::try_from(left).unwrap_or_default();
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = sleep(left.min(LOOK)) => {}
                Ok(()) = asked.changed() => return,
            }
        }
    }

    /// Renews, however long it takes. None: the orchestrator doesn't know this host any more.
    async fn renew(&self, now: &Held) -> Option<Held> {
        let key = now.credentials.key();
        let mut backoff = backoff(self.options.pauses.renewal);
        loop {
            let pem = now.credentials.certificate_pem();
            let pause = match self.options.client.renew(&**key, &pem).await {
                Ok(granted) => match self.take(key, granted, Some(&now.enrolment)) {
                    Ok(held) => return Some(held),
                    Err(reason) => {
                        self.failing(reason, true);
                        backoff.next_pause()
                    }
                },
                Err(Error::Refused {
                    status: 404 | 410, ..
                }) => return None,
                Err(error) => {
                    let refused = matches!(error, Error::Refused { .. });
                    self.failing(chain(&error).to_string(), refused);
                    told(&error).unwrap_or_else(|| backoff.next_pause())
                }
            };
            sleep(pause).await;
        }
    }

    /// Keeps a certificate: on disk before it counts.
    fn take(
        &self,
        key: &Arc<dyn HostKey>,
        granted: Granted,
        old: Option<&Enrolment>,
    ) -> Result<Held, String> {
        let credentials = Credentials::new(key.clone(), &granted.certificate)
            .map_err(|error| format!("the orchestrator sent a certificate that can't be used: {error}"))?;
        let mut enrolment = Enrolment::from(&granted);
        if let Some(old) = old {
            // A renewal need not repeat what has not changed.
            let keep = |new: &mut String, old: &String| {
                if new.is_empty() {
                    new.clone_from(old);
                }
            };
            keep(&mut enrolment.ca, &old.ca);
            keep(&mut enrolment.host_id, &old.host_id);
            keep(&mut enrolment.tenant, &old.tenant);
            enrolment.site = enrolment.site.or_else(|| old.site.clone());
        }
        enrolment
            .write(&self.options.file)
            .map_err(|error| chain(&error).to_string())?;
        let peer = credentials.peer();
        tracing::info!(host = peer.host, until = %peer.not_after, "the host has a certificate");
        Ok(Held {
            credentials,
            enrolment,
        })
    }

    fn failing(&self, reason: String, refused: bool) {
        tracing::warn!(reason, "no certificate from the orchestrator");
        self.state.send_replace(State::Failing { reason, refused });
    }
}

fn backoff((first, most): (Duration, Duration)) -> Backoff {
    Backoff::new(first, most)
}

/// When the orchestrator wants to be asked again, if it said so. Not all at once.
fn told(error: &Error) -> Option<Duration> {
    match error {
        Error::Busy { retry_after, .. } => {
            retry_after.map(|told| told.min(MOST_TOLD).mul_f64(1.0 + 0.5 * random_fraction()))
        }
        _ => None,
    }
}

fn pause_after(error: &Error, quick: &mut Backoff, slow: &mut Backoff) -> Duration {
    told(error).unwrap_or_else(|| match error {
        // Nothing changes by asking.
        Error::Refused { .. } | Error::Nonsense(_) | Error::Key(_) => slow.next_pause(),
        _ => quick.next_pause(),
    })
}
