//! Hosts: machines, what they report, and what they are told.

use axum::{
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use fleet::model::{Host, HostSpec};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::Shared,
    http::{
        auth::In,
        body::Json,
        conditional::{if_match, tagged},
        list::List,
        problem::Problem,
    },
};

/// The endpoints.
pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get, update, delete))
        .routes(routes!(approve))
        .routes(routes!(revoke))
        .routes(routes!(signal))
        .routes(routes!(events))
        .routes(routes!(usage))
        .merge(crate::tunnel::router())
}

/// All of them, in pages.
#[utoipa::path(get, path = "/tenants/{tenant}/hosts", tag = "hosts", operation_id = "listHosts",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), List),
    responses((status = 200, description = "A page", body = fleet::Page<Host>)))]
async fn list(
    State(app): State<Shared>,
    In(caller): In,
    Query(query): Query<List>,
) -> Result<Response, Problem> {
    let page = app.fleet.hosts().list(&caller, &query.into()).await?;
    Ok(axum::Json(page).into_response())
}

/// Reads one.
#[utoipa::path(get, path = "/tenants/{tenant}/hosts/{host}", tag = "hosts", operation_id = "getHost",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("host" = String, Path, description = "Name or id")),
    responses((status = 200, description = "The object; its generation is the ETag", body = Host)))]
async fn get(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let found = app.fleet.hosts().get(&caller, &name).await?;
    Ok(tagged(StatusCode::OK, found.generation, &found))
}

/// Changes one.
#[utoipa::path(patch, path = "/tenants/{tenant}/hosts/{host}", tag = "hosts", operation_id = "updateHost",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("host" = String, Path, description = "Name or id"),
        ("if-match" = Option<String>, Header, description = "The ETag that was read")),
    request_body(content = HostSpec, content_type = "application/merge-patch+json", description = "JSON merge patch (RFC 7396)"),
    responses((status = 200, description = "Changed", body = Host)))]
async fn update(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
    headers: HeaderMap,
    Json(patch): Json<Value>,
) -> Result<Response, Problem> {
    let found = app
        .fleet
        .hosts()
        .update(&caller, &name, if_match(&headers)?, &patch)
        .await?;
    Ok(tagged(StatusCode::OK, found.generation, &found))
}

/// Deletes one.
#[utoipa::path(delete, path = "/tenants/{tenant}/hosts/{host}", tag = "hosts", operation_id = "deleteHost",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("host" = String, Path, description = "Name or id"),
        ("if-match" = Option<String>, Header, description = "The ETag that was read")),
    responses((status = 204, description = "Gone")))]
async fn delete(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    app.fleet
        .hosts()
        .delete(&caller, &name, if_match(&headers)?)
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Where a host that waits shall belong.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Approval {
    /// Name or id of the site.
    site: String,
}

/// Lets a waiting host in.
#[utoipa::path(post, path = "/tenants/{tenant}/hosts/{host}/approve", tag = "hosts", operation_id = "approveHost",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("host" = String, Path, description = "Name or id")),
    request_body = Approval,
    responses((status = 200, description = "Approved", body = Host)))]
async fn approve(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
    Json(approval): Json<Approval>,
) -> Result<Response, Problem> {
    let found = app
        .fleet
        .enrolment()
        .approve(&caller, &name, &approval.site)
        .await?;
    Ok(tagged(StatusCode::OK, found.generation, &found))
}

/// Cuts a host off for good: its certificate is refused from now on.
#[utoipa::path(post, path = "/tenants/{tenant}/hosts/{host}/revoke", tag = "hosts", operation_id = "revokeHost",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("host" = String, Path, description = "Name or id")),
    responses((status = 200, description = "Revoked", body = Host)))]
async fn revoke(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let found = app.fleet.hosts().revoke(&caller, &name).await?;
    app.verifier.revoke_host(&found.id);
    app.links.cut_host(&found.id);
    Ok(tagged(StatusCode::OK, found.generation, &found))
}

