//! People and programs: users, what they may do, tokens, and the log of what all of them did.

use axum::{
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use fleet::model::{AuditEntry, Binding, BindingSpec, Token, TokenSpec, User, UserSpec};
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
        .routes(routes!(user_list, user_create))
        .routes(routes!(user_get, user_update, user_delete))
        .routes(routes!(totp_remove))
        .routes(routes!(binding_list, binding_create))
        .routes(routes!(binding_get, binding_update, binding_delete))
        .routes(routes!(token_list, token_create))
        .routes(routes!(token_get, token_delete))
        .routes(routes!(audit_list))
        .routes(routes!(audit_export))
}

/// All of them, in pages.
#[utoipa::path(get, path = "/tenants/{tenant}/users", tag = "people", operation_id = "listUsers",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), List),
    responses((status = 200, description = "A page", body = fleet::Page<User>)))]
async fn user_list(
    State(app): State<Shared>,
    In(caller): In,
    Query(query): Query<List>,
) -> Result<Response, Problem> {
    let page = app.fleet.people().list(&caller, &query.into()).await?;
    Ok(axum::Json(page).into_response())
}

/// Makes one.
#[utoipa::path(post, path = "/tenants/{tenant}/users", tag = "people", operation_id = "createUser",
    params(("tenant" = String, Path, description = "Tenant, by name or id"),
        ("idempotency-key" = Option<String>, Header, description = "Sent again with the same body, the answer is repeated, not the deed")),
    request_body = UserSpec,
    responses((status = 201, description = "Made", body = User)))]
async fn user_create(
    State(app): State<Shared>,
    In(caller): In,
    Json(spec): Json<UserSpec>,
) -> Result<Response, Problem> {
    let made = app.fleet.people().create(&caller, &spec).await?;
    Ok(tagged(StatusCode::CREATED, made.generation, &made))
}

/// Reads one.
#[utoipa::path(get, path = "/tenants/{tenant}/users/{user}", tag = "people", operation_id = "getUser",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("user" = String, Path, description = "Name or id")),
    responses((status = 200, description = "The object; its generation is the ETag", body = User)))]
async fn user_get(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let found = app.fleet.people().get(&caller, &name).await?;
    Ok(tagged(StatusCode::OK, found.generation, &found))
}

/// Changes one.
#[utoipa::path(patch, path = "/tenants/{tenant}/users/{user}", tag = "people", operation_id = "updateUser",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("user" = String, Path, description = "Name or id"),
        ("if-match" = Option<String>, Header, description = "The ETag that was read")),
    request_body(content = UserSpec, content_type = "application/merge-patch+json", description = "JSON merge patch (RFC 7396)"),
    responses((status = 200, description = "Changed", body = User)))]
async fn user_update(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
    headers: HeaderMap,
    Json(patch): Json<Value>,
) -> Result<Response, Problem> {
    let found = app
        .fleet
        .people()
        .update(&caller, &name, if_match(&headers)?, &patch)
        .await?;
    Ok(tagged(StatusCode::OK, found.generation, &found))
}

/// Deletes one.
#[utoipa::path(delete, path = "/tenants/{tenant}/users/{user}", tag = "people", operation_id = "deleteUser",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("user" = String, Path, description = "Name or id"),
        ("if-match" = Option<String>, Header, description = "The ETag that was read")),
    responses((status = 204, description = "Gone")))]
async fn user_delete(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    app.fleet
        .people()
        .delete(&caller, &name, if_match(&headers)?)
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// All of them, in pages.
#[utoipa::path(get, path = "/tenants/{tenant}/bindings", tag = "people", operation_id = "listBindings",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), List),
    responses((status = 200, description = "A page", body = fleet::Page<Binding>)))]
async fn binding_list(
    State(app): State<Shared>,
    In(caller): In,
    Query(query): Query<List>,
) -> Result<Response, Problem> {
    let page = app.fleet.bindings().list(&caller, &query.into()).await?;
    Ok(axum::Json(page).into_response())
}

/// Makes one.
#[utoipa::path(post, path = "/tenants/{tenant}/bindings", tag = "people", operation_id = "createBinding",
    params(("tenant" = String, Path, description = "Tenant, by name or id"),
        ("idempotency-key" = Option<String>, Header, description = "Sent again with the same body, the answer is repeated, not the deed")),
    request_body = BindingSpec,
    responses((status = 201, description = "Made", body = Binding)))]
async fn binding_create(
    State(app): State<Shared>,
    In(caller): In,
    Json(spec): Json<BindingSpec>,
) -> Result<Response, Problem> {
    let made = app.fleet.bindings().create(&caller, &spec).await?;
    Ok(tagged(StatusCode::CREATED, made.generation, &made))
}

/// Reads one.
#[utoipa::path(get, path = "/tenants/{tenant}/bindings/{binding}", tag = "people", operation_id = "getBinding",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("binding" = String, Path, description = "Id")),
    responses((status = 200, description = "The object; its generation is the ETag", body = Binding)))]
async fn binding_get(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let found = app.fleet.bindings().get(&caller, &name).await?;
    Ok(tagged(StatusCode::OK, found.generation, &found))
}

/// Changes one.
#[utoipa::path(patch, path = "/tenants/{tenant}/bindings/{binding}", tag = "people", operation_id = "updateBinding",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("binding" = String, Path, description = "Id"),
        ("if-match" = Option<String>, Header, description = "The ETag that was read")),
    request_body(content = BindingSpec, content_type = "application/merge-patch+json", description = "JSON merge patch (RFC 7396)"),
    responses((status = 200, description = "Changed", body = Binding)))]
async fn binding_update(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
    headers: HeaderMap,
    Json(patch): Json<Value>,
) -> Result<Response, Problem> {
    let found = app
        .fleet
        .bindings()
        .update(&caller, &name, if_match(&headers)?, &patch)
        .await?;
    Ok(tagged(StatusCode::OK, found.generation, &found))
}

/// Deletes one.
#[utoipa::path(delete, path = "/tenants/{tenant}/bindings/{binding}", tag = "people", operation_id = "deleteBinding",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("binding" = String, Path, description = "Id"),
        ("if-match" = Option<String>, Header, description = "The ETag that was read")),
    responses((status = 204, description = "Gone")))]
async fn binding_delete(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    app.fleet
        .bindings()
        .delete(&caller, &name, if_match(&headers)?)
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
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
