//! The HTTP server: TLS with client certificates for kubectl and other hosts, a local socket for root.
//!
//! ```text
//!  connection ── listen: TLS, who is it ─┐
//!  request ── service: limits, time, panics, metrics ── path + query + accept ──┬─ discovery, openapi, health
//!                                                                              ├─ routes of the daemon
//!                                                                              └─ objects: verbs of `Api`
//!                                                                                   ├─ list: rows as they are stored
//!                                                                                   └─ watch: frames, until the client goes
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | `listen`, `strangers` | listeners, connections, draining; how many may come unknown |
//! | `service` | one request from its first byte to its answer |
//! | `path`, `query`, `negotiate` | what a request names and wants |
//! | `body`, `decode`, `respond` | bodies in and out |
//! | `objects`, `list`, `watch`, `render` | requests for objects |
//! | `auth`, `reviews` | who asks, and what they may |
//! | `health` | `/healthz`, `/livez`, `/readyz` |
//! | `metrics` | what is counted |
//!
//! Not here yet: byte streams over an upgraded connection (the console of a virtual machine). Connections are served
//! so that they can be upgraded; what is missing is a kind of route that takes the connection over, in `service`.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use hyper::{HeaderMap, Method, Response};
use kinds::registry::KindDef;
use telemetry::Metrics;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Semaphore, watch as level},
};
use tokio_util::sync::CancellationToken;

use crate::{Api, Caller, openapi::OpenApi, table::Columns, tls::Tls};

mod auth;
mod body;
mod decode;
#[cfg(fuzzing)]
pub mod fuzzing;
mod health;
mod list;
mod listen;
mod metrics;
mod negotiate;
mod objects;
mod path;
mod query;
mod render;
mod respond;
mod reviews;
mod service;
mod strangers;
mod watch;

/// Bounds of a server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// What `/version` says, for example `0.1.0`.
    pub version: String,
    /// The commit that the program was built from; may be empty.
    pub commit: String,
    /// Connections at a time; more wait to be accepted. Half of them are for who has shown a certificate, and the
    /// local socket has as many of its own.
    pub max_connections: usize,
    /// Connections at a time from one address without a certificate; more are closed at once.
    pub max_strangers: usize,
    /// Requests at a time, watches apart; more are told to come again.
    pub max_requests: usize,
    /// Watches at a time; more are told to come again.
    pub max_watches: usize,
    /// How long a request that is no watch may take.
    pub request_timeout: Duration,
    /// How long a connection may take until its first request has come.
    pub first_request_timeout: Duration,
    /// How long open requests may go on after the server was told to stop.
    pub drain_timeout: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            commit: String::new(),
            max_connections: 1_000,
            max_strangers: 128,
            max_requests: 400,
            max_watches: 2_000,
            request_timeout: Duration::from_secs(60),
            first_request_timeout: Duration::from_secs(15),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// Where a server listens.
#[derive(Default)]
pub struct Listeners {
    /// TLS listeners with the certificates they show.
    pub tls: Option<(Vec<TcpListener>, Arc<Tls>)>,
    /// A local socket without TLS; only root and the server's own user are served on it, as the admin.
    pub unix: Option<UnixListener>,
}

/// Who may use a local route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody who can reach the server.
    Anyone,
    /// Whoever may look.
    Viewer,
    /// Masters.
    Admin,
}

/// A request to a local route.
#[derive(Clone, Debug)]
pub struct LocalRequest {
    /// Its method.
    pub method: Method,
    /// Its path.
    pub path: String,
    /// Its query, undecoded.
    pub query: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, at most 3 MiB.
    pub body: Bytes,
    /// Who asks, if known.
    pub caller: Option<Caller>,
}

type LocalAnswer = Pin<Box<dyn Future<Output = Response<Bytes>> + Send>>;
type Handler = Arc<dyn Fn(LocalRequest) -> LocalAnswer + Send + Sync>;
/// Says what is wrong, if something is.
type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The HTTP server of an API.
pub struct Server {
    state: State,
    tunnel: level::Sender<Option<Arc<State>>>,
}

