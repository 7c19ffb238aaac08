//! What a site's hosts would have to change to be as Git wants them.

use std::path::PathBuf;

use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use fleet::{
    model::{Host, ObjectPlan, Phase, Site},
    plan::{HostState, Planner, SiteInput},
};
use serde::Serialize;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::Shared,
    http::{auth::In, problem::Problem},
};

/// The endpoints.
pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(diff))
}

/// The difference between wanted and applied.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct Diff {
    /// The commit that is wanted.
    wanted: Option<String>,
    /// The commit that all hosts are at.
    applied: Option<String>,
    /// The hosts.
    hosts: Vec<HostDiff>,
}

/// The difference at one host.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct HostDiff {
    /// Its name.
    host: String,
    /// The commit it is at.
    applied: Option<String>,
    /// `none`, `maintenance` or `reboot`.
    impact: String,
    /// Objects that differ.
    objects: Vec<ObjectPlan>,
    /// Why it can't be told.
    errors: Vec<String>,
}

/// What differs between what Git wants and what is applied, host by host.
#[utoipa::path(get, path = "/tenants/{tenant}/sites/{site}/diff", tag = "sites", operation_id = "getSiteDiff",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("site" = String, Path, description = "Name or id")),
    responses((status = 200, description = "The difference", body = Diff)))]
async fn diff(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let site = app.fleet.sites().get(&caller, &name).await?;
    let query = fleet::Query {
        site: Some(site.id.clone()),
        limit: 100,
        ..fleet::Query::default()
    };
    let mut hosts = app.fleet.hosts().list(&caller, &query).await?.items;
    hosts.retain(|host| host.phase == Phase::Enrolled);
    let folder = match &site.repository {
        Some(repository) => {
            let repository = app.fleet.repositories().get(&caller, repository).await?;
            Some(crate::tasks::poll::folder(&app, &caller.tenant, &repository))
        }
        None => None,
    };
    let (wanted, applied) = (site.desired.clone(), site.applied.clone());
    let now = app.clock.now();
    let compared = tokio::task::spawn_blocking(move || {
        hosts
            .into_iter()
            .map(|host| compare(&site, host, folder.as_ref(), now))
            .collect::<Vec<_>>()
    });
    let hosts = compared.await.map_err(|error| Problem::internal(&error))?;
    Ok(axum::Json(Diff {
        wanted,
        applied,
        hosts,
    })
    .into_response())
}

fn compare(site: &Site, host: Host, folder: Option<&PathBuf>, now: jiff::Timestamp) -> HostDiff {
    let mut diff = HostDiff {
        host: host.name.clone(),
        applied: host.applied.clone(),
        impact: "none".to_owned(),
        objects: Vec::new(),
        errors: Vec::new(),
    };
    let (Some(folder), Some(wanted)) = (folder, &site.desired) else {
        diff.errors
            .push("the site has no commit that it should be at".to_owned());
        return diff;
    };
    let Some(applied) = host.applied else {
        diff.errors
            .push("the host has not said what it has applied".to_owned());
        return diff;
    };
    if applied == *wanted {
        return diff;
    }
    match Planner::open(folder, &applied, wanted, now) {
        Ok(mut planner) => {
            let input = SiteInput {
                name: site.name.clone(),
                path: site.path.clone(),
                applied: Some(applied.clone()),
                variables: site.variables.clone(),
                secret_variables: site.secret_variables.clone(),
            };
            let state = HostState {
                name: host.name,
                ..HostState::default()
            };
            let plan = planner.site(&input, &applied, &[state]);
            diff.impact = plan.impact;
            diff.objects = plan.objects;
            diff.errors = plan.errors;
        }
        Err(error) => diff.errors.push(telemetry::chain(&error).to_string()),
    }
    diff
}
