//! Defaults, admission, validation and unknown fields, kind by kind.

#![expect(clippy::unwrap_used, reason = "a failed unwrap here is a failed test")]

use kinds::{
    object::{Gvk, Object},
    registry::{FieldError, KindDef, Registry},
};
use serde_json::{Value, json};

const NOW: &str = "2026-01-31T12:00:00Z";

fn kind_of(object: &Object) -> KindDef {
    Registry::builtin().by_gvk(&Gvk::of(object)).unwrap().clone()
}

/// What the API server does with a new object.
fn create(mut object: Object) -> (Object, Vec<FieldError>) {
    let kind = kind_of(&object);
    kind.set_defaults(&mut object);
    kind.admit(None, &mut object, NOW);
    let errors = kind.validate(&object);
    let (once, now) = (object.clone(), "2030-01-01T00:00:00Z");
    kind.set_defaults(&mut object);
    kind.admit(Some(&once), &mut object, now);
    assert_eq!(object, once, "a second run changes nothing");
    (object, errors)
}

fn update(old: &Object, change: impl FnOnce(&mut Object)) -> (Object, Vec<FieldError>) {
    let (kind, mut new) = (kind_of(old), old.clone());
    change(&mut new);
    kind.set_defaults(&mut new);
    kind.admit(Some(old), &mut new, "2026-02-01T00:00:00Z");
    let mut errors = kind.validate(&new);
    errors.extend(kind.validate_update(old, &new));
    (new, errors)
}

fn paths(errors: &[FieldError]) -> Vec<&str> {
    errors.iter().map(|e| e.path.as_str()).collect()
}

fn vm(spec: Value) -> Object {
    let mut object = json!({
        "apiVersion": "vmoperator.vmware.com/v1alpha1", "kind": "VirtualMachine",
        "metadata": {"name": "linux", "namespace": "shop"},
        "spec": {"imageName": "server:9000/linux.ova", "className": "best-effort-small"},
    });
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    object
}

fn class(spec: Value) -> Object {
    json!({"apiVersion": "vmoperator.vmware.com/v1alpha1", "kind": "VirtualMachineClass", "metadata": {"name": "c"}, "spec": spec})
}

#[test]
fn a_new_virtual_machine_is_powered_on_and_has_no_status() {
    let mut object = vm(json!({"readinessProbe": {"tcpSocket": {"port": 22}}}));
    object["status"] = json!({"vmIp": "10.0.0.1"});
    let (object, errors) = create(object);
    assert_eq!(errors, []);
    assert!(object.get("status").is_none());
    let spec = &object["spec"];
    assert_eq!(
        (&spec["powerState"], &spec["powerOffMode"]),
        (&json!("poweredOn"), &json!("hard"))
    );
    assert_eq!(spec["readinessProbe"]["timeoutSeconds"], 10);
}

#[test]
fn the_power_state_is_kept_when_left_out() {
    let (old, _) = create(vm(json!({"powerState": "poweredOff"})));
    let (new, errors) = update(&old, |o| {
        drop(o["spec"].as_object_mut().unwrap().remove("powerState"));
    });
    assert_eq!(
        (errors, &new["spec"]["powerState"]),
        (vec![], &json!("poweredOff"))
    );
}

#[test]
fn restart_now_becomes_a_time_and_git_means_it_once() {
    let (old, errors) = create(vm(json!({"nextRestartTime": "NOW"})));
    assert_eq!((errors, &old["spec"]["nextRestartTime"]), (vec![], &json!(NOW)));
    let (again, _) = update(&old, |o| o["spec"]["nextRestartTime"] = "now".into());
    assert_eq!(again["spec"]["nextRestartTime"], "2026-02-01T00:00:00Z");
    let (from_git, errors) = update(&old, |o| {
        o["spec"]["nextRestartTime"] = "now".into();
        o["metadata"]["labels"] = json!({"kustomize.toolkit.fluxcd.io/name": "site"});
    });
    assert_eq!(
        (errors, &from_git["spec"]["nextRestartTime"]),
        (vec![], &json!(NOW))
    );
    assert_eq!(
        paths(&create(vm(json!({"nextRestartTime": "soon"}))).1),
        ["spec.nextRestartTime"]
    );
}

