//! Repositories: registered once, checked, hosted here or elsewhere.

use axum::{
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use fleet::model::{Repository, RepositorySpec, Token, TokenSpec};
use serde_json::Value;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::Shared,
    git::credential,
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
        .routes(routes!(credentials, credential_create))
        .routes(routes!(credential_delete))
        .merge(super::commits::router())
}

/// All of them, in pages.
#[utoipa::path(get, path = "/tenants/{tenant}/repositories", tag = "repositories", operation_id = "listRepositories",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), List),
    responses((status = 200, description = "A page", body = fleet::Page<Repository>)))]
async fn list(
    State(app): State<Shared>,
    In(caller): In,
    Query(query): Query<List>,
) -> Result<Response, Problem> {
    let page = app.fleet.repositories().list(&caller, &query.into()).await?;
    Ok(axum::Json(page).into_response())
}

/// Makes one.
#[utoipa::path(post, path = "/tenants/{tenant}/repositories", tag = "repositories", operation_id = "createRepository",
    params(("tenant" = String, Path, description = "Tenant, by name or id"),
        ("idempotency-key" = Option<String>, Header, description = "Sent again with the same body, the answer is repeated, not the deed")),
    request_body = RepositorySpec,
    responses((status = 201, description = "Made", body = Repository)))]
async fn create(
    State(app): State<Shared>,
    In(caller): In,
    Json(spec): Json<RepositorySpec>,
) -> Result<Response, Problem> {
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
async fn get(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
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

/// A credential to make.
#[derive(serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GitCredentialSpec {
    /// For people; unique at the repository.
    name: String,
    /// Whether it may push.
    #[serde(default)]
    write: bool,
    /// When it ends by itself.
    #[serde(default)]
    expires_at: Option<fleet::model::Time>,
}

/// A credential of a hosted repository.
#[derive(serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct GitCredential {
    /// Its id; a credential is a token that opens only this repository.
    id: String,
    /// What Git is given as user name.
    username: String,
    /// What Git is given as password; only in the answer that makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
    /// Where to push and pull.
    url: String,
    /// Whether it may push.
    write: bool,
    /// When it ends by itself.
    expires_at: Option<fleet::model::Time>,
    /// When it was used last, to about a minute.
    last_used_at: Option<fleet::model::Time>,
}

impl GitCredential {
    fn new(token: Token, url: &str) -> Self {
        Self {
            id: token.id,
            username: token.name,
            password: token.secret,
            url: url.to_owned(),
            write: token.role >= fleet::Role::Operator,
            expires_at: token.expires_at,
            last_used_at: token.last_used_at,
        }
    }
}

/// Credentials for a hosted repository, without their secrets.
#[utoipa::path(get, path = "/tenants/{tenant}/repositories/{repository}/credentials", tag = "repositories", operation_id = "listGitCredentials",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("repository" = String, Path, description = "Name or id")),
    responses((status = 200, description = "All of them", body = fleet::Page<GitCredential>)))]
async fn credentials(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let repository = app.fleet.repositories().get(&caller, &name).await?;
    let mut query = fleet::Query {
        limit: 1_000,
        ..fleet::Query::default()
    };
    let mut found = Vec::new();
    loop {
        let page = app.fleet.tokens().list(&caller, &query).await?;
        for token in page.items {
            if credential::repository(&token.scope).as_deref() == Some(&repository.id) {
                found.push(GitCredential::new(token, &repository.url));
            }
        }
        query.cursor = page.next;
        if query.cursor.is_none() {
            break;
        }
    }
    Ok(axum::Json(super::sites::whole(found)).into_response())
}

/// Makes a credential for a hosted repository: for people who push and programs that pull.
#[utoipa::path(post, path = "/tenants/{tenant}/repositories/{repository}/credentials", tag = "repositories", operation_id = "createGitCredential",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("repository" = String, Path, description = "Name or id")),
    request_body = GitCredentialSpec,
    responses((status = 201, description = "The only time that its password is shown", body = GitCredential)))]
async fn credential_create(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
    Json(spec): Json<GitCredentialSpec>,
) -> Result<Response, Problem> {
    let repository = app.fleet.repositories().get(&caller, &name).await?;
    caller.require(fleet::Role::Owner)?;
    if !repository.hosted {
        return Err(Problem::conflict(format!(
            "{} is hosted elsewhere: its own server gives credentials",
            repository.name
        )));
    }
    let token = TokenSpec {
        name: format!("git-{}-{}", repository.name, spec.name),
        role: if spec.write {
            fleet::Role::Operator
        } else {
            fleet::Role::Viewer
        },
        scope: credential::scope(&repository.id)?,
        expires_at: spec.expires_at,
    };
    let made = app.fleet.tokens().create(&caller, &token).await?;
    let made = GitCredential::new(made, &repository.url);
    Ok((StatusCode::CREATED, axum::Json(made)).into_response())
}

/// Takes a credential away.
#[utoipa::path(delete, path = "/tenants/{tenant}/repositories/{repository}/credentials/{credential}", tag = "repositories", operation_id = "deleteGitCredential",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("repository" = String, Path, description = "Name or id"), ("credential" = String, Path, description = "Id")),
    responses((status = 204, description = "Gone")))]
async fn credential_delete(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name, id)): Path<(String, String, String)>,
) -> Result<Response, Problem> {
    let repository = app.fleet.repositories().get(&caller, &name).await?;
    caller.require(fleet::Role::Owner)?;
    let token = app.fleet.tokens().get(&caller, &id).await?;
    if credential::repository(&token.scope).as_deref() != Some(&repository.id) {
        return Err(fleet::Error::not_found("credential", id).into());
    }
    app.fleet.tokens().delete(&caller, &token.id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
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
