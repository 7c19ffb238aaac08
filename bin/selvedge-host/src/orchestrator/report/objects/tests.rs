use super::*;

const OLD: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const NEW: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn ready(status: &str, reason: &str, message: &str) -> Value {
    json!([{"type": "Ready", "status": status, "reason": reason, "message": message}])
}

fn main_source() -> Objects {
    let name = json!({"name": "selvedge-site", "namespace": "flux-system", "generation": 2});
    Objects {
        repositories: vec![json!({
            "metadata": name,
            "spec": {"url": "https://me:word@git.example/sites.git", "ref": {"branch": "main", "commit": NEW}},
            "status": {"artifact": {"revision": format!("main@sha1:{NEW}")}, "conditions": ready("True", "Succeeded", "")},
        })],
        kustomizations: vec![json!({
            "metadata": name,
            "spec": {"path": "./shop"},
            "status": {
                "observedGeneration": 2,
                "lastAppliedRevision": format!("main@sha1:{NEW}"),
                "lastAttemptedRevision": format!("main@sha1:{NEW}"),
                "inventory": {"entries": [
                    {"id": "shop_a__ConfigMap", "v": "v1"}, {"id": "shop_b__ConfigMap", "v": "v1"},
                    {"id": "shop_till_vmoperator.vmware.com_VirtualMachine", "v": "v1alpha1"}]},
                "conditions": ready("True", "ReconciliationSucceeded", ""),
            },
        })],
        ..Objects::default()
    }
}

fn machine_of(name: &str, status: &str, reason: &str, severity: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "labels": {
            "kustomize.toolkit.fluxcd.io/name": "selvedge-site", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}},
        "spec": {"className": "best-effort-small", "imageName": "https://u:p@images.example/till.ova"},
        "status": {"powerState": "poweredOn", "vmIp": "192.0.2.7", "host": "h", "conditions": [
            {"type": "Ready", "status": status, "reason": reason, "message": format!("why {name}"), "severity": severity}]},
    })
}

#[test]
fn a_host_that_is_well_has_no_reason() {
    let mut objects = main_source();
    objects.machines.push(machine_of("till", "True", "Running", ""));
    objects.classes = kinds::vm::predefined_classes();
    let health = objects.health();
    assert_eq!(
        (&health["state"], &health["reason"]),
        (&json!("healthy"), &json!(""))
    );
    assert_eq!((&health["ready"], &health["total"]), (&json!(3), &json!(3)));
    let source = objects.source(json!("assignment"), &[]).unwrap();
    assert_eq!(source["url"], "https://git.example/sites.git");
    assert_eq!(
        (&source["fetched"], &source["applied"]),
        (&json!(NEW), &json!(NEW))
    );
    assert_eq!(source["target"], json!({"mode": "pinned", "commit": NEW}));
    assert_eq!(
        (&source["path"], &source["message"]),
        (&json!("./shop"), &json!(""))
    );
    assert_eq!(
        objects.counts()["kinds"],
        json!({"ConfigMap": 2, "VirtualMachine": 1})
    );
    let till = &objects.machines()["vm/shop/till"];
    assert_eq!(
        (&till["cpus"], &till["memoryBytes"]),
        (&json!(2), &json!(4_u64 << 30))
    );
    assert_eq!(till["image"], "https://images.example/till.ova");
    assert_eq!((&till["ready"], &till["owned"]), (&json!(true), &json!(true)));
}

#[test]
fn the_reason_is_the_one_sentence_that_a_person_needs() {
    let mut objects = main_source();
    for name in ["a", "b"] {
        objects
            .machines
            .push(machine_of(name, "False", "ImageFailed", "Error"));
    }
    objects
        .machines
        .push(machine_of("c", "False", "Progressing", "Info"));
    let health = objects.health();
    assert_eq!(health["state"], "degraded");
    assert_eq!(
        health["reason"],
        "2 of 3 virtual machines are not ready; the virtual machine shop/a: why a"
    );
    assert_eq!(health["failing"].as_array().unwrap().len(), 2);

    // A commit that can't be built explains more than what does not run.
    let status = &mut objects.kustomizations[0]["status"];
    status["lastAppliedRevision"] = format!("main@sha1:{OLD}").into();
    status["conditions"] = ready(
        "False",
        "BuildFailed",
        "1 error; nothing of the commit is applied:\nshop/a.yaml:3: oops",
    );
    let health = objects.health();
    assert_eq!(health["state"], "failing");
    assert_eq!(
        health["reason"],
        "commit bbbbbbbb is refused: 1 error; nothing of the commit is applied: shop/a.yaml:3: oops"
    );
    let source = objects.source(Value::Null, &[]).unwrap();
    assert_eq!(
        (&source["applied"], &source["attempted"]),
        (&json!(OLD), &json!(NEW))
    );
    assert_eq!(source["message"], health["reason"]);
}

#[test]
fn a_host_that_can_not_fetch_is_degraded_and_its_password_stays_here() {
    let mut objects = main_source();
    objects.repositories[0]["status"]["conditions"] = ready("False", "AuthenticationFailed", "no such user");
    let health = objects.health();
    assert_eq!(health["state"], "degraded");
    assert_eq!(
        health["reason"],
        "can't fetch from https://git.example/sites.git: no such user"
    );
    assert!(!health.to_string().contains("word"));
}

#[test]
fn a_change_that_is_not_looked_at_yet_is_progress() {
    let mut objects = main_source();
    objects.kustomizations[0]["metadata"]["generation"] = 3.into();
    assert_eq!(objects.health()["state"], "progressing");
    let mut objects = main_source();
    objects.kustomizations[0]["status"] =
        json!({"conditions": ready("False", "ArtifactFailed", "nothing fetched yet")});
    objects.repositories[0]["status"] = Value::Null;
    let health = objects.health();
    assert_eq!(health["state"], "progressing");
    assert!(
        health["reason"].as_str().unwrap().contains("nothing fetched yet"),
        "{health}"
    );
    assert_eq!(Objects::default().health()["state"], "healthy");
}

#[test]
fn what_differs_from_what_is_applied_is_drift() {
    let layer = |status: &str, reason: &str| {
        json!({"metadata": {"name": "net", "namespace": "esx-system"}, "status": {"conditions": [
            {"type": "Compliant", "status": status, "reason": reason, "message": "gone"},
            {"type": "Ready", "status": status, "reason": reason, "message": "gone"}]}})
    };
    let with = |status: &str, reason: &str| {
        let mut objects = main_source();
        objects.layers = vec![layer(status, reason)];
        objects
    };
    let compliance = |objects: &Objects| {
        let value = objects.compliance();
        (
            value["state"].as_str().unwrap().to_owned(),
            value["drift"] == true,
        )
    };
    assert_eq!(compliance(&main_source()), ("unknown".into(), false));
    assert_eq!(
        compliance(&with("True", "Compliant")),
        ("compliant".into(), false)
    );
    assert_eq!(
        compliance(&with("False", "SwitchFailed")),
        ("nonCompliant".into(), true)
    );
    let quarantined = with("False", "Quarantined");
    assert_eq!(compliance(&quarantined), ("nonCompliant".into(), false));
    assert_eq!(quarantined.health()["state"], "failing");
}

#[test]
fn long_messages_are_cut() {
    assert_eq!(line(" a\nb "), "a; b");
    let long = line(&"ä".repeat(2000));
    assert_eq!(long.chars().count(), 501);
}
