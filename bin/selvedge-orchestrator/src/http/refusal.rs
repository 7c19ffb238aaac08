//! The fleet's refusals as answers.

use axum::http::StatusCode;
use fleet::Error;

use super::problem::Problem;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match &error {
            Error::NotFound { .. } => Self::new(StatusCode::NOT_FOUND, error.to_string()),
            Error::Conflict { message } => Self::conflict(message.clone()),
            Error::Precondition { .. } => Self::new(StatusCode::PRECONDITION_FAILED, error.to_string())
                .next("read the object again, and send its new ETag as If-Match"),
            Error::Invalid { field, .. } => Self::invalid(field.clone(), error.to_string()),
            Error::Denied { .. } | Error::Forbidden { .. } => Self::forbidden(error.to_string()),
            Error::Unauthenticated => Self::unauthorized(error.to_string()),
            Error::SecondFactor => {
                let mut problem = Self::unauthorized(error.to_string());
                problem.field("totp");
                problem.next("send the code of the authenticator as totp")
            }
            Error::Throttled { retry_after } => Self::busy(
                StatusCode::TOO_MANY_REQUESTS,
                error.to_string(),
                (*retry_after).max(1),
            ),
            Error::TooOld { .. } => Self::new(StatusCode::GONE, error.to_string()),
            Error::Unavailable(_) => {
                tracing::warn!(error = %telemetry::chain(&error), "the database can't be used");
                Self::busy(StatusCode::SERVICE_UNAVAILABLE, error.to_string(), 2)
            }
            _ => Self::internal(&error),
        }
    }
}
