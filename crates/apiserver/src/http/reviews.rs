//! `kubectl auth whoami` and `auth can-i`: questions that look like objects.

use kinds::object::Gvr;
use serde_json::{Value, json};

use crate::{
    Caller,
    api::roles::{self, Role},
};

/// Answers a review; `resource` is the plural that the path names.
pub(super) fn answer(resource: &str, caller: &Caller, mut object: Value) -> Value {
    if resource == "selfsubjectreviews" {
        return json!({
            "kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"creationTimestamp": null},
            "status": {"userInfo": {"username": caller.user, "groups": caller.groups}},
        });
    }
    let (allowed, reason) = match may(caller, &object) {
        Ok(()) => (true, "the role allows it"),
        Err("") => (false, "no role allows it"),
        Err(why) => (false, why),
    };
    object["kind"] = "SelfSubjectAccessReview".into();
    object["apiVersion"] = "authorization.k8s.io/v1".into();
    object["status"] = json!({"allowed": allowed, "reason": reason});
    object
}

/// What the review asks about.
fn may(caller: &Caller, review: &Value) -> Result<(), &'static str> {
    let text = |field: &str| {
        review
            .pointer(&format!("/spec/resourceAttributes/{field}"))
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    if review.pointer("/spec/resourceAttributes").is_none() {
        // A path that is no object: documents may be read by whoever has a role.
        let verb = review
            .pointer("/spec/nonResourceAttributes/verb")
            .and_then(Value::as_str);
        return match Role::of(caller) {
            Some(Role::Owner) => Ok(()),
            Some(_) if verb == Some("get") => Ok(()),
            _ => Err(""),
        };
    }
    let version = if text("version").is_empty() {
        "v1"
    } else {
        text("version")
    };
    let gvr = Gvr {
        group: text("group").into(),
        version: version.into(),
        plural: text("resource").into(),
    };
    let subresource = Some(text("subresource")).filter(|subresource| !subresource.is_empty());
    let asked = roles::Attributes {
        verb: text("verb"),
        gvr: &gvr,
        namespace: text("namespace"),
        name: text("name"),
        subresource,
    };
    let any = [text("verb"), text("group"), text("resource")].contains(&"*");
    if any && Role::of(caller) < Some(Role::Owner) {
        return Err("");
    }
    roles::judge(caller, &asked)
}
