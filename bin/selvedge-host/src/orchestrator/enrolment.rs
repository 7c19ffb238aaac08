//! The host's identity at its orchestrator: made here, kept under `<state>/identity`, renewed, given up when revoked.
//!
//! | file | what it is |
//! |---|---|
//! | `key.pem` | the private key, which never leaves this machine |
//! | `enrolment.json` | the certificate, and whose host this is |
//! | `revoked.json` | there if the orchestrator revoked the host |
//!
//! ```text
//!   no key ─▶ request ─▶ granted ─────────────▶ enrolled ─ 2/3 of the certificate's life ─▶ renew ─┐
//!                │   └─▶ waits for approval ─▶     ▲ ▲                                              │
//!                └─ refused: asks again, slowly    │ └──────────────────────────────────────────────┘
//!                                                  └─ expired: renew first, by proof of the old key
//!   revoked: never asks again, until host.toml names another orchestrator or another activation key
//! ```
//!
//! Killed anywhere, it goes on from what is on disk: the same key asks again, and the answer to the same key is the same.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use identity::{
    backoff::{Backoff, jittered},
    credentials::{Credentials, Enrolment},
    csr,
    enrol::{Answer, Client, Error, Granted, Request},
    key::{FileKey, HostKey, KeyError},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use telemetry::{Clock, chain};
use tokio::{sync::watch, time::sleep};

use super::files;

/// Pauses between requests that were not answered.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Pauses after a refusal: a person must do something first.
const REFUSED: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(900));
/// How often it is asked whether the host was approved, whatever the orchestrator says.
const POLL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

/// Where the host stands with its orchestrator, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub(crate) enum State {
    /// It asks to be let in; with what went wrong, if something did.
    #[default]
    Starting,
    /// It asks to be let in and is not yet.
    Enrolling {
        /// What went wrong.
        message: String,
    },
    /// Somebody must approve it.
    Waiting {
        /// The request.
        request: String,
    },
    /// It has a certificate and no connection.
    Connecting {
        /// What went wrong the last time.
        message: String,
    },
    /// It is connected.
    Connected,
    /// The orchestrator revoked it. It goes on running its site.
    Revoked {
        /// When, RFC 3339.
        at: String,
    },
}

/// What makes and keeps the identity.
pub(crate) struct Identity {
    pub(super) folder: PathBuf,
    pub(super) client: Client,
    /// What the host says of itself; the CSR is put in later.
    pub(super) request: Request,
    /// The orchestrator's address.
    pub(super) url: String,
    pub(super) clock: Clock,
    pub(super) state: watch::Sender<State>,
}

/// There if the host was revoked.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Revoked {
    at: String,
    /// With which orchestrator this was, and with which activation key (its hash): others may be tried.
    url: String,
    key: String,
}

/// Why there is no new certificate.
#[derive(Debug)]
pub(super) enum NotRenewed {
    /// No, by the orchestrator: a person must do something.
    Refused(String),
    /// Not now.
    Later(String, Option<Duration>),
}

/// `selvedge-host enroll`: asks until the host is let in, and says in a sentence what it is then.
///
/// # Errors
/// When `host.toml` names no orchestrator, the host was revoked, or its files can't be used.
pub(crate) async fn enroll(config: &crate::config::Config, again: bool) -> anyhow::Result<String> {
    let named = config
        .orchestrator
        .as_ref()
        .context("host.toml has no [orchestrator]; add it with its url")?;
    let (identity, _) = super::identity(config, named, &Clock::system())?;
    if again {
        identity.forget()?;
    }
    if let Some(at) = identity.revoked() {
        anyhow::bail!("the orchestrator revoked this host at {at}; with --again it asks as a new one");
    }
    let (credentials, enrolment) = match identity.kept()? {
        Some(kept) => kept,
        None => identity.enrol().await,
    };
    Ok(format!(
        "this is host {} of the tenant {}; its certificate is good until {}",
        enrolment.host_id,
        enrolment.tenant,
        credentials.peer().not_after
    ))
}

