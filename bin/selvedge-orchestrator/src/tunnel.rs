//! Into a host, over its link: the site's Kubernetes API, consoles of VMs, logs. Nothing listens at the site.
//!
//! Everything here is allowed by a role at the site, noted in the audit log, and passed to the host with the name and
//! role of who asks: the host decides again.

mod kube;
pub(crate) mod proxy;
mod socket;

use axum::{
    body::Body,
    extract::{Path, Query, State, WebSocketUpgrade},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use fleet::{
    Caller, Role,
    model::{Host, Phase},
};
use link::message::Open;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::io::ReaderStream;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::Shared,
    http::{
        auth::{In, require_origin},
        body::Json,
        problem::Problem,
    },
    links::reach,
};

pub(crate) use kube::router as kube_router;

/// The endpoints that belong to a host.
pub(crate) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(logs))
        .routes(routes!(serial))
        .routes(routes!(vnc))
        .routes(routes!(power))
}

/// A host at which the caller has at least this role.
pub(crate) async fn allowed(app: &Shared, caller: &Caller, host: &str, need: Role) -> Result<Host, Problem> {
    let host = app.fleet.hosts().require(caller, need, host).await?;
    if host.phase != Phase::Enrolled {
        return Err(Problem::conflict(format!("{} is not enrolled", host.name)));
    }
    Ok(host)
}

/// The caller's role at a site, if it is enough.
async fn role_at(app: &Shared, caller: &Caller, site: Option<&str>, need: Role) -> Result<Role, Problem> {
    let role = match site {
        Some(site) => {
            let site = app.fleet.sites().get(caller, site).await?;
            caller.require_at(need, &site.name, &site.labels)?;
            caller.role_at(&site.name, &site.labels)
        }
        None => {
            caller.require(need)?;
            caller.role()
        }
    };
    role.ok_or_else(|| Problem::forbidden(format!("this needs the role {need}")))
}

/// Notes it in the audit log before it is done.
async fn note(
    app: &Shared,
    caller: &Caller,
    action: &'static str,
    host: &Host,
    what: &Value,
) -> Result<(), Problem> {
    let object = fleet::model::ObjectRef {
        kind: "host".to_owned(),
        id: host.id.clone(),
        name: host.name.clone(),
    };
    app.fleet
        .audit()
        .note(caller, action, &object, Some(what))
        .await?;
    Ok(())
}

/// Which lines.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Lines {
    /// A unit; all if nothing is said.
    unit: Option<String>,
    /// Whether to go on with what comes.
    follow: Option<bool>,
    /// How many past lines; 200 if nothing is said.
    lines: Option<u32>,
}

/// Log lines of a host.
#[utoipa::path(get, path = "/tenants/{tenant}/hosts/{host}/logs", tag = "hosts", operation_id = "getHostLogs",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("host" = String, Path, description = "Name or id"), Lines),
    responses((status = 200, description = "Lines, as they come", content_type = "text/plain", body = String)))]
async fn logs(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name)): Path<(String, String)>,
    Query(which): Query<Lines>,
) -> Result<Response, Problem> {
    let host = allowed(&app, &caller, &name, Role::Operator).await?;
    let open = Open::Logs {
        unit: which.unit.unwrap_or_default(),
        follow: which.follow.unwrap_or_default(),
        lines: which.lines.unwrap_or(200).min(100_000),
        user: caller.actor.clone(),
    };
    note(&app, &caller, "host.logs", &host, &json!({})).await?;
    let stream = reach::open(&app, &caller.tenant, &host.id, &open).await?;
    let body = Body::from_stream(ReaderStream::new(stream));
    let mut response = Response::new(body);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    Ok(response)
}

