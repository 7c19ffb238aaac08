//! Making answers.

use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER},
};
use serde_json::Value;

use crate::Status;

use super::body::Body;

pub(crate) type Answer = Response<Body>;

pub(crate) const JSON: &str = "application/json";

/// An answer of a code, a type and a body.
pub(crate) fn answer(code: u16, content_type: &str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    header(&mut response, CONTENT_TYPE, content_type);
    response
}

/// Sets a header; a value that can't be one is left out.
pub(crate) fn header(response: &mut Answer, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().append(name, value);
    }
}

pub(crate) fn json(code: u16, value: &Value) -> Answer {
    answer(code, JSON, value.to_string())
}

pub(crate) fn text(code: u16, text: impl Into<String>) -> Answer {
    answer(code, "text/plain; charset=utf-8", text.into())
}

/// A refusal.
pub(crate) fn refusal(status: &Status) -> Answer {
    let mut response = json(status.code, &status.to_value());
    let after = status.details.get("retryAfterSeconds").and_then(Value::as_u64);
    if let Some(after) = after.or((status.code == 429).then_some(1)) {
        header(&mut response, RETRY_AFTER, &after.to_string());
    }
    response
}

/// `Warning` headers (RFC 7234, code 299), as kubectl prints them.
pub(crate) fn warnings(response: &mut Answer, warnings: &[String]) {
    // Clients stop reading headers somewhere; the first are the ones that matter.
    for warning in warnings.iter().take(20) {
        let mut text: String = warning
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(256)
            .collect();
        text = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{text}\"").as_bytes()) {
            response.headers_mut().append(hyper::header::WARNING, value);
        }
    }
}

pub(crate) fn not_found() -> Status {
    Status::new(
        404,
        "NotFound",
        "the server could not find the requested resource",
    )
}

pub(crate) fn method_not_allowed() -> Status {
    Status::new(
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
    )
}
