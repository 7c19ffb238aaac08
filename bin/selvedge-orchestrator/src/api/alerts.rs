//! Alerts, and the channels that tell people of them.

use axum::{
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use fleet::model::{Alert, Channel, ChannelSpec};
use serde_json::Value;
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
        .routes(routes!(alert_list))
        .routes(routes!(alert_get))
        .routes(routes!(acknowledge))
        .routes(routes!(list, create))
        .routes(routes!(get, update, delete))
}

/// Alerts, newest first. `state` is `open`, `acknowledged` or `resolved`.
#[utoipa::path(get, path = "/tenants/{tenant}/alerts", tag = "alerts", operation_id = "listAlerts",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), List),
    responses((status = 200, description = "A page", body = fleet::Page<Alert>)))]
async fn alert_list(
    State(app): State<Shared>,
    In(caller): In,
    Query(query): Query<List>,
) -> Result<Response, Problem> {
    Ok(axum::Json(app.fleet.alerts().list(&caller, &query.into()).await?).into_response())
}

/// One alert.
#[utoipa::path(get, path = "/tenants/{tenant}/alerts/{alert}", tag = "alerts", operation_id = "getAlert",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("alert" = String, Path, description = "Id")),
    responses((status = 200, description = "The alert", body = Alert)))]
async fn alert_get(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, id)): Path<(String, String)>,
) -> Result<Response, Problem> {
    Ok(axum::Json(app.fleet.alerts().get(&caller, &id).await?).into_response())
}

/// Says that somebody has seen it.
#[utoipa::path(post, path = "/tenants/{tenant}/alerts/{alert}/acknowledge", tag = "alerts", operation_id = "acknowledgeAlert",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("alert" = String, Path, description = "Id")),
    responses((status = 200, description = "As it is now", body = Alert)))]
async fn acknowledge(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, id)): Path<(String, String)>,
) -> Result<Response, Problem> {
    Ok(axum::Json(app.fleet.alerts().acknowledge(&caller, &id).await?).into_response())
}

/// All of them, in pages.
#[utoipa::path(get, path = "/tenants/{tenant}/channels", tag = "alerts", operation_id = "listChannels",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), List),
    responses((status = 200, description = "A page", body = fleet::Page<Channel>)))]
async fn list(
    State(app): State<Shared>,
    In(caller): In,
    Query(query): Query<List>,
) -> Result<Response, Problem> {
    let page = app.fleet.channels().list(&caller, &query.into()).await?;
    Ok(axum::Json(page).into_response())
}

/// Makes one.
#[utoipa::path(post, path = "/tenants/{tenant}/channels", tag = "alerts", operation_id = "createChannel",
    params(("tenant" = String, Path, description = "Tenant, by name or id"),
        ("idempotency-key" = Option<String>, Header, description = "Sent again with the same body, the answer is repeated, not the deed")),
    request_body = ChannelSpec,
    responses((status = 201, description = "Made", body = Channel)))]
async fn create(
    State(app): State<Shared>,
    In(caller): In,
    Json(spec): Json<ChannelSpec>,
) -> Result<Response, Problem> {
    let made = app.fleet.channels().create(&caller, &spec).await?;
    Ok(tagged(StatusCode::CREATED, made.generation, &made))
}

/// Reads one.
#[utoipa::path(get, path = "/tenants/{tenant}/channels/{channel}", tag = "alerts", operation_id = "getChannel",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("channel" = String, Path, description = "Name or id")),
    responses((status = 200, description = "The object; its generation is the ETag", body = Channel)))]
async fn get(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let found = app.fleet.channels().get(&caller, &name).await?;
    Ok(tagged(StatusCode::OK, found.generation, &found))
}

/// Changes one.
#[utoipa::path(patch, path = "/tenants/{tenant}/channels/{channel}", tag = "alerts", operation_id = "updateChannel",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("channel" = String, Path, description = "Name or id"),
        ("if-match" = Option<String>, Header, description = "The ETag that was read")),
    request_body(content = ChannelSpec, content_type = "application/merge-patch+json", description = "JSON merge patch (RFC 7396)"),
    responses((status = 200, description = "Changed", body = Channel)))]
async fn update(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
    headers: HeaderMap,
    Json(patch): Json<Value>,
) -> Result<Response, Problem> {
    let found = app
        .fleet
        .channels()
        .update(&caller, &name, if_match(&headers)?, &patch)
        .await?;
    Ok(tagged(StatusCode::OK, found.generation, &found))
}

/// Deletes one.
#[utoipa::path(delete, path = "/tenants/{tenant}/channels/{channel}", tag = "alerts", operation_id = "deleteChannel",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("channel" = String, Path, description = "Name or id"),
        ("if-match" = Option<String>, Header, description = "The ETag that was read")),
    responses((status = 204, description = "Gone")))]
async fn delete(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    app.fleet
        .channels()
        .delete(&caller, &name, if_match(&headers)?)
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
