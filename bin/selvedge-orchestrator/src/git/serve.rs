//! `/git/TENANT/REPOSITORY.git/…`: who may pull and push what is hosted here.
//!
//! | user name | password | may |
//! |---|---|---|
//! | anything | API token (`slv_…`) | pull as viewer, push as operator of the whole tenant |
//! | anything | credential of this repository (`slv_…` too) | pull; push if it was made so |
//! | `host-ID` | the host's own, from its assignment | pull the repository of its site |

use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use fleet::{Role, model::Repository};

use super::{
    backend::{self, ask},
    credential,
};
use crate::{
    app::Shared,
    hooks::same,
    http::{auth::address, problem::Problem},
};

/// The routes.
pub(crate) fn router() -> Router<Shared> {
    Router::new().route("/git/{tenant}/{repository}/{*rest}", any(serve))
}

async fn serve(
    State(app): State<Shared>,
    Path((tenant, repository, rest)): Path<(String, String, String)>,
    request: Request,
) -> Response {
    answer(&app, &tenant, &repository, &rest, request)
        .await
        .unwrap_or_else(IntoResponse::into_response)
}

async fn answer(
    app: &Shared,
    tenant: &str,
    repository: &str,
    rest: &str,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default();
    let Some((asked, write)) = ask(&parts.method, rest, query) else {
        return Err(Problem::not_found());
    };
    let name = repository.strip_suffix(".git").ok_or_else(Problem::not_found)?;
    let (user, password) = basic(&parts.headers).ok_or_else(|| {
        Problem::unauthorized("send an API token or a credential of the repository as the password").basic()
    })?;
    let from = address(&parts, &app.config);
    let (tenant, found, who) = allow(app, tenant, name, &user, &password, write, &from).await?;
    // It is not there after a restore of the database alone, or when the disk was full as the repository was made.
    if let Err(error) = app.git.create(&tenant, &found.id, &found.branch).await {
        tracing::warn!(repository = found.name, %error, "a repository's folder can't be made");
    }
    let (told, id, branch) = (app.clone(), found.id.clone(), tenant.clone());
    let pushed = move || {
        tokio::spawn(async move {
            crate::tasks::poll::pushed(&told, &branch, &id).await;
        });
    };
    let served = backend::serve(
        &app.git,
        backend::Request {
            tenant: &tenant,
            repository: &found.id,
            ask: asked,
            query,
            headers: &parts.headers,
            user: &who,
            body,
        },
        pushed,
    );
    let response = served.await.map_err(|error| {
        tracing::warn!(repository = found.name, error = %telemetry::chain(&error), "git could not be served");
        Problem::busy(
            StatusCode::SERVICE_UNAVAILABLE,
            "the repository can't be served now",
            5,
        )
    })?;
    Ok(response.map(Body::new))
}

/// Whether these credentials may do it: the tenant's id, the repository, and who it is.
async fn allow(
    app: &Shared,
    tenant: &str,
    name: &str,
    user: &str,
    password: &str,
    write: bool,
    from: &str,
) -> Result<(String, Repository, String), Problem> {
    let refused = || Problem::unauthorized("this name and password open no such repository").basic();
    let found = app.fleet.tenants().find(tenant).await?.ok_or_else(refused)?;
    let system = fleet::Caller::system(&found.id, "git");
    let repository = match app.fleet.repositories().get(&system, name).await {
        Ok(repository) if repository.hosted => repository,
        Ok(_) | Err(fleet::Error::NotFound { .. }) => return Err(refused()),
        Err(error) => return Err(error.into()),
    };
    if password.starts_with("slv_") {
        let caller = match app.fleet.tokens().authenticate(password, from).await {
            Ok(caller) if caller.tenant == found.id => caller,
            Ok(_) | Err(fleet::Error::Unauthenticated) => return Err(refused()),
            Err(error) => return Err(error.into()),
        };
        match credential::of(&caller) {
            Some((id, _)) if id != repository.id => return Err(refused()),
            Some((_, role)) if write && role < Role::Operator => {
                return Err(Problem::forbidden("this credential only pulls"));
            }
            Some(_) => {}
            None if write => caller.require(Role::Operator)?,
            None => caller.require_anywhere(Role::Viewer)?,
        }
        return Ok((found.id, repository, caller.actor));
    }
    if let Some(host) = user.strip_prefix("host-") {
        let (_, right) = crate::links::tell::git_credential(app, host);
        if !same(password, &right) {
            return Err(refused());
        }
        // The MAC says which host it is; the assignment says what it may see, and is none for one that was revoked.
        let assigned = app.fleet.assignments().of(&found.id, host).await?;
        let its = assigned
            .and_then(|numbered| numbered.assignment.source)
            .is_some_and(|source| source.url == repository.url);
        if !its {
            return Err(refused());
        }
        if write {
            return Err(Problem::forbidden("hosts only pull"));
        }
        return Ok((found.id, repository, user.to_owned()));
    }
    Err(refused())
}

/// Name and password.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some((String::new(), rest.trim().to_owned()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let both = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (user, password) = both.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}
