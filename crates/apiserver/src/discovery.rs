//! What clients ask first: which groups, versions and resources there are.
//!
//! Plain discovery is one document per group version; aggregated discovery (Kubernetes 1.26 and later) is all of
//! them in two.

use std::collections::BTreeMap;

use kinds::registry::{Registry, Scope};
use serde_json::{Value, json};

/// Aggregated discovery: the two versions of its format that clients know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aggregated {
    /// `v2`.
    V2,
    /// `v2beta1`.
    V2Beta1,
}

impl Aggregated {
    /// As in `Accept` and `apiVersion`.
    pub(crate) fn version(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V2Beta1 => "v2beta1",
        }
    }

    /// The media type of an answer.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::V2 => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Self::V2Beta1 => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        }
    }
}

/// A resource, as discovery shows it.
struct Resource<'a> {
    group: &'a str,
    version: &'a str,
    plural: &'a str,
    singular: &'a str,
    kind: &'a str,
    namespaced: bool,
    short_names: &'a [String],
    categories: &'a [String],
    verbs: &'static [&'static str],
    has_status: bool,
}

const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const STATUS_VERBS: [&str; 3] = ["get", "patch", "update"];

/// Resources that are questions, not objects: group, plural, singular, kind.
pub(crate) const REVIEWS: [(&str, &str, &str, &str); 2] = [
    (
        "authentication.k8s.io",
        "selfsubjectreviews",
        "selfsubjectreview",
        "SelfSubjectReview",
    ),
    (
        "authorization.k8s.io",
        "selfsubjectaccessreviews",
        "selfsubjectaccessreview",
        "SelfSubjectAccessReview",
    ),
];

fn resources(registry: &Registry) -> Vec<Resource<'_>> {
    let mut all = Vec::new();
    for kind in registry.iter() {
        for version in &kind.versions {
            all.push(Resource {
                group: &kind.group,
                version: &version.name,
                plural: &kind.plural,
                singular: &kind.singular,
                kind: &kind.kind,
                namespaced: kind.scope == Scope::Namespaced,
                short_names: &kind.short_names,
                categories: &kind.categories,
                verbs: &VERBS,
                has_status: kind.has_status,
            });
        }
    }
    for (group, plural, singular, kind) in REVIEWS {
        let verbs = &["create"];
        all.push(Resource {
            group,
            version: "v1",
            plural,
            singular,
            kind,
            namespaced: false,
            short_names: &[],
            categories: &[],
            verbs,
            has_status: false,
        });
    }
    all
}

/// Groups in the order of discovery, each with its versions, best first. The core group is among them.
fn groups<'a>(resources: &[Resource<'a>]) -> Vec<(&'a str, Vec<&'a str>)> {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for resource in resources {
        let versions = groups.entry(resource.group).or_default();
        if !versions.contains(&resource.version) {
            versions.push(resource.version);
        }
    }
    for versions in groups.values_mut() {
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
    }
    groups.into_iter().collect()
}

/// Kubernetes' order of versions: stable before beta before alpha, then by number.
fn priority(version: &str) -> (u8, u32, u32) {
    let rest = version.strip_prefix('v').unwrap_or(version);
    let (major, stage) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
    let major = major.parse().unwrap_or(0);
    match (stage.strip_prefix("beta"), stage.strip_prefix("alpha")) {
        (Some(minor), _) => (1, major, minor.parse().unwrap_or(0)),
        (_, Some(minor)) => (0, major, minor.parse().unwrap_or(0)),
        _ => (2, major, 0),
    }
}

fn join(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.into()
    } else {
        format!("{group}/{version}")
    }
}

/// `/api`. `address` is the host and port by which the client reached us.
pub(crate) fn core_versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// `/apis`.
pub(crate) fn group_list(registry: &Registry) -> Value {
    let resources = resources(registry);
    let groups: Vec<Value> = groups(&resources)
        .iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, versions)| api_group(group, versions))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`, `None` if there is no such group.
pub(crate) fn group(registry: &Registry, name: &str) -> Option<Value> {
    let resources = resources(registry);
    let groups = groups(&resources);
    let (group, versions) = groups
        .iter()
        .find(|(group, _)| *group == name && !name.is_empty())?;
    let mut value = api_group(group, versions);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Some(value)
}

fn api_group(group: &str, versions: &[&str]) -> Value {
    let one = |version: &&str| json!({"groupVersion": join(group, version), "version": version});
    let all: Vec<Value> = versions.iter().map(one).collect();
    json!({"name": group, "versions": all, "preferredVersion": all.first()})
}

/// `/api/v1` and `/apis/<group>/<version>`, `None` if it is not served.
pub(crate) fn resource_list(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let resources = resources(registry);
    let mut list = Vec::new();
    for resource in resources
        .iter()
        .filter(|r| r.group == group && r.version == version)
    {
        let mut value = json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": resource.verbs,
        });
        if !resource.short_names.is_empty() {
            value["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            value["categories"] = json!(resource.categories);
        }
        list.push(value);
        if resource.has_status {
            list.push(json!({
                "name": format!("{}/status", resource.plural), "singularName": "", "namespaced": resource.namespaced,
                "kind": resource.kind, "verbs": STATUS_VERBS,
            }));
        }
    }
    if list.is_empty() {
        return None;
    }
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": join(group, version), "resources": list}),
    )
}

/// The aggregated form of `/api` (`core`) or `/apis`.
pub(crate) fn aggregated(registry: &Registry, format: Aggregated, core: bool) -> Value {
    let resources = resources(registry);
    let mut items = Vec::new();
    for (group, versions) in groups(&resources) {
        if group.is_empty() != core {
            continue;
        }
        let version = |version: &&str| {
            let own = resources
                .iter()
                .filter(|r| r.group == group && r.version == *version);
            json!({"version": version, "freshness": "Current", "resources": own.map(aggregated_resource).collect::<Vec<_>>()})
        };
        let versions: Vec<Value> = versions.iter().map(version).collect();
        let mut metadata = json!({"creationTimestamp": null});
        if !core {
            metadata["name"] = group.into();
        }
        items.push(json!({"metadata": metadata, "versions": versions}));
    }
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{}", format.version()),
        "metadata": {}, "items": items,
    })
}

fn aggregated_resource(resource: &Resource<'_>) -> Value {
    let response_kind = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
    let mut value = json!({
        "resource": resource.plural, "responseKind": response_kind, "singularResource": resource.singular,
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" }, "verbs": resource.verbs,
    });
    if !resource.short_names.is_empty() {
        value["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        value["categories"] = json!(resource.categories);
    }
    if resource.has_status {
        value["subresources"] =
            json!([{"subresource": "status", "responseKind": response_kind, "verbs": STATUS_VERBS}]);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::priority;

    #[test]
    fn versions_in_kubernetes_order() {
        let mut versions = vec!["v1alpha1", "v2", "v1beta2", "v1", "v1beta10", "v2alpha1"];
        versions.sort_by_key(|v| std::cmp::Reverse(priority(v)));
        assert_eq!(
            versions,
            ["v2", "v1", "v1beta10", "v1beta2", "v2alpha1", "v1alpha1"]
        );
    }
}