/// Serves connections that came by another way than a listener: through the orchestrator. Cheap to clone.
#[derive(Clone)]
pub struct Tunnel(level::Receiver<Option<Arc<State>>>);

impl Tunnel {
    /// Serves HTTP on a stream until either side ends it. Whoever is at the other end was let in by the orchestrator
    /// as `user`, in `groups` (those of roles count: see [`crate::api::roles`]), from the address `from`. Waits for the
    /// server to run.
    pub async fn serve<S>(&self, stream: S, user: &str, groups: &[String], from: &str)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let peer = auth::Peer::through_orchestrator(user, groups, from);
        let mut ready = self.0.clone();
        let state = match ready.wait_for(Option::is_some).await {
            Ok(state) => state.clone(),
            Err(_) => None,
        };
        if let Some(state) = state {
            listen::serve(state, stream, peer).await;
        }
    }
}

/// What every request needs.
pub(crate) struct State {
    api: Api,
    options: ServerOptions,
    metrics: metrics::ServerMetrics,
    routes: Vec<(String, Access, Handler)>,
    checks: Vec<(String, Check)>,
    openapi: OnceLock<OpenApi>,
    columns: BTreeMap<(String, String, String), Arc<Columns>>,
    requests: Arc<Semaphore>,
    watches: Arc<Semaphore>,
    /// Cancelled when the server is told to stop: watches end, `/readyz` says no.
    draining: CancellationToken,
    /// Cancelled when draining has taken too long.
    cut: CancellationToken,
}

impl Server {
    /// A server of an API; its metrics go to `metrics`.
    #[must_use]
    pub fn new(api: Api, metrics: &Metrics, options: ServerOptions) -> Self {
        let mut columns = BTreeMap::new();
        for kind in api.registry().iter() {
            for version in &kind.versions {
                let key = (kind.group.clone(), version.name.clone(), kind.plural.clone());
                columns.insert(key, Arc::new(Columns::of(version)));
            }
        }
        let state = State {
            requests: Arc::new(Semaphore::new(options.max_requests)),
            watches: Arc::new(Semaphore::new(options.max_watches)),
            metrics: metrics::ServerMetrics::new(metrics),
            api,
            options,
            routes: Vec::new(),
            checks: Vec::new(),
            openapi: OnceLock::new(),
            columns,
            draining: CancellationToken::new(),
            cut: CancellationToken::new(),
        };
        Self {
            state,
            tunnel: level::channel(None).0,
        }
    }

    /// For connections that come by another way than a listener.
    #[must_use]
    pub fn tunnel(&self) -> Tunnel {
        Tunnel(self.tunnel.subscribe())
    }

    /// Adds a route: `path` is exact, or a prefix if it ends with `/`. Routes come before everything of the API
    /// but `/api`, `/apis` and the health checks; the longest that fits wins.
    pub fn route<H, F>(&mut self, path: &str, access: Access, handler: H)
    where
        H: Fn(LocalRequest) -> F + Send + Sync + 'static,
        F: Future<Output = Response<Bytes>> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |request| Box::pin(handler(request)));
        self.state.routes.push((path.into(), access, handler));
        self.state
            .routes
            .sort_by_key(|(path, _, _)| std::cmp::Reverse(path.len()));
    }

    /// Adds a check of `/readyz` (and `/healthz`): it says what is wrong, if something is.
    pub fn readiness(&mut self, name: &str, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.state.checks.push((name.into(), Arc::new(check)));
    }

    /// Serves until `shutdown` is done, then lets open requests end, watches first, and returns.
    pub async fn run(self, listeners: Listeners, shutdown: impl Future<Output = ()> + Send) {
        let state = Arc::new(self.state);
        self.tunnel.send_replace(Some(state.clone()));
        listen::run(state, listeners, shutdown).await;
    }
}

impl State {
    fn openapi(&self) -> &OpenApi {
        self.openapi
            .get_or_init(|| OpenApi::of(self.api.registry(), &self.options.version))
    }

    fn columns(&self, kind: &KindDef, version: &str) -> Option<Arc<Columns>> {
        self.columns
            .get(&(kind.group.clone(), version.to_owned(), kind.plural.clone()))
            .cloned()
    }
}
