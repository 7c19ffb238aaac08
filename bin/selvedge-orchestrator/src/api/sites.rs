//! Sites: places with a folder in a repository.

use axum::{
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use fleet::model::{Site, SiteSpec};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
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
        .routes(routes!(geo))
        .routes(routes!(get, update, delete))
        .routes(routes!(events))
        .routes(routes!(signal))
}

/// All of them, in pages.
#[utoipa::path(get, path = "/tenants/{tenant}/sites", tag = "sites", operation_id = "listSites",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), List),
    responses((status = 200, description = "A page", body = fleet::Page<Site>)))]
async fn list(
    State(app): State<Shared>,
    In(caller): In,
    Query(query): Query<List>,
) -> Result<Response, Problem> {
    let page = app.fleet.sites().list(&caller, &query.into()).await?;
    Ok(axum::Json(page).into_response())
}

/// Makes one.
#[utoipa::path(post, path = "/tenants/{tenant}/sites", tag = "sites", operation_id = "createSite",
    params(("tenant" = String, Path, description = "Tenant, by name or id"),
        ("idempotency-key" = Option<String>, Header, description = "Sent again with the same body, the answer is repeated, not the deed")),
    request_body = SiteSpec,
    responses((status = 201, description = "Made", body = Site)))]
async fn create(
    State(app): State<Shared>,
    In(caller): In,
    Json(spec): Json<SiteSpec>,
) -> Result<Response, Problem> {
    let made = app.fleet.sites().create(&caller, &spec).await?;
    Ok(tagged(StatusCode::CREATED, made.generation, &made))
}

/// Reads one.
#[utoipa::path(get, path = "/tenants/{tenant}/sites/{site}", tag = "sites", operation_id = "getSite",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("site" = String, Path, description = "Name or id")),
    responses((status = 200, description = "The object; its generation is the ETag", body = Site)))]
async fn get(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let found = app.fleet.sites().get(&caller, &name).await?;
    Ok(tagged(StatusCode::OK, found.generation, &found))
}

/// Changes one.
#[utoipa::path(patch, path = "/tenants/{tenant}/sites/{site}", tag = "sites", operation_id = "updateSite",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("site" = String, Path, description = "Name or id"),
        ("if-match" = Option<String>, Header, description = "The ETag that was read")),
    request_body(content = SiteSpec, content_type = "application/merge-patch+json", description = "JSON merge patch (RFC 7396)"),
    responses((status = 200, description = "Changed", body = Site)))]
async fn update(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
    headers: HeaderMap,
    Json(patch): Json<Value>,
) -> Result<Response, Problem> {
    let found = app
        .fleet
        .sites()
        .update(&caller, &name, if_match(&headers)?, &patch)
        .await?;
    Ok(tagged(StatusCode::OK, found.generation, &found))
}

/// Deletes one.
#[utoipa::path(delete, path = "/tenants/{tenant}/sites/{site}", tag = "sites", operation_id = "deleteSite",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("site" = String, Path, description = "Name or id"),
        ("if-match" = Option<String>, Header, description = "The ETag that was read")),
    responses((status = 204, description = "Gone")))]
async fn delete(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    app.fleet
        .sites()
        .delete(&caller, &name, if_match(&headers)?)
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// All sites with a place, compactly, for the map: `[id, name, latitude, longitude, state]` each.
#[utoipa::path(get, path = "/tenants/{tenant}/sites/geo", tag = "sites", operation_id = "listSitePlaces",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), List),
    responses((status = 200, description = "Rows", body = Vec<Value>)))]
async fn geo(
    State(app): State<Shared>,
    In(caller): In,
    Query(query): Query<List>,
) -> Result<Response, Problem> {
    let rows = app.fleet.sites().geo(&caller, &query.into()).await?;
    Ok(axum::Json(rows).into_response())
}

/// What the hosts of a site reported that happened, newest first.
#[utoipa::path(get, path = "/tenants/{tenant}/sites/{site}/events", tag = "sites", operation_id = "listSiteEvents",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("site" = String, Path, description = "Name or id"), List),
    responses((status = 200, description = "A page", body = fleet::Page<fleet::model::HostEvent>)))]
async fn events(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
    Query(query): Query<List>,
) -> Result<Response, Problem> {
    let events = app.fleet.sites().events(&caller, &name, query.limit()).await?;
    Ok(axum::Json(whole(events)).into_response())
}

/// Something that hosts shall do now.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SignalSpec {
    /// `fetch` (look at Git) or `reconcile` (go through everything).
    pub(super) what: What,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum What {
    /// Look at Git.
    Fetch,
    /// Go through everything.
    Reconcile,
}

impl From<What> for link::message::Signal {
    fn from(what: What) -> Self {
        match what {
            What::Fetch => Self::Fetch,
            What::Reconcile => Self::Reconcile,
        }
    }
}

/// How many hosts heard a signal.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Signalled {
    /// Hosts that were connected and were told.
    pub(super) told: usize,
    /// Hosts that are not connected.
    pub(super) offline: usize,
}

/// Tells the hosts of a site to do something now.
#[utoipa::path(post, path = "/tenants/{tenant}/sites/{site}/signal", tag = "sites", operation_id = "signalSite",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("site" = String, Path, description = "Name or id")),
    request_body = SignalSpec,
    responses((status = 200, description = "Told", body = Signalled)))]
async fn signal(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
    Json(spec): Json<SignalSpec>,
) -> Result<Response, Problem> {
    let site = app.fleet.sites().get(&caller, &name).await?;
    caller.require_at(fleet::Role::Operator, &site.name, &site.labels)?;
    let hosts = app
        .fleet
        .assignments()
        .hosts_of(&caller.tenant, "site", &site.id)
        .await?;
    let mut signalled = Signalled { told: 0, offline: 0 };
    for host in hosts {
        if crate::links::reach::signal(&app, &caller.tenant, &host, spec.what.into()).await {
            signalled.told += 1;
        } else {
            signalled.offline += 1;
        }
    }
    app.fleet
        .audit()
        .note(
            &caller,
            "site.signal",
            &object("site", &site.id, &site.name),
            Some(&json!(spec.what)),
        )
        .await?;
    Ok(axum::Json(signalled).into_response())
}

/// A list that is whole.
pub(super) fn whole<T>(items: Vec<T>) -> fleet::Page<T> {
    fleet::Page {
        total: i64::try_from(items.len()).unwrap_or(i64::MAX),
        items,
        next: None,
    }
}

/// Names an object in the audit log.
pub(super) fn object(kind: &str, id: &str, name: &str) -> fleet::model::ObjectRef {
    fleet::model::ObjectRef {
        kind: kind.to_owned(),
        id: id.to_owned(),
        name: name.to_owned(),
    }
}
