//! Puts the parts of the daemon together. Nothing else knows more than one of them.

mod access;
mod disk;
mod network;
mod site;
mod upkeep;

use std::{
    fs::Permissions, future::Future, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration,
};

use anyhow::Context;
use apiserver::{
    Api, Client,
    admission::{FileAudit, GitOwned},
    http::{Access, Listeners, Server, ServerOptions},
};
use hyper::{Response, StatusCode, body::Bytes};
use kinds::registry::Registry;
use serde_json::json;
use store::{SqliteStore, Store};
use telemetry::{Clock, LogRing, Metrics, chain};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use vswitch::VSwitch;

use crate::{
    config::Config,
    orchestrator::{self, Seams},
};

/// Namespaces that are there from the start, whatever Git says.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "esx-system", "flux-system"];

/// The audit log grows to so many bytes, and so many old ones are kept.
const AUDIT_LOG: (u64, u32) = (4 << 20, 4);

/// How long to wait for a store that another holds.
const LOCKED: Duration = Duration::from_secs(2);

/// What every part needs.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) api: Api,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Clock,
    pub(crate) stop: CancellationToken,
}

/// A host, ready to run.
pub(crate) struct Host {
    tasks: JoinSet<()>,
    server: Server,
    listeners: Listeners,
    stop: CancellationToken,
}

/// Opens the store and the API's addresses, and starts the reconcilers.
pub(crate) async fn build(config: Config, log: LogRing) -> anyhow::Result<Host> {
    for folder in [&config.paths.state, &config.paths.run, &config.paths.config] {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("can't make the folder {}", folder.display()))?;
    }
    // What Git has may be secret, and so are the disks of guests: the state is for root alone.
    std::fs::set_permissions(&config.paths.state, Permissions::from_mode(0o700)).with_context(|| {
        format!(
            "can't close the folder {} to others",
            config.paths.state.display()
        )
    })?;
    let (clock, metrics, stop) = (Clock::system(), Metrics::new(), CancellationToken::new());
    let database = config.paths.state.join("site.db");
    let store = Arc::new(open(&database).await.context("can't open the store")?);
    let audit = FileAudit::open(config.paths.state.join("audit.log"), AUDIT_LOG.0, AUDIT_LOG.1)
        .context("can't open the audit log")?;
    let api = Api::new(
        Arc::new(Registry::builtin()),
        store.clone() as Arc<dyn Store>,
        clock.clone(),
    )
    .with_admission(Arc::new(GitOwned))
    .with_audit(Arc::new(audit));
    api.ensure_namespaces(&NAMESPACES)
        .await
        .context("can't make the first namespaces")?;

    let listeners = access::listen(&config, &clock)?;
    let mut server = Server::new(api.clone(), &metrics, ServerOptions::default());
    let parts = Parts {
        config,
        api,
        metrics,
        clock,
        stop: stop.clone(),
    };

    let mut tasks = JoinSet::new();
    let disk = disk::Disk::new(
        Client::new(parts.api.clone(), "selvedge-host"),
        parts.config.paths.state.clone(),
    );
    let forever = upkeep::run(parts.api.clone(), store, disk);
    tasks.spawn(stop.clone().run_until_cancelled_owned(forever).map_unit());
    let namespaces = parts.api.clone();
    let ending = async move { namespaces.run_namespaces().await };
    tasks.spawn(stop.clone().run_until_cancelled_owned(ending).map_unit());
    let (ports_wanted, ports) = watch::channel(Arc::default());
    let (groups_known, groups) = watch::channel(Arc::default());
    // Before the network: it says which ports are in use, and the network would take away others.
    let (seen_ports, seen_groups) = (ports.clone(), groups.clone());
    site::machines(&parts, &mut tasks, ports_wanted, groups)?;
    let switch = network::start(&parts, &mut tasks, ports, groups_known).await?;
    let shown = switch.clone();
    server.route("/selvedge/v1/nics", Access::Viewer, move |_| nics(shown.clone()));
    let git = site::git(&parts, &mut tasks).await?;
    if let Some(named) = parts.config.orchestrator.clone() {
        let seams = Seams {
            tunnel: server.tunnel(),
            assignments: git.assignments,
            switch,
            groups: seen_groups,
            ports: seen_ports,
            fetch: git.fetch,
            kustomize: git.kustomize,
            log,
        };
        // A host runs its site without an orchestrator: also with one that it can't speak to.
        match orchestrator::start(&parts, &mut tasks, &named, seams) {
            Ok(orchestrator) => server.route("/selvedge/v1/orchestrator", Access::Viewer, move |_| {
                orchestrator.clone().answer()
            }),
            Err(error) => {
                let message = format!("{error:#}");
                tracing::error!(
                    message,
                    "there will be no link to the orchestrator; the site runs on"
                );
                let body = json!({"state": "failed", "url": named.url, "message": message}).to_string();
                server.route("/selvedge/v1/orchestrator", Access::Viewer, move |_| {
                    std::future::ready(Response::new(Bytes::from(body.clone())))
                });
            }
        }
    }
    Ok(Host {
        tasks,
        server,
        listeners,
        stop,
    })
}

/// Opens the store. A daemon that was just killed may hold it for a moment longer.
async fn open(database: &Path) -> Result<SqliteStore, store::Error> {
    let end = Instant::now() + LOCKED;
    loop {
        match SqliteStore::open(database, store::Options::default()) {
            Err(store::Error::Unusable { why, .. }) if Instant::now() < end => {
                tracing::warn!(why, "can't open the store yet");
                sleep(LOCKED / 20).await;
            }
            done => return done,
        }
    }
}

impl Host {
    /// Serves until `shutdown` is ready, then lets open requests and runs end. Virtual machines go on.
    pub(crate) async fn run(mut self, shutdown: impl Future<Output = ()> + Send) -> anyhow::Result<()> {
        tracing::info!("ready");
        self.server.run(self.listeners, shutdown).await;
        tracing::info!("stopping; virtual machines go on");
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a part of the daemon panicked")?;
        }
        Ok(())
    }
}

/// The host's NICs, for `selvedge nic list`.
async fn nics(switch: Arc<VSwitch>) -> Response<Bytes> {
    let (code, body) = match switch.nics().await {
        Ok(nics) => (200, json!(nics)),
        Err(error) => (500, json!({"message": chain(&error).to_string()})),
    };
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or_default();
    response
}

/// Forgets whether a task ended or was cancelled.
trait MapUnit {
    fn map_unit(self) -> impl Future<Output = ()> + Send;
}

impl<F: Future<Output = Option<()>> + Send> MapUnit for F {
    async fn map_unit(self) {
        self.await;
    }
}