impl Identity {
    fn key_file(&self) -> PathBuf {
        self.folder.join("key.pem")
    }

    fn enrolment_file(&self) -> PathBuf {
        self.folder.join("enrolment.json")
    }

    fn revoked_file(&self) -> PathBuf {
        self.folder.join("revoked.json")
    }

    fn activation(&self) -> String {
        let key = self.request.activation_key.as_deref().unwrap_or_default();
        Sha256::digest(key)
            .iter()
            .take(8)
            .map(|b| format!("{b:02x}"))
            .collect()
    }

    /// When this host was revoked by this orchestrator, if it was.
    pub(super) fn revoked(&self) -> Option<String> {
        let bytes = std::fs::read(self.revoked_file()).ok()?;
        let revoked: Revoked = serde_json::from_slice(&bytes).ok()?;
        (revoked.url == self.url && revoked.key == self.activation()).then_some(revoked.at)
    }

    /// The orchestrator says that this host is no longer one of its own. Remembered for good.
    pub(super) fn revoke(&self) {
        let revoked = Revoked {
            at: self.clock.now_rfc3339(),
            url: self.url.clone(),
            key: self.activation(),
        };
        let bytes = serde_json::to_vec(&revoked).unwrap_or_default();
        if let Err(error) = files::write(&self.revoked_file(), &bytes) {
            tracing::error!(%error, "can't remember that this host was revoked");
        }
        self.state.send_replace(State::Revoked { at: revoked.at });
    }

