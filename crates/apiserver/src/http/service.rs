//! One request, from its first byte to its answer.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, Stream};
use hyper::{
    Method, Request, StatusCode,
    body::Incoming,
    header::{
        ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, ETAG, HOST, HeaderMap,
        HeaderName, HeaderValue, IF_NONE_MATCH, LOCATION, VARY,
    },
};
use serde_json::json;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout},
};

use crate::{
    Caller, Status, discovery,
    openapi::{Document, V2_PROTOBUF},
};

use super::{
    Access, LocalRequest, State,
    auth::{self, Peer},
    body::{self, Body, BrokenOff, Parts},
    health, negotiate, objects,
    path::Target,
    query::Query,
    respond::{self, Answer, JSON, method_not_allowed, not_found, refusal},
};

/// The version of Kubernetes whose API this is.
const KUBERNETES: (&str, &str) = ("1", "34");

/// How long a request waits for its place.
const PLACE: Duration = Duration::from_secs(1);
/// Places that a list without a limit takes.
const WHOLE_LIST: u32 = 16;

/// A request, taken apart.
pub(super) struct Parsed {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query_text: String,
    pub(super) query: Query,
    pub(super) headers: HeaderMap,
}

impl Parsed {
    /// A header as text.
    pub(super) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn is_read(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }
}

/// Answers a request, whatever it is and whatever goes wrong.
pub(super) async fn handle(state: Arc<State>, peer: &Peer, request: Request<Incoming>) -> Answer {
    let start = Instant::now();
    let (parts, body) = request.into_parts();
    let target = Target::parse(parts.uri.path());
    let head = parts.method == Method::HEAD;
    let method = parts.method.clone();
    let query_text = parts.uri.query().unwrap_or_default().to_owned();
    let (mut response, is_watch) = match Query::parse(&query_text) {
        Err(status) => (refusal(&status), false),
        Ok(query) => {
            let is_watch = method == Method::GET
                && matches!(target, Target::Resource(_))
                && query.flag("watch").ok().flatten() == Some(true);
            let path = parts.uri.path().to_owned();
            let parsed = Parsed {
                method: parts.method,
                path,
                query_text,
                query,
                headers: parts.headers,
            };
            (
                limited(&state, peer, &target, parsed, body, is_watch).await,
                is_watch,
            )
        }
    };
    let (verb, resource) = label(&state, &target, &method, is_watch);
    let (code, took) = (response.status().as_u16(), start.elapsed());
    state.metrics.request(verb, resource, code, took);
    tracing::debug!(verb, resource, code, took = ?took, "request");
    if head {
        let length = hyper::body::Body::size_hint(response.body()).exact();
        *response.body_mut() = Body::empty();
        if let Some(length) = length {
            response
                .headers_mut()
                .insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
    }
    response
}

/// Holds a request to its bounds of number and time, and survives its panic.
async fn limited(
    state: &Arc<State>,
    peer: &Peer,
    target: &Target,
    parsed: Parsed,
    body: Incoming,
    is_watch: bool,
) -> Answer {
    let permit = match place(state, target, &parsed, is_watch).await {
        Some(permit) => permit,
        None => {
            state.metrics.refused.inc();
            return refusal(&Status::new(
                429,
                "TooManyRequests",
                "too many requests at a time: try again later",
            ));
        }
    };
    let path = parsed.path.clone();
    let work = AssertUnwindSafe(dispatch(state, peer, target, parsed, body)).catch_unwind();
    let response = match timeout(state.options.request_timeout, work).await {
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => {
            state.metrics.panics.inc();
            let text = panic
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            tracing::error!(
                path,
                panic = text.unwrap_or("no text"),
                "a request's handler panicked"
            );
            refusal(&Status::new(
                500,
                "InternalError",
                "internal error: the server's log has more",
            ))
        }
        Err(_) => refusal(&Status::new(
            504,
            "Timeout",
            "the request took too long and was ended",
        )),
    };
    // The place is free again when the whole answer has gone out.
    let (head, body) = response.into_parts();
    let body = match body {
        Body::Stream(parts) => Body::Stream(Box::pin(Guarded {
            parts,
            _permit: permit,
        })),
        full @ Body::Full(_) => full,
    };
    Answer::from_parts(head, body)
}

/// A request's place; those that need none have none.
type Place = Option<OwnedSemaphorePermit>;

/// A place among the requests at a time, waited for a moment. A whole list takes several: it has more in memory.
async fn place(state: &State, target: &Target, parsed: &Parsed, is_watch: bool) -> Option<Place> {
    // Whether it is alive can be asked also of a server that has too much to do.
    if matches!(target, Target::Health(..) | Target::Metrics | Target::Version) {
        return Some(None);
    }
    if is_watch {
        return state.watches.clone().try_acquire_owned().ok().map(Some);
    }
    let whole = matches!(target, Target::Resource(resource) if resource.name.is_empty())
        && parsed.is_read()
        && parsed.query.get("limit").is_none();
    let most = u32::try_from(state.options.max_requests).unwrap_or(u32::MAX);
    let places = if whole { WHOLE_LIST.min(most) } else { 1 };
    let wait = timeout(PLACE, state.requests.clone().acquire_many_owned(places));
    wait.await.ok()?.ok().map(Some)
}

/// A stream that keeps its request's place until it is dropped.
struct Guarded {
    parts: Parts,
    _permit: Place,
}

impl Stream for Guarded {
    type Item = Result<Bytes, BrokenOff>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.parts.as_mut().poll_next(cx)
    }
}