#[test]
fn fields_that_exclude_each_other() {
    for (spec, path) in [
        (
            json!({"vmMetadata": {"configMapName": "a", "secretName": "b"}}),
            "spec.vmMetadata.secretName",
        ),
        (
            json!({"advancedOptions": {"defaultVolumeProvisioningOptions": {"thinProvisioned": true, "eagerZeroed": true}}}),
            "spec.advancedOptions.defaultVolumeProvisioningOptions.eagerZeroed",
        ),
        (
            json!({"readinessProbe": {"tcpSocket": {"port": 1}, "guestHeartbeat": {}}}),
            "spec.readinessProbe",
        ),
        (json!({"readinessProbe": {}}), "spec.readinessProbe"),
        (
            json!({"networkInterfaces": [{"network": "a", "networkName": "b"}]}),
            "spec.networkInterfaces[0].network",
        ),
        (json!({"volumes": [{"name": "a"}]}), "spec.volumes[0]"),
        (
            json!({"volumes": [{"name": "a", "persistentVolumeClaim": {"claimName": "c"}, "vSphereVolume": {}}]}),
            "spec.volumes[0]",
        ),
        (
            json!({"volumes": [{"name": "a", "persistentVolumeClaim": {"claimName": "c", "readOnly": true}}]}),
            "spec.volumes[0].persistentVolumeClaim.readOnly",
        ),
        (
            json!({"volumes": [{"name": "a", "vSphereVolume": {"capacity": {"ephemeral-storage": "1000"}}}]}),
            "spec.volumes[0].vSphereVolume.capacity.ephemeral-storage",
        ),
        (json!({"minHardwareVersion": 12}), "spec.minHardwareVersion"),
        (json!({"imageName": ""}), "spec.imageName"),
        (json!({"className": null}), "spec.className"),
        (json!({"powerState": "on"}), "spec.powerState"),
        (
            json!({"networkInterfaces": [{"ethernetCardType": "ne2000"}]}),
            "spec.networkInterfaces[0].ethernetCardType",
        ),
        (
            json!({"networkInterfaces": vec![json!({}); 11]}),
            "spec.networkInterfaces",
        ),
        (
            json!({"readinessProbe": {"guestHeartbeat": {}, "timeoutSeconds": 61}}),
            "spec.readinessProbe.timeoutSeconds",
        ),
        (
            json!({"vmMetadata": {"transport": "cloudinit"}}),
            "spec.vmMetadata.transport",
        ),
    ] {
        assert_eq!(paths(&create(vm(spec.clone())).1), [path], "{spec}");
    }
    let twice = json!({"volumes": [
        {"name": "a", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "a", "persistentVolumeClaim": {"claimName": "d"}},
    ]});
    assert_eq!(create(vm(twice)).1[0].reason, "FieldValueDuplicate");
}

#[test]
fn what_manifests_in_the_field_do_is_fine() {
    for spec in [
        json!({"networkInterfaces": [{"networkName": "VM Network", "ethernetCardType": "vmxnet3"}, {"networkName": "VM Network", "ethernetCardType": "e1000"}]}),
        json!({"networkInterfaces": [{"network": "workload-network"}]}),
        json!({"vmMetadata": {"transport": "CloudInit"}, "imageName": "ec-wrkr.ova", "powerState": "poweredOff"}),
        json!({"vmMetadata": {"transport": "Sysprep", "secretName": "s"}, "unknown": {"deep": [1]}}),
        json!({"volumes": [{"name": "a", "vSphereVolume": {"deviceKey": 2000, "capacity": {"ephemeral-storage": 20_971_520}}}]}),
        json!({"storageClass": null, "volumes": null, "networkInterfaces": null}),
    ] {
        assert_eq!(create(vm(spec.clone())).1, [], "{spec}");
    }
    for spec in [
        json!({"hardware": {"cpus": 4, "memory": "8Gi"}, "policies": {"resources": {"requests": {"cpu": 4, "memory": "8Gi"}}}}),
        json!({"hardware": {"cpus": 3, "memory": 8_589_934_592_u64}, "policies": {"resources": {"requests": {"cpu": "2000m"}, "limits": {}}}}),
        json!({"controllerName": "vmoperator.vmware.com/ecworker", "hardware": {"cpus": 2, "devices": {"dynamicDirectPathIODevices": [{"vendorID": 0x10de, "deviceID": 0x1eb8}]}}}),
        json!({"configSpec": {"_typeName": "VirtualMachineConfigSpec", "extraConfig": [{"_typeName": "OptionValue", "key": "a", "value": true}]}}),
    ] {
        let (object, errors) = create(class(spec.clone()));
        assert_eq!(errors, [], "{spec}");
        assert_eq!(
            kind_of(&object).unknown_fields(&object),
            Vec::<String>::new(),
            "{spec}"
        );
    }
}

