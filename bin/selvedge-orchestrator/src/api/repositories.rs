//! Repositories: registered once, checked, hosted here or elsewhere.

use axum::{
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use fleet::model::{Repository, RepositorySpec};
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
        .routes(routes!(list, create))
        .routes(routes!(get, update, delete))
        .routes(routes!(check))
        .routes(routes!(rotate))
        .merge(super::commits::router())
}

/// All of them, in pages.
#[utoipa::path(get, path = "/tenants/{tenant}/repositories", tag = "repositories", operation_id = "listRepositories",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), List),
    responses((status = 200, description = "A page", body = fleet::Page<Repository>)))]
async fn list(State(app): State<Shared>, In(caller): In, Query(query): Query<List>) -> Result<Response, Problem> {
    let page = app.fleet.repositories().list(&caller, &query.into()).await?;
    Ok(axum::Json(page).into_response())
}

/// Makes one.
#[utoipa::path(post, path = "/tenants/{tenant}/repositories", tag = "repositories", operation_id = "createRepository",
    params(("tenant" = String, Path, description = "Tenant, by name or id"),
        ("idempotency-key" = Option<String>, Header, description = "Sent again with the same body, the answer is repeated, not the deed")),
    request_body = RepositorySpec,
    responses((status = 201, description = "Made", body = Repository)))]
async fn create(State(app): State<Shared>, In(caller): In, Json(spec): Json<RepositorySpec>) -> Result<Response, Problem> {
    if !spec.hosted && !spec.url.is_empty() {
        crate::git::remote::scheme(&spec.url).map_err(|error| Problem::invalid("url", error.to_string()))?;
    }
    let made = app.fleet.repositories().create(&caller, &spec).await?;
    if made.hosted {
        let tenant = app.fleet.tenants().get(&caller, &caller.tenant).await?.name;
        let url = format!("{}/git/{tenant}/{}.git", app.config.url(), made.name);
        app.fleet
            .repositories()
            .set_url(&caller.tenant, &made.id, &url)
            .await?;
        app.git
            .create(&caller.tenant, &made.id, &made.branch)
            .await
            .map_err(|error| Problem::internal(&error))?;
    }
    crate::tasks::poll::soon(&app, &caller.tenant, &made);
    answer(&app, &caller, &made.id, StatusCode::CREATED).await
}

/// Reads one.
#[utoipa::path(get, path = "/tenants/{tenant}/repositories/{repository}", tag = "repositories", operation_id = "getRepository",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("repository" = String, Path, description = "Name or id")),
    responses((status = 200, description = "The object; its generation is the ETag", body = Repository)))]
async fn get(State(app): State<Shared>, In(caller): In, Path((_, name)): Path<(String, String)>) -> Result<Response, Problem> {
    answer(&app, &caller, &name, StatusCode::OK).await
}

/// Changes one.
#[utoipa::path(patch, path = "/tenants/{tenant}/repositories/{repository}", tag = "repositories", operation_id = "updateRepository",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("repository" = String, Path, description = "Name or id"),
        ("if-match" = Option<String>, Header, description = "The ETag that was read")),
    request_body(content = RepositorySpec, content_type = "application/merge-patch+json", description = "JSON merge patch (RFC 7396)"),
    responses((status = 200, description = "Changed", body = Repository)))]
async fn update(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
    headers: HeaderMap,
    Json(patch): Json<Value>,
) -> Result<Response, Problem> {
    if let Some(url) = patch.get("url").and_then(Value::as_str) {
        crate::git::remote::scheme(url).map_err(|error| Problem::invalid("url", error.to_string()))?;
    }
    let found = app
        .fleet
        .repositories()
        .update(&caller, &name, if_match(&headers)?, &patch)
        .await?;
    crate::tasks::poll::soon(&app, &caller.tenant, &found);
    answer(&app, &caller, &found.id, StatusCode::OK).await
}

/// Deletes one.
#[utoipa::path(delete, path = "/tenants/{tenant}/repositories/{repository}", tag = "repositories", operation_id = "deleteRepository",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("repository" = String, Path, description = "Name or id"),
        ("if-match" = Option<String>, Header, description = "The ETag that was read")),
    responses((status = 204, description = "Gone")))]
async fn delete(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let found = app.fleet.repositories().get(&caller, &name).await?;
    app.fleet
        .repositories()
        .delete(&caller, &found.id, if_match(&headers)?)
        .await?;
    app.git.remove(&caller.tenant, &found.id).await;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Looks whether the repository can be reached, now.
#[utoipa::path(post, path = "/tenants/{tenant}/repositories/{repository}/check", tag = "repositories", operation_id = "checkRepository",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("repository" = String, Path, description = "Name or id")),
    responses((status = 200, description = "What was found is in `reach` and `head`", body = Repository)))]
async fn check(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    caller.require(fleet::Role::Operator)?;
    let found = app.fleet.repositories().get(&caller, &name).await?;
    crate::tasks::poll::look(&app, &caller.tenant, &found, true).await?;
    answer(&app, &caller, &found.id, StatusCode::OK).await
}

/// Makes a new webhook secret; the old URL stops working.
#[utoipa::path(post, path = "/tenants/{tenant}/repositories/{repository}/webhook/rotate", tag = "repositories", operation_id = "rotateWebhook",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("repository" = String, Path, description = "Name or id")),
    responses((status = 200, description = "With its new `webhookUrl`", body = Repository)))]
async fn rotate(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let found = app.fleet.repositories().rotate_webhook(&caller, &name).await?;
    answer(&app, &caller, &found.id, StatusCode::OK).await
}

/// The repository as it is now, with what only the server knows.
async fn answer(
    app: &Shared,
    caller: &fleet::Caller,
    id: &str,
    status: StatusCode,
) -> Result<Response, Problem> {
    let found = shown(app, caller, app.fleet.repositories().get(caller, id).await?).await?;
    Ok(tagged(status, found.generation, &found))
}

/// Adds the webhook's URL for those who may change the repository: it holds a secret.
async fn shown(app: &Shared, caller: &fleet::Caller, mut found: Repository) -> Result<Repository, Problem> {
    found.webhook_url = if caller.role() >= Some(fleet::Role::Owner) {
        let secret = app
            .fleet
            .repositories()
            .webhook_secret(&caller.tenant, &found.id)
            .await?;
        let tenant = app.fleet.tenants().get(caller, &caller.tenant).await?.name;
        format!("{}/hooks/{tenant}/{}/{secret}", app.config.url(), found.name)
    } else {
        String::new()
    };
    Ok(found)
}
