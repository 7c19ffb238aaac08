//! Sites: places with a folder in a repository.

use axum::{
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::crud::crud;
use crate::{
    app::Shared,
    http::{auth::In, body::Json, list::List, problem::Problem},
};

crud! {
    mod objects: sites of Site by SiteSpec, tag "sites",
    at "/tenants/{tenant}/sites", "/tenants/{tenant}/sites/{site}" with "site" ("Name or id"),
    "listSites", "createSite", "getSite", "updateSite", "deleteSite"
}

/// The endpoints.
pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .merge(objects::router())
        .routes(routes!(geo))
        .routes(routes!(events))
        .routes(routes!(signal))
}

/// All sites with a place, compactly, for the map: `[id, name, latitude, longitude, state]` each.
#[utoipa::path(get, path = "/tenants/{tenant}/sites/geo", tag = "sites", operation_id = "listSitePlaces",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), List),
    responses((status = 200, description = "Rows", body = Vec<serde_json::Value>)))]
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
        .hosts_of(&caller.tenant, "site", [site.id.as_str()])
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