#[test]
fn class_requests_stay_below_limits_and_hardware() {
    let over = |resources| {
        create(class(
            json!({"hardware": {"cpus": 2, "memory": "4Gi"}, "policies": {"resources": resources}}),
        ))
        .1
    };
    assert_eq!(
        paths(&over(json!({"requests": {"cpu": 3}}))),
        ["spec.policies.resources.requests.cpu"]
    );
    assert_eq!(
        paths(&over(
            json!({"requests": {"memory": "3Gi"}, "limits": {"memory": "2Gi"}})
        )),
        ["spec.policies.resources.requests.memory"]
    );
    assert_eq!(
        paths(&over(json!({"requests": {"memory": "much"}}))),
        ["spec.policies.resources.requests.memory"]
    );
    assert_eq!(over(json!({"requests": {"cpu": 2}, "limits": {"cpu": 0}})), []);
}

#[test]
fn what_can_not_be_changed() {
    let (old, _) = create(vm(json!({})));
    assert_eq!(
        paths(&update(&old, |o| o["spec"]["imageName"] = "other".into()).1),
        ["spec.imageName"]
    );
    assert_eq!(update(&old, |o| o["spec"]["storageClass"] = "".into()).1, []);
    let cards = json!([{"networkName": "a"}]);
    assert_eq!(
        paths(&update(&old, |o| o["spec"]["networkInterfaces"] = cards.clone()).1),
        ["spec.networkInterfaces"]
    );
    let off = |o: &mut Object| {
        o["spec"]["networkInterfaces"] = cards.clone();
        o["spec"]["powerState"] = "poweredOff".into();
    };
    assert_eq!(update(&old, off).1, []);
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "d"}, "immutable": true});
    let (old, errors) = create(secret);
    assert_eq!((errors, &old["type"]), (vec![], &json!("Opaque")));
    assert_eq!(paths(&update(&old, |o| o["type"] = "x".into()).1), ["type"]);
    assert_eq!(
        paths(&update(&old, |o| o["stringData"] = json!({"a": "b"})).1),
        ["data"]
    );
}

#[test]
fn unknown_fields_are_named_and_kept() {
    let mut object =
        vm(json!({"networkInterfaces": [{"networkName": "a", "foo": 1}], "bar": {}, "readinessProbe": null}));
    object["metadata"]["baz"] = 1.into();
    object["metadata"]["annotations"] = json!({"any/key": "v"});
    object["status"] = json!({});
    let (object, errors) = create(object);
    assert_eq!(errors, []);
    assert_eq!(
        kind_of(&object).unknown_fields(&object),
        ["metadata.baz", "spec.bar", "spec.networkInterfaces[0].foo"]
    );
    assert_eq!(object["spec"]["networkInterfaces"][0]["foo"], 1);
}

