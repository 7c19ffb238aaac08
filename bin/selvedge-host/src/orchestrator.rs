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
//! Tasks: one that keeps certificate and link, the reporter and its listeners. All end with the
//! daemon; none of them polls.

pub(crate) mod assignment;
pub(crate) mod enrolment;
mod events;
mod files;
mod report;
mod streams;

use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use apiserver::{Client, client::EventType, http::Tunnel};
use hyper::{Response, body::Bytes};
use identity::{credentials::Enrolment, enrol, key::KeyStore, trust::ServerTrust};
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
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use vswitch::VSwitch;

use self::{
    assignment::{Assignments, Kept, Taken},
    enrolment::{Identity, State},
    report::{Reporter, Sources, machine::Machine},
    streams::Services,
};
use crate::{build::Parts, config};

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
    identity: Identity,
    link: watch::Receiver<link::host::State>,
    assignments: Arc<Assignments>,
    client: Client,
    /// Cancelled when the orchestrator revokes the host, or the daemon stops.
    stop: CancellationToken,
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
    let activation_key = orchestrator.activation().unwrap_or_else(|error| {
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
    let client = enrol::Client::new(&options).context("orchestrator")?;
    let folder = config.paths.state.join("identity");
    let keys = KeyStore::new(folder.clone(), orchestrator.key, &orchestrator.tpm_device);
    let identity = Identity::new(folder, keys, &orchestrator.url, client, request, clock);
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
        serial: identity.serial.clone(),
        uuid: identity.uuid.clone(),
        state: paths.state.clone(),
        credentials: identity.keeper.credentials(),
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
    spawn(Box::pin(async move { reporter.watch_host(signal).await }));
    spawn(Box::pin(events::follow(client.clone(), book.clone())));

    let stop = parts.stop.child_token();
    if let Some(at) = identity.begin().context("the host's identity can't be used")? {
        tracing::warn!(
            at,
            "the orchestrator revoked this host; it goes on running its site from Git"
        );
        stop.cancel();
    }
    let mut options = link::host::Options::new(&orchestrator.url, trust, identity.keeper.credentials());
    options.proxy = match &orchestrator.proxy {
        Some(url) => Some(Proxy::parse(url).context("orchestrator.proxy")?),
        None => None,
    };
    options.version = env!("CARGO_PKG_VERSION").into();
    options.boot_id = uuid::Uuid::new_v4().to_string();
    options.status = book;
    options.clock = parts.clock.clone();
    let connector = Connector::new(options);
    let this = Arc::new(Orchestrator {
        identity,
        link: connector.state(),
        assignments: seams.assignments,
        client,
        stop,
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
    let kept = this.clone();
    spawn(Box::pin(async move {
        // Until the host is revoked.
        tokio::select! {
            () = kept.stop.cancelled() => {}
            () = kept.identity.keeper.run() => {}
            () = kept.tell_enrolments() => {}
            () = connector.run(kept.clone()) => {}
        }
    }));
    Ok(this)
}

impl Orchestrator {
    /// An event each time that the host becomes another one than it was when the daemon started.
    async fn tell_enrolments(&self) {
        let mut enrolment = self.identity.keeper.enrolment();
        let mut known = Enrolment::read(&self.identity.enrolment_file()).ok().flatten();
        while enrolment.changed().await.is_ok() {
            let now = enrolment.borrow_and_update().clone();
            if let Some(now) = &now
                && known.as_ref().map(|known| &known.host_id) != Some(&now.host_id)
            {
                let message = format!("enrolled at {} in the tenant {}", self.identity.url, now.tenant);
                self.event(EventType::Normal, "Enrolled", &message).await;
            }
            known = now;
        }
    }

    /// Where the host stands.
    fn state(&self) -> State {
        if let Some(at) = self.identity.revoked() {
            return State::Revoked { at: at.to_owned() };
        }
        let keeper = &self.identity.keeper;
        let certified = keeper.credentials().borrow().is_some();
        State::of(&keeper.state().borrow(), &self.link.borrow(), certified)
    }

    fn host_id(&self) -> String {
        let credentials = self.identity.keeper.credentials();
        let credentials = credentials.borrow();
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
        let mut value = json!(self.state());
        value["url"] = self.identity.url.as_str().into();
        let keeper = &self.identity.keeper;
        if let Some(enrolment) = &*keeper.enrolment().borrow() {
            value["hostId"] = enrolment.host_id.as_str().into();
            value["tenant"] = enrolment.tenant.as_str().into();
        }
        if self.identity.revoked().is_none()
            && let Some(credentials) = &*keeper.credentials().borrow()
        {
            value["certificate"] = json!({
                "serial": credentials.peer().serial,
                "notAfter": credentials.peer().not_after.to_string(),
                "key": if credentials.key().in_tpm() { "tpm" } else { "file" },
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
            Wish::Renew => self.identity.keeper.renew_now(),
            Wish::Revoked => {
                self.identity.revoke();
                let message = format!(
                    "{} revoked this host: it goes on running its site from Git, and no longer reports",
                    self.identity.url
                );
                self.event(EventType::Warning, "HostRevoked", &message).await;
                self.stop.cancel();
            }
            Wish::Unknown => {}
        }
    }

    fn turned_away(&self) {
        // A renewal tells whether the orchestrator knows this host at all.
        self.identity.keeper.renew_now();
    }

    async fn open(&self, request: Open, stream: Stream) {
        self.services
            .serve(request, stream, |stream, why| stream.reset(why))
            .await;
    }
}
