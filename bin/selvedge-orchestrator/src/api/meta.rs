//! The API about itself.

use axum::{extract::State, response::IntoResponse, response::Response};
use serde::Serialize;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::Shared;

/// The endpoints.
pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(version))
        .routes(routes!(openapi))
}

/// What runs here.
#[derive(Serialize, utoipa::ToSchema)]
struct Version {
    /// The orchestrator's version.
    version: &'static str,
    /// How one may sign in elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    oidc: Option<OidcName>,
}

/// The provider.
#[derive(Serialize, utoipa::ToSchema)]
struct OidcName {
    /// For the button.
    name: String,
}

/// Which version runs, and how one may sign in.
#[utoipa::path(get, path = "/version", tag = "meta", operation_id = "getVersion",
    responses((status = 200, description = "Version", body = Version)))]
async fn version(State(app): State<Shared>) -> Response {
    axum::Json(Version {
        version: env!("CARGO_PKG_VERSION"),
        oidc: app.oidc.as_ref().map(|oidc| OidcName {
            name: oidc.name().to_owned(),
        }),
    })
    .into_response()
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "meta", operation_id = "getOpenApi",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)))]
async fn openapi() -> Response {
    axum::Json(super::document()).into_response()
}
