//! What manifests of the field become.

use serde_json::json;

use super::*;

fn class() -> Object {
    json!({"metadata": {"name": "small"}, "spec": {"hardware": {"cpus": 2, "memory": "4Gi"}}})
}

fn vm(spec: Value) -> Object {
    json!({"metadata": {"name": "till", "namespace": "shop", "uid": "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f9"}, "spec": spec})
}

fn desired(vm: &Object, class: Option<&Object>, bootstrap: Bootstrap) -> Desired {
    of(Inputs {
        vm,
        identity: object::uid(vm),
        class,
        bootstrap,
    })
}

fn with_class(spec: Value) -> Desired {
    desired(&vm(spec), Some(&class()), Bootstrap::None)
}

#[test]
fn defaults() {
    let desired = with_class(json!({"className": "small", "imageName": "linux.ova"}));
    assert_eq!(
        (desired.power, desired.off_mode, desired.restart_at),
        (Power::PoweredOn, Mode::Hard, None)
    );
    let hardware = desired.hardware.unwrap();
    assert_eq!(
        (hardware.cpus, hardware.memory_mib, hardware.firmware),
        (2, 4096, None)
    );
    assert_eq!(hardware.uuid, "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f9");
    assert_eq!(hardware.nics.len(), 1);
    assert_eq!(
        (
            hardware.nics[0].port_group.as_str(),
            hardware.nics[0].model.as_str()
        ),
        ("VM Network", "virtio-net-pci")
    );
    assert!(desired.seed.is_none() && desired.missing.is_empty() && desired.notes.is_empty());
}

#[test]
fn cards_as_written_in_the_field() {
    let cards = json!([
        {"networkName": "VM Network", "ethernetCardType": "vmxnet3"},
        {"networkName": "VM Network", "ethernetCardType": "e1000"},
        {"network": "workload-network"},
        {"ethernetCardType": "pcnet32"}]);
    let nics = with_class(json!({"networkInterfaces": cards}))
        .hardware
        .unwrap()
        .nics;
    let got: Vec<(&str, &str)> = nics
        .iter()
        .map(|nic| (nic.port_group.as_str(), nic.model.as_str()))
        .collect();
    assert_eq!(
        got,
        [
            ("VM Network", "virtio-net-pci"),
            ("VM Network", "e1000"),
            ("workload-network", "virtio-net-pci"),
            ("VM Network", "pcnet")
        ]
    );
    assert_eq!(
        with_class(json!({"networkInterfaces": vec![json!({}); 12]}))
            .hardware
            .unwrap()
            .nics
            .len(),
        MAX_NICS
    );
    let mut without = vm(json!({}));
    without["metadata"]["annotations"] = json!({"vmoperator.vmware.com/no-default-nic": ""});
    assert!(
        desired(&without, Some(&class()), Bootstrap::None)
            .hardware
            .unwrap()
            .nics
            .is_empty()
    );
}

#[test]
fn requests_in_cores_or_millicores_and_what_has_no_effect_yet() {
    let class = json!({"metadata": {"name": "rt"}, "spec": {
        "hardware": {"cpus": 4, "memory": "4Gi", "devices": {"dynamicDirectPathIODevices": [{"vendorID": 0x10de, "deviceID": 1}]}},
        "policies": {"resources": {"requests": {"cpu": 4, "memory": "4Gi"}, "limits": {"cpu": "2500m"}}},
        "configSpec": {"_typeName": "VirtualMachineConfigSpec", "numCoresPerSocket": 2, "latencySensitivity": {"level": "high"},
            "bootOptions": {"efiSecureBootEnabled": true}}}});
    let desired = desired(&vm(json!({})), Some(&class), Bootstrap::None);
    let limits = Limits {
        cpu_request: 4000,
        cpu_limit: 2500,
        memory_request: 4 << 30,
        memory_limit: 0,
    };
    assert_eq!(desired.limits, limits);
    let hardware = desired.hardware.unwrap();
    assert_eq!(
        (hardware.cores_per_socket, hardware.firmware),
        (2, Some(Firmware::EfiSecure))
    );
    assert_eq!(desired.notes.len(), 2, "{:?}", desired.notes);
}

