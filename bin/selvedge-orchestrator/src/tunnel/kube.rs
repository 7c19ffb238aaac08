//! `/k8s/TENANT/SITE[/HOST]/…`: the site's own Kubernetes API, for kubectl and everything like it.
//!
//! Only `Authorization: Bearer` opens it (an API token, or a person's session as their own tool keeps it): a cookie
//! would let any page of another site speak to a cluster.

use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State},
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
    routing::any,
};
use fleet::{
    Caller, Role,
    model::{Connection, Host, Phase, Site},
};
use link::message::Open;
use serde_json::{Value, json};

use super::{Action, note, proxy};
use crate::{
    app::Shared,
    http::{
        auth::{address, bearer, by_bearer},
        body::bounded,
        problem::Problem,
    },
    links::reach,
};

/// First parts of paths of a Kubernetes API: what else stands there is a host's name.
const ROOTS: [&str; 11] = [
    "api",
    "apis",
    "version",
    "openapi",
    "healthz",
    "livez",
    "readyz",
    "metrics",
    "logs",
    "swagger.json",
    ".well-known",
];

/// The routes.
pub(crate) fn router() -> Router<Shared> {
    Router::new()
        .route("/k8s/{tenant}/{site}", any(bare))
        .route("/k8s/{tenant}/{site}/{*rest}", any(serve))
}

async fn bare(
    State(app): State<Shared>,
    Path((tenant, site)): Path<(String, String)>,
    request: Request,
) -> Response {
    answer(&app, &tenant, &site, request).await.unwrap_or_else(status)
}

async fn serve(
    State(app): State<Shared>,
    Path((tenant, site, _)): Path<(String, String, String)>,
    request: Request,
) -> Response {
    answer(&app, &tenant, &site, request).await.unwrap_or_else(status)
}

/// A refusal as Kubernetes clients read it: a Status object.
fn status(problem: Problem) -> Response {
    let code = problem.status();
    let reason = match code {
        StatusCode::UNAUTHORIZED => "Unauthorized",
        StatusCode::FORBIDDEN => "Forbidden",
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        _ => "InternalError",
    };
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": problem.detail(), "reason": reason, "code": code.as_u16(),
    });
    let mut response = problem.into_response();
    *response.body_mut() = Body::from(body.to_string());
    response.headers_mut().insert(
        axum::http::header::CONTENT_TYPE,
        axum::http::HeaderValue::from_static("application/json"),
    );
    response.headers_mut().remove(axum::http::header::CONTENT_LENGTH);
    response
}

async fn answer(app: &Shared, tenant: &str, site: &str, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let from = address(&parts, &app.config);
    let token = bearer(&parts.headers).ok_or_else(|| {
        Problem::unauthorized("send an API token: selvedge kubeconfig writes one for kubectl")
    })?;
    let caller = by_bearer(app, token, &from).await?.within(app, tenant).await?;
    let request = Request::from_parts(parts, body);
    let site = app.fleet.sites().get(&caller, site).await?;
    let path = request.uri().path();
    // What follows /k8s/TENANT/SITE, as it was written.
    let rest = path.splitn(5, '/').nth(4).unwrap_or_default();
    let first = rest.split('/').next().unwrap_or_default();
    let (host, rest) = if first.is_empty() || ROOTS.contains(&first) {
        (leading(app, &caller, &site).await?, rest)
    } else {
        let host = app.fleet.hosts().get(&caller, first).await?;
        if host.site.as_deref() != Some(site.name.as_str()) || host.phase != Phase::Enrolled {
            return Err(fleet::Error::not_found("host", first).into());
        }
        (host, rest.get(first.len() + 1..).unwrap_or_default())
    };
    let inner = match request.uri().query() {
        Some(query) => format!("/{rest}?{query}"),
        None => format!("/{rest}"),
    };
    through(app, &caller, &site, &host, &inner, request).await
}

/// The host of a site that is asked if none is named: one that is connected.
async fn leading(app: &Shared, caller: &Caller, site: &Site) -> Result<Host, Problem> {
    let query = fleet::Query {
        site: Some(site.id.clone()),
        limit: 100,
        ..fleet::Query::default()
    };
    let mut hosts = app.fleet.hosts().list(caller, &query).await?.items;
    hosts.retain(|host| host.phase == Phase::Enrolled);
    hosts.sort_by_key(|host| (host.connection != Connection::Online, host.name.clone()));
    hosts.into_iter().next().ok_or_else(|| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("no host of site {} is enrolled", site.name),
        )
    })
}

async fn through(
    app: &Shared,
    caller: &Caller,
    site: &Site,
    host: &Host,
    path: &str,
    request: Request,
) -> Result<Response, Problem> {
    caller.require_at(Role::Viewer, &site.name, &site.labels)?;
    let role = caller
        .role_at(&site.name, &site.labels)
        .ok_or_else(Problem::not_found)?;
    if let Some(header) = proxy::impersonates(request.headers()) {
        return Err(Problem::forbidden(format!(
            "{header}: nobody can be impersonated through the orchestrator"
        )));
    }
    let upgrade = proxy::wants_upgrade(request.headers());
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) && !upgrade;
    let review = is_review(request.method(), path) && !upgrade;
    if role == Role::Viewer && (!reads || shows_secrets(path)) && !review {
        return Err(Problem::forbidden(format!(
            "{} is a viewer at site {}: {} {} needs an operator",
            caller.actor,
            site.name,
            request.method(),
            path.split('?').next().unwrap_or_default()
        )));
    }
    if !reads && !review {
        let what = json!({
            "method": request.method().as_str(),
            "path": path.split('?').next().unwrap_or_default(),
            "upgrade": upgrade,
        });
        note(app, caller, "site.kubectl", host, &what).await?;
    }
    app.counters.tunnels.inc();
    let stream = reach::open(app, &caller.tenant, &host.id, &open(caller, role)).await?;
    proxy::forward(request, path, stream).await
}

