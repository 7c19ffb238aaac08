//! The `Status` object that every refusal is.

use std::fmt;

use kinds::registry::{FieldError, KindDef};
use serde_json::{Map, Value, json};

/// A refusal, as `metav1.Status`.
#[derive(Clone, Debug)]
pub struct Status {
    /// HTTP code.
    pub code: u16,
    /// `NotFound`, `AlreadyExists`, `Conflict`, `Invalid`, `Forbidden`, `BadRequest`, `Expired`, …
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// `details`, as JSON; null if none.
    pub details: Value,
    /// `metadata.continue`: where a list whose revision is no longer kept may go on, at today's revision.
    pub continue_token: Option<String>,
}

impl Status {
    /// A refusal.
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
            message: message.into(),
            details: Value::Null,
            continue_token: None,
        }
    }

    /// Whether the object does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }

    /// Whether the object was changed by another since, or field managers disagree.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code == 409 && self.reason == "Conflict"
    }

    /// Whether an object of that name exists already.
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        self.code == 409 && self.reason == "AlreadyExists"
    }

    /// Whether a revision is no longer kept; list again.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.code == 410
    }

    /// As the JSON object that goes to clients.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut metadata = Map::new();
        if let Some(token) = &self.continue_token {
            metadata.insert("continue".into(), token.as_str().into());
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }

    fn about(mut self, kind: &KindDef, name: &str) -> Self {
        self.details = details(&kind.group, &kind.plural, name);
        self
    }

    /// Adds causes: reason, message, field.
    #[must_use]
    pub fn with_causes(mut self, causes: impl IntoIterator<Item = (String, String, String)>) -> Self {
        let causes: Vec<Value> = causes
            .into_iter()
            .map(|(reason, message, field)| {
                let mut cause = json!({"reason": reason, "message": message});
                if !field.is_empty() {
                    cause["field"] = field.into();
                }
                cause
            })
            .collect();
        if self.details.is_null() {
            self.details = json!({});
        }
        self.details["causes"] = causes.into();
        self
    }

    /// 404: no object of that name.
    #[must_use]
    pub fn not_found(kind: &KindDef, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} {name:?} not found", qualified(kind))).about(kind, name)
    }

    /// 404: no such resource.
    #[must_use]
    pub fn no_such_resource() -> Self {
        let mut status = Self::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        );
        status.details = json!({});
        status
    }

    /// 409: an object of that name is there.
    #[must_use]
    pub fn already_exists(kind: &KindDef, name: &str) -> Self {
        Self::new(
            409,
            "AlreadyExists",
            format!("{} {name:?} already exists", qualified(kind)),
        )
        .about(kind, name)
    }

    /// 409: the object was changed since.
    #[must_use]
    pub fn conflict(kind: &KindDef, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {name:?}: {why}",
            qualified(kind)
        );
        Self::new(409, "Conflict", message).about(kind, name)
    }

    /// 409: the object was changed since it was read.
    #[must_use]
    pub fn modified(kind: &KindDef, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(kind, name, why)
    }

    /// 403: not allowed.
    #[must_use]
    pub fn forbidden(kind: &KindDef, name: &str, why: &str) -> Self {
        let message = if name.is_empty() {
            format!("{} is forbidden: {why}", qualified(kind))
        } else {
            format!("{} {name:?} is forbidden: {why}", qualified(kind))
        };
        Self::new(403, "Forbidden", message).about(kind, name)
    }

    /// 422: fields are wrong.
    #[must_use]
    pub fn invalid(kind: &KindDef, name: &str, errors: &[FieldError]) -> Self {
        let wrong: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let wrong = match wrong.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let full_kind = if kind.group.is_empty() {
            kind.kind.clone()
        } else {
            format!("{}.{}", kind.kind, kind.group)
        };
        let mut status = Self::new(
            422,
            "Invalid",
            format!("{full_kind} {name:?} is invalid: {wrong}"),
        );
        status.details = details(&kind.group, &kind.kind, name);
        status.with_causes(
            errors
                .iter()
                .map(|error| (error.reason.clone(), error.message.clone(), error.path.clone())),
        )
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 405.
    #[must_use]
    pub fn method_not_allowed(kind: &KindDef, verb: &str) -> Self {
        let message = format!(
            "{verb} is not supported on resources of kind {:?}",
            qualified(kind)
        );
        Self::new(405, "MethodNotAllowed", message).about(kind, "")
    }

    /// 410: a revision that is no longer kept.
    #[must_use]
    pub fn expired(asked: u64, oldest: u64) -> Self {
        Self::new(
            410,
            "Expired",
            format!("too old resource version: {asked} ({oldest})"),
        )
    }

    /// 504: a revision that has not happened yet.
    #[must_use]
    pub fn too_large_revision(asked: u64, newest: u64) -> Self {
        let mut status = Self::new(
            504,
            "Timeout",
            format!("Too large resource version: {asked}, current: {newest}"),
        );
        status.details = json!({"retryAfterSeconds": 1});
        status.with_causes([(
            "ResourceVersionTooLarge".into(),
            "Too large resource version".into(),
            String::new(),
        )])
    }

    /// 500.
    pub fn internal(message: impl fmt::Display) -> Self {
        let mut status = Self::new(
            500,
            "InternalError",
            format!("Internal error occurred: {message}"),
        );
        status.details = json!({"causes": [{"message": message.to_string()}]});
        status
    }

    /// What an error of the store is to a client.
    #[must_use]
    pub fn of_store(error: &store::Error, kind: &KindDef) -> Self {
        match error {
            store::Error::Exists(key) => Self::already_exists(kind, &key.name),
            store::Error::NotFound(key) => Self::not_found(kind, &key.name),
            store::Error::Conflict { key, .. } => Self::modified(kind, &key.name),
            store::Error::TooOld { asked, oldest } => Self::expired(*asked, *oldest),
            store::Error::Future { asked, newest } => Self::too_large_revision(*asked, *newest),
            store::Error::NoSpace { .. } => Self::new(507, "InsufficientStorage", error.to_string()),
            store::Error::Full { .. } => {
                let mut status = Self::new(429, "TooManyRequests", error.to_string());
                status.details = json!({"retryAfterSeconds": 10});
                status
            }
            store::Error::Closed => {
                let mut status = Self::new(503, "ServiceUnavailable", "the API server is shutting down");
                status.details = json!({"retryAfterSeconds": 1});
                status
            }
            _ => Self::internal(telemetry::chain(error)),
        }
    }
}

/// `details` of a status about an object.
pub(crate) fn details(group: &str, kind: &str, name: &str) -> Value {
    let mut details = Map::new();
    for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
        if !value.is_empty() {
            details.insert(key.into(), value.into());
        }
    }
    Value::Object(details)
}

/// `configmaps`, `virtualmachines.vmoperator.vmware.com`.
pub(crate) fn qualified(kind: &KindDef) -> String {
    if kind.group.is_empty() {
        kind.plural.clone()
    } else {
        format!("{}.{}", kind.plural, kind.group)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}
