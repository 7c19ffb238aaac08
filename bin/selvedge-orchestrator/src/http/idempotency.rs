//! `Idempotency-Key`: a POST that is sent again is answered again, not done again.

use aws_lc_rs::digest;
use axum::{
    body::Body,
    extract::{FromRequestParts, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use fleet::idempotency::Begun;
use identity::seal::Binding;

use super::{auth::In, body, problem::Problem};
use crate::app::Shared;

/// The header.
pub(crate) const KEY: &str = "idempotency-key";

/// Wraps the routes of a tenant.
pub(crate) async fn layer(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let keyed = request.method() == Method::POST && request.headers().contains_key(KEY);
    if !keyed {
        return next.run(request).await;
    }
    run(app, request, next)
        .await
        .unwrap_or_else(IntoResponse::into_response)
}

async fn run(app: Shared, request: Request, next: Next) -> Result<Response, Problem> {
    let (mut parts, sent) = request.into_parts();
    let In(caller) = In::from_request_parts(&mut parts, &app).await?;
    let key = parts
        .headers
        .get(KEY)
        .and_then(|value| value.to_str().ok())
        .filter(|key| (1..=255).contains(&key.len()))
        .ok_or_else(|| Problem::bad_request("Idempotency-Key must be 1 to 255 characters"))?
        .to_owned();
    let bytes = body::bounded(sent, body::LIMIT).await?;
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(parts.uri.to_string().as_bytes());
    context.update(b"\n");
    context.update(&bytes);
    let hash = context.finish();
    let hash = hash.as_ref();
    // Answers may hold a secret that is shown once: what is kept of them is sealed.
    let binding = Binding {
        purpose: "idempotent answer",
        tenant: &caller.tenant,
        record: &key,
    };
    let room = app.fleet.idempotency();
    // A token may be called as a person is.
    let actor = &format!("{:?} {}", caller.kind, caller.actor);
    match room.begin(&caller.tenant, actor, &key, hash).await? {
        Begun::New => {}
        Begun::Done { status, body } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
            let body = app
                .fleet
                .master()
                .open_sealed(binding, &body)
                .map_err(|error| Problem::internal(&error))?;
            let mut response = (status, body).into_response();
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
                .headers_mut()
                .insert("idempotency-replayed", HeaderValue::from_static("true"));
            return Ok(response);
        }
        Begun::Running => {
            return Err(Problem::busy(
                StatusCode::CONFLICT,
                "the same request is still being answered",
                1,
            ));
        }
        Begun::Mismatch => {
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "this Idempotency-Key was used for another request",
            ));
        }
    }
    parts.extensions.insert(caller.clone());
    let response = next.run(Request::from_parts(parts, Body::from(bytes))).await;
    let (head, answer) = response.into_parts();
    let answer = body::bounded(answer, 4 << 20).await?;
    if head.status.is_success() {
        let sealed = app
            .fleet
            .master()
            .seal(binding, &answer)
            .map_err(|error| Problem::internal(&error))?;
        room.finish(&caller.tenant, actor, &key, head.status.as_u16(), &sealed)
            .await?;
    } else {
        // What failed may be tried again with the same key.
        room.cancel(&caller.tenant, actor, &key).await?;
    }
    Ok(Response::from_parts(head, Body::from(answer)))
}