fn open(caller: &Caller, role: Role) -> Open {
    Open::Api {
        user: caller.actor.clone(),
        groups: vec![format!("selvedge:{role}")],
        from: caller.from.clone(),
    }
}

/// Whether a path reads Secrets, however it is written: the host reads `%73ecrets` as `secrets` too.
fn shows_secrets(path: &str) -> bool {
    let path = path.split('?').next().unwrap_or_default();
    percent_encoding::percent_decode_str(path)
        .decode_utf8_lossy()
        .split('/')
        .any(|part| part.eq_ignore_ascii_case("secrets"))
}

/// What clients ask to learn what they may: no change, though a POST. Only the whole path says so: any object may have
/// such a name.
fn is_review(method: &Method, path: &str) -> bool {
    let parts: Vec<&str> = path.split('?').next().unwrap_or_default().split('/').collect();
    method == Method::POST
        && matches!(
            parts.as_slice(),
            [
                "",
                "apis",
                "authorization.k8s.io",
                _,
                "selfsubjectaccessreviews" | "selfsubjectrulesreviews"
            ] | ["", "apis", "authentication.k8s.io", _, "selfsubjectreviews"]
        )
}

/// Switches a VM through the host's API. A field that Git owns is refused there, with the reason.
pub(super) async fn power(
    app: &Shared,
    caller: &Caller,
    host: &Host,
    namespace: &str,
    vm: &str,
    action: Action,
) -> Result<(), Problem> {
    for part in [namespace, vm] {
        let good = !part.is_empty()
            && part.len() <= 253
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.');
        if !good {
            return Err(Problem::not_found());
        }
    }
    let role = super::role_at(app, caller, host.site.as_deref(), Role::Operator).await?;
    let spec = match action {
        Action::On => json!({ "powerState": "poweredOn" }),
        Action::Off => json!({ "powerState": "poweredOff", "powerOffMode": "hard" }),
        Action::Shutdown => json!({ "powerState": "poweredOff", "powerOffMode": "soft" }),
        Action::Reset => json!({ "nextRestartTime": "now", "restartMode": "hard" }),
    };
    let path = format!("/apis/vmoperator.vmware.com/v1alpha1/namespaces/{namespace}/virtualmachines/{vm}");
    let request = axum::http::Request::builder()
        .method(Method::PATCH)
        .uri(&path)
        .header("content-type", "application/merge-patch+json")
        .header("accept", "application/json")
        .body(Body::from(json!({ "spec": spec }).to_string()))
        .map_err(|error| Problem::internal(&error))?;
    let stream = reach::open(app, &caller.tenant, &host.id, &open(caller, role)).await?;
    let response = proxy::forward(request, &path, stream).await?;
    let code = response.status();
    if code.is_success() {
        return Ok(());
    }
    let body = bounded(response.into_body(), 1 << 20).await?;
    let said: Value = serde_json::from_slice(&body).unwrap_or_default();
    let message = said
        .get("message")
        .and_then(Value::as_str)
        .unwrap_or("the host refused")
        .to_owned();
    Err(match code {
        StatusCode::NOT_FOUND => Problem::new(code, message),
        // Git owns it.
        StatusCode::FORBIDDEN | StatusCode::CONFLICT => {
            Problem::conflict(message).next("change the VM in its repository")
        }
        StatusCode::UNPROCESSABLE_ENTITY | StatusCode::BAD_REQUEST => Problem::new(code, message),
        _ => Problem::new(StatusCode::BAD_GATEWAY, message),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_reviews_are_known_by_their_paths() {
        assert!(shows_secrets("/api/v1/namespaces/default/secrets/x"));
        assert!(shows_secrets("/api/v1/secrets?watch=1"));
        assert!(!shows_secrets("/api/v1/pods?fieldSelector=secrets"));
        assert!(shows_secrets("/api/v1/namespaces/default/%73ecret%73/x"));
        assert!(shows_secrets("/api/v1%2fsecrets"));
        let review = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        assert!(is_review(&Method::POST, review));
        assert!(is_review(
            &Method::POST,
            "/apis/authentication.k8s.io/v1/selfsubjectreviews?dryRun=All"
        ));
        assert!(!is_review(&Method::DELETE, review));
        for path in [
            "/api/v1/pods",
            "/api/v1/namespaces/default/configmaps/selfsubjectreviews",
            "/api/v1/namespaces/default/secrets/x-selfsubjectaccessreviews",
        ] {
            assert!(!is_review(&Method::POST, path), "{path}");
        }
    }
}
