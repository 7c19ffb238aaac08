//! Changes over all objects: namespace, prefix and suffix, labels, annotations, images, replicas.

use std::collections::BTreeMap;

use kinds::object;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{references::each, resource::Resource};

/// An entry of `labels`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct LabelSet {
    pub(crate) pairs: BTreeMap<String, String>,
    pub(crate) include_selectors: bool,
    pub(crate) include_templates: bool,
}

/// An entry of `images`: what takes the place of an image.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, rename_all = "camelCase")]
pub struct Image {
    /// The image, without tag.
    pub name: String,
    /// Its new name.
    pub new_name: String,
    /// Its new tag.
    pub new_tag: String,
    /// Added to the tag.
    pub tag_suffix: String,
    /// Its digest, in place of a tag.
    pub digest: String,
}

/// An entry of `replicas`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Replicas {
    name: String,
    count: i64,
}

/// Kinds of Kubernetes that live in no namespace. Kinds that nobody knows are taken to live in one.
const CLUSTER: &[&str] = &[
    "APIService",
    "CSIDriver",
    "CSINode",
    "CertificateSigningRequest",
    "ClusterRole",
    "ClusterRoleBinding",
    "ComponentStatus",
    "CustomResourceDefinition",
    "FlowSchema",
    "IngressClass",
    "MutatingWebhookConfiguration",
    "Namespace",
    "Node",
    "PersistentVolume",
    "PodSecurityPolicy",
    "PriorityClass",
    "PriorityLevelConfiguration",
    "RuntimeClass",
    "SelfSubjectAccessReview",
    "SelfSubjectRulesReview",
    "StorageClass",
    "SubjectAccessReview",
    "TokenReview",
    "ValidatingWebhookConfiguration",
    "VolumeAttachment",
];

/// Moves everything to a namespace; a Namespace object gets its name.
pub(crate) fn namespace(resources: &mut [Resource], namespace: &str) {
    if namespace.is_empty() {
        return;
    }
    for resource in resources {
        match resource.kind() {
            "Namespace" => resource.rename(namespace.into()),
            kind if CLUSTER.contains(&kind) => {}
            _ => resource.relocate(namespace),
        }
        if matches!(resource.kind(), "RoleBinding" | "ClusterRoleBinding") {
            each(&mut resource.located.object, "subjects.*", &mut |subject| {
                let is = |field: &str, value: &str| subject.get(field).and_then(Value::as_str) == Some(value);
                if is("kind", "ServiceAccount") && is("name", "default") {
                    subject["namespace"] = namespace.into();
                }
            });
        }
    }
}

/// Puts a prefix and a suffix to the names.
pub(crate) fn affixes(resources: &mut [Resource], prefix: &str, suffix: &str) {
    if prefix.is_empty() && suffix.is_empty() {
        return;
    }
    for resource in resources {
        if !matches!(
            resource.kind(),
            "Namespace" | "CustomResourceDefinition" | "APIService"
        ) {
            let name = format!("{prefix}{}{suffix}", object::name(&resource.located.object));
            resource.rename(name);
        }
        // Outermost first, so that a common start means a common way up.
        resource.affixes.insert(0, format!("{prefix}…{suffix}"));
    }
}

/// Adds labels to objects and, if asked, to their templates and selectors.
pub(crate) fn labels(resources: &mut [Resource], set: &LabelSet) {
    for resource in resources {
        let kind = resource.kind().to_owned();
        let group = object::split_api_version(object::api_version(&resource.located.object))
            .0
            .to_owned();
        let root = &mut resource.located.object;
        put(root, &["metadata", "labels"], &set.pairs);
        if is_workload(&group, &kind) && (set.include_selectors || set.include_templates) {
            for path in template_metadata(&kind) {
                let path: Vec<&str> = path.iter().copied().chain(["labels"]).collect();
                put(root, &path, &set.pairs);
            }
            if kind == "StatefulSet" {
                each(root, "spec.volumeClaimTemplates.*", &mut |claim| {
                    put(claim, &["metadata", "labels"], &set.pairs);
                });
            }
        }
        if set.include_selectors {
            selectors(root, &group, &kind, &set.pairs);
        }
    }
}

/// Kinds whose pods carry the labels: those of Kubernetes, not a stranger's of the same name.
fn is_workload(group: &str, kind: &str) -> bool {
    match kind {
        "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet" => matches!(group, "apps" | "extensions"),
        "Job" | "CronJob" => group == "batch",
        "ReplicationController" => group.is_empty(),
        _ => false,
    }
}

fn selectors(root: &mut Value, group: &str, kind: &str, pairs: &BTreeMap<String, String>) {
    match kind {
        "Service" | "ReplicationController" if group.is_empty() => put(root, &["spec", "selector"], pairs),
        _ if is_workload(group, kind) && !matches!(kind, "Job" | "CronJob") => {
            put(root, &["spec", "selector", "matchLabels"], pairs);
            for path in [
                "spec.template.spec.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution.*.podAffinityTerm.labelSelector.matchLabels",
                "spec.template.spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution.*.labelSelector.matchLabels",
                "spec.template.spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution.*.podAffinityTerm.labelSelector.matchLabels",
                "spec.template.spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution.*.labelSelector.matchLabels",
                "spec.template.spec.topologySpreadConstraints.*.labelSelector.matchLabels",
            ] {
                each(root, path, &mut |labels| put(labels, &[], pairs));
            }
        }
        "Job" if group == "batch" => each(root, "spec.selector.matchLabels", &mut |l| put(l, &[], pairs)),
        "CronJob" if group == "batch" => {
            each(root, "spec.jobTemplate.spec.selector.matchLabels", &mut |l| {
                put(l, &[], pairs);
            });
        }
        "PodDisruptionBudget" if group == "policy" => {
            each(root, "spec.selector.matchLabels", &mut |l| put(l, &[], pairs));
        }
        "NetworkPolicy" if group == "networking.k8s.io" => {
            for path in [
                "spec.podSelector.matchLabels",
                "spec.ingress.*.from.*.podSelector.matchLabels",
                "spec.egress.*.to.*.podSelector.matchLabels",
            ] {
                each(root, path, &mut |l| put(l, &[], pairs));
            }
        }
        _ => {}
    }
}

