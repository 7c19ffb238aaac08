//! `/metrics`, `/healthz`, `/readyz`.

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use telemetry::Metrics;

use crate::{
    app::Shared,
    hooks::same,
    http::{
        auth::{bearer, program},
        problem::Problem,
    },
};

/// What is counted.
pub(crate) struct Counters {
    pub(crate) connected: Gauge,
    pub(crate) enrolments: Counter,
    pub(crate) hooks: Counter,
    pub(crate) tunnels: Counter,
    hosts: Family<InTenant, Gauge>,
    sites: Family<InTenant, Gauge>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct InTenant {
    tenant: String,
    state: String,
}

impl Counters {
    /// Registers them.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let metrics = metrics.prefixed("orchestrator");
        Self {
            connected: metrics.register(
                "links",
                "Hosts that are connected to this process",
                Gauge::default(),
            ),
            enrolments: metrics.register(
                "enrolment_requests",
                "Requests of hosts to be let in",
                Counter::default(),
            ),
            hooks: metrics.register(
                "pushes_told",
                "Pushes that Git servers told of",
                Counter::default(),
            ),
            tunnels: metrics.register(
                "tunnel_requests",
                "Requests passed on to sites' Kubernetes APIs",
                Counter::default(),
            ),
            hosts: metrics.register(
                "hosts",
                "Hosts by tenant and connection, in the whole fleet",
                Family::default(),
            ),
            sites: metrics.register(
                "sites",
                "Sites by tenant and state, in the whole fleet",
                Family::default(),
            ),
        }
    }
}

/// The routes.
pub(crate) fn router() -> Router<Shared> {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
}

async fn metrics(State(app): State<Shared>, headers: HeaderMap) -> Result<Response, Problem> {
    allow(&app, &headers).await?;
    app.counters.hosts.clear();
    app.counters.sites.clear();
    let system = fleet::Caller::system("", "metrics");
    for tenant in app.fleet.tenants().list(&system).await? {
        let caller = fleet::Caller::system(&tenant.id, "metrics");
        let counts = app.fleet.overview(&caller).await?;
        let tenant = tenant.name;
        for (state, count) in counts.sites.by_state {
            let labels = InTenant {
                tenant: tenant.clone(),
                state,
            };
            app.counters.sites.get_or_create(&labels).set(count);
        }
        for (state, count) in counts.hosts.by_connection {
            let labels = InTenant {
                tenant: tenant.clone(),
                state,
            };
            app.counters.hosts.get_or_create(&labels).set(count);
        }
    }
    let mut response = app.metrics.encode().into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8"),
    );
    Ok(response)
}

/// Numbers of all tenants: for the platform's own monitoring only.
async fn allow(app: &Shared, headers: &HeaderMap) -> Result<(), Problem> {
    let token = bearer(headers)
        .ok_or_else(|| Problem::unauthorized("send the token of server.metrics_token_file"))?;
    if app
        .metrics_token
        .as_deref()
        .is_some_and(|right| same(token, right))
    {
        return Ok(());
    }
    let caller = program(app, token, "").await?;
    Ok(caller.require_platform()?)
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(app): State<Shared>) -> Response {
    if app.stop.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    }
    match app.fleet.tenants().authorities().await {
        Ok(_) => "ok\n".into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the database can't be used\n").into_response(),
    }
}