async fn dispatch(
    state: &Arc<State>,
    peer: &Peer,
    target: &Target,
    request: Parsed,
    body: Incoming,
) -> Answer {
    let caller = peer.caller(state.api.clock().now());
    match answer(state, caller, target, request, body).await {
        Ok(response) => response,
        Err(status) => refusal(&status),
    }
}

async fn answer(
    state: &Arc<State>,
    caller: Option<&Caller>,
    target: &Target,
    request: Parsed,
    body: Incoming,
) -> Result<Answer, Status> {
    // What anybody may know.
    match target {
        Target::Health(kind, check) if request.is_read() => {
            return Ok(health::answer(state, kind, check.as_deref(), &request.query));
        }
        Target::Version if request.is_read() => return Ok(respond::json(200, &version(state))),
        _ => {}
    }
    let route = match target {
        Target::Resource(_) | Target::Core | Target::Groups | Target::Group(_) | Target::GroupVersion(..) => {
            None
        }
        _ => state.routes.iter().find(|(path, _, _)| {
            request.path == *path || (path.ends_with('/') && request.path.starts_with(path.as_str()))
        }),
    };
    if let Some((_, Access::Anyone, handler)) = route {
        return local(handler, caller, request, body).await;
    }
    let caller = caller.ok_or_else(auth::unauthorized)?;
    // Who one is may be asked by everybody who is somebody.
    if !objects::is_review(target) {
        auth::authorize(caller)?;
    }
    if let Some((_, access, handler)) = route {
        auth::authorize_route(caller, *access)?;
        return local(handler, Some(caller), request, body).await;
    }
    if let Target::Resource(resource) = target {
        return objects::answer(state, caller, resource, request, body).await;
    }
    if !request.is_read() {
        return Err(if *target == Target::Other {
            not_found()
        } else {
            method_not_allowed()
        });
    }
    documents(state, target, &request)
}

async fn local(
    handler: &super::Handler,
    caller: Option<&Caller>,
    request: Parsed,
    body: Incoming,
) -> Result<Answer, Status> {
    let Parsed {
        method,
        path,
        query_text: query,
        headers,
        ..
    } = request;
    let body = body::read(body).await?;
    let response = handler(LocalRequest {
        method,
        path,
        query,
        headers,
        body,
        caller: caller.cloned(),
    })
    .await;
    Ok(response.map(Body::full))
}

