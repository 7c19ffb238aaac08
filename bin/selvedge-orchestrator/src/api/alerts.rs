//! Alerts, and the channels that tell people of them.

use axum::{
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use fleet::model::Alert;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::crud::crud;
use crate::{
    app::Shared,
    http::{auth::In, list::List, problem::Problem},
};

crud! {
    mod channels: channels of Channel by ChannelSpec, tag "alerts",
    at "/tenants/{tenant}/channels", "/tenants/{tenant}/channels/{channel}" with "channel" ("Name or id"),
    "listChannels", "createChannel", "getChannel", "updateChannel", "deleteChannel"
}

/// The endpoints.
pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .merge(channels::router())
        .routes(routes!(alert_list))
        .routes(routes!(alert_get))
        .routes(routes!(acknowledge))
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
