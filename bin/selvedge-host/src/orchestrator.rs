//! The host's side of an orchestrator, if `host.toml` names one. A host works without: its site comes from Git, and what
//! was assigned once is on its disk.
//!
//! ```text
//!   enrolment ── key, certificate ──▶ link ──┬─ assign ──▶ assignment ──▶ GitRepository, Kustomization, variables
//!      ▲  renew at 2/3 of its life           ├─ signal ──▶ fetch, reconcile, renew, revoked
//!      └─────────────────────────────────────┤
//!   report ── sections of the status ──▶     ├─ status, events
//!   API server, consoles, logs ◀── streams ──┘
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`assignment`] | keeps what the orchestrator makes of this host, and turns it into objects |
//! | [`enrolment`] | the host's key and certificate |
//! | `report` | what is told of the host |
//! | `events` | the API's events |
//! | `streams` | API, consoles, screens and logs for those who come through the orchestrator |
//!
//! Tasks: one that keeps the certificate, one that keeps the link, the reporter and its listeners. All end with the
//! daemon; none of them polls.

pub(crate) mod assignment;
pub(crate) mod enrolment;
mod events;
mod files;
mod report;
mod streams;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use apiserver::{Client, client::EventType, http::Tunnel};
use hyper::{Response, body::Bytes};
use identity::{
    backoff::{Backoff, jittered, random_fraction},
    credentials::{Credentials, Enrolment},
    enrol,
    trust::ServerTrust,
};
use jiff::SignedDuration;
use kinds::{
    gvr,
    network::{PortGroups, PortRequest},
};
use link::{
    host::{Connector, Handler, Proxy},
    message::{Assignment, Open, Signal as Wish},
    status::StatusBook,
    stream::Stream,
};
use reconcile::Signal;
use serde_json::{Value, json};
use telemetry::{Clock, LogRing};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use vswitch::VSwitch;

use self::{
    assignment::{Assignments, Kept, Taken},
    enrolment::{Identity, NotRenewed, State},
    report::{Reporter, Sources, machine::Machine},
    streams::Services,
};
use crate::{build::Parts, config};

/// The clock is looked at again at least this often: it may be set, and the machine may have slept.
const LOOK: Duration = Duration::from_secs(3600);
/// Pauses between tries to renew: as many as fit into the last third of a certificate's life.
const RENEW: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));

/// What the link needs of the rest of the daemon.
pub(crate) struct Seams {
    pub(crate) tunnel: Tunnel,
    pub(crate) assignments: Arc<Assignments>,
    pub(crate) switch: Arc<VSwitch>,
    pub(crate) groups: watch::Receiver<Arc<PortGroups>>,
    pub(crate) ports: watch::Receiver<Arc<Vec<PortRequest>>>,
    /// Wakes the reconcilers of GitRepositories and Kustomizations.
    pub(crate) fetch: Signal,
    pub(crate) kustomize: Signal,
    pub(crate) log: LogRing,
}

/// The host as its orchestrator knows it.
pub(crate) struct Orchestrator {
    url: String,
    state: watch::Receiver<State>,
    credentials: watch::Receiver<Option<Credentials>>,
    enrolment: Mutex<Option<Enrolment>>,
    assignments: Arc<Assignments>,
    client: Client,
    renew: Notify,
    /// Cancelled when the orchestrator revokes the host, or the daemon stops.
    stop: CancellationToken,
    identity: Identity,
    fetch: Signal,
    kustomize: Signal,
    services: Services,
}

