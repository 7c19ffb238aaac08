//! References by name that must follow when a named object got another name: prefixes, suffixes and the
//! hashes of generated ConfigMaps and Secrets.

use std::collections::HashMap;

use kinds::object;
use serde_json::Value;

use crate::resource::Resource;

/// Where objects name others: kind of the one named, and paths of the field. `*` is every element of a list.
/// Paths under `pod` start at each pod specification of the object.
const IN_PODS: &[(&str, &[&str])] = &[
    (
        "ConfigMap",
        &[
            "volumes.*.configMap.name",
            "volumes.*.projected.sources.*.configMap.name",
            "containers.*.env.*.valueFrom.configMapKeyRef.name",
            "containers.*.envFrom.*.configMapRef.name",
            "initContainers.*.env.*.valueFrom.configMapKeyRef.name",
            "initContainers.*.envFrom.*.configMapRef.name",
        ],
    ),
    (
        "Secret",
        &[
            "volumes.*.secret.secretName",
            "volumes.*.projected.sources.*.secret.name",
            "containers.*.env.*.valueFrom.secretKeyRef.name",
            "containers.*.envFrom.*.secretRef.name",
            "initContainers.*.env.*.valueFrom.secretKeyRef.name",
            "initContainers.*.envFrom.*.secretRef.name",
            "imagePullSecrets.*.name",
        ],
    ),
    ("ServiceAccount", &["serviceAccountName", "serviceAccount"]),
    (
        "PersistentVolumeClaim",
        &["volumes.*.persistentVolumeClaim.claimName"],
    ),
    ("PriorityClass", &["priorityClassName"]),
];

/// The same, in objects of one kind.
const IN_KINDS: &[(&str, &str, &[&str])] = &[
    (
        "ServiceAccount",
        "Secret",
        &["secrets.*.name", "imagePullSecrets.*.name"],
    ),
    ("Ingress", "Secret", &["spec.tls.*.secretName"]),
    (
        "Ingress",
        "Service",
        &[
            "spec.defaultBackend.service.name",
            "spec.rules.*.http.paths.*.backend.service.name",
        ],
    ),
    ("StatefulSet", "Service", &["spec.serviceName"]),
    ("PersistentVolumeClaim", "PersistentVolume", &["spec.volumeName"]),
    (
        "PersistentVolumeClaim",
        "StorageClass",
        &["spec.storageClassName"],
    ),
    ("PersistentVolume", "StorageClass", &["spec.storageClassName"]),
    (
        "StatefulSet",
        "StorageClass",
        &["spec.volumeClaimTemplates.*.spec.storageClassName"],
    ),
    ("Node", "ConfigMap", &["spec.configSource.configMap.name"]),
    // Not in kustomize, which knows only its own kinds: without these a prefix would break every VM.
    ("VirtualMachine", "ConfigMap", &["spec.vmMetadata.configMapName"]),
    ("VirtualMachine", "Secret", &["spec.vmMetadata.secretName"]),
    ("VirtualMachine", "VirtualMachineClass", &["spec.className"]),
    ("GitRepository", "Secret", &["spec.secretRef.name"]),
    ("Kustomization", "Secret", &["spec.decryption.secretRef.name"]),
];

/// Fields that hold kind and name side by side.
const BY_KIND: &[(&str, &str)] = &[
    ("HorizontalPodAutoscaler", "spec.scaleTargetRef"),
    ("RoleBinding", "roleRef"),
    ("ClusterRoleBinding", "roleRef"),
    ("RoleBinding", "subjects.*"),
    ("ClusterRoleBinding", "subjects.*"),
    ("Kustomization", "spec.sourceRef"),
    ("Kustomization", "spec.postBuild.substituteFrom.*"),
];

