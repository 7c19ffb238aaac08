//! Status as people see it.

use super::*;
use crate::{
    desired::{self, Bootstrap, Inputs},
    record::Record,
};

fn vm(spec: Value) -> Object {
    json!({"metadata": {"name": "till", "namespace": "shop", "uid": "u"}, "spec": spec, "status": {"conditions": [
        {"type": "Ready", "status": "True", "reason": "Running", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        {"type": "Old", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
}

fn desired(vm: &Object) -> Desired {
    let class = json!({"metadata": {"name": "tiny"}, "spec": {"hardware": {"cpus": 1, "memory": "16Mi"}}});
    desired::of(Inputs {
        vm,
        identity: "u",
        class: Some(&class),
        bootstrap: Bootstrap::None,
    })
}

fn running(desired: &Desired) -> Observed {
    let launch = Launch {
        owner: "shop/till".into(),
        hardware: desired.hardware.clone().unwrap(),
        disks: 0,
        cd: false,
        firmware: Firmware::Bios,
        accelerator: "tcg".into(),
        started_at: jiff::Timestamp::UNIX_EPOCH,
        stop: None,
    };
    let record = Record {
        namespace: "shop".into(),
        name: "till".into(),
        identity: "u".into(),
        image: "i".into(),
        digest: String::new(),
        firmware: Firmware::Bios,
        disks: Vec::new(),
        ports: Vec::new(),
        last_restart: None,
    };
    Observed {
        record: Some(record),
        guest: Guest::Alive(RunState::Running, launch),
        ..Observed::default()
    }
}

fn status(vm: &Object, desired: &Desired, observed: &Observed, holds: &[Hold], sensed: &Sensed) -> Value {
    let report = Report {
        vm,
        identity: "u",
        host: "host-1",
        desired,
        observed,
        holds,
        sensed,
        warnings: Vec::new(),
        now: "2026-01-02T00:00:00Z",
    };
    report.status()
}

fn find<'a>(status: &'a Value, kind: &str) -> &'a Value {
    status["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["type"] == kind)
        .unwrap_or(&Value::Null)
}

#[test]
fn running_with_addresses() {
    let vm = vm(json!({"networkInterfaces": [{}, {}]}));
    let desired = desired(&vm);
    let observed = running(&desired);
    let mac = |index: usize| desired.hardware.as_ref().unwrap().nics[index].mac.clone();
    let learned = |text: &str, prefix| Learned {
        ip: text.parse().unwrap(),
        prefix,
    };
    let mut sensed = Sensed::default();
    sensed.learned.insert(mac(0), vec![learned("fe80::1", None)]);
    sensed.learned.insert(mac(1), vec![learned("10.0.0.7", Some(24))]);
    let status = status(&vm, &desired, &observed, &[], &sensed);
    assert_eq!(status["vmIp"], "10.0.0.7");
    assert_eq!(
        status["networkInterfaces"][1]["ipAddresses"],
        json!(["10.0.0.7/24"])
    );
    assert_eq!(
        status["networkInterfaces"][0]["connected"], false,
        "its port group is not there"
    );
    let ready = find(&status, "Ready");
    assert_eq!(
        (&ready["status"], &ready["lastTransitionTime"]),
        (&json!("True"), &json!("2026-01-01T00:00:00Z"))
    );
    assert!(ready.get("severity").is_none() && find(&status, "Old").is_null());
    assert_eq!(find(&status, "VirtualMachineTools")["severity"], "Info");
}

#[test]
fn a_hold_is_said_twice_and_changes_the_time() {
    let vm = vm(json!({}));
    let desired = desired(&vm);
    let hold = Hold {
        condition: condition_type::NETWORK,
        reason: "PortGroupNotFound",
        message: "which".into(),
        progressing: false,
        blocks: true,
    };
    let status = status(&vm, &desired, &Observed::default(), &[hold], &Sensed::default());
    for kind in ["Ready", condition_type::NETWORK] {
        let condition = find(&status, kind);
        assert_eq!(
            (&condition["reason"], &condition["severity"]),
            (&json!("PortGroupNotFound"), &json!("Error"))
        );
        assert_eq!(condition["lastTransitionTime"], "2026-01-02T00:00:00Z");
    }
    assert_eq!(
        (&status["phase"], &status["powerState"]),
        (&json!("Creating"), &json!("poweredOff"))
    );
}

#[test]
fn all_that_is_missing_is_named_and_nothing_is_said_of_what_was_not_looked_at() {
    let vm = vm(json!({}));
    let mut desired = desired(&vm);
    desired.hardware = None;
    let hold = |message: &str| Hold {
        condition: condition_type::PREREQUISITES,
        reason: "VirtualMachineClassNotFound",
        message: message.into(),
        progressing: false,
        blocks: true,
    };
    let holds = [hold("no class"), hold("no ConfigMap")];
    let status = status(&vm, &desired, &Observed::default(), &holds, &Sensed::default());
    let said = find(&status, condition_type::PREREQUISITES);
    assert_eq!(said["message"], "no class; no ConfigMap");
    for kind in [condition_type::NETWORK, condition_type::STORAGE] {
        assert_eq!(find(&status, kind)["status"], "Unknown");
    }
}

#[test]
fn ready_follows_the_probe() {
    let vm = vm(json!({"readinessProbe": {"tcpSocket": {"port": 80}}}));
    let desired = desired(&vm);
    for (answer, wanted) in [
        (None, "Unknown"),
        (Some(Ok(())), "True"),
        (Some(Err("refused".to_owned())), "False"),
    ] {
        let sensed = Sensed {
            probe: answer,
            ..Sensed::default()
        };
        let status = status(&vm, &desired, &running(&desired), &[], &sensed);
        assert_eq!(find(&status, "Ready")["status"], wanted);
    }
}

#[test]
fn what_changed_since_the_start_is_named() {
    let vm = vm(json!({}));
    let mut desired = desired(&vm);
    let observed = running(&desired);
    let required = |desired: &Desired| {
        let status = status(&vm, desired, &observed, &[], &Sensed::default());
        find(&status, "RestartRequired")["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    desired.hardware.as_mut().unwrap().nics[0].port_group = "Other".into();
    assert_eq!(required(&desired), "", "a port group changes while it runs");
    desired.hardware.as_mut().unwrap().cpus = 2;
    desired.hardware.as_mut().unwrap().nics[0].model = "e1000".into();
    assert!(
        required(&desired).ends_with("CPUs, network cards"),
        "{}",
        required(&desired)
    );
}