/// The identity of this host, as `host.toml` wants it.
pub(crate) fn identity(
    config: &config::Config,
    orchestrator: &config::Orchestrator,
    clock: &Clock,
) -> anyhow::Result<(Identity, ServerTrust)> {
    let read = |file: &PathBuf| {
        std::fs::read_to_string(file)
            .with_context(|| format!("orchestrator.ca_file: can't read {}", file.display()))
    };
    let ca = orchestrator.ca_file.as_ref().map(read).transpose()?;
    let trust = ServerTrust::new(ca.as_deref()).context("orchestrator.ca_file")?;
    let options = enrol::ClientOptions {
        url: orchestrator.url.clone(),
        trust: trust.clone(),
        proxy: orchestrator.proxy.clone(),
        clock: clock.clone(),
    };
    let machine = Machine::here();
    let own = |given: &Option<String>, field: &str| given.clone().unwrap_or_else(|| machine.dmi(field));
    // One that can't be read is used up, most likely.
    let activation_key = orchestrator.key().unwrap_or_else(|error| {
        tracing::debug!(error = format!("{error:#}"), "no activation key");
        None
    });
    let request = enrol::Request {
        csr: String::new(),
        serial: own(&config.host.serial, "product_serial"),
        uuid: own(&config.host.uuid, "product_uuid").to_ascii_lowercase(),
        macs: machine.macs(),
        hostname: config.host.name.clone(),
        activation_key,
        tenant: orchestrator.tenant.clone(),
    };
    let identity = Identity {
        folder: config.paths.state.join("identity"),
        client: enrol::Client::new(&options).context("orchestrator")?,
        request,
        url: orchestrator.url.trim_end_matches('/').to_owned(),
        clock: clock.clone(),
        state: watch::Sender::new(State::Starting),
    };
    Ok((identity, trust))
}

/// Starts everything that speaks with the orchestrator.
pub(crate) fn start(
    parts: &Parts,
    tasks: &mut JoinSet<()>,
    orchestrator: &config::Orchestrator,
    seams: Seams,
) -> anyhow::Result<Arc<Orchestrator>> {
    let (identity, trust) = identity(&parts.config, orchestrator, &parts.clock)?;
    let (credentials, shown) = watch::channel(None);
    let book = StatusBook::held();
    let paths = &parts.config.paths;
    let client = Client::new(parts.api.clone(), "selvedge-host");
    let sources = Sources {
        client: client.clone(),
        assignments: seams.assignments.clone(),
        switch: seams.switch,
        groups: seams.groups,
        ports: seams.ports,
        machine: Machine::here(),
        serial: identity.request.serial.clone(),
        uuid: identity.request.uuid.clone(),
        state: paths.state.clone(),
        usage: orchestrator.usage()?,
        clock: parts.clock.clone(),
    };
    let reporter = Arc::new(Reporter::new(sources, book.clone()));
    let (signal, queue) = reconcile::queue();
    let driver = reporter.clone().driver(queue, &parts.metrics);
    tasks.spawn(driver.run(parts.stop.clone().cancelled_owned()));
    let mut spawn = |task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
        let stop = parts.stop.clone();
        tasks.spawn(async move {
            stop.run_until_cancelled(task).await;
        });
    };
    spawn(Box::pin(async move { reporter.watch_network(signal).await }));
    spawn(Box::pin(events::follow(client.clone(), book.clone())));

    let this = Arc::new(Orchestrator {
        url: identity.url.clone(),
        state: identity.state.subscribe(),
        credentials: shown.clone(),
        enrolment: Mutex::default(),
        assignments: seams.assignments,
        client,
        renew: Notify::new(),
        stop: parts.stop.child_token(),
        identity,
        fetch: seams.fetch,
        kustomize: seams.kustomize,
        services: Services {
            tunnel: seams.tunnel,
            api: parts.api.clone(),
            state: paths.state.clone(),
            run: paths.run.clone(),
            log: seams.log,
        },
    });
    let mut options = link::host::Options::new(&orchestrator.url, trust, shown);
    options.proxy = match &orchestrator.proxy {
        Some(url) => Some(Proxy::parse(url).context("orchestrator.proxy")?),
        None => None,
    };
    options.version = env!("CARGO_PKG_VERSION").into();
    options.boot_id = uuid::Uuid::new_v4().to_string();
    options.status = book;
    options.clock = parts.clock.clone();
    let connector = Connector::new(options);
    let (keeping, linking) = (this.clone(), this.clone());
    spawn(Box::pin(async move { keeping.keep_identity(credentials).await }));
    spawn(Box::pin(async move { linking.keep_link(connector).await }));
    Ok(this)
}