/// A VM's serial console, as a WebSocket of raw bytes.
#[utoipa::path(get, path = "/tenants/{tenant}/hosts/{host}/vms/{namespace}/{vm}/serial", tag = "hosts", operation_id = "openSerial",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("host" = String, Path, description = "Name or id"),
        ("namespace" = String, Path, description = "Namespace"), ("vm" = String, Path, description = "Name")),
    responses((status = 101, description = "WebSocket: binary messages are bytes of the console")))]
async fn serial(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name, namespace, vm)): Path<(String, String, String, String)>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let open = Open::Serial {
        namespace,
        name: vm,
        user: caller.actor.clone(),
    };
    console(app, caller, &name, &headers, upgrade.ok(), open, "vm.serial").await
}

/// A VM's screen: RFB in a WebSocket.
#[utoipa::path(get, path = "/tenants/{tenant}/hosts/{host}/vms/{namespace}/{vm}/vnc", tag = "hosts", operation_id = "openVnc",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("host" = String, Path, description = "Name or id"),
        ("namespace" = String, Path, description = "Namespace"), ("vm" = String, Path, description = "Name")),
    responses((status = 101, description = "WebSocket: binary messages are bytes of RFB")))]
async fn vnc(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name, namespace, vm)): Path<(String, String, String, String)>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let open = Open::Vnc {
        namespace,
        name: vm,
        user: caller.actor.clone(),
    };
    console(app, caller, &name, &headers, upgrade.ok(), open, "vm.vnc").await
}

async fn console(
    app: Shared,
    caller: Caller,
    host: &str,
    headers: &HeaderMap,
    upgrade: Option<WebSocketUpgrade>,
    open: Open,
    action: &'static str,
) -> Result<Response, Problem> {
    let host = allowed(&app, &caller, host, Role::Operator).await?;
    require_origin(headers, &app.config)?;
    let upgrade = upgrade.ok_or_else(|| {
        Problem::new(
            StatusCode::UPGRADE_REQUIRED,
            "a console is a WebSocket: ask with Upgrade: websocket",
        )
    })?;
    let what = match &open {
        Open::Serial { namespace, name, .. } | Open::Vnc { namespace, name, .. } => {
            json!({ "namespace": namespace, "name": name })
        }
        _ => json!({}),
    };
    note(&app, &caller, action, &host, &what).await?;
    let stream = reach::open(&app, &caller.tenant, &host.id, &open).await?;
    let stop = app.stop.clone();
    Ok(upgrade
        // What noVNC and others may ask for; the bytes are the same.
        .protocols(["binary"])
        .max_message_size(1 << 20)
        .on_upgrade(move |socket| async move {
            tokio::select! {
                () = socket::run(socket, stream) => {}
                () = stop.cancelled() => {}
            }
        }))
}

/// What to do with a VM's power.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Power {
    /// What.
    action: Action,
}

/// What to do with a VM's power.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum Action {
    /// Switch on.
    On,
    /// Switch off, hard.
    Off,
    /// Press reset.
    Reset,
    /// Ask the guest to shut down.
    Shutdown,
}

/// Switches a VM on or off, where Git does not say which it is.
#[utoipa::path(post, path = "/tenants/{tenant}/hosts/{host}/vms/{namespace}/{vm}/power", tag = "hosts", operation_id = "setPower",
    params(("tenant" = String, Path, description = "Tenant, by name or id"), ("host" = String, Path, description = "Name or id"),
        ("namespace" = String, Path, description = "Namespace"), ("vm" = String, Path, description = "Name")),
    request_body = Power,
    responses((status = 202, description = "The host works on it")))]
async fn power(
    State(app): State<Shared>,
    In(caller): In,
    Path((_, name, namespace, vm)): Path<(String, String, String, String)>,
    Json(power): Json<Power>,
) -> Result<Response, Problem> {
    let host = allowed(&app, &caller, &name, Role::Operator).await?;
    let what = json!({ "namespace": namespace, "name": vm, "action": power.action });
    note(&app, &caller, "vm.power", &host, &what).await?;
    kube::power(&app, &caller, &host, &namespace, &vm, power.action).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}