#[test]
fn text_of_a_secret_becomes_data() {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "d"},
        "data": {"a": "eA==", "b": "eA=="}, "stringData": {"b": "hello", "unattend": "<xml/>"},
    });
    let (secret, errors) = create(secret);
    assert_eq!(errors, []);
    assert!(secret.get("stringData").is_none());
    assert_eq!(
        secret["data"],
        json!({"a": "eA==", "b": "aGVsbG8=", "unattend": "PHhtbC8+"})
    );
    let bad = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a b": "eA==", "c": "?"}, "type": "kubernetes.io/tls"});
    assert_eq!(paths(&create(bad).1), ["data.c"]);
    let bad = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a b": "eA=="}, "type": "kubernetes.io/tls"});
    assert_eq!(
        paths(&create(bad).1),
        ["data", r#"data["tls.crt"]"#, r#"data["tls.key"]"#]
    );
}

#[test]
fn namespaces_and_stray_namespaces() {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "namespace": "stray"}, "spec": {"template": {}}});
    let (namespace, errors) = create(namespace);
    assert_eq!(errors, []);
    assert_eq!(namespace["status"]["phase"], "Active");
    assert_eq!(
        namespace["metadata"],
        json!({"name": "shop", "labels": {"kubernetes.io/metadata.name": "shop"}})
    );
    assert_eq!(kind_of(&namespace).unknown_fields(&namespace), ["spec.template"]);
}

#[test]
fn names_labels_and_annotations() {
    for (metadata, path) in [
        (json!({}), "metadata.name"),
        (json!({"name": "Shop"}), "metadata.name"),
        (json!({"name": "a", "namespace": "a.b"}), "metadata.namespace"),
        (json!({"name": "a", "labels": {"k": "a b"}}), "metadata.labels.k"),
        (json!({"name": "a", "labels": {"": "x"}}), "metadata.labels"),
        (json!({"name": "a", "labels": {"k": true}}), "metadata.labels.k"),
        (
            json!({"name": "a", "annotations": {"a/b/c": "x"}}),
            "metadata.annotations",
        ),
        (json!({"name": 5}), "metadata.name"),
    ] {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
        assert_eq!(paths(&kind_of(&object).validate(&object)), [path], "{metadata}");
    }
    for metadata in [
        json!({"generateName": "a-"}),
        json!({"name": "a.b-c", "labels": {"x.y/Z_1": ""}, "annotations": {"X.y/z": "any thing"}}),
    ] {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
        assert_eq!(kind_of(&object).validate(&object), [], "{metadata}");
    }
}

#[test]
fn config_maps() {
    let map = |fields: Value| {
        let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}});
        object
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        create(object).1
    };
    assert_eq!(
        map(json!({"data": {"user-data": "#cloud-config"}, "binaryData": {"b": "AAE="}})),
        []
    );
    assert_eq!(paths(&map(json!({"data": {"a": 1}}))), ["data.a"]);
    assert_eq!(
        paths(&map(json!({"data": {"a": "x"}, "binaryData": {"a": "AAE="}}))),
        ["binaryData.a"]
    );
    assert_eq!(
        map(json!({"data": {"a": "x".repeat(2 << 20)}}))[0].reason,
        "FieldValueTooLong"
    );
}

#[test]
fn host_configurations() {
    let layer = |profile: Value| {
        json!({
            "apiVersion": "esx.vmware.com/v1alpha1", "kind": "HostConfiguration", "metadata": {"name": "a", "namespace": "esx-system"},
            "spec": {"profile": profile, "metrics-collection": {"enabled": true, "metrics-sink": {"url": "u", "data-format": "d"}}},
        })
    };
    // Broken JSON is stored: the status says where it is broken.
    for profile in [
        json!("{\"esx\": {}}"),
        json!("{ broken"),
        json!({"esx": {}}),
        json!(null),
    ] {
        let (object, errors) = create(layer(profile));
        assert_eq!(
            (errors, &object["spec"]["layertype"]),
            (vec![], &json!("Incremental"))
        );
        assert_eq!(kind_of(&object).unknown_fields(&object), Vec::<String>::new());
    }
    assert_eq!(paths(&create(layer(json!([1]))).1), ["spec.profile"]);
}