impl Orchestrator {
    /// Keeps a certificate that is good, for as long as the host is not revoked.
    async fn keep_identity(&self, credentials: watch::Sender<Option<Credentials>>) {
        if let Some(at) = self.identity.revoked() {
            tracing::warn!(
                at,
                "the orchestrator revoked this host; it goes on running its site from Git"
            );
            self.identity.state.send_replace(State::Revoked { at });
            self.stop.cancel();
            return;
        }
        let mut slow = Backoff::new(RENEW.0, RENEW.1);
        let (mut now, mut enrolment) = loop {
            match self.identity.kept() {
                Ok(Some(kept)) => break kept,
                Ok(None) => {
                    let Some(enrolled) = self.stop.run_until_cancelled(self.identity.enrol()).await else {
                        return;
                    };
                    let message = format!("enrolled at {} in the tenant {}", self.url, enrolled.1.tenant);
                    self.event(EventType::Normal, "Enrolled", &message).await;
                    break enrolled;
                }
                Err(error) => {
                    let message = format!("{error:#}");
                    tracing::error!(message, "the host's identity can't be used");
                    self.identity.state.send_replace(State::Enrolling { message });
                    sleep(slow.next_pause()).await;
                }
            }
        };
        loop {
            *self.enrolment.lock().unwrap_or_else(PoisonError::into_inner) = Some(enrolment.clone());
            // With an expired one nobody is let in: the proof of its key brings a new one first.
            if !now.is_expired(self.identity.clock.now()) {
                credentials.send_replace(Some(now.clone()));
            }
            tokio::select! {
                () = self.stop.cancelled() => {
                    credentials.send_replace(None);
                    return;
                }
                () = self.until_renewal(&now) => {}
            }
            let Some(renewed) = self.stop.run_until_cancelled(self.renew(&now, &enrolment)).await else {
                credentials.send_replace(None);
                return;
            };
            (now, enrolment) = renewed;
        }
    }

