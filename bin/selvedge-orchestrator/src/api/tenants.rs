//! Tenants. Most callers see one: their own.

use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use fleet::model::{Tenant, TenantSpec};
use serde_json::Value;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::Shared,
    http::{
        auth::{In, Who},
        body::Json,
        conditional::{if_match, tagged},
        problem::Problem,
    },
};

/// The endpoints.
pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, update, delete))
}

/// Tenants that the caller may see.
#[utoipa::path(get, path = "/tenants", tag = "tenants", operation_id = "listTenants",
    responses((status = 200, description = "All of them", body = fleet::Page<Tenant>)))]
async fn list(State(app): State<Shared>, who: Who) -> Result<Response, Problem> {
    let caller = who.at_home(&app).await?;
    let items = app.fleet.tenants().list(&caller).await?;
    let total = i64::try_from(items.len()).unwrap_or(i64::MAX);
    Ok(axum::Json(fleet::Page {
        items,
        next: None,
        total,
    })
    .into_response())
}

/// Makes a tenant; for administrators of the platform.
#[utoipa::path(post, path = "/tenants", tag = "tenants", operation_id = "createTenant",
    request_body = TenantSpec,
    responses((status = 201, description = "Made", body = Tenant)))]
async fn create(
    State(app): State<Shared>,
    who: Who,
    Json(spec): Json<TenantSpec>,
) -> Result<Response, Problem> {
    let caller = who.at_home(&app).await?;
    let tenant = app.fleet.tenants().create(&caller, &spec).await?;
    crate::links::trust::refresh(&app).await?;
    Ok(tagged(StatusCode::CREATED, tenant.generation, &tenant))
}

/// One tenant.
#[utoipa::path(get, path = "/tenants/{tenant}", tag = "tenants", operation_id = "getTenant",
    params(("tenant" = String, Path, description = "Name or id")),
    responses((status = 200, description = "The tenant", body = Tenant)))]
async fn get(State(app): State<Shared>, In(caller): In) -> Result<Response, Problem> {
    let tenant = app.fleet.tenants().get(&caller, &caller.tenant).await?;
    Ok(tagged(StatusCode::OK, tenant.generation, &tenant))
}

/// Changes a tenant.
#[utoipa::path(patch, path = "/tenants/{tenant}", tag = "tenants", operation_id = "updateTenant",
    params(("tenant" = String, Path, description = "Name or id"), ("if-match" = Option<String>, Header, description = "The ETag that was read")),
    request_body(content = TenantSpec, content_type = "application/merge-patch+json"),
    responses((status = 200, description = "Changed", body = Tenant)))]
async fn update(
    State(app): State<Shared>,
    In(caller): In,
    headers: HeaderMap,
    Json(patch): Json<Value>,
) -> Result<Response, Problem> {
    let tenant = app
        .fleet
        .tenants()
        .update(&caller, &caller.tenant, if_match(&headers)?, &patch)
        .await?;
    Ok(tagged(StatusCode::OK, tenant.generation, &tenant))
}

/// Deletes a tenant with all that is in it; for administrators of the platform.
#[utoipa::path(delete, path = "/tenants/{tenant}", tag = "tenants", operation_id = "deleteTenant",
    params(("tenant" = String, Path, description = "Name or id"), ("if-match" = Option<String>, Header, description = "The ETag that was read")),
    responses((status = 204, description = "Gone")))]
async fn delete(
    State(app): State<Shared>,
    In(caller): In,
    Path(_): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    app.fleet
        .tenants()
        .delete(&caller, &caller.tenant, if_match(&headers)?)
        .await?;
    app.links.cut_tenant(&caller.tenant);
    crate::links::trust::refresh(&app).await?;
    app.git.remove_tenant(&caller.tenant).await;
    Ok(StatusCode::NO_CONTENT.into_response())
}
