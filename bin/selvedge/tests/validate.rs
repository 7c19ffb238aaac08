//! `selvedge validate`, as a person or a pipeline runs it.

#![allow(clippy::unwrap_used, reason = "helpers too: a failed unwrap is a failed test")]

use std::{fs, path::Path, process::Command};

use serde_json::Value;

/// Runs it on a folder with these files; gives the exit code and what was printed.
fn validate(files: &[(&str, &str)], more: &[&str]) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    run(folder.path(), more)
}

fn run(folder: &Path, more: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_selvedge"));
    let output = command.arg("validate").arg(folder).args(more).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), text)
}

fn layer(name: &str, profile: &str) -> String {
    format!(
        "apiVersion: esx.vmware.com/v1alpha1\nkind: HostConfiguration\nmetadata: {{name: {name}, namespace: esx-system}}\n\
         spec:\n  layertype: Incremental\n  profile: |\n    {profile}\n"
    )
}

#[test]
fn the_examples_are_good() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    for folder in ["site", "ecs-dialect"] {
        let (code, text) = run(&examples.join(folder), &[]);
        assert_eq!(code, 0, "{folder}: {text}");
        assert!(text.contains(" 0 errors"), "{text}");
    }
}

#[test]
fn every_error_is_named_with_its_place_not_only_the_first() {
    let machine = "apiVersion: vmoperator.vmware.com/v1alpha1\nkind: VirtualMachine\nmetadata:\n  name: till\n  namespace: shop\n\
                   spec:\n  className: small\n  powerState: maybe\n  colour: red\n";
    let (code, text) = validate(&[("a.yaml", machine), ("b.yaml", "a: [b\n")], &[]);
    assert_eq!(code, 1, "{text}");
    for part in [
        "a.yaml:8:3: error: spec.powerState: VirtualMachine shop/till: ",
        "spec.imageName: VirtualMachine shop/till: required",
        "a.yaml:9:3: warning: spec.colour: ",
        "a.yaml:7:3: notice: spec.className: ",
        "b.yaml:1:4: error: ",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[test]
fn layers_are_looked_at_together_and_to_the_last_value() {
    let one = r#"{"esx": {"network_vss": {"switches": [{"name": "vSwitch1", "mtu": 1500, "bridge": {"nics": ["vmnic1"]},
      "port_groups": [{"name": "prod", "vlan_id": 5000}, {"name": "lab", "vlan_id": 7}]}]}}}"#;
    let two = r#"{"profile": {"esx": {"network_vss": {"switches": [{"name": "vSwitch1", "mtu": 9000},
      {"name": "vSwitch2", "bridge": {"nics": ["vmnic1"]}, "port_groups": [{"name": "lab"}]}]}}}}"#;
    let (one, two) = (layer("one", one), layer("two", two));
    let (code, text) = validate(&[("one.yaml", &one), ("two.yaml", &two)], &[]);
    assert_eq!(code, 1, "{text}");
    for part in [
        // The place of the value inside the JSON inside the YAML.
        "one.yaml:8:51: error: esx.network_vss.switches[vSwitch1].port_groups[prod].vlan_id: ",
        "is set differently by esx-system/one and esx-system/two",
        "two.yaml:8:",
        "NIC \"vmnic1\" is already in",
        "a port group \"lab\" is already in",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[test]
fn broken_json_is_named_with_its_line() {
    let broken = layer(
        "one",
        "{\"esx\": {\n      \"network_vss\": {\"switches\": [}\n    }}",
    );
    let (code, text) = validate(&[("one.yaml", &broken)], &[]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("one.yaml:8:36: error: "), "{text}");
}

#[test]
fn what_is_no_error_does_not_fail() {
    let files = [
        ("pipeline.yml", "stages: [build]\n"),
        (
            "deploy.yaml",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\n",
        ),
    ];
    let (code, text) = validate(&files, &[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("pipeline.yml: skipped: "), "{text}");
    assert!(
        text.contains("deploy.yaml:1:1: notice: Deployment shop/web: apps/v1 Deployment is not served"),
        "{text}"
    );
}

#[test]
fn json_is_for_programs() {
    let (code, text) = validate(&[("b.yaml", "a: [b\n")], &["-o", "json"]);
    assert_eq!(code, 1);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["findings"][0]["level"], "error");
    assert_eq!(report["findings"][0]["line"], 1);
}

#[test]
fn a_folder_that_is_not_there_says_so() {
    let (code, text) = run(Path::new("/does/not/exist"), &[]);
    assert_eq!(code, 1);
    assert!(text.contains("/does/not/exist is no folder"), "{text}");
}

#[test]
fn what_flux_can_and_the_host_can_not_is_a_warning() {
    let source = "apiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata: {name: a, namespace: flux-system}\n\
                  spec:\n  interval: 1m\n  url: https://git.example.com/a.git\n  verify: {mode: head, secretRef: {name: keys}}\n\
                  \x20 proxySecretRef: {name: proxy}\n  recurseSubmodules: true\n";
    let folder = "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: a, namespace: flux-system}\n\
                  spec:\n  interval: 1m\n  prune: true\n  sourceRef: {kind: GitRepository, name: a}\n\
                  \x20 decryption: {provider: sops}\n  kubeConfig: {secretRef: {name: other}}\n";
    let (code, text) = validate(&[("source.yaml", source), ("folder.yaml", folder)], &[]);
    assert_eq!(code, 0, "{text}");
    for part in [
        "source.yaml:7:3: warning: spec.verify: GitRepository flux-system/a: ",
        "source.yaml:8:3: warning: spec.proxySecretRef: ",
        "source.yaml:9:3: warning: spec.recurseSubmodules: ",
        "kept and has no effect",
        "folder.yaml:8:3: warning: spec.decryption: Kustomization flux-system/a: ",
        "folder.yaml:9:3: warning: spec.kubeConfig: ",
        "the host refuses the object",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}
