//! Bodies of requests: JSON, of a bounded size, with errors that say where.

use axum::{
    RequestExt,
    body::Body,
    extract::{FromRequest, Request},
    http::{HeaderMap, StatusCode, header},
};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// The largest body of an API request.
pub(crate) const LIMIT: usize = 1 << 20;

/// A body of JSON.
pub(crate) struct Json<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        // What strangers may send is bounded more narrowly by their routes' `DefaultBodyLimit`.
        let (parts, body) = request.with_limited_body().into_parts();
        require_json(&parts.headers)?;
        let bytes = bounded(body, LIMIT).await?;
        parse(&bytes).map(Self)
    }
}

/// A page of another site can send forms, but not this content type without being asked first.
fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") || kind.to_ascii_lowercase().ends_with("+json") {
        Ok(())
    } else {
        Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body must be JSON: send Content-Type: application/json",
        ))
    }
}

/// A whole body, if it is not too large.
pub(crate) async fn bounded(body: Body, limit: usize) -> Result<Bytes, Problem> {
    axum::body::to_bytes(body, limit).await.map_err(|_| {
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body did not arrive, or is larger than {limit} bytes"),
        )
    })
}

/// Reads JSON. The message says where it is wrong, and never repeats a value: it could be a secret.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        let detail = match error.classify() {
            serde_json::error::Category::Data => without_values(&error.to_string()),
            _ => format!(
                "the body is no JSON: line {}, column {}",
                error.line(),
                error.column()
            ),
        };
        let status = match error.classify() {
            serde_json::error::Category::Data => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::BAD_REQUEST,
        };
        Problem::new(status, detail)
    })
}

/// `invalid type: string "x", expected …` without the `x`; numbers stand in other marks.
fn without_values(text: &str) -> String {
    let invalid = text.starts_with("invalid type") || text.starts_with("invalid value");
    let end = text.rfind("\", expected").or_else(|| text.rfind("`, expected"));
    match (invalid, text.find(['"', '`']), end) {
        (true, Some(from), Some(to)) if from < to => {
            format!("{}{}", text[..from].trim_end(), &text[to + 1..])
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Thing {
        #[expect(dead_code)]
        count: u8,
    }

    #[test]
    fn errors_say_where_and_repeat_no_value() {
        let error = parse::<Thing>(br#"{"count":"hunter2"}"#).unwrap_err();
        assert_eq!(error.status(), 422);
        assert!(!error.detail().contains("hunter2"), "{}", error.detail());
        assert!(error.detail().contains("expected u8"), "{}", error.detail());
        // A PIN, or a code of a second factor, sent as a number.
        let error = parse::<String>(b"471147").unwrap_err();
        assert!(!error.detail().contains("471147"), "{}", error.detail());
        assert!(error.detail().contains("expected a string"), "{}", error.detail());
        let error = parse::<Thing>(br#"{"cuont":1}"#).unwrap_err();
        assert!(error.detail().contains("cuont"), "{}", error.detail());
        let error = parse::<Thing>(b"{\"count\":").unwrap_err();
        assert_eq!(error.status(), 400);
    }
}
