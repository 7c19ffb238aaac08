//! The API under `/api/v1`: one module for each group of endpoints, and the document that describes them all.
//!
//! A handler reads the request, asks one room of the fleet, and answers. Who may do what is the fleet's to say.

mod alerts;
mod commits;
mod crud;
mod diff;
mod enrollment;
mod export;
mod hosts;
mod meta;
mod overview;
mod people;
mod repositories;
mod session;
mod sites;
mod steering;
mod stream;
mod tenants;

use axum::{Router, extract::DefaultBodyLimit, middleware};
use utoipa::{
    OpenApi,
    openapi::{
        ContentBuilder, InfoBuilder, Ref, ResponseBuilder, SecurityRequirement,
        path::{HttpMethod, Operation},
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;

use crate::{app::Shared, http::idempotency};

#[derive(OpenApi)]
#[openapi(components(schemas(crate::http::problem::Said)))]
struct Base;

/// All endpoints, and their document.
fn endpoints(app: Option<&Shared>) -> OpenApiRouter<Shared> {
    let mut tenant = OpenApiRouter::new()
        .merge(people::router())
        .merge(repositories::router())
        .merge(sites::router())
        .merge(diff::router())
        .merge(hosts::router())
        .merge(enrollment::router())
        .merge(steering::router())
        .merge(overview::router())
        .merge(alerts::router())
        .merge(stream::router());
    if let Some(app) = app {
        tenant = tenant.route_layer(middleware::from_fn_with_state(app.clone(), idempotency::layer));
    }
    OpenApiRouter::with_openapi(Base::openapi())
        .merge(tenant)
        // Strangers ask here: they get room for a name and a password.
        .merge(session::router().layer(DefaultBodyLimit::max(session::BODY)))
        .merge(tenants::router())
        .merge(meta::router())
}

/// The routes, ready to serve under `/api/v1`.
pub(crate) fn router(app: &Shared) -> Router<Shared> {
    let (router, _) = endpoints(Some(app)).split_for_parts();
    router
}

/// The OpenAPI document.
pub(crate) fn document() -> utoipa::openapi::OpenApi {
    let (_, inner) = endpoints(None).split_for_parts();
    let mut document = inner;
    document.info = InfoBuilder::new()
        .title("Selvedge orchestrator")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Enrols, sees and steers a fleet of sites. Lists are pages (`limit`, `cursor`); single objects carry their \
             generation as `ETag`, and changes honour `If-Match`; a POST honours `Idempotency-Key`; errors are \
             `application/problem+json`. Another tenant's object and one that is not there are the same 404.",
        ))
        .license(Some(utoipa::openapi::LicenseBuilder::new().name("Apache-2.0").build()))
        .build();
    document.servers = Some(vec![utoipa::openapi::Server::new("/api/v1")]);
    let components = document.components.get_or_insert_default();
    components.add_security_scheme(
        "session",
        SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(crate::http::auth::COOKIE))),
    );
    components.add_security_scheme(
        "token",
        SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()),
    );
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in [
            (HttpMethod::Get, &mut item.get),
            (HttpMethod::Post, &mut item.post),
            (HttpMethod::Put, &mut item.put),
            (HttpMethod::Patch, &mut item.patch),
            (HttpMethod::Delete, &mut item.delete),
        ] {
            if let Some(operation) = operation {
                describe(path, &method, operation);
            }
        }
    }
    document
}

/// Endpoints that need no credentials.
const OPEN: [&str; 5] = [
    "/session",
    "/oidc/start",
    "/oidc/callback",
    "/openapi.json",
    "/version",
];

/// What every operation has: who may call it, and how errors look.
fn describe(path: &str, method: &HttpMethod, operation: &mut Operation) {
    let open = OPEN.contains(&path) && !(path == "/session" && *method == HttpMethod::Delete);
    if !open {
        operation.security = Some(vec![
            SecurityRequirement::new::<_, [&str; 0], &str>("token", []),
            SecurityRequirement::new::<_, [&str; 0], &str>("session", []),
        ]);
    }
    let problem = ResponseBuilder::new()
        .description("Refused; `detail` says why and `next` what to do.")
        .content(
            "application/problem+json",
            ContentBuilder::new()
                .schema(Some(Ref::from_schema_name("Problem")))
                .build(),
        )
        .build();
    operation
        .responses
        .responses
        .insert("default".to_owned(), problem.into());
}
