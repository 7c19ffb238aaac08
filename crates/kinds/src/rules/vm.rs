//! VirtualMachine and VirtualMachineClass. Source: vm-operator's webhooks, with what its manifests in the
//! field need: the same network on several cards, and `network` beside `networkName`.

use serde_json::{Value, json};

use crate::{
    object::{self, Object},
    quantity,
    registry::{FieldError, reason},
};

const GIT_OWNER: &str = "kustomize.toolkit.fluxcd.io/name";

fn spec<'a>(object: &'a Object, field: &str) -> &'a Value {
    object
        .pointer("/spec")
        .and_then(|spec| spec.get(field))
        .unwrap_or(&Value::Null)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn admit(old: Option<&Object>, new: &mut Object, now: &str) {
    let old_restart = old.map_or(&Value::Null, |old| spec(old, "nextRestartTime"));
    let from_git = object::label(new, GIT_OWNER).is_some();
    let Some(fields) = new.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    if fields
        .get("powerState")
        .is_none_or(|state| state.is_null() || state == "")
    {
        // Once set it can't be emptied: leaving it out keeps what it was.
        let kept = old.map_or(&Value::Null, |old| spec(old, "powerState"));
        fields.insert(
            "powerState".into(),
            if kept.is_string() {
                kept.clone()
            } else {
                json!("poweredOn")
            },
        );
    }
    let asked = fields
        .get("nextRestartTime")
        .and_then(Value::as_str)
        .is_some_and(|at| at.eq_ignore_ascii_case("now"));
    if asked {
        // Git says the same `now` at every run; only the first one is a wish.
        let at = if from_git && old_restart.is_string() {
            old_restart.clone()
        } else {
            now.into()
        };
        fields.insert("nextRestartTime".into(), at);
    }
}

pub(super) fn validate(object: &Object, errors: &mut Vec<FieldError>) {
    let mut error =
        |path: &str, reason: &str, message: String| errors.push(FieldError::new(path, reason, message));

    let metadata = spec(object, "vmMetadata");
    if !text(metadata, "configMapName").is_empty() && !text(metadata, "secretName").is_empty() {
        error(
            "spec.vmMetadata.secretName",
            reason::FORBIDDEN,
            "configMapName is set too; keep one of the two".into(),
        );
    }

    let layout = &spec(object, "advancedOptions")["defaultVolumeProvisioningOptions"];
    if layout["thinProvisioned"] == true && layout["eagerZeroed"] == true {
        let path = "spec.advancedOptions.defaultVolumeProvisioningOptions.eagerZeroed";
        error(
            path,
            reason::FORBIDDEN,
            "thinProvisioned is true too; a thin disk can't be zeroed ahead".into(),
        );
    }

    let probe = spec(object, "readinessProbe");
    if probe.is_object() && probe["tcpSocket"].is_object() == probe["guestHeartbeat"].is_object() {
        error(
            "spec.readinessProbe",
            reason::FORBIDDEN,
            "must have exactly one of tcpSocket and guestHeartbeat".into(),
        );
    }

    let restart = spec(object, "nextRestartTime").as_str().unwrap_or_default();
    if !restart.is_empty()
        && !restart.eq_ignore_ascii_case("now")
        && restart.parse::<jiff::Timestamp>().is_err()
    {
        let message =
            format!("invalid value: {restart:?}: must be \"now\" or a time such as 2026-01-31T12:00:00Z");
        error("spec.nextRestartTime", reason::INVALID, message);
    }

    for (index, card) in list(spec(object, "networkInterfaces")) {
        let (name, alias) = (text(card, "networkName"), text(card, "network"));
        if !name.is_empty() && !alias.is_empty() && name != alias {
            let message = format!("networkName says {name:?}, network says {alias:?}; keep one of the two");
            error(
                &format!("spec.networkInterfaces[{index}].network"),
                reason::FORBIDDEN,
                message,
            );
        }
    }

    for (index, volume) in list(spec(object, "volumes")) {
        let path = format!("spec.volumes[{index}]");
        let (claim, disk) = (&volume["persistentVolumeClaim"], &volume["vSphereVolume"]);
        if claim.is_object() == disk.is_object() {
            error(
                &path,
                reason::FORBIDDEN,
                "must have exactly one of persistentVolumeClaim and vSphereVolume".into(),
            );
        }
        if claim["readOnly"] == true {
            error(
                &format!("{path}.persistentVolumeClaim.readOnly"),
                reason::NOT_SUPPORTED,
                "a read-only claim is not supported".into(),
            );
        }
        if let Some(size) = disk
            .get("capacity")
            .and_then(|capacity| capacity.get("ephemeral-storage"))
        {
            const MIB: u64 = 1024 * 1024;
            if quantity::bytes(size).is_ok_and(|bytes| bytes % MIB != 0) {
                let path = format!("{path}.vSphereVolume.capacity.ephemeral-storage");
                error(
                    &path,
                    reason::INVALID,
                    format!("invalid value: {size}: must be a multiple of 1Mi"),
                );
            }
        }
    }
}