    /// Waits until the certificate is to be renewed, by its age or because the orchestrator asks for it.
    async fn until_renewal(&self, now: &Credentials) {
        // Hosts that were enrolled together don't renew together: each somewhere in the first tenth of the last third.
        let rest = now.peer().not_after.duration_since(now.renew_at());
        let later = rest.as_secs_f64().max(0.0) * 0.1 * random_fraction();
        let later = SignedDuration::try_from_secs_f64(later).unwrap_or_default();
        loop {
            let left = now.renew_at().duration_since(self.identity.clock.now()) + later;
            // What is over is negative, which no Duration is.
            let left = Duration::try_from(left).unwrap_or_default();
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = sleep(left.min(LOOK).max(Duration::from_secs(1))) => {}
                () = self.renew.notified() => return,
            }
        }
    }

    /// Renews, however long it takes.
    async fn renew(&self, now: &Credentials, enrolment: &Enrolment) -> (Credentials, Enrolment) {
        let mut backoff = Backoff::new(RENEW.0, RENEW.1);
        loop {
            let (message, after) = match self.identity.renew(enrolment).await {
                Ok(renewed) => {
                    tracing::info!(until = %renewed.0.peer().not_after, "the host's certificate was renewed");
                    return renewed;
                }
                Err(NotRenewed::Refused(why)) => (
                    format!("the orchestrator does not renew this host's certificate: {why}"),
                    None,
                ),
                Err(NotRenewed::Later(why, after)) => (
                    format!("this host's certificate can't be renewed now: {why}"),
                    after,
                ),
            };
            let pause = after.map_or_else(|| backoff.next_pause(), |after| jittered(after, 0.25));
            tracing::warn!(message, again_in = ?pause);
            if now.is_expired(self.identity.clock.now()) {
                self.identity.state.send_replace(State::Connecting { message });
            }
            sleep(pause).await;
        }
    }

    /// Keeps the link for as long as the host is not revoked, and says how it is.
    async fn keep_link(self: Arc<Self>, connector: Connector) {
        let mut state = connector.state();
        let told = async {
            loop {
                use link::host::State as Is;
                let now = match &*state.borrow_and_update() {
                    Is::Waiting | Is::Connecting => None,
                    Is::Connected => Some(State::Connected),
                    Is::Pausing { reason, .. } => Some(State::Connecting {
                        message: reason.clone(),
                    }),
                };
                if let Some(now) = now {
                    self.identity.state.send_if_modified(|state| {
                        let other = *state != now && !matches!(state, State::Revoked { .. });
                        if other {
                            *state = now;
                        }
                        other
                    });
                }
                if state.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = connector.run(self.clone()) => {}
            () = told => {}
        }
    }

    fn host_id(&self) -> String {
        let credentials = self.credentials.borrow();
        credentials
            .as_ref()
            .map(|c| c.peer().host.clone())
            .unwrap_or_default()
    }

    /// Records an event about the host's own source, or about the namespace that it would be in.
    async fn event(&self, kind: EventType, reason: &str, message: &str) {
        let source = self
            .client
            .get(&gvr::git_repositories(), gitops::NAMESPACE, gitops::NAME)
            .await;
        let about = match source {
            Ok(Some(source)) => Some(source),
            _ => self
                .client
                .get(&gvr::namespaces(), "", gitops::NAMESPACE)
                .await
                .ok()
                .flatten(),
        };
        if let Some(about) = about {
            self.client.event(&about, kind, reason, message).await;
        }
    }

    /// For `selvedge status`: where the host stands.
    pub(crate) async fn describe(&self) -> Value {
        let mut value = json!(*self.state.borrow());
        value["url"] = self.url.as_str().into();
        let enrolment = self
            .enrolment
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(enrolment) = enrolment {
            value["hostId"] = enrolment.host_id.into();
            value["tenant"] = enrolment.tenant.into();
        }
        if let Some(credentials) = &*self.credentials.borrow() {
            value["certificate"] = json!({
                "serial": credentials.peer().serial, "notAfter": credentials.peer().not_after.to_string(),
            });
        }
        if let Some(kept) = self.assignments.kept().await {
            value["assignment"] = json!({
                "generation": kept.generation,
                "site": kept.assignment.site,
                "host": kept.assignment.host,
                "target": kept.assignment.target,
            });
        }
        value["source"] = json!(self.assignments.origin().await);
        value
    }

    /// The same as an answer.
    pub(crate) async fn answer(self: Arc<Self>) -> Response<Bytes> {
        Response::new(Bytes::from(self.describe().await.to_string()))
    }
}

impl Handler for Orchestrator {
    fn assignment_generation(&self) -> u64 {
        self.assignments.generation(&self.host_id())
    }

    async fn assign(&self, generation: u64, assignment: Assignment) -> Result<(), String> {
        let kept = Kept {
            host_id: self.host_id(),
            generation,
            assignment,
        };
        match self.assignments.take(kept).await {
            Taken::New | Taken::Known => Ok(()),
            Taken::Refused(why) => {
                tracing::warn!(generation, why, "an assignment is not in force");
                self.event(EventType::Warning, "AssignmentRefused", &why).await;
                Err(why)
            }
        }
    }

    async fn signal(&self, what: Wish) {
        tracing::info!(?what, "the orchestrator gave a signal");
        match what {
            Wish::Fetch => self.fetch.all(),
            Wish::Reconcile => {
                self.fetch.all();
                self.kustomize.all();
            }
            Wish::Renew => self.renew.notify_one(),
            Wish::Revoked => {
                self.identity.revoke();
                let message = format!(
                    "{} revoked this host: it goes on running its site from Git, and no longer reports",
                    self.url
                );
                self.event(EventType::Warning, "HostRevoked", &message).await;
                self.stop.cancel();
            }
            Wish::Unknown => {}
        }
    }

    async fn open(&self, request: Open, stream: Stream) {
        self.services
            .serve(request, stream, |stream, why| stream.reset(why))
            .await;
    }
}
