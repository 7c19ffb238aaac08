//! What needs a person now, and search.

use axum::{
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use fleet::model::Overview;
use serde::Deserialize;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::Shared,
    http::{auth::In, problem::Problem},
};

/// The endpoints.
pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(overview))
        .routes(routes!(search))
}

/// The fleet at a glance.
#[utoipa::path(get, path = "/tenants/{tenant}/overview", tag = "overview", operation_id = "getOverview",
    params(("tenant" = String, Path, description = "Tenant, by name or id")),
    responses((status = 200, description = "Counts, and what needs a look", body = Overview)))]
async fn overview(State(app): State<Shared>, In(caller): In) -> Result<Response, Problem> {
    let mut overview = app.fleet.overview(&caller).await?;
    super::steering::complete(&app, &caller, &mut overview).await?;
    Ok(axum::Json(overview).into_response())
}

/// What to search.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Words {
    /// Free text and fields, as `till label:region=eu state:offline`.
    q: String,
    /// At most so many of each kind; 20 if nothing is said.
    limit: Option<usize>,
}

/// Searches sites, hosts, virtual machines and commits.
#[utoipa::path(get, path = "/tenants/{tenant}/search", tag = "overview", operation_id = "search",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), Words),
    responses((status = 200, description = "Hits", body = fleet::search::Hits)))]
async fn search(
    State(app): State<Shared>,
    In(caller): In,
    Query(words): Query<Words>,
) -> Result<Response, Problem> {
    let limit = words.limit.unwrap_or(20).clamp(1, 100);
    let hits = app.fleet.search(&caller, &words.q, limit).await?;
    Ok(axum::Json(hits).into_response())
}
