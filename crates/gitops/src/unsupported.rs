//! What Flux's objects can ask for and this host does not do. One list, for the reconcilers and for who checks a
//! folder before it is pushed.

use kinds::{Object, object};
use serde_json::Value;

use crate::git::url::Url;

/// Something that a GitRepository or Kustomization asks for in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// The field, as `spec.verify`.
    pub field: &'static str,
    /// Why, and what to do; it does not name the field.
    pub why: String,
    /// Whether the host refuses the whole object for it. Otherwise the field is kept and has no effect.
    pub refused: bool,
}

impl Unsupported {
    /// With the field.
    pub(crate) fn message(&self) -> String {
        format!("{}: {}", self.field, self.why)
    }
}

/// Everything that an object asks for in vain; nothing for other kinds than Flux's.
#[must_use]
pub fn unsupported(object: &Object) -> Vec<Unsupported> {
    let (group, _) = object::split_api_version(object::api_version(object));
    match (group, object::kind(object)) {
        ("source.toolkit.fluxcd.io", "GitRepository") => repository(object),
        ("kustomize.toolkit.fluxcd.io", "Kustomization") => kustomization(object),
        _ => Vec::new(),
    }
}

/// The first that makes the host refuse the object.
pub(crate) fn refused(object: &Object) -> Option<Unsupported> {
    unsupported(object).into_iter().find(|one| one.refused)
}

fn repository(object: &Object) -> Vec<Unsupported> {
    let mut found = Vec::new();
    if let Some(verify) = set(object, "spec.verify") {
        let mode = verify["mode"].as_str().unwrap_or_default();
        found.push(no(
            "spec.verify",
            format!("signatures (mode {mode}) are not supported yet; nothing is fetched unverified"),
        ));
    }
    if let Some(proxy) = set(object, "spec.proxySecretRef") {
        let name = proxy["name"].as_str().unwrap_or_default();
        found.push(no(
            "spec.proxySecretRef",
            format!("proxies ({name}) are not supported yet; nothing is fetched"),
        ));
    }
    if let Some(Value::String(url)) = set(object, "spec.url")
        && let Err(error) = Url::parse(url)
    {
        let why = error.message.strip_prefix("spec.url: ").unwrap_or(&error.message);
        found.push(no("spec.url", why.into()));
    }
    found.extend(idle(
        object,
        &[
            "spec.recurseSubmodules",
            "spec.include",
            "spec.sparseCheckout",
            "spec.accessFrom",
        ],
    ));
    found
}

fn kustomization(object: &Object) -> Vec<Unsupported> {
    let mut found = Vec::new();
    // Applied here, it would be on the wrong machine.
    if set(object, "spec.kubeConfig").is_some() {
        let why = "other clusters are not supported; remove the Kustomization from this host's site";
        found.push(no("spec.kubeConfig", why.into()));
    }
    if let Some(Value::String(kind)) = set(object, "spec.sourceRef.kind")
        && kind != "GitRepository"
    {
        found.push(no(
            "spec.sourceRef",
            format!("sources of kind {kind} are not supported; use a GitRepository"),
        ));
    }
    if set(object, "spec.decryption").is_some() {
        let why = "encrypted files are not supported yet; nothing is applied";
        found.push(no("spec.decryption", why.into()));
    }
    found.extend(idle(
        object,
        &[
            "spec.healthCheckExprs",
            "spec.ignoreMissingComponents",
            "spec.ignore",
            "spec.postBuild.substituteStrategy",
            "spec.buildMetadata",
            "spec.serviceAccountName",
        ],
    ));
    found
}

fn no(field: &'static str, why: String) -> Unsupported {
    Unsupported {
        field,
        why,
        refused: true,
    }
}

fn idle(object: &Object, fields: &[&'static str]) -> Vec<Unsupported> {
    let there = fields
        .iter()
        .copied()
        .filter(|field| set(object, field).is_some());
    there
        .map(|field| Unsupported {
            field,
            why: "not supported yet; it is kept and has no effect".into(),
            refused: false,
        })
        .collect()
}

/// A field's value, if it asks for something: null, false and what is empty does not.
fn set<'o>(object: &'o Object, field: &str) -> Option<&'o Value> {
    let value = object.pointer(&format!("/{}", field.replace('.', "/")))?;
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::String(text) if text.is_empty() => None,
        Value::Array(items) if items.is_empty() => None,
        // An empty map may stand for defaults, as in `verify: {}`.
        set => Some(set),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(kind: &str, spec: Value) -> Vec<(&'static str, bool)> {
        let group = if kind == "GitRepository" {
            "source"
        } else {
            "kustomize"
        };
        let object =
            json!({"apiVersion": format!("{group}.toolkit.fluxcd.io/v1"), "kind": kind, "spec": spec});
        let found = unsupported(&object);
        found.into_iter().map(|one| (one.field, one.refused)).collect()
    }

    #[test]
    fn what_is_asked_for_in_vain_is_named() {
        let repository = json!({"url": "ftp://git.example.com/a", "verify": {"mode": "head"},
            "proxySecretRef": {"name": "p"}, "recurseSubmodules": true, "sparseCheckout": ["a"]});
        let wanted = [
            ("spec.verify", true),
            ("spec.proxySecretRef", true),
            ("spec.url", true),
            ("spec.recurseSubmodules", false),
            ("spec.sparseCheckout", false),
        ];
        assert_eq!(of("GitRepository", repository), wanted);
        let kustomization = json!({"sourceRef": {"kind": "Bucket", "name": "b"}, "kubeConfig": {}, "decryption": {"provider": "sops"},
            "healthCheckExprs": [{}], "postBuild": {"substituteStrategy": "Always"}});
        let wanted = [
            ("spec.kubeConfig", true),
            ("spec.sourceRef", true),
            ("spec.decryption", true),
            ("spec.healthCheckExprs", false),
            ("spec.postBuild.substituteStrategy", false),
        ];
        assert_eq!(of("Kustomization", kustomization), wanted);
    }

    #[test]
    fn what_asks_for_nothing_is_not() {
        let repository = json!({"url": "https://git.example.com/a", "verify": null, "recurseSubmodules": false, "include": []});
        assert_eq!(of("GitRepository", repository), []);
        let kustomization =
            json!({"sourceRef": {"kind": "GitRepository", "name": "a"}, "kubeConfig": null, "path": "./a"});
        assert_eq!(of("Kustomization", kustomization), []);
        assert_eq!(
            unsupported(&json!({"apiVersion": "v1", "kind": "ConfigMap", "spec": {"verify": {}}})),
            []
        );
    }
}
