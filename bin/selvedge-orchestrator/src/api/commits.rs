//! Commits of a repository, and how many sites are at each.

use std::collections::HashMap;

use axum::{
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::Shared,
    git,
    http::{auth::In, problem::Problem},
};

/// The endpoints.
pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Which commits.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Branch, tag or commit to begin at; the repository's branch if nothing is said.
    branch: Option<String>,
    /// At most so many, 200 at the most.
    limit: Option<usize>,
}

/// A commit of a list.
#[derive(Serialize, utoipa::ToSchema)]
struct Line {
    #[serde(flatten)]
    commit: git::Commit,
    /// Sites whose hosts are all at it.
    sites: i64,
}

/// Commits.
#[derive(Serialize, utoipa::ToSchema)]
struct Lines {
    /// Newest first.
    items: Vec<Line>,
    /// Always null: ask for more with `limit`, or begin at an older commit.
    next: Option<String>,
    /// How many are here.
    total: usize,
}

/// The newest commits of a branch.
#[utoipa::path(get, path = "/tenants/{tenant}/repositories/{repository}/commits", tag = "repositories", operation_id = "listCommits",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("repository" = String, Path, description = "Name or id"), Which),
    responses((status = 200, description = "Commits", body = Lines)))]
async fn list(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
    Query(which): Query<Which>,
) -> Result<Response, Problem> {
    let repository = app.fleet.repositories().get(&caller, &name).await?;
    let branch = which.branch.unwrap_or_else(|| repository.branch.clone());
    let folder = crate::tasks::poll::folder(&app, &caller.tenant, &repository);
    let limit = which.limit.unwrap_or(50).clamp(1, 200);
    let commits = if folder.join("HEAD").exists() {
        git::log(&folder, &branch, limit)
            .await
            .map_err(|error| Problem::invalid("branch", error.to_string()))?
    } else {
        Vec::new()
    };
    let at = sites_at(&app, &caller, &repository.id).await?;
    let items: Vec<Line> = commits
        .into_iter()
        .map(|commit| Line {
            sites: at.get(&commit.commit).copied().unwrap_or_default(),
            commit,
        })
        .collect();
    let total = items.len();
    Ok(axum::Json(Lines {
        items,
        next: None,
        total,
    })
    .into_response())
}

/// How many sites that the caller may see are at each commit.
async fn sites_at(
    app: &Shared,
    caller: &fleet::Caller,
    repository: &str,
) -> Result<HashMap<String, i64>, Problem> {
    let mut sql = fleet::db::Sql::new(
        "SELECT s.applied,COUNT(*) FROM site s WHERE s.applied IS NOT NULL AND s.tenant=",
    );
    sql.bind(caller.tenant.as_str())
        .push(" AND s.repository=")
        .bind(repository);
    caller.restrict(fleet::Role::Viewer, "s", &mut sql);
    sql.push(" GROUP BY s.applied");
    let rows = app.fleet.db().query(sql).await?;
    Ok(rows.iter().map(|row| (row.text(0), row.int(1))).collect())
}