/// Where the metadata of an object's templates is.
fn template_metadata(kind: &str) -> &'static [&'static [&'static str]] {
    match kind {
        "CronJob" => &[
            &["spec", "jobTemplate", "metadata"],
            &["spec", "jobTemplate", "spec", "template", "metadata"],
        ],
        _ => &[&["spec", "template", "metadata"]],
    }
}

/// Adds annotations to objects and their templates.
pub(crate) fn annotations(resources: &mut [Resource], pairs: &BTreeMap<String, String>) {
    for resource in resources.iter_mut().filter(|_| !pairs.is_empty()) {
        let kind = resource.kind().to_owned();
        let group = object::split_api_version(object::api_version(&resource.located.object))
            .0
            .to_owned();
        put(&mut resource.located.object, &["metadata", "annotations"], pairs);
        for path in template_metadata(&kind)
            .iter()
            .filter(|_| is_workload(&group, &kind))
        {
            let path: Vec<&str> = path.iter().copied().chain(["annotations"]).collect();
            put(&mut resource.located.object, &path, pairs);
        }
    }
}

/// Adds labels and annotations to objects only, not to templates.
pub(crate) fn metadata(
    resources: &mut [Resource],
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) {
    for resource in resources {
        put(&mut resource.located.object, &["metadata", "labels"], labels);
        put(
            &mut resource.located.object,
            &["metadata", "annotations"],
            annotations,
        );
    }
}

/// Puts pairs into the map at a path, which is made if absent. A value that is no map stays as it is.
pub(crate) fn put(value: &mut Value, path: &[&str], pairs: &BTreeMap<String, String>) {
    if pairs.is_empty() {
        return;
    }
    let mut here = value;
    for part in path {
        let Some(map) = here.as_object_mut() else { return };
        let child = map.entry(*part).or_insert(Value::Null);
        if child.is_null() {
            *child = Value::Object(Map::new());
        }
        here = child;
    }
    if let Some(map) = here.as_object_mut() {
        map.extend(pairs.iter().map(|(k, v)| (k.clone(), Value::String(v.clone()))));
    }
}

/// Sets the number of replicas of workloads by name.
pub(crate) fn replicas(resources: &mut [Resource], wanted: &[Replicas]) {
    for resource in resources {
        if !matches!(
            resource.kind(),
            "Deployment" | "ReplicaSet" | "StatefulSet" | "ReplicationController"
        ) {
            continue;
        }
        let names: Vec<String> = resource.keys().map(|k| k.name).collect();
        let Some(replicas) = wanted.iter().find(|r| names.contains(&r.name)) else {
            continue;
        };
        if let Some(root) = resource.located.object.as_object_mut() {
            let spec = root.entry("spec").or_insert_with(|| Value::Object(Map::new()));
            if let Some(spec) = spec.as_object_mut() {
                spec.insert("replicas".into(), replicas.count.into());
            }
        }
    }
}

/// Changes images of containers, wherever an object has any.
pub(crate) fn images(resources: &mut [Resource], images: &[Image]) {
    for resource in resources.iter_mut().filter(|_| !images.is_empty()) {
        containers(&mut resource.located.object, images);
    }
}

fn containers(value: &mut Value, images: &[Image]) {
    match value {
        Value::Object(map) => {
            for (key, child) in map {
                if matches!(key.as_str(), "containers" | "initContainers") {
                    each(child, "*.image", &mut |image| {
                        for wanted in images {
                            if let Some(new) = image.as_str().and_then(|old| reimage(old, wanted)) {
                                *image = Value::String(new);
                            }
                        }
                    });
                } else {
                    containers(child, images);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| containers(item, images)),
        _ => {}
    }
}

/// The image that takes the place of `image`, if `wanted` is about it.
fn reimage(image: &str, wanted: &Image) -> Option<String> {
    let (rest, digest) = image
        .split_once('@')
        .map_or((image, None), |(rest, digest)| (rest, Some(digest)));
    // A colon before the last slash belongs to the registry's port.
    let slash = rest.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match rest[slash..].find(':') {
        Some(at) => (&rest[..slash + at], Some(&rest[slash + at + 1..])),
        None => (rest, None),
    };
    if name != wanted.name {
        return None;
    }
    let new_name = if wanted.new_name.is_empty() {
        name
    } else {
        &wanted.new_name
    };
    let suffix = &wanted.tag_suffix;
    if !wanted.digest.is_empty() {
        // A new tag beside the digest is kept for people to read.
        let tag = if wanted.new_tag.is_empty() {
            String::new()
        } else {
            format!(":{}", wanted.new_tag)
        };
        return Some(format!("{new_name}{tag}@{}", wanted.digest));
    }
    if !wanted.new_tag.is_empty() {
        return Some(format!("{new_name}:{}{suffix}", wanted.new_tag));
    }
    let tag = tag.map(|t| format!(":{t}{suffix}")).unwrap_or_default();
    Some(format!(
        "{new_name}{tag}{}",
        digest.map(|d| format!("@{d}")).unwrap_or_default()
    ))
}