/// Discovery, OpenAPI and the other documents about the API itself.
fn documents(state: &State, target: &Target, request: &Parsed) -> Result<Answer, Status> {
    let registry = state.api.registry();
    let accept = request.header(&ACCEPT);
    let address = request.header(&HOST).unwrap_or_default();
    Ok(match target {
        Target::Core | Target::Groups => {
            let core = *target == Target::Core;
            let mut response = match negotiate::aggregated(accept) {
                Some(format) => {
                    let document = discovery::aggregated(registry, format, core);
                    respond::answer(200, format.media_type(), document.to_string())
                }
                None if core => respond::json(200, &discovery::core_versions(address)),
                None => respond::json(200, &discovery::group_list(registry)),
            };
            respond::header(&mut response, VARY, "Accept");
            response
        }
        Target::Group(group) => respond::json(200, &discovery::group(registry, group).ok_or_else(not_found)?),
        Target::GroupVersion(group, version) => respond::json(
            200,
            &discovery::resource_list(registry, group, version).ok_or_else(not_found)?,
        ),
        Target::OpenApiV2 => {
            let openapi = state.openapi();
            if negotiate::wants_v2_protobuf(accept) {
                document(&openapi.v2_protobuf, V2_PROTOBUF, request)
            } else {
                document(&openapi.v2_json, JSON, request)
            }
        }
        Target::OpenApiV3(None) => document(&state.openapi().index, JSON, request),
        Target::OpenApiV3(Some(key)) => {
            let found = state.openapi().v3.get(key).ok_or_else(not_found)?;
            match request.query.get("hash") {
                // A client with an old index: it must learn the new hash, or it would keep this under the old one.
                Some(hash) if hash != found.etag => {
                    let mut response = respond::text(301, "");
                    respond::header(
                        &mut response,
                        LOCATION,
                        &format!("/openapi/v3/{key}?hash={}", found.etag),
                    );
                    response
                }
                hash => {
                    let mut response = document(found, JSON, request);
                    if hash.is_some() {
                        respond::header(
                            &mut response,
                            CACHE_CONTROL,
                            "public, immutable, max-age=31536000",
                        );
                    }
                    response
                }
            }
        }
        Target::Metrics => respond::answer(
            200,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            state.metrics.encode(),
        ),
        Target::Root => {
            let paths = [
                "/api",
                "/apis",
                "/healthz",
                "/livez",
                "/metrics",
                "/openapi/v2",
                "/openapi/v3",
                "/readyz",
                "/version",
            ];
            respond::json(200, &json!({"paths": paths}))
        }
        _ => return Err(not_found()),
    })
}

fn document(document: &Document, content_type: &str, request: &Parsed) -> Answer {
    let etag = format!("\"{}\"", document.etag);
    let known = request
        .header(&IF_NONE_MATCH)
        .is_some_and(|known| known.split(',').any(|k| k.trim() == etag));
    let gzip = negotiate::takes_gzip(request.header(&ACCEPT_ENCODING));
    let mut response = match (known, gzip) {
        (true, _) => respond::answer(StatusCode::NOT_MODIFIED.as_u16(), content_type, ""),
        (false, true) => respond::answer(200, content_type, document.gzip()),
        (false, false) => respond::answer(200, content_type, document.plain()),
    };
    if gzip && !known {
        respond::header(&mut response, CONTENT_ENCODING, "gzip");
    }
    respond::header(&mut response, ETAG, &etag);
    respond::header(&mut response, VARY, "Accept, Accept-Encoding");
    response
}

fn version(state: &State) -> serde_json::Value {
    let (major, minor) = KUBERNETES;
    let options = &state.options;
    json!({
        "major": major, "minor": minor, "gitVersion": format!("v{major}.{minor}.0+selvedge-{}", options.version),
        "gitCommit": options.commit, "gitTreeState": "clean", "buildDate": "", "goVersion": "", "compiler": "rustc",
        "platform": format!("linux/{}", match std::env::consts::ARCH { "x86_64" => "amd64", "aarch64" => "arm64", other => other }),
    })
}

/// A request's labels in the metrics. Foreign paths share one.
fn label<'a>(
    state: &'a State,
    target: &'a Target,
    method: &Method,
    is_watch: bool,
) -> (&'static str, &'a str) {
    let Target::Resource(resource) = target else {
        return ("other", "");
    };
    let Some(kind) = state.api.registry().by_resource(&resource.gvr) else {
        return ("other", "");
    };
    let collection = resource.name.is_empty();
    let verb = match method.as_str() {
        "GET" | "HEAD" if is_watch => "watch",
        "GET" | "HEAD" if collection => "list",
        "GET" | "HEAD" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" if collection => "deletecollection",
        "DELETE" => "delete",
        _ => "other",
    };
    (verb, &kind.plural)
}