/// Tells a host to do something now.
#[utoipa::path(post, path = "/tenants/{tenant}/hosts/{host}/signal", tag = "hosts", operation_id = "signalHost",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("host" = String, Path, description = "Name or id")),
    request_body = super::sites::SignalSpec,
    responses((status = 200, description = "Told", body = super::sites::Signalled)))]
async fn signal(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
    Json(spec): Json<super::sites::SignalSpec>,
) -> Result<Response, Problem> {
    let host = crate::tunnel::allowed(&app, &caller, &name, fleet::Role::Operator).await?;
    let told = crate::links::reach::signal(&app, &caller.tenant, &host.id, spec.what.into()).await;
    app.fleet
        .audit()
        .note(
            &caller,
            "host.signal",
            &super::sites::object("host", &host.id, &host.name),
            Some(&json!(spec.what)),
        )
        .await?;
    Ok(axum::Json(super::sites::Signalled {
        told: usize::from(told),
        offline: usize::from(!told),
    })
    .into_response())
}

/// What a host reported that happened, newest first.
#[utoipa::path(get, path = "/tenants/{tenant}/hosts/{host}/events", tag = "hosts", operation_id = "listHostEvents",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("host" = String, Path, description = "Name or id"), List),
    responses((status = 200, description = "A page", body = fleet::Page<fleet::model::HostEvent>)))]
async fn events(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
    Query(query): Query<List>,
) -> Result<Response, Problem> {
    let events = app.fleet.hosts().events(&caller, &name, query.limit()).await?;
    Ok(axum::Json(super::sites::whole(events)).into_response())
}

/// Which history is asked.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct UsageQuery {
    /// `cpu`, `memory`, `disk` (shares, 0 to 1), `rx` or `tx` (bytes per second).
    metric: Option<String>,
    /// From when; a day ago if nothing is said.
    from: Option<String>,
}

/// History of one metric.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Usage {
    /// Which.
    metric: String,
    /// Seconds between points.
    step: i64,
    /// `[unix seconds, value or null]` each.
    #[schema(value_type = Vec<Vec<f64>>)]
    points: Vec<(i64, Option<f64>)>,
}

/// How busy a host was.
#[utoipa::path(get, path = "/tenants/{tenant}/hosts/{host}/usage", tag = "hosts", operation_id = "getHostUsage",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("host" = String, Path, description = "Name or id"), UsageQuery),
    responses((status = 200, description = "Points", body = Usage)))]
async fn usage(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
    Query(query): Query<UsageQuery>,
) -> Result<Response, Problem> {
    let now = app.clock.now();
    let from = match &query.from {
        None => now - jiff::SignedDuration::from_hours(24),
        Some(text) => text
            .parse()
            .map_err(|_| Problem::invalid("from", "from: no time; write for example 2026-01-02T03:04:05Z"))?,
    };
    let metric = query.metric.unwrap_or_else(|| "cpu".to_owned());
    let read: fn(&fleet::model::UsagePoint, f64) -> f64 = match metric.as_str() {
        "cpu" => |point, _| point.cpu,
        "memory" => |point, _| point.memory,
        "disk" => |point, _| point.disk,
        #[expect(clippy::cast_precision_loss, reason = "bytes in five minutes fit")]
        "rx" => |point, step| point.rx_bytes as f64 / step,
        #[expect(clippy::cast_precision_loss, reason = "bytes in five minutes fit")]
        "tx" => |point, step| point.tx_bytes as f64 / step,
        _ => {
            return Err(Problem::invalid(
                "metric",
                "metric: none of cpu, memory, disk, rx, tx",
            ));
        }
    };
    let fine = now.duration_since(from) <= jiff::SignedDuration::from_hours(25);
    let (step, found) = app.fleet.usage().of(&caller, &name, from.into(), fine).await?;
    #[expect(clippy::cast_precision_loss, reason = "300 or 3600")]
    let seconds = step as f64;
    let points = found
        .iter()
        .map(|point| (point.time.millis() / 1_000, Some(read(point, seconds))))
        .collect();
    Ok(axum::Json(Usage { metric, step, points }).into_response())
}