/// Rewrites references to objects that were renamed or moved.
pub(crate) fn follow(resources: &mut [Resource]) {
    let names = Names::of(resources);
    if names.0.is_empty() {
        return;
    }
    for resource in resources {
        let kind = resource.kind().to_owned();
        let from = From {
            namespaces: resource.keys().map(|k| k.namespace).collect(),
            affixes: resource.affixes.clone(),
        };
        let root = &mut resource.located.object;
        for (named, paths) in IN_PODS {
            for pod in pods(&kind) {
                for path in *paths {
                    each(root, &format!("{pod}.{path}"), &mut |field| {
                        names.rename(field, named, &from);
                    });
                }
            }
        }
        for (holder, named, paths) in IN_KINDS {
            for path in paths.iter().filter(|_| *holder == kind) {
                each(root, path, &mut |field| names.rename(field, named, &from));
            }
        }
        for (_, path) in BY_KIND.iter().filter(|(holder, _)| *holder == kind) {
            each(root, path, &mut |reference| {
                let named = reference
                    .get("kind")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned();
                if reference.get("namespace").is_some() {
                    names.relocate(reference, &named);
                } else if let Some(field) = reference.get_mut("name") {
                    names.rename(field, &named, &from);
                }
            });
        }
    }
}

/// Where the pod specifications of a kind are.
pub(crate) fn pods(kind: &str) -> &'static [&'static str] {
    match kind {
        "Pod" => &["spec"],
        "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet" | "Job" | "ReplicationController" => {
            &["spec.template.spec"]
        }
        "PodTemplate" => &["template.spec"],
        "CronJob" => &["spec.jobTemplate.spec.template.spec"],
        _ => &[],
    }
}

/// Calls `act` on every value at a path.
pub(crate) fn each(value: &mut Value, path: &str, act: &mut dyn FnMut(&mut Value)) {
    let (part, rest) = path
        .split_once('.')
        .map_or((path, None), |(part, rest)| (part, Some(rest)));
    if part == "*" {
        for item in value.as_array_mut().into_iter().flatten() {
            match rest {
                Some(rest) => each(item, rest, act),
                None => act(item),
            }
        }
    } else if let Some(child) = value.as_object_mut().and_then(|map| map.get_mut(part)) {
        match rest {
            Some(rest) => each(child, rest, act),
            None => act(child),
        }
    }
}

/// Who refers: only objects of its own namespace and, among copies of one base, of its own copy are meant.
struct From {
    namespaces: Vec<String>,
    affixes: Vec<String>,
}

/// The new name of each name that an object had.
struct Names(HashMap<(String, String), Vec<Renamed>>);

struct Renamed {
    name: String,
    namespaces: Vec<String>,
    namespace: String,
    affixes: Vec<String>,
}

impl Names {
    fn of(resources: &[Resource]) -> Self {
        let mut names: HashMap<(String, String), Vec<Renamed>> = HashMap::new();
        for resource in resources.iter().filter(|r| !r.before.is_empty()) {
            let mut old: Vec<String> = resource.before.iter().map(|k| k.name.clone()).collect();
            old.sort();
            old.dedup();
            for name in old {
                names
                    .entry((resource.kind().into(), name))
                    .or_default()
                    .push(Renamed {
                        name: object::name(&resource.located.object).into(),
                        namespaces: resource.keys().map(|k| k.namespace).collect(),
                        namespace: object::namespace(&resource.located.object).into(),
                        affixes: resource.affixes.clone(),
                    });
            }
        }
        Self(names)
    }

    fn rename(&self, field: &mut Value, kind: &str, from: &From) {
        let Some(name) = field.as_str() else { return };
        let Some(candidates) = self.0.get(&(kind.to_owned(), name.to_owned())) else {
            return;
        };
        let near = |c: &&Renamed| {
            c.namespaces
                .iter()
                .any(|n| from.namespaces.contains(n) || n.is_empty())
        };
        let shared = |c: &&Renamed| {
            c.affixes
                .iter()
                .zip(&from.affixes)
                .take_while(|(a, b)| a == b)
                .count()
        };
        if let Some(renamed) = candidates.iter().filter(near).max_by_key(shared) {
            *field = Value::String(renamed.name.clone());
        }
    }

    /// For references that name a namespace.
    fn relocate(&self, reference: &mut Value, kind: &str) {
        let text = |field: &str| {
            reference
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let (name, namespace) = (text("name"), text("namespace"));
        let Some(candidates) = self.0.get(&(kind.to_owned(), name)) else {
            return;
        };
        let near = |c: &&Renamed| {
            c.namespaces.contains(&namespace)
                || (namespace == "default" && c.namespaces.iter().any(String::is_empty))
        };
        if let Some(renamed) = candidates.iter().find(near) {
            reference["name"] = Value::String(renamed.name.clone());
            if !renamed.namespace.is_empty() {
                reference["namespace"] = Value::String(renamed.namespace.clone());
            }
        }
    }
}