#[test]
fn a_class_that_makes_no_sense_is_named() {
    for (hardware, word) in [
        (json!({"cpus": 0, "memory": "1Gi"}), "cpus"),
        (json!({"memory": "1Gi"}), "cpus"),
        (json!({"cpus": 1, "memory": "much"}), "memory"),
        (json!({"cpus": 1, "memory": "900Ei"}), "memory"),
        (json!({"cpus": 1, "memory": 3}), "memory"),
    ] {
        let class = json!({"metadata": {"name": "odd"}, "spec": {"hardware": hardware}});
        let desired = desired(&vm(json!({})), Some(&class), Bootstrap::None);
        assert_eq!(desired.missing[0].reason, "VirtualMachineClassInvalid");
        assert!(desired.missing[0].message.contains(word) && desired.missing[0].message.contains("odd"));
    }
}

#[test]
fn the_guest_is_told_what_the_config_map_says() {
    let spec = json!({"vmMetadata": {"configMapName": "c", "transport": "ExtraConfig"}});
    let data = BTreeMap::from([("userdata".to_owned(), b"#cloud-config".to_vec())]);
    let seed = desired(&vm(spec.clone()), Some(&class()), Bootstrap::Data(data))
        .seed
        .unwrap();
    assert_eq!(
        (seed.host_name.as_str(), seed.transport),
        ("till", Transport::ExtraConfig)
    );
    assert_eq!(seed.nics.len(), 1);
    let missing = desired(
        &vm(spec),
        Some(&class()),
        Bootstrap::Missing("ConfigMap", "c".into()),
    )
    .missing;
    assert_eq!(
        missing[0].message,
        "ConfigMap \"c\" of spec.vmMetadata does not exist in namespace \"shop\""
    );
    // The worker's own sample has only a transport.
    assert!(
        with_class(json!({"vmMetadata": {"transport": "CloudInit"}}))
            .seed
            .is_some()
    );
}

#[test]
fn probes() {
    let probe = |spec| with_class(json!({"readinessProbe": spec})).probe;
    let tcp = |port| Probe {
        kind: ProbeKind::Tcp { host: None, port },
        timeout: 10,
        period: 10,
    };
    assert_eq!(probe(json!({"tcpSocket": {"port": 22}})), Some(tcp(22)));
    assert_eq!(probe(json!({"tcpSocket": {"port": "80"}})), Some(tcp(80)));
    assert_eq!(probe(json!({"tcpSocket": {"port": "http"}})), None);
    let beat = Some(Probe {
        kind: ProbeKind::Heartbeat,
        timeout: 60,
        period: 1,
    });
    assert_eq!(
        probe(json!({"guestHeartbeat": {}, "timeoutSeconds": 600, "periodSeconds": 1})),
        beat
    );
}

#[test]
fn firmware_by_annotation_and_class() {
    let mut object = vm(json!({}));
    let firmware = |object: &Object, class: &Object| {
        desired(object, Some(class), Bootstrap::None)
            .hardware
            .unwrap()
            .firmware
    };
    let mut secure = class();
    secure["spec"]["configSpec"] = json!({"bootOptions": {"efiSecureBootEnabled": true}});
    assert_eq!(
        firmware(&object, &secure),
        Some(Firmware::EfiSecure),
        "the class alone is enough"
    );
    object["metadata"]["annotations"] = json!({"vmoperator.vmware.com/firmware": "efi"});
    assert_eq!(firmware(&object, &class()), Some(Firmware::Efi));
    assert_eq!(firmware(&object, &secure), Some(Firmware::EfiSecure));
    object["metadata"]["annotations"] = json!({"vmoperator.vmware.com/firmware": "bios"});
    assert_eq!(firmware(&object, &secure), Some(Firmware::Bios));
}

#[test]
fn predefined_classes_can_be_read() {
    for class in crate::classes::predefined() {
        assert!(
            desired(&vm(json!({})), Some(&class), Bootstrap::None)
                .missing
                .is_empty(),
            "{class}"
        );
    }
    assert!(crate::classes::named("best-effort-small").is_some() && crate::classes::named("x").is_none());
}
