//! HTTP: what all answers have in common, and the router that puts all parts together.

pub(crate) mod auth;
pub(crate) mod body;
pub(crate) mod conditional;
pub(crate) mod headers;
pub(crate) mod idempotency;
pub(crate) mod list;
pub(crate) mod page;
pub(crate) mod problem;
mod refusal;

use axum::{Router, extract::DefaultBodyLimit, middleware};

use crate::{api, app::Shared, enrol, git, hooks, metrics, tunnel};

/// Everything that is spoken over HTTP.
pub(crate) fn router(app: &Shared) -> Router {
    // What answers within a minute or not at all; streams only begin within it.
    let bounded = Router::new()
        .nest("/api/v1", api::router(app))
        .merge(enrol::router())
        .merge(hooks::router())
        .merge(metrics::router())
        .layer(middleware::from_fn(headers::in_time));
    Router::new()
        .merge(bounded)
        // These bound themselves: clones, pushes, watches.
        .merge(git::serve::router())
        .merge(tunnel::kube_router())
        .fallback(page::serve)
        .layer(DefaultBodyLimit::max(body::LIMIT))
        .layer(middleware::from_fn(headers::careful))
        .with_state(app.clone())
}