pub(super) fn validate_class(object: &Object, errors: &mut Vec<FieldError>) {
    let (hardware, resources) = (spec(object, "hardware"), &spec(object, "policies")["resources"]);
    let cpu = |value: &Value| quantity::cpu_millis(value).ok();
    let memory = |value: &Value| quantity::bytes(value).ok();
    let has = [
        (
            "cpu",
            hardware["cpus"].as_u64().and_then(|cpus| cpus.checked_mul(1000)),
        ),
        ("memory", memory(&hardware["memory"])),
    ];
    for (what, hardware) in has {
        let amount = |of: &str| {
            if what == "cpu" {
                cpu(&resources[of][what])
            } else {
                memory(&resources[of][what])
            }
        };
        let (request, limit) = (amount("requests"), amount("limits"));
        let path = format!("spec.policies.resources.requests.{what}");
        // Zero, like absent, is no limit.
        let limit = limit.filter(|limit| *limit > 0);
        if let (Some(request), Some(limit)) = (request, limit)
            && request > limit
        {
            errors.push(FieldError::new(
                &path,
                reason::INVALID,
                format!("the request is greater than the {what} limit"),
            ));
        }
        if let (Some(request), Some(hardware)) = (request, hardware)
            && request > hardware
        {
            errors.push(FieldError::new(
                &path,
                reason::INVALID,
                format!("the request is greater than the hardware's {what}"),
            ));
        }
    }
}

pub(super) fn validate_update(old: &Object, new: &Object, errors: &mut Vec<FieldError>) {
    let on = |object: &Object| spec(object, "powerState") == "poweredOn";
    let secret = |object: &Object| text(spec(object, "vmMetadata"), "secretName").to_owned();
    if spec(new, "powerState") == "suspended" && spec(old, "powerState") == "poweredOff" {
        errors.push(FieldError::new(
            "spec.powerState",
            reason::INVALID,
            "a virtual machine that is off can't be suspended; power it on first",
        ));
    }
    if !on(old) || !on(new) {
        return;
    }
    let normal = |value: &Value| {
        if value.as_array().is_some_and(Vec::is_empty) {
            Value::Null
        } else {
            value.clone()
        }
    };
    for field in ["ports", "vmMetadata", "networkInterfaces"] {
        if normal(spec(old, field)) != normal(spec(new, field)) {
            errors.push(while_on(&format!("spec.{field}")));
        }
    }
    let disks = |object: &Object| -> Vec<(String, Value)> {
        let disks = list(spec(object, "volumes")).filter(|(_, volume)| volume["vSphereVolume"].is_object());
        disks
            .map(|(_, volume)| (text(volume, "name").into(), volume["vSphereVolume"].clone()))
            .collect()
    };
    if disks(old) != disks(new) {
        errors.push(while_on("spec.volumes"));
    }
    if secret(old) != secret(new) && secret(new).is_empty() {
        errors.push(FieldError::new(
            "spec.vmMetadata.secretName",
            reason::FORBIDDEN,
            "can't be emptied",
        ));
    }
    let layout =
        |object: &Object| spec(object, "advancedOptions")["defaultVolumeProvisioningOptions"].clone();
    if layout(old) != layout(new) {
        errors.push(while_on("spec.advancedOptions.defaultVolumeProvisioningOptions"));
    }
}

fn while_on(path: &str) -> FieldError {
    FieldError::new(
        path,
        reason::FORBIDDEN,
        "can't be changed while spec.powerState is poweredOn; set it to poweredOff, in the same change or before",
    )
}

fn list(value: &Value) -> impl Iterator<Item = (usize, &Value)> {
    value.as_array().into_iter().flatten().enumerate()
}
