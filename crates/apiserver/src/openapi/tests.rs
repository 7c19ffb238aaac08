use super::*;

fn documents() -> OpenApi {
    OpenApi::of(&Registry::builtin(), "0.0.0")
}

fn read(document: &Document) -> Value {
    serde_json::from_slice(&document.plain()).unwrap()
}

#[test]
fn every_version_of_every_kind_has_its_document_and_schema() {
    let documents = documents();
    for kind in Registry::builtin().iter() {
        for version in &kind.versions {
            let document = read(&documents.v3[&gv_key(&kind.group, &version.name)]);
            let schema = &document["components"]["schemas"][schemas::name(kind, &version.name)];
            let gvk = json!([{"group": kind.group, "kind": kind.kind, "version": version.name}]);
            assert_eq!(schema["x-kubernetes-group-version-kind"], gvk);
            assert!(schema["properties"]["metadata"]["allOf"][0]["$ref"].is_string());
        }
    }
    let keys: Vec<&String> = documents.v3.keys().collect();
    assert_eq!(
        read(&documents.index)["paths"]
            .as_object()
            .unwrap()
            .keys()
            .collect::<Vec<_>>(),
        keys
    );
}

#[test]
fn names_are_those_of_kubernetes() {
    let registry = Registry::builtin();
    for (group, kind, version, expected) in [
        ("", "ConfigMap", "v1", "io.k8s.api.core.v1.ConfigMap"),
        (
            "coordination.k8s.io",
            "Lease",
            "v1",
            "io.k8s.api.coordination.v1.Lease",
        ),
        (
            "esx.vmware.com",
            "HostConfiguration",
            "v1alpha1",
            "com.vmware.esx.v1alpha1.HostConfiguration",
        ),
    ] {
        assert_eq!(
            schemas::name(registry.by_kind(group, kind).unwrap(), version),
            expected
        );
    }
}

#[test]
fn the_same_registry_gives_the_same_hashes() {
    let (one, two) = (documents(), documents());
    assert_eq!(one.index.etag, two.index.etag);
    assert_eq!(one.v2_protobuf.etag, two.v2_protobuf.etag);
}

#[test]
fn the_old_form_says_only_what_it_can() {
    fn check(node: &Value, inside_properties: bool) {
        if let Some(map) = node.as_object() {
            for (key, value) in map {
                let word = ["nullable", "oneOf", "anyOf", "allOf", "not"].contains(&key.as_str());
                assert!(inside_properties || !word, "{key}: {value}");
                check(value, key == "properties");
            }
        } else if let Some(items) = node.as_array() {
            items.iter().for_each(|item| check(item, false));
        }
    }
    let v2 = read(&documents().v2_json);
    check(&v2, false);
    let config_map = &v2["definitions"]["io.k8s.api.core.v1.ConfigMap"];
    assert_eq!(
        config_map["properties"]["metadata"]["$ref"],
        "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    );
    let patch = &v2["paths"]["/api/v1/namespaces/{namespace}/configmaps/{name}"]["patch"];
    assert!(
        patch["consumes"]
            .as_array()
            .unwrap()
            .contains(&json!("application/apply-patch+yaml"))
    );
    assert_eq!(patch["x-kubernetes-action"], "patch");
}

#[test]
fn old_documents_fit_new_patches() {
    // Kinds of Kubernetes are patched strategically; for others clients must be told that they can't.
    let registry = Registry::builtin();
    let types = |group: &str, kind: &str| paths::patch_types(registry.by_kind(group, kind).unwrap());
    assert!(types("", "Secret").contains(&"application/strategic-merge-patch+json"));
    assert!(
        !types("esx.vmware.com", "HostConfiguration").contains(&"application/strategic-merge-patch+json")
    );
}
