//! What every part of the server shares.

use std::sync::Arc;

use anyhow::Context;
use fleet::Fleet;
use identity::{seal::MasterKeys, verify::ClientVerifier};
use telemetry::{Clock, Metrics};
use tokio_util::sync::CancellationToken;

use crate::{config::Config, files, git, hooks, links::Links, metrics::Counters, oidc, tls::Certificates};

/// The server's parts, handed to each request.
pub(crate) type Shared = Arc<App>;

/// The server's parts.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) fleet: Fleet,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    pub(crate) counters: Counters,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) verifier: ClientVerifier,
    pub(crate) git: git::Store,
    pub(crate) oidc: Option<oidc::Provider>,
    pub(crate) links: Links,
    pub(crate) ingest: fleet::status::Ingest,
    pub(crate) seen: hooks::Seen,
    /// This process among those on one database.
    pub(crate) node: String,
    /// What proves to another process that we know the master key too.
    pub(crate) peer_secret: [u8; 32],
    pub(crate) metrics_token: Option<String>,
    /// Cancelled when the process shall end.
    pub(crate) stop: CancellationToken,
}

/// The master key: `SELVEDGE_MASTER_KEY_FILE`, or `<data>/master.key`, made at the first start.
pub(crate) fn master_keys(config: &Config) -> anyhow::Result<MasterKeys> {
    let path = match std::env::var_os("SELVEDGE_MASTER_KEY_FILE") {
        Some(path) => path.into(),
        None => {
            files::make_dir(&config.server.data)?;
            config.server.data.join("master.key")
        }
    };
    MasterKeys::open(&path).with_context(|| format!("can't use the master key {}", path.display()))
}

/// The fleet's options from the configuration.
pub(crate) fn fleet_options(config: &Config) -> fleet::Options {
    fleet::Options {
        certificate: std::time::Duration::from_secs(u64::from(config.enrollment.certificate_days) * 86_400),
        heartbeat: config.link.heartbeat,
        ..fleet::Options::default()
    }
}

/// Opens the database.
pub(crate) async fn open_fleet(config: &Config, clock: &Clock) -> anyhow::Result<Fleet> {
    let keys = master_keys(config)?;
    Fleet::open(&config.database_url()?, keys, clock, fleet_options(config))
        .await
        .context("can't open the database")
}

impl App {
    /// Puts the parts together.
    pub(crate) async fn build(config: Config, stop: CancellationToken) -> anyhow::Result<Shared> {
        let (clock, metrics) = (Clock::system(), Metrics::new());
        files::make_dir(&config.server.data)?;
        let fleet = open_fleet(&config, &clock).await?;
        let certificates = Certificates::open(&config, &clock)?;
        let verifier = ClientVerifier::new(&clock);
        let git = git::Store::open(
            &config.server.data,
            config.repositories.programs,
            config.repositories.push_mib,
        )?;
        let master = fleet.master();
        let oidc = match &config.oidc {
            Some(oidc) => Some(oidc::Provider::new(
                oidc,
                config.url(),
                &master.derive("oidc cookie"),
                &clock,
            )?),
            None => None,
        };
        let metrics_token = match &config.server.metrics_token_file {
            Some(file) => Some(crate::config::read_secret(file).context("server.metrics_token_file")?),
            None => None,
        };
        let node = uuid::Uuid::new_v4().to_string();
        Ok(Arc::new(Self {
            peer_secret: master.derive("hop between processes"),
            counters: Counters::new(&metrics),
            ingest: fleet::status::Ingest::start(&fleet, &node),
            links: Links::default(),
            seen: hooks::Seen::default(),
            node,
            config,
            fleet,
            clock,
            metrics,
            certificates,
            verifier,
            git,
            oidc,
            metrics_token,
            stop,
        }))
    }
}
