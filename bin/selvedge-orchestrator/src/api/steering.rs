//! Steering: policies, rollouts, plans.

use axum::{
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use std::sync::Arc;

use fleet::model::{Overview, Plan, PlanSpec, Rollout, RolloutSite};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::crud::crud;
use crate::{
    app::Shared,
    http::{auth::In, body::Json, conditional::tagged, list::List, problem::Problem},
};

crud! {
    mod policies: policies of Policy by PolicySpec, tag "rollouts",
    at "/tenants/{tenant}/policies", "/tenants/{tenant}/policies/{policy}" with "policy" ("Name or id"),
    "listPolicies", "createPolicy", "getPolicy", "updatePolicy", "deletePolicy"
}

/// The endpoints.
pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .merge(policies::router())
        .routes(routes!(rollout_list))
        .routes(routes!(rollout_get))
        .routes(routes!(rollout_sites))
        .routes(routes!(approve))
        .routes(routes!(halt))
        .routes(routes!(resume))
        .routes(routes!(revert))
        .routes(routes!(plan_list, plan_start))
        .routes(routes!(plan_get))
}

/// Rollouts, newest first. `state=active` are those that have not ended.
#[utoipa::path(get, path = "/tenants/{tenant}/rollouts", tag = "rollouts", operation_id = "listRollouts",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), List),
    responses((status = 200, description = "A page", body = fleet::Page<Rollout>)))]
async fn rollout_list(
    State(app): State<Shared>,
    In(caller): In,
    Query(query): Query<List>,
) -> Result<Response, Problem> {
    let page = app.fleet.rollouts().list(&caller, &query.into()).await?;
    Ok(axum::Json(page).into_response())
}

/// One rollout.
#[utoipa::path(get, path = "/tenants/{tenant}/rollouts/{rollout}", tag = "rollouts", operation_id = "getRollout",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("rollout" = String, Path, description = "Number or id")),
    responses((status = 200, description = "The rollout", body = Rollout)))]
async fn rollout_get(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let found = app.fleet.rollouts().get(&caller, &name).await?;
    Ok(tagged(StatusCode::OK, found.generation, &found))
}

/// Its sites, and how far each is.
#[utoipa::path(get, path = "/tenants/{tenant}/rollouts/{rollout}/sites", tag = "rollouts", operation_id = "listRolloutSites",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("rollout" = String, Path, description = "Number or id"), List),
    responses((status = 200, description = "A page", body = fleet::Page<RolloutSite>)))]
async fn rollout_sites(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
    Query(query): Query<List>,
) -> Result<Response, Problem> {
    let page = app.fleet.rollouts().sites(&caller, &name, &query.into()).await?;
    Ok(axum::Json(page).into_response())
}

/// Starts the wave that waits for a person.
#[utoipa::path(post, path = "/tenants/{tenant}/rollouts/{rollout}/approve", tag = "rollouts", operation_id = "approveRollout",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("rollout" = String, Path, description = "Number or id")),
    responses((status = 200, description = "As it is now", body = Rollout)))]
async fn approve(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let found = app.fleet.rollouts().approve(&caller, &name).await?;
    Ok(tagged(StatusCode::OK, found.generation, &found))
}

/// Stops a rollout: nobody more is told.
#[utoipa::path(post, path = "/tenants/{tenant}/rollouts/{rollout}/halt", tag = "rollouts", operation_id = "haltRollout",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("rollout" = String, Path, description = "Number or id")),
    responses((status = 200, description = "As it is now", body = Rollout)))]
async fn halt(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let found = app.fleet.rollouts().halt(&caller, &name).await?;
    Ok(tagged(StatusCode::OK, found.generation, &found))
}

/// Lets a halted rollout go on.
#[utoipa::path(post, path = "/tenants/{tenant}/rollouts/{rollout}/resume", tag = "rollouts", operation_id = "resumeRollout",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("rollout" = String, Path, description = "Number or id")),
    responses((status = 200, description = "As it is now", body = Rollout)))]
async fn resume(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let found = app.fleet.rollouts().resume(&caller, &name).await?;
    Ok(tagged(StatusCode::OK, found.generation, &found))
}

/// Takes all its sites back to what they were at before.
#[utoipa::path(post, path = "/tenants/{tenant}/rollouts/{rollout}/revert", tag = "rollouts", operation_id = "revertRollout",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("rollout" = String, Path, description = "Number or id")),
    responses((status = 200, description = "As it is now", body = Rollout)))]
async fn revert(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let found = app.fleet.rollouts().revert(&caller, &name).await?;
    Ok(tagged(StatusCode::OK, found.generation, &found))
}

/// Plans, newest first, without their sites.
#[utoipa::path(get, path = "/tenants/{tenant}/plans", tag = "plans", operation_id = "listPlans",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), List),
    responses((status = 200, description = "A page", body = fleet::Page<Plan>)))]
async fn plan_list(
    State(app): State<Shared>,
    In(caller): In,
    Query(query): Query<List>,
) -> Result<Response, Problem> {
    let page = app.fleet.plans().list(&caller, &query.into()).await?;
    Ok(axum::Json(page).into_response())
}

/// Begins to plan what a branch or commit would change, at every site that follows the repository.
#[utoipa::path(post, path = "/tenants/{tenant}/plans", tag = "plans", operation_id = "startPlan",
    params(("tenant" = String, Path, description = "Tenant, by name or id"),
        ("idempotency-key" = Option<String>, Header, description = "Sent again with the same body, the answer is repeated, not the deed")),
    request_body = PlanSpec,
    responses((status = 202, description = "Under way: ask for it by its id", body = Plan)))]
async fn plan_start(
    State(app): State<Shared>,
    In(caller): In,
    Json(spec): Json<PlanSpec>,
) -> Result<Response, Problem> {
    let source = Arc::new(crate::tasks::poll::Source(app.clone()));
    let plan = app.fleet.plans().start(&caller, &spec, source).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(plan)).into_response())
}

/// One plan, with its sites.
#[utoipa::path(get, path = "/tenants/{tenant}/plans/{plan}", tag = "plans", operation_id = "getPlan",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("plan" = String, Path, description = "Id")),
    responses((status = 200, description = "The plan as far as it is", body = Plan)))]
async fn plan_get(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, id)): Path<(String, String)>,
) -> Result<Response, Problem> {
    Ok(axum::Json(app.fleet.plans().get(&caller, &id).await?).into_response())
}

/// Adds to an overview what steering knows: rollouts under way, and open alerts.
pub(super) async fn complete(
    app: &Shared,
    caller: &fleet::Caller,
    overview: &mut Overview,
) -> Result<(), Problem> {
    let query = fleet::Query {
        state: Some("active".to_owned()),
        limit: 20,
        ..fleet::Query::default()
    };
    overview.rollouts = app.fleet.rollouts().list(caller, &query).await?.items;
    let query = fleet::Query {
        state: Some("open".to_owned()),
        ..query
    };
    overview.alerts = app.fleet.alerts().list(caller, &query).await?.items;
    Ok(())
}