    /// What is on disk, if the host is enrolled. One that was revoked and may try again begins anew.
    ///
    /// # Errors
    /// When the files can't be read or written.
    pub(super) fn kept(&self) -> anyhow::Result<Option<(Credentials, Enrolment)>> {
        if self.revoked_file().exists() {
            tracing::info!("this host was revoked before; it asks anew, with a new key");
            self.forget()?;
        }
        let key: Arc<dyn HostKey> = match FileKey::open(&self.key_file()) {
            Ok(key) => Arc::new(key),
            Err(KeyError::Damaged { path }) => {
                tracing::error!(file = %path.display(), "the host's key is damaged; a new one is made");
                self.forget()?;
                Arc::new(FileKey::open(&self.key_file())?)
            }
            Err(error) => return Err(error.into()),
        };
        let enrolment = match Enrolment::read(&self.enrolment_file()) {
            Ok(Some(enrolment)) => enrolment,
            Ok(None) => return Ok(None),
            Err(KeyError::Damaged { path }) => {
                tracing::error!(file = %path.display(), "the enrolment is damaged; the host asks again");
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        match Credentials::new(key, &enrolment.certificate) {
            Ok(credentials) => Ok(Some((credentials, enrolment))),
            Err(error) => {
                tracing::error!(error = %chain(&error), "the kept certificate is of no use; the host asks again");
                Ok(None)
            }
        }
    }

    /// Forgets who this host is.
    pub(super) fn forget(&self) -> anyhow::Result<()> {
        // The mark last: a crash before it begins again here.
        for file in [self.enrolment_file(), self.key_file(), self.revoked_file()] {
            files::remove(&file).with_context(|| format!("can't remove {}", file.display()))?;
        }
        Ok(())
    }

    /// Keeps a certificate.
    fn keep(&self, granted: &Granted) -> anyhow::Result<(Credentials, Enrolment)> {
        let key = FileKey::open(&self.key_file())?;
        let enrolment = Enrolment::from(granted);
        let credentials = Credentials::new(Arc::new(key), &enrolment.certificate)
            .context("the orchestrator sent a certificate that is of no use")?;
        enrolment.write(&self.enrolment_file())?;
        Ok((credentials, enrolment))
    }

    /// Asks until the host is let in.
    pub(super) async fn enrol(&self) -> (Credentials, Enrolment) {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let mut slow = Backoff::new(REFUSED.0, REFUSED.1);
        loop {
            let (message, pause) = match self.try_enrol().await {
                Ok(Ok(granted)) => match self.keep(&granted) {
                    Ok(done) => {
                        tracing::info!(host = granted.host_id, tenant = granted.tenant, "enrolled");
                        return done;
                    }
                    Err(error) => (format!("{error:#}"), slow.next_pause()),
                },
                Ok(Err(error)) => {
                    let pause = match &error {
                        Error::Busy {
                            retry_after: Some(after),
                            ..
                        } => jittered(*after, 0.25),
                        Error::Refused { .. } | Error::Nonsense(_) => slow.next_pause(),
                        _ => backoff.next_pause(),
                    };
                    (chain(&error).to_string(), pause)
                }
                Err(error) => (format!("{error:#}"), slow.next_pause()),
            };
            tracing::warn!(message, again_in = ?pause, "the host is not enrolled yet");
            self.state.send_replace(State::Enrolling { message });
            sleep(pause).await;
        }
    }

    async fn try_enrol(&self) -> anyhow::Result<Result<Granted, Error>> {
        let key = FileKey::open(&self.key_file())?;
        let request = Request {
            csr: csr::make(&key)?,
            ..self.request.clone()
        };
        let mut answer = self.client.request(&request).await;
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let mut waiting: Option<identity::enrol::Waiting> = None;
        loop {
            let pause = match answer {
                Ok(Answer::Granted(granted)) => return Ok(Ok(*granted)),
                Ok(Answer::Waiting(wait)) => {
                    let new = State::Waiting {
                        request: wait.request.clone(),
                    };
                    if *self.state.borrow() != new {
                        tracing::info!(request = wait.request, "somebody must approve this host");
                        self.state.send_replace(new);
                    }
                    let poll = Duration::from_secs(wait.poll).clamp(POLL.0, POLL.1);
                    waiting = Some(wait);
                    backoff.reset();
                    jittered(poll, 0.25)
                }
                // The orchestrator is away for a while: the request stays there.
                Err(Error::Unreachable(error)) if waiting.is_some() => {
                    tracing::debug!(error = %chain(&error), "the orchestrator does not answer");
                    backoff.next_pause()
                }
                Err(Error::Busy { retry_after, .. }) if waiting.is_some() => {
                    retry_after.map_or_else(|| backoff.next_pause(), |after| jittered(after, 0.25))
                }
                Err(error) => return Ok(Err(error)),
            };
            sleep(pause).await;
            answer = match &waiting {
                Some(wait) => self.client.poll(&key, &wait.request).await,
                None => self.client.request(&request).await,
            };
        }
    }

    /// A new certificate for the same key.
    pub(super) async fn renew(&self, old: &Enrolment) -> Result<(Credentials, Enrolment), NotRenewed> {
        let later = |error: anyhow::Error| NotRenewed::Later(format!("{error:#}"), None);
        let key = FileKey::open(&self.key_file()).map_err(|error| later(error.into()))?;
        let mut granted = match self.client.renew(&key, &old.certificate).await {
            Ok(granted) => granted,
            Err(Error::Refused { status, detail }) => {
                let why = if detail.is_empty() {
                    format!("status {status}")
                } else {
                    detail
                };
                return Err(NotRenewed::Refused(why));
            }
            Err(error) => {
                let after = match &error {
                    Error::Busy { retry_after, .. } => *retry_after,
                    _ => None,
                };
                return Err(NotRenewed::Later(chain(&error).to_string(), after));
            }
        };
        // A renewal need not repeat what has not changed.
        let keep = |new: &mut String, old: &String| {
            if new.is_empty() {
                new.clone_from(old);
            }
        };
        keep(&mut granted.ca, &old.ca);
        keep(&mut granted.host_id, &old.host_id);
        keep(&mut granted.tenant, &old.tenant);
        granted.site = granted.site.or_else(|| old.site.clone());
        self.keep(&granted).map_err(later)
    }
}
