//! Errors as people and programs read them: `application/problem+json` (RFC 9457).

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// What an error answer says. Boxed: it is the error of nearly everything here.
#[derive(Clone, Debug)]
pub(crate) struct Problem(Box<Said>);

/// What an error answer says.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Problem)]
pub(crate) struct Said {
    /// Always `about:blank`: the title says which it is.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The kind of error.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What is wrong, with the values that a person needs.
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    /// The field of the request that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    #[serde(skip)]
    retry_after: Option<u64>,
    #[serde(skip)]
    basic: bool,
}

impl Problem {
    /// A problem with a status and a sentence.
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self(Box::new(Said {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            field: None,
            next: None,
            retry_after: None,
            basic: false,
        }))
    }

    /// No credentials, or none that are good.
    pub(crate) fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
    }

    /// The same answer for what is not there and what is another tenant's.
    pub(crate) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "there is no such object, or you may not see it",
        )
    }

    /// Too small a role.
    pub(crate) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// A request that is not understood.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// A value that is not good.
    pub(crate) fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
        problem.0.field = Some(field.into());
        problem
    }

    /// Not as things stand.
    pub(crate) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// Try again, in so many seconds.
    pub(crate) fn busy(status: StatusCode, detail: impl Into<String>, seconds: u64) -> Self {
        let mut problem = Self::new(status, detail);
        problem.0.retry_after = Some(seconds);
        problem
    }

    /// Our fault; the log has the rest.
    pub(crate) fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = %telemetry::chain(error), "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the orchestrator failed; its log says why",
        )
    }

    /// Names the field that is wrong or missing.
    pub(crate) fn field(&mut self, field: &str) {
        self.0.field = Some(field.to_owned());
    }

    /// What to do next.
    #[must_use]
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.0.next = Some(next.into());
        self
    }

    /// Makes Git and curl ask for a name and a password.
    #[must_use]
    pub(crate) fn basic(mut self) -> Self {
        self.0.basic = true;
        self
    }

    /// The status as axum has it.
    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The sentence.
    pub(crate) fn detail(&self) -> &str {
        &self.0.detail
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, retry, basic) = (self.status(), self.0.retry_after, self.0.basic);
        let mut response = (status, Json(&*self.0)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = retry {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            let scheme = if basic {
                "Basic realm=\"selvedge\", charset=\"UTF-8\""
            } else {
                "Bearer realm=\"selvedge\""
            };
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
        }
        response
    }
}
