//! Enrolment as people steer it: keys, hosts known beforehand, hosts that wait.

use axum::{
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use fleet::model::{ActivationKey, ActivationKeySpec, ExpectedSpec, Host};
use serde::Deserialize;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::Shared,
    http::{auth::In, body::Json, list::List, problem::Problem},
};

/// The endpoints.
pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, delete))
        .routes(routes!(expected, expect))
        .routes(routes!(pending))
}

/// All of them, in pages.
#[utoipa::path(get, path = "/tenants/{tenant}/enrollment/keys", tag = "enrollment", operation_id = "listActivationKeys",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), List),
    responses((status = 200, description = "A page", body = fleet::Page<ActivationKey>)))]
async fn list(
    State(app): State<Shared>,
    In(caller): In,
    Query(query): Query<List>,
) -> Result<Response, Problem> {
    let page = app.fleet.keys().list(&caller, &query.into()).await?;
    Ok(axum::Json(page).into_response())
}

/// Makes one.
#[utoipa::path(post, path = "/tenants/{tenant}/enrollment/keys", tag = "enrollment", operation_id = "createActivationKey",
    params(("tenant" = String, Path, description = "Tenant, by name or id"),
        ("idempotency-key" = Option<String>, Header, description = "Sent again with the same body, the answer is repeated, not the deed")),
    request_body = ActivationKeySpec,
    responses((status = 201, description = "Made", body = ActivationKey)))]
async fn create(
    State(app): State<Shared>,
    In(caller): In,
    Json(spec): Json<ActivationKeySpec>,
) -> Result<Response, Problem> {
    let made = app.fleet.keys().create(&caller, &spec).await?;
    Ok((StatusCode::CREATED, axum::Json(made)).into_response())
}

/// Reads one.
#[utoipa::path(get, path = "/tenants/{tenant}/enrollment/keys/{key}", tag = "enrollment", operation_id = "getActivationKey",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("key" = String, Path, description = "Name or id")),
    responses((status = 200, description = "The object; its generation is the ETag", body = ActivationKey)))]
async fn get(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let found = app.fleet.keys().get(&caller, &name).await?;
    Ok(axum::Json(found).into_response())
}

/// Deletes one.
#[utoipa::path(delete, path = "/tenants/{tenant}/enrollment/keys/{key}", tag = "enrollment", operation_id = "deleteActivationKey",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("key" = String, Path, description = "Name or id"),
        ("if-match" = Option<String>, Header, description = "The ETag that was read")),
    responses((status = 204, description = "Gone")))]
async fn delete(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    app.fleet.keys().delete(&caller, &name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Hosts that are known beforehand and have not come yet.
#[utoipa::path(get, path = "/tenants/{tenant}/enrollment/expected", tag = "enrollment", operation_id = "listExpectedHosts",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), List),
    responses((status = 200, description = "A page", body = fleet::Page<Host>)))]
async fn expected(
    State(app): State<Shared>,
    In(caller): In,
    Query(query): Query<List>,
) -> Result<Response, Problem> {
    let query = fleet::Query {
        state: Some("expected".to_owned()),
        ..query.into()
    };
    Ok(axum::Json(app.fleet.hosts().list(&caller, &query).await?).into_response())
}

/// Hosts that wait to be approved.
#[utoipa::path(get, path = "/tenants/{tenant}/enrollment/pending", tag = "enrollment", operation_id = "listPendingHosts",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), List),
    responses((status = 200, description = "A page", body = fleet::Page<fleet::enrolment::PendingHost>)))]
async fn pending(
    State(app): State<Shared>,
    In(caller): In,
    Query(query): Query<List>,
) -> Result<Response, Problem> {
    let page = app.fleet.enrolment().pending(&caller, &query.into()).await?;
    Ok(axum::Json(page).into_response())
}

/// One host, or many.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
enum OneOrMany {
    /// Many.
    Many(Vec<ExpectedSpec>),
    /// One.
    One(ExpectedSpec),
}

/// Hosts of one request.
const MANY: usize = 1_000;

/// Says which hosts will come, and to which site they belong: they are let in without a key or approval.
#[utoipa::path(post, path = "/tenants/{tenant}/enrollment/expected", tag = "enrollment", operation_id = "expectHosts",
    params(("tenant" = String, Path, description = "Tenant, by name or id")),
    request_body = OneOrMany,
    responses((status = 201, description = "Known from now on; an array if an array was sent", body = Vec<Host>)))]
async fn expect(
    State(app): State<Shared>,
    In(caller): In,
    Json(sent): Json<OneOrMany>,
) -> Result<Response, Problem> {
    match sent {
        OneOrMany::One(spec) => {
            let made = app.fleet.hosts().expect(&caller, &[spec]).await?;
            Ok((StatusCode::CREATED, axum::Json(made.into_iter().next())).into_response())
        }
        OneOrMany::Many(specs) if specs.len() > MANY => Err(Problem::invalid(
            "",
            format!("more than {MANY} hosts at a time; send them in parts"),
        )),
        OneOrMany::Many(specs) => {
            let made = app.fleet.hosts().expect(&caller, &specs).await?;
            Ok((StatusCode::CREATED, axum::Json(made)).into_response())
        }
    }
}
