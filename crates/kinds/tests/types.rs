//! Objects as types, with the quirks of manifests in the field.

use std::time::Duration;

use kinds::{core, flux, host, registry::Registry, vm};
use serde_json::json;

#[test]
fn a_virtual_machine_with_the_alias_and_two_cards_on_one_network() {
    let object = json!({
        "apiVersion": "vmoperator.vmware.com/v1alpha1", "kind": "VirtualMachine",
        "metadata": {"name": "win", "namespace": "shop", "uid": "u", "creationTimestamp": null, "labels": null},
        "spec": {
            "imageName": "192.168.6.52:9000/win10vm.ova", "className": "best-effort-small", "powerState": "poweredOff",
            "networkInterfaces": [
                {"network": "workload-network"}, {"networkName": "VM Network", "ethernetCardType": "e1000"}, {"networkName": "VM Network"}, {},
            ],
            "vmMetadata": {"transport": "vAppConfig", "secretName": "s"},
            "volumes": [{"name": "d", "vSphereVolume": {"deviceKey": 2000, "capacity": {"ephemeral-storage": "20Gi"}}}],
            "somethingNew": 1,
        },
        "status": {},
    });
    let machine = vm::VirtualMachine::from_object(&object).unwrap();
    let cards: Vec<_> = machine
        .cards()
        .into_iter()
        .map(|c| (c.network_name, c.card_type))
        .collect();
    let expected = [
        ("workload-network", "vmxnet3"),
        ("VM Network", "e1000"),
        ("VM Network", "vmxnet3"),
        ("VM Network", "vmxnet3"),
    ];
    assert_eq!(cards, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    assert_eq!(machine.spec.power_state, vm::PowerState::PoweredOff);
    assert_eq!(
        machine.spec.vm_metadata.unwrap().transport,
        Some(vm::Transport::VAppConfig)
    );
    assert_eq!(
        machine.spec.volumes[0]
            .vsphere_volume
            .as_ref()
            .unwrap()
            .device_key,
        Some(2000)
    );
}

#[test]
fn a_virtual_machine_without_cards_gets_one_unless_told_otherwise() {
    let mut object = json!({"metadata": {"name": "a"}, "spec": {"imageName": "i", "className": "c"}});
    assert_eq!(
        vm::VirtualMachine::from_object(&object).unwrap().cards()[0].network_name,
        "VM Network"
    );
    object["metadata"]["annotations"] = json!({vm::NO_DEFAULT_NIC: ""});
    assert!(
        vm::VirtualMachine::from_object(&object)
            .unwrap()
            .cards()
            .is_empty()
    );
}

#[test]
fn a_status_leaves_out_what_is_empty() {
    assert_eq!(
        serde_json::to_value(vm::VirtualMachineStatus::default()).unwrap(),
        json!({})
    );
    let status = vm::VirtualMachineStatus {
        power_state: Some(vm::PowerState::PoweredOn),
        bios_uuid: "b".into(),
        ..Default::default()
    };
    let written = serde_json::to_value(&status).unwrap();
    assert_eq!(written, json!({"powerState": "poweredOn", "biosUUID": "b"}));
    assert_eq!(
        serde_json::from_value::<vm::VirtualMachineStatus>(written).unwrap(),
        status
    );
}

#[test]
fn classes_in_numbers() {
    let sizing = |spec| {
        vm::VirtualMachineClass::from_object(&json!({"metadata": {}, "spec": spec}))
            .unwrap()
            .sizing()
    };
    let gpu = sizing(json!({
        "hardware": {"cpus": 4, "memory": "8Gi", "devices": {"dynamicDirectPathIODevices": [{"vendorID": 0x10de, "deviceID": 0x1eb8}]}},
        "policies": {"resources": {"requests": {"cpu": 4, "memory": "8Gi"}, "limits": {"cpu": 0}}},
        "configSpec": {"_typeName": "VirtualMachineConfigSpec", "numCoresPerSocket": 2, "nestedHVEnabled": true,
            "bootOptions": {"efiSecureBootEnabled": true}, "memoryReservationLockedToMax": true},
    }))
    .unwrap();
    assert_eq!(
        (gpu.cpus, gpu.memory, gpu.cpu_request_millis, gpu.cpu_limit_millis),
        (4, 8 << 30, Some(4000), None)
    );
    assert!(gpu.nested && gpu.secure_boot && gpu.memory_locked);
    assert_eq!(gpu.cores_per_socket, Some(2));
    let bare = sizing(json!(null)).unwrap();
    assert_eq!((bare.cpus, bare.memory), (2, 2 << 30));
    assert!(sizing(json!({"hardware": {"memory": "lots"}})).is_err());
}

#[test]
fn predefined_classes_are_valid_and_complete() {
    let registry = Registry::builtin();
    let kind = registry
        .by_kind("vmoperator.vmware.com", "VirtualMachineClass")
        .unwrap();
    let classes = vm::predefined_classes();
    for class in &classes {
        assert_eq!(kind.validate(class), []);
        assert_eq!(kind.unknown_fields(class), Vec::<String>::new());
        assert_eq!(kinds::object::namespace(class), vm::GLOBAL_CLASSES);
        vm::VirtualMachineClass::from_object(class)
            .unwrap()
            .sizing()
            .unwrap();
    }
    let names: Vec<&str> = classes.iter().map(kinds::object::name).collect();
    assert_eq!(names.len(), 17);
    for name in ["best-effort-small", "guaranteed-8xlarge", "best-effort-ec-small"] {
        assert!(names.contains(&name), "{name}");
    }
    assert_eq!(vm::class_namespaces("shop"), ["shop", "default"]);
    assert_eq!(vm::class_namespaces("default"), ["default"]);
}

#[test]
fn flux_objects_of_every_version() {
    for version in ["v1", "v1beta2", "v1beta1"] {
        let repository = flux::GitRepository::from_object(&json!({
            "apiVersion": format!("source.toolkit.fluxcd.io/{version}"), "kind": "GitRepository",
            "metadata": {"name": "flux-system", "namespace": "flux-system"},
            "spec": {"url": "https://git/site", "interval": "1m0s", "ref": {"branch": "main"}, "secretRef": {"name": "git"}, "suspend": null},
            "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Succeeded", "message": "m", "lastTransitionTime": "t"}]},
        }))
        .unwrap();
        assert_eq!(repository.spec.interval, Duration::from_secs(60));
        assert_eq!(repository.spec.fetch_timeout(), Duration::from_secs(60));
        assert_eq!(repository.spec.secret_ref.as_deref(), Some("git"));
        assert!(repository.status.conditions[0].is_true());
    }
    let ks = flux::Kustomization::from_object(&json!({
        "metadata": {"name": "site"},
        "spec": {"interval": "10m", "prune": true, "path": "./sites/a", "sourceRef": {"kind": "GitRepository", "name": "flux-system"},
            "dependsOn": [{"name": "base"}], "postBuild": {"substitute": {"a": "b"}, "substituteFrom": [{"kind": "ConfigMap", "name": "c"}]}},
    }))
    .unwrap();
    assert_eq!(
        (ks.spec.retry(), ks.spec.run_timeout()),
        (Duration::from_secs(600), Duration::from_secs(600))
    );
    assert_eq!(ks.spec.source_ref.name, "flux-system");
    assert!(ks.spec.prune && !ks.spec.wait);
    assert!(
        flux::Kustomization::from_object(&json!({"spec": {"interval": "often", "sourceRef": {}}})).is_err()
    );
}