#[test]
fn flux_objects() {
    let repository = |version: &str, url: &str, interval: &str| {
        json!({
            "apiVersion": format!("source.toolkit.fluxcd.io/{version}"), "kind": "GitRepository", "metadata": {"name": "g"},
            "spec": {"url": url, "interval": interval, "gitImplementation": "go-git"},
        })
    };
    let (object, errors) = create(repository("v1beta2", "https://git/site", "1m"));
    assert_eq!((errors, &object["spec"]["timeout"]), (vec![], &json!("60s")));
    assert_eq!(
        paths(&create(repository("v1", "git@host:x", "1 minute")).1),
        ["spec.interval", "spec.url"]
    );
    let ks = |path: &str| {
        json!({
            "apiVersion": "kustomize.toolkit.fluxcd.io/v1beta2", "kind": "Kustomization", "metadata": {"name": "k"},
            "spec": {"interval": "10m", "prune": true, "path": path, "sourceRef": {"kind": "GitRepository", "name": "g"}, "validation": "client"},
        })
    };
    assert_eq!(create(ks("./sites/a")).1, []);
    assert_eq!(paths(&create(ks("../etc")).1), ["spec.path"]);
    let kind = kind_of(&object);
    let mut stored = object.clone();
    kind.to_stored(&mut stored);
    assert_eq!(stored["apiVersion"], "source.toolkit.fluxcd.io/v1");
    kind.from_stored(&mut stored, "v1beta2");
    assert_eq!(stored, object);
}

#[test]
fn events_in_two_forms() {
    let registry = Registry::builtin();
    let (core, new) = (
        registry.by_kind("", "Event").unwrap(),
        registry.by_kind("events.k8s.io", "Event").unwrap(),
    );
    assert_eq!(registry.stored(new).group, "");
    assert_eq!(registry.stored(core).group, "");
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "d"}, "eventTime": "2026-01-31T12:00:00.000000Z",
        "regarding": {"kind": "Pod", "name": "p"}, "note": "n", "reportingController": "c", "action": "a", "reason": "R", "type": "Normal",
        "deprecatedCount": 2, "deprecatedSource": {"component": "x"},
    });
    assert_eq!(create(event.clone()).1, []);
    let mut stored = event.clone();
    new.to_stored(&mut stored);
    assert_eq!(core.validate(&stored), []);
    assert_eq!(core.unknown_fields(&stored), Vec::<String>::new());
    assert_eq!(
        (
            &stored["message"],
            &stored["count"],
            &stored["involvedObject"]["name"]
        ),
        (&json!("n"), &json!(2), &json!("p"))
    );
    new.from_stored(&mut stored, "v1");
    assert_eq!(stored, event);
}

#[test]
fn columns_show_what_kubectl_shows() {
    let registry = Registry::builtin();
    let row = |object: &Object| -> Vec<Value> {
        let kind = registry.by_gvk(&Gvk::of(object)).unwrap();
        kind.versions[0]
            .columns
            .iter()
            .filter(|c| c.priority == 0)
            .map(|c| c.cell(object, NOW.parse().unwrap()))
            .collect()
    };
    let mut machine = vm(json!({}));
    machine["metadata"]["creationTimestamp"] = "2026-01-31T11:55:30Z".into();
    machine["status"] = json!({"powerState": "poweredOn", "vmIp": "10.0.0.5", "conditions": [{"type": "Created", "status": "False"}, {"type": "Ready", "status": "True"}]});
    assert_eq!(
        row(&machine),
        [
            json!("poweredOn"),
            json!("10.0.0.5"),
            json!("True"),
            json!("4m30s")
        ]
    );
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"creationTimestamp": "2026-01-01T12:00:00Z"}, "data": {"a": "", "b": ""}, "binaryData": {"c": ""}});
    assert_eq!(row(&map), [json!(3), json!("30d")]);
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {}, "lastTimestamp": null, "eventTime": "2026-01-31T11:59:59Z", "type": "Warning",
        "reason": "R", "message": "m", "involvedObject": {"kind": "VirtualMachine", "name": "v"}});
    assert_eq!(
        row(&event),
        [
            json!("1s"),
            json!("Warning"),
            json!("R"),
            json!("virtualmachine/v"),
            json!("m")
        ]
    );
}
