//! Enrolment as hosts see it: `/enroll/v1`.
//!
//! Ten thousand hosts may power on together: signing is bounded, those who find no place are told when to come back,
//! and a host that asks again with the same key is answered again.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use identity::enrol::{Answer, Granted, Nonce, PROOF_HEADER, Renewal, Request};
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    app::{App, Shared},
    http::{auth::Address, body, problem::Problem},
};

/// Requests that are worked on at a time.
static PLACES: Semaphore = Semaphore::const_new(64);
/// A request waits this long for a place.
const WAIT: Duration = Duration::from_secs(10);
/// The routes.
pub(crate) fn router() -> Router<Shared> {
    Router::new()
        .route("/enroll/v1/requests", post(request))
        .route("/enroll/v1/requests/{id}", get(ask))
        .route("/enroll/v1/renew", post(renew))
        .route("/enroll/v1/nonce", get(nonce))
        .layer(DefaultBodyLimit::max(64 << 10))
}

async fn place() -> Result<tokio::sync::SemaphorePermit<'static>, Problem> {
    let busy = || {
        // Spread over a while, so that they do not come back together.
        let seconds = 5.0 + 25.0 * identity::backoff::random_fraction();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "5 to 30")]
        let seconds = seconds as u64;
        Problem::busy(
            StatusCode::TOO_MANY_REQUESTS,
            "too many hosts enrol at this moment",
            seconds,
        )
    };
    match timeout(WAIT, PLACES.acquire()).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(busy()),
    }
}

async fn request(
    State(app): State<Shared>,
    Address(from): Address,
    body::Json(request): body::Json<Request>,
) -> Result<Response, Problem> {
    let _place = place().await?;
    let outcome = app.fleet.enrolment().request(&request, &from).await?;
    app.counters.enrolments.inc();
    answer(&app, outcome).await
}

async fn ask(
    State(app): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let _place = place().await?;
    let proof = headers
        .get(PROOF_HEADER)
        .and_then(|value| value.to_str().ok())
        .ok_or_else(|| Problem::unauthorized(format!("{PROOF_HEADER} is missing")))?;
    let outcome = app.fleet.enrolment().poll(&id, proof).await?;
    answer(&app, outcome).await
}

async fn renew(
    State(app): State<Shared>,
    Address(from): Address,
    body::Json(renewal): body::Json<Renewal>,
) -> Result<Response, Problem> {
    let _place = place().await?;
    let peer = app
        .verifier
        .check_expired(&renewal.certificate)
        .map_err(|refusal| Problem::forbidden(refusal.to_string()))?;
    let granted = app.fleet.enrolment().renew(&peer, &renewal, &from).await?;
    answer(&app, Answer::Granted(Box::new(granted))).await
}

async fn nonce(State(app): State<Shared>) -> Result<Response, Problem> {
    let nonce = app.fleet.enrolment().nonce()?;
    Ok(Json(Nonce { nonce }).into_response())
}

async fn answer(app: &App, answer: Answer) -> Result<Response, Problem> {
    Ok(match answer {
        Answer::Granted(mut granted) => {
            // A tenant may be newer than this process's last look: its first host must not wait for the next.
            if app.verifier.check_expired(&granted.certificate).is_err() {
                crate::links::trust::refresh(app).await?;
            }
            complete(app, &mut granted);
            Json(*granted).into_response()
        }
        Answer::Waiting(waiting) => (StatusCode::ACCEPTED, Json(waiting)).into_response(),
    })
}

/// Adds to the assignment what only the server knows.
fn complete(app: &App, granted: &mut Granted) {
    let Some(value) = granted.assignment.take() else {
        return;
    };
    if let Ok(mut assignment) = serde_json::from_value::<link::message::Assignment>(value) {
        crate::links::tell::complete(app, &granted.host_id, &mut assignment);
        granted.assignment = serde_json::to_value(assignment).ok();
    }
}
