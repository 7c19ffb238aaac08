//! People and programs: users, what they may do, tokens, and the log of what all of them did.

use axum::{
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use fleet::model::{AuditEntry, Token, TokenSpec};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::crud::crud;
use crate::{
    app::Shared,
    http::{auth::In, body::Json, list::List, problem::Problem},
};

crud! {
    mod bindings: bindings of Binding by BindingSpec, tag "people",
    at "/tenants/{tenant}/bindings", "/tenants/{tenant}/bindings/{binding}" with "binding" ("Id"),
    "listBindings", "createBinding", "getBinding", "updateBinding", "deleteBinding"
}

crud! {
    mod users: people of User by UserSpec, tag "people",
    at "/tenants/{tenant}/users", "/tenants/{tenant}/users/{user}" with "user" ("Name or id"),
    "listUsers", "createUser", "getUser", "updateUser", "deleteUser"
}

/// The endpoints.
pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .merge(users::router())
        .merge(bindings::router())
        .routes(routes!(totp_remove))
        .routes(routes!(token_list, token_create))
        .routes(routes!(token_get, token_delete))
        .routes(routes!(audit_list))
        .routes(routes!(audit_export))
}

/// All of them, in pages.
#[utoipa::path(get, path = "/tenants/{tenant}/tokens", tag = "people", operation_id = "listTokens",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), List),
    responses((status = 200, description = "A page", body = fleet::Page<Token>)))]
async fn token_list(
    State(app): State<Shared>,
    In(caller): In,
    Query(query): Query<List>,
) -> Result<Response, Problem> {
    let page = app.fleet.tokens().list(&caller, &query.into()).await?;
    Ok(axum::Json(page).into_response())
}

/// Makes one.
#[utoipa::path(post, path = "/tenants/{tenant}/tokens", tag = "people", operation_id = "createToken",
    params(("tenant" = String, Path, description = "Tenant, by name or id"),
        ("idempotency-key" = Option<String>, Header, description = "Sent again with the same body, the answer is repeated, not the deed")),
    request_body = TokenSpec,
    responses((status = 201, description = "Made", body = Token)))]
async fn token_create(
    State(app): State<Shared>,
    In(caller): In,
    Json(spec): Json<TokenSpec>,
) -> Result<Response, Problem> {
    let made = app.fleet.tokens().create(&caller, &spec).await?;
    Ok((StatusCode::CREATED, axum::Json(made)).into_response())
}

/// Reads one.
#[utoipa::path(get, path = "/tenants/{tenant}/tokens/{token}", tag = "people", operation_id = "getToken",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("token" = String, Path, description = "Name or id")),
    responses((status = 200, description = "The object; its generation is the ETag", body = Token)))]
async fn token_get(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let found = app.fleet.tokens().get(&caller, &name).await?;
    Ok(axum::Json(found).into_response())
}

/// Deletes one.
#[utoipa::path(delete, path = "/tenants/{tenant}/tokens/{token}", tag = "people", operation_id = "deleteToken",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("token" = String, Path, description = "Name or id"),
        ("if-match" = Option<String>, Header, description = "The ETag that was read")),
    responses((status = 204, description = "Gone")))]
async fn token_delete(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    app.fleet.tokens().delete(&caller, &name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What was done, newest first, in pages. `q` searches actor, action and object.
#[utoipa::path(get, path = "/tenants/{tenant}/audit", tag = "audit", operation_id = "listAudit",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), List),
    responses((status = 200, description = "A page", body = fleet::Page<AuditEntry>)))]
async fn audit_list(
    State(app): State<Shared>,
    In(caller): In,
    Query(query): Query<List>,
) -> Result<Response, Problem> {
    Ok(axum::Json(app.fleet.audit().list(&caller, &query.into()).await?).into_response())
}

/// The whole log, oldest first, one JSON object a line.
#[utoipa::path(get, path = "/tenants/{tenant}/audit/export", tag = "audit", operation_id = "exportAudit",
    params(("tenant" = String, Path, description = "Tenant, by name or id")),
    responses((status = 200, description = "One AuditEntry a line", content_type = "application/x-ndjson", body = String)))]
async fn audit_export(State(app): State<Shared>, In(caller): In) -> Result<Response, Problem> {
    super::export::audit(&app, &caller).await
}

/// Takes a person's second factor away: for who lost theirs.
#[utoipa::path(delete, path = "/tenants/{tenant}/users/{user}/totp", tag = "people", operation_id = "removeTotp",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("user" = String, Path, description = "Name or id")),
    responses((status = 204, description = "It is not asked any more")))]
async fn totp_remove(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    app.fleet.people().remove_totp(&caller, &name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
