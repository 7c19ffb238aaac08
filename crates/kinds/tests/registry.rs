//! The built-in kinds as data: names, schemas, speed.

use kinds::{
    Gvk, Gvr,
    registry::{Registry, Scope},
};
use serde_json::Value;

#[test]
fn names() {
    let registry = Registry::builtin();
    let lines: Vec<String> = registry
        .iter()
        .map(|k| {
            let versions: Vec<&str> = k.versions.iter().map(|v| v.name.as_str()).collect();
            let columns: Vec<&str> = k.versions[0].columns.iter().map(|c| c.name.as_str()).collect();
            format!(
                "{}/{} {} {} {:?} short={:?} categories={:?} status={} ephemeral={} columns={columns:?}",
                k.group,
                versions.join(","),
                k.kind,
                k.plural,
                k.scope,
                k.short_names,
                k.categories,
                k.has_status,
                k.ephemeral,
            )
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn every_kind_is_found_by_all_its_names() {
    let registry = Registry::builtin();
    for kind in registry.iter() {
        for version in &kind.versions {
            let gvr = Gvr {
                group: kind.group.clone(),
                version: version.name.clone(),
                plural: kind.plural.clone(),
            };
            let gvk = Gvk {
                group: kind.group.clone(),
                version: version.name.clone(),
                kind: kind.kind.clone(),
            };
            assert_eq!(registry.by_resource(&gvr).unwrap().kind, kind.kind);
            assert_eq!(registry.by_gvk(&gvk).unwrap().group, kind.group);
        }
        assert!(kind.version(&kind.storage_version).is_some());
        assert!(
            registry
                .by_resource(&Gvr {
                    version: "v0".into(),
                    ..kind.gvr()
                })
                .is_none()
        );
    }
    use kinds::gvr;
    for gvr in [
        gvr::namespaces(),
        gvr::config_maps(),
        gvr::secrets(),
        gvr::events(),
        gvr::leases(),
        gvr::host_configurations(),
        gvr::virtual_machines(),
        gvr::virtual_machine_classes(),
        gvr::git_repositories(),
        gvr::kustomizations(),
    ] {
        assert_eq!(registry.by_resource(&gvr).unwrap().gvr(), gvr);
    }
    assert_eq!(registry.by_kind("", "Namespace").unwrap().scope, Scope::Cluster);
}

#[test]
fn schemas_are_structural_and_described() {
    fn walk(path: &str, node: &Value, problems: &mut Vec<String>) {
        let known = [
            "type",
            "description",
            "properties",
            "items",
            "additionalProperties",
            "required",
            "enum",
            "default",
            "format",
            "nullable",
            "minimum",
            "maximum",
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
            "x-kubernetes-preserve-unknown-fields",
            "x-kubernetes-int-or-string",
            "x-kubernetes-list-type",
            "x-kubernetes-list-map-keys",
            "x-kubernetes-map-type",
            "x-kubernetes-patch-merge-key",
            "x-kubernetes-patch-strategy",
            "x-kubernetes-group-version-kind",
        ];
        let map = node.as_object().unwrap();
        for key in map.keys().filter(|k| !known.contains(&k.as_str())) {
            problems.push(format!("{path}: unknown keyword {key}"));
        }
        let anything = map.contains_key("x-kubernetes-preserve-unknown-fields")
            || map.contains_key("x-kubernetes-int-or-string");
        if !map.contains_key("type") && !anything {
            problems.push(format!("{path}: no type"));
        }
        if map.contains_key("properties") && map["type"] != "object" {
            problems.push(format!("{path}: properties without type object"));
        }
        if map.get("type").is_some_and(|t| t == "array") != map.contains_key("items") {
            problems.push(format!("{path}: array and items go together"));
        }
        for (name, property) in map
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            if property.get("description").is_none() {
                problems.push(format!("{path}.{name}: no description"));
            }
            walk(&format!("{path}.{name}"), property, problems);
        }
        for name in map
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            if map["properties"].get(name.as_str().unwrap()).is_none() {
                problems.push(format!("{path}: required {name} is no property"));
            }
        }
        for key in map
            .get("x-kubernetes-list-map-keys")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            if map["items"]["properties"].get(key.as_str().unwrap()).is_none() {
                problems.push(format!("{path}: map key {key} is no property"));
            }
        }
        for key in ["items", "additionalProperties"] {
            if let Some(node) = map.get(key) {
                walk(&format!("{path}[]"), node, problems);
            }
        }
    }
    let mut problems = Vec::new();
    for kind in Registry::builtin().iter() {
        for version in &kind.versions {
            walk(&kind.kind, &version.schema, &mut problems);
        }
    }
    assert_eq!(problems, Vec::<String>::new());
}

#[test]
#[expect(clippy::disallowed_methods, reason = "measures the real time")]
fn loading_is_quick() {
    let start = std::time::Instant::now();
    let kinds = Registry::builtin().iter().count();
    let took = start.elapsed();
    println!("loaded {kinds} kinds in {took:?}");
    // The aim is 20 ms in a release build; a debug build on a busy machine is several times slower.
    assert!(took.as_millis() < 200, "{took:?}");
}

#[test]
fn the_reference_has_every_kind_and_field() {
    let page = kinds::reference::markdown(&Registry::builtin());
    for part in [
        "## VirtualMachine (vmoperator.vmware.com/v1alpha1)",
        "| `spec.networkInterfaces[].networkName` | text |  |",
        "| `spec.imageName` | text | required |",
        "| `spec.hardware.memory` | quantity |",
        "| `esx.network_vss.switches[].port_groups[].vlan_id` | whole number |",
        "At most 4095.",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert_eq!(
        page.matches("\n## ").count(),
        Registry::builtin().iter().count() + 1
    );
}
