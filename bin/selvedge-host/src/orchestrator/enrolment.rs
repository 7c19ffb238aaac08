//! The host's identity at its orchestrator: made here, kept under `<state>/identity`, renewed, given up when revoked.
//! `identity::enrol::Keeper` does it; here is what a revocation does, and what people are told.
//!
//! | file | what it is |
//! |---|---|
//! | `key.pem`, `tpm-key.json` | the private key, which never leaves this machine: in the clear, or for its TPM alone |
//! | `enrolment.json` | the certificate, and whose host this is |
//! | `revoked.json` | there if the orchestrator revoked the host |
//!
//! ```text
//!   no key ─▶ request ─▶ granted ─────────────▶ enrolled ─ 2/3 of the certificate's life ─▶ renew ─┐
//!                │   └─▶ waits for approval ─▶     ▲ ▲                                              │
//!                └─ refused: asks again, slowly    │ └──────────────────────────────────────────────┤
//!                                                  ├─ expired: renew first, by proof of the old key │
//!                                                  └─ not known there any more: request ◀───────────┘
//!   revoked: never asks again, until host.toml names another orchestrator or another activation key
//! ```
//!
//! Killed anywhere, it goes on from what is on disk: the same key asks again, and the answer to the same key is the same.

use std::{path::PathBuf, sync::OnceLock};

use anyhow::Context;
use identity::{
    enrol::{Client, Keeper, KeeperOptions, Pauses, Request, State as Keeps},
    key::KeyStore,
};
use link::host::State as Links;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use telemetry::Clock;

use super::files;

const ENROLMENT: &str = "enrolment.json";

/// Where the host stands with its orchestrator, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub(crate) enum State {
    /// It asks to be let in.
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

impl State {
    /// What certificate and link make together. `certified`: there is a certificate that is not over.
    pub(super) fn of(keeps: &Keeps, links: &Links, certified: bool) -> Self {
        let link = || match links {
            Links::Waiting | Links::Connecting => Self::Connecting {
                message: String::new(),
            },
            Links::Pausing { reason, .. } => Self::Connecting {
                message: reason.clone(),
            },
            Links::Connected => Self::Connected,
        };
        match keeps {
            Keeps::Enrolled { .. } => link(),
            // The old one still does.
            Keeps::Failing { .. } if certified => link(),
            Keeps::Failing { reason, .. } => Self::Enrolling {
                message: reason.clone(),
            },
            Keeps::WaitsForApproval { request } => Self::Waiting {
                request: request.clone(),
            },
            Keeps::Enrolling => Self::Starting,
        }
    }
}

/// The host's key and certificate, and whether they still count.
pub(crate) struct Identity {
    folder: PathBuf,
    keys: KeyStore,
    pub(super) keeper: Keeper,
    /// The machine's serial number and UUID, as it was told.
    pub(super) serial: String,
    pub(super) uuid: String,
    /// The orchestrator's address.
    pub(super) url: String,
    /// The activation key's hash.
    activation: String,
    clock: Clock,
    revoked: OnceLock<String>,
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
    if let Some(at) = identity.begin()? {
        anyhow::bail!("the orchestrator revoked this host at {at}; with --again it asks as a new one");
    }
    let mut credentials = identity.keeper.credentials();
    let enrolled = async {
        // The keeper holds the sender.
        let shown = credentials.wait_for(Option::is_some).await.ok();
        shown.and_then(|shown| shown.clone())
    };
    let credentials = tokio::select! {
        enrolled = enrolled => enrolled,
        () = identity.keeper.run() => None,
    };
    let enrolment = identity.keeper.enrolment().borrow().clone();
    let (credentials, enrolment) = credentials.zip(enrolment).context("there is no certificate")?;
    Ok(format!(
        "this is host {} of the tenant {}; its certificate is good until {}",
        enrolment.host_id,
        enrolment.tenant,
        credentials.peer().not_after
    ))
}

impl Identity {
    /// An identity that is kept in a folder. Nothing happens yet.
    pub(super) fn new(
        folder: PathBuf,
        keys: KeyStore,
        url: &str,
        client: Client,
        request: Request,
        clock: &Clock,
    ) -> Self {
        let activation = request.activation_key.as_deref().unwrap_or_default();
        let activation = Sha256::digest(activation)
            .iter()
            .take(8)
            .map(|b| format!("{b:02x}"))
            .collect();
        let (serial, uuid) = (request.serial.clone(), request.uuid.clone());
        let keeper = Keeper::new(KeeperOptions {
            client,
            keys: keys.clone(),
            file: folder.join(ENROLMENT),
            request,
            clock: clock.clone(),
            pauses: Pauses::default(),
        });
        Self {
            folder,
            keys,
            keeper,
            serial,
            uuid,
            url: url.trim_end_matches('/').to_owned(),
            activation,
            clock: clock.clone(),
            revoked: OnceLock::new(),
        }
    }

    pub(super) fn enrolment_file(&self) -> PathBuf {
        self.folder.join(ENROLMENT)
    }

    fn revoked_file(&self) -> PathBuf {
        self.folder.join("revoked.json")
    }

    /// To be called before the keeper runs. When this host was revoked by this orchestrator, if it was. One that was
    /// revoked and may try again begins anew.
    ///
    /// # Errors
    /// When a file can't be removed.
    pub(super) fn begin(&self) -> anyhow::Result<Option<String>> {
        let Ok(bytes) = std::fs::read(self.revoked_file()) else {
            return Ok(None);
        };
        if let Ok(revoked) = serde_json::from_slice::<Revoked>(&bytes)
            && revoked.url == self.url
            && revoked.key == self.activation
        {
            return Ok(Some(self.revoked.get_or_init(|| revoked.at).clone()));
        }
        tracing::info!("this host was revoked before; it asks anew, with a new key");
        self.forget()?;
        Ok(None)
    }

    /// When the orchestrator revoked this host, if it did.
    pub(super) fn revoked(&self) -> Option<&str> {
        self.revoked.get().map(String::as_str)
    }

    /// The orchestrator says that this host is no longer one of its own. Remembered for good.
    pub(super) fn revoke(&self) {
        let revoked = Revoked {
            at: self.clock.now_rfc3339(),
            url: self.url.clone(),
            key: self.activation.clone(),
        };
        let bytes = serde_json::to_vec(&revoked).unwrap_or_default();
        if let Err(error) = files::write(&self.revoked_file(), &bytes) {
            tracing::error!(%error, "can't remember that this host was revoked");
        }
        self.revoked.get_or_init(|| revoked.at);
    }

    /// Forgets who this host is.
    fn forget(&self) -> anyhow::Result<()> {
        let remove = |name: &str| {
            let file = self.folder.join(name);
            files::remove(&file).with_context(|| format!("can't remove {}", file.display()))
        };
        // The mark last: a crash before it begins again here.
        remove(ENROLMENT)?;
        self.keys.forget()?;
        remove("revoked.json")
    }
}