#[test]
fn secrets_are_decoded_and_not_shown() {
    let secret = core::Secret::from_object(&json!({
        "metadata": {"name": "s"}, "type": "Opaque", "data": {"a": "aGVs\nbG8=", "b": "eA=="}, "stringData": {"b": "hidden"},
    }))
    .unwrap();
    assert_eq!(secret.text("a"), Some("hello"));
    assert_eq!(secret.text("b"), Some("hidden"));
    assert!(!format!("{secret:?}").contains("hidden"));
    let map = core::ConfigMap::from_object(
        &json!({"metadata": {"name": "c"}, "data": {"t": "x"}, "binaryData": {"b": "AAE="}}),
    )
    .unwrap();
    assert_eq!(map.data["b"], [0, 1]);
}

#[test]
fn a_profile_as_types() {
    let profile = json!({"esx": {
        "network_vss": {"switches": [{
            "name": "vSwitch1", "num_ports": 1024, "mtu": 9000,
            "policy": {"nic_teaming": {"policy": "FAILOVER_EXPLICIT", "active_nics": ["vmnic1"], "standby_nics": ["vmnic2"]},
                       "security": {"forged_transmits": true}},
            "bridge": {"nics": ["vmnic1", "vmnic2"]},
            "port_groups": [{"name": "Cameras", "vlan_id": 20, "policy": {"security": {"allow_promiscuous": true}}}],
        }, {"name": "bare"}]},
        "network": {"vmknics": [{"device": "vmk1", "port_group": "PTP", "ip": {"dhcp": true}, "enabled_services": {"management": false}}]},
    }});
    assert_eq!(host::check(&profile), []);
    let vss = host::NetworkVss::from_profile(&profile).unwrap();
    let switch = &vss.switches[0];
    let group = switch.port_groups[0]
        .policy
        .or(&switch.policy)
        .with_defaults(&switch.bridge.nics);
    assert_eq!(group.security.allow_promiscuous, Some(true));
    assert_eq!(group.security.forged_transmits, Some(true));
    assert_eq!(group.security.mac_changes, Some(false));
    assert_eq!(group.nic_teaming.active_nics, Some(vec!["vmnic1".into()]));
    let bare = &vss.switches[1];
    assert_eq!((bare.num_ports, bare.mtu), (128, 1500));
    assert_eq!(bare.bridge.link_discovery_protocol.protocol, "CDP");
    let vmknics = host::vmknics(&profile).unwrap();
    assert!(vmknics[0].enabled && vmknics[0].ip.dhcp);
    assert_eq!(host::vmknics(&json!({"esx": {}})).unwrap(), []);
}

#[test]
fn a_profile_is_checked_with_paths_for_people() {
    let profile = json!({"esx": {
        "network_vss": {"switches": [{"name": "vSwitch1", "portgroups": [], "port_groups": [{"name": "Cameras", "vlan_id": 5000}]}, {"mtu": 1500}]},
        "network": {"net_stacks": [{"key": "k", "host_name": "h"}], "dns": {}},
        "storage": {"nfs_v3_datastores": [{"volume_name": "v", "anything": 1}]},
        "security": {"settings": {"account_unlock_time": 15}}, "later": {"x": 1},
    }, "exs": {}});
    let errors: Vec<String> = host::check(&profile).iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "esx.network_vss.switches[vSwitch1].port_groups[Cameras].vlan_id: invalid value: 5000: must be 4095 or less",
            "esx.network_vss.switches[1].name: required value",
        ]
    );
    assert_eq!(
        host::unknown_fields(&profile),
        ["esx.network_vss.switches[vSwitch1].portgroups", "exs"]
    );
}
