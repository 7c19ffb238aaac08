//! `kubectl auth whoami` and `auth can-i`: questions that look like objects.

use serde_json::{Value, json};

use crate::Caller;

use super::auth;

/// Answers a review; `resource` is the plural that the path names.
pub(super) fn answer(resource: &str, caller: &Caller, mut object: Value) -> Value {
    if resource == "selfsubjectreviews" {
        return json!({
            "kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"creationTimestamp": null},
            "status": {"userInfo": {"username": caller.user, "groups": caller.groups}},
        });
    }
    let allowed = auth::is_master(caller);
    let reason = if allowed {
        "masters may do everything"
    } else {
        "only masters may use this API"
    };
    object["kind"] = "SelfSubjectAccessReview".into();
    object["apiVersion"] = "authorization.k8s.io/v1".into();
    object["status"] = json!({"allowed": allowed, "reason": reason});
    object
}
