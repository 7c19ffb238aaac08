//! From layers and section reports to the status of each layer and to events.

use hostconfig::{
    Enforcement, Quarantine,
    apply::SectionResult,
    desired::{Desired, desired},
    observe::Observed,
    plan::{Step, plan},
    report::{LayerStatus, events, statuses},
};
use reconcile::section::{Applied, Impact, Problem, SectionReport};
use serde_json::{Value, json};

const NOW: &str = "2026-01-31T12:00:00Z";
const LATER: &str = "2026-01-31T13:00:00Z";

fn object(name: &str, profile: &Value) -> Value {
    let text = profile
        .as_str()
        .map_or_else(|| profile.to_string(), ToOwned::to_owned);
    json!({
        "apiVersion": "esx.vmware.com/v1alpha1", "kind": "HostConfiguration",
        "metadata": {"name": name, "namespace": "esx-system", "generation": 3},
        "spec": {"layertype": "Incremental", "profile": text},
    })
}

fn switch(name: &str, rest: Value) -> Value {
    let mut switch = json!({"name": name});
    switch
        .as_object_mut()
        .into_iter()
        .zip(rest.as_object())
        .for_each(|(s, r)| s.extend(r.clone()));
    json!({"esx": {"network_vss": {"switches": [switch]}}})
}

fn base() -> Value {
    switch("vSwitch0", json!({"mtu": 65_521, "bridge": {"nics": ["vmnic0"]}}))
}

fn want(objects: Vec<Value>) -> Desired {
    let mut objects = objects;
    objects.push(object("esx-base-profile", &base()));
    desired(
        &Observed {
            objects,
            ..Observed::default()
        },
        &base(),
    )
}

fn vswitch(report: SectionReport) -> Enforcement {
    let results = vec![SectionResult {
        name: "vswitch",
        claims: &["network_vss", "network.vmknics"],
        report,
    }];
    Enforcement {
        results,
        quarantine: None,
    }
}

fn fine() -> Enforcement {
    vswitch(SectionReport::default())
}

fn problem(path: &str) -> Enforcement {
    let problem = Problem {
        path: path.into(),
        reason: "UnknownNic".into(),
        message: "there is no vmnic9".into(),
    };
    vswitch(SectionReport {
        problems: vec![problem],
        ..SectionReport::default()
    })
}

/// `name Valid/reason Compliant/reason Ready/reason` of each layer.
fn short(statuses: &[LayerStatus]) -> Vec<String> {
    let condition = |status: &Value, kind: &str| {
        let found = status["conditions"]
            .as_array()
            .and_then(|c| c.iter().find(|c| c["type"] == kind))
            .cloned();
        let found = found.unwrap_or_default();
        format!(
            "{}/{}",
            found["status"].as_str().unwrap_or("-"),
            found["reason"].as_str().unwrap_or("-")
        )
    };
    let line = |s: &LayerStatus| {
        let conditions = ["Valid", "Compliant", "Ready"].map(|kind| condition(&s.status, kind));
        format!("{} {}", s.name, conditions.join(" "))
    };
    statuses.iter().map(line).collect()
}

fn message(status: &LayerStatus, kind: &str) -> String {
    let conditions = status.status["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let found = conditions
        .iter()
        .find(|c| c["type"] == kind)
        .cloned()
        .unwrap_or_default();
    found["message"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn all_well() {
    let desired = want(vec![object("a", &switch("vSwitch1", json!({"mtu": 9000})))]);
    let found = statuses(&desired, &fine(), NOW);
    assert_eq!(
        short(&found),
        [
            "a True/Valid True/Compliant True/Applied",
            "esx-base-profile True/Valid True/Compliant True/Applied",
        ]
    );
    let status = &found[0].status;
    assert_eq!(
        (&status["observedGeneration"], &status["profileHash"]),
        (&json!(3), &json!(desired.hash))
    );
    assert_eq!(status["conditions"][0]["lastTransitionTime"], NOW);
    for absent in ["notEnforced", "warnings", "lastAppliedTime"] {
        assert!(status.get(absent).is_none(), "{absent}");
    }
}

#[test]
fn a_second_run_changes_nothing() {
    let mut objects = vec![object("a", &switch("vSwitch1", json!({"mtu": 9000})))];
    let changed = vswitch(SectionReport {
        changes: vec![Applied {
            message: "made vSwitch1".into(),
            drift: false,
        }],
        ..SectionReport::default()
    });
    let first = statuses(&want(objects.clone()), &changed, NOW);
    assert_eq!(first[0].status["lastAppliedTime"], NOW);
    objects[0]["status"] = first[0].status.clone();
    let second = statuses(&want(objects), &fine(), LATER);
    assert_eq!(second[0].status, first[0].status);
}

#[test]
fn a_broken_layer_keeps_its_last_good_content() {
    let good = switch("vSwitch1", json!({"mtu": 9000}));
    for (last_good, in_force) in [(Some(good), true), (None, false)] {
        let broken = object(
            "a",
            &json!(
                "{\n \"esx\": {\n  \"network_vss\": {\"switches\": [{\"name\": \"vSwitch1\" \"mtu\": 1}]}}}"
            ),
        );
        let observed = Observed {
            objects: vec![broken, object("b", &switch("vSwitch2", json!({})))],
            last_good: last_good
                .into_iter()
                .map(|profile| ("esx-system/a".to_owned(), profile))
                .collect(),
        };
        let desired = desired(&observed, &base());
        assert_eq!(
            desired
                .merged
                .layers_at("esx.network_vss.switches[vSwitch1]")
                .contains(&"esx-system/a"),
            in_force
        );
        let found = statuses(&desired, &fine(), NOW);
        let compliant = if in_force {
            "True/Compliant"
        } else {
            "False/NotInForce"
        };
        assert_eq!(
            short(&found)[0],
            format!("a False/InvalidProfile {compliant} False/InvalidProfile")
        );
        assert_eq!(short(&found)[1], "b True/Valid True/Compliant True/Applied");
        let message = message(&found[0], "Ready");
        for part in [
            "line 3, column 52",
            "esx.network_vss.switches[0].name",
            if in_force {
                "stays in force"
            } else {
                "nothing of it"
            },
        ] {
            assert!(message.contains(part), "{message}");
        }
    }
}

#[test]
fn a_value_out_of_bounds_is_shown_with_path_and_place() {
    let bad = switch(
        "vSwitch1",
        json!({"port_groups": [{"name": "P", "vlan_id": 5000}]}),
    );
    let found = statuses(&want(vec![object("a", &bad)]), &fine(), NOW);
    let message = message(&found[0], "Valid");
    assert!(message.starts_with("spec.profile: line 1, column"), "{message}");
    assert!(
        message.contains("esx.network_vss.switches[vSwitch1].port_groups[P].vlan_id: invalid value: 5000"),
        "{message}"
    );
}

#[test]
fn layers_that_disagree_both_say_so() {
    let mtu = |mtu: u16| switch("vSwitch1", json!({ "mtu": mtu }));
    let found = statuses(
        &want(vec![
            object("a", &mtu(1500)),
            object("b", &mtu(9000)),
            object("c", &switch("x", json!({}))),
        ]),
        &fine(),
        NOW,
    );
    assert_eq!(
        short(&found),
        [
            "a False/Conflict True/Compliant False/Conflict",
            "b False/Conflict True/Compliant False/Conflict",
            "c True/Valid True/Compliant True/Applied",
            "esx-base-profile True/Valid True/Compliant True/Applied",
        ]
    );
    for status in &found[..2] {
        let message = message(status, "Ready");
        for part in [
            "esx.network_vss.switches[vSwitch1].mtu",
            "esx-system/a and esx-system/b",
            "esx-system/b, the last in order, wins",
        ] {
            assert!(message.contains(part), "{message}");
        }
    }
}

#[test]
fn a_problem_is_the_layers_that_asked_for_it() {
    let layers = || {
        vec![
            object("a", &switch("vSwitch1", json!({"bridge": {"nics": ["vmnic9"]}}))),
            object("b", &switch("vSwitch2", json!({}))),
        ]
    };
    let found = |path: &str| short(&statuses(&want(layers()), &problem(path), NOW)).join("\n");
    insta::assert_snapshot!(
        [
            found("esx.network_vss.switches[vSwitch1].bridge.nics[0]"),
            found("esx.network_vss.switches[vSwitch0].bridge.nics[0]"),
            found("esx.network_vss.switches"),
            found(""),
        ]
        .join("\n\n")
    );
}

#[test]
fn what_nothing_enforces_is_listed() {
    let mut layer = object(
        "a",
        &json!({"esx": {
            "network_vss": {"switches": [{"name": "s", "colour": 1, "policy": {"traffic_shaping": {"enabled": true}}}]},
            "network": {"vmknics": [], "net_stacks": [{"key": "k", "host_name": "h"}]},
            "storage": {"nfs_v3_datastores": [{"volume_name": "v"}], "other": {}},
            "security": {"settings": {}},
        }}),
    );
    layer["spec"]["metrics-collection"] = json!({"enabled": true});
    let report = SectionReport {
        not_enforced: vec![
            "esx.network_vss.switches[s].policy.traffic_shaping".into(),
            "esx.network_vss.switches[other].x".into(),
        ],
        ..SectionReport::default()
    };
    let found = statuses(&want(vec![layer]), &vswitch(report), NOW);
    assert_eq!(short(&found)[0], "a True/Valid True/Compliant True/Applied");
    assert_eq!(
        found[0].status["notEnforced"],
        json!([
            "esx.network.net_stacks",
            "esx.network_vss.switches[s].policy.traffic_shaping",
            "esx.security.settings",
            "esx.storage.nfs_v3_datastores",
            "esx.storage.other",
            "spec.metrics-collection",
        ])
    );
    assert_eq!(
        found[0].status["warnings"],
        json!(["unknown field esx.network_vss.switches[s].colour: kept, without effect"])
    );
}

#[test]
fn what_waits_is_not_compliant() {
    let desired = want(vec![
        object("a", &switch("vSwitch1", json!({}))),
        object("b", &json!({"esx": {"system": {"x": {}}}})),
    ]);
    let report = vswitch(SectionReport {
        pending: Impact::Reboot,
        ..SectionReport::default()
    });
    assert_eq!(
        short(&statuses(&desired, &report, NOW))[..2],
        [
            "a True/Valid False/NeedsReboot False/NeedsReboot",
            "b True/Valid True/Compliant True/Applied",
        ]
    );
}

#[test]
fn what_was_taken_back_says_so() {
    let desired = want(vec![
        object("a", &switch("vSwitch1", json!({}))),
        object("b", &switch("vSwitch2", json!({}))),
    ]);
    let quarantine = Quarantine {
        hash: desired.hash.clone(),
        layers: vec!["esx-system/b".into()],
        message: "lost".into(),
    };
    let enforcement = Enforcement {
        quarantine: Some(quarantine),
        ..fine()
    };
    assert_eq!(
        short(&statuses(&desired, &enforcement, NOW))[..2],
        [
            "a True/Valid True/Compliant True/Applied",
            "b True/Valid False/Quarantined False/Quarantined",
        ]
    );
}

#[test]
fn events_for_drift_changes_and_new_trouble() {
    let mut objects = vec![
        object("a", &switch("vSwitch1", json!({}))),
        object("b", &json!("{")),
    ];
    let change = |message: &str, drift| Applied {
        message: message.into(),
        drift,
    };
    let report = vswitch(SectionReport {
        changes: vec![
            change("made vSwitch1", false),
            change("put vmnic1 back", true),
            change("made P", false),
        ],
        ..SectionReport::default()
    });
    let run = |objects: &[Value]| {
        let desired = want(objects.to_vec());
        let found = statuses(&desired, &report, NOW);
        let events = events(&desired, &report.results, &found);
        let lines: Vec<String> = events
            .iter()
            .map(|e| format!("{} {} {} {}", e.layer, e.warning, e.reason, e.message))
            .collect();
        (found, lines)
    };
    let (found, lines) = run(&objects);
    assert_eq!(
        lines[..2],
        [
            "esx-system/a true DriftCorrected put vmnic1 back",
            "esx-system/a false Configured made vSwitch1; made P",
        ]
    );
    assert!(
        lines[2].starts_with("esx-system/b true InvalidProfile spec.profile: line 1"),
        "{lines:?}"
    );
    for (object, status) in objects.iter_mut().zip(&found) {
        object["status"] = status.status.clone();
    }
    assert_eq!(
        run(&objects).1.len(),
        2,
        "trouble that is known already is not told again"
    );
}

#[test]
fn plans_keep_what_is_good_and_forget_what_is_gone() {
    let good = switch("vSwitch1", json!({"mtu": 9000}));
    let observed = Observed {
        objects: vec![object("a", &good), object("b", &json!("{"))],
        last_good: [("b", &good), ("gone", &good)]
            .map(|(n, p)| (format!("esx-system/{n}"), p.clone()))
            .into(),
    };
    let steps = plan(&desired(&observed, &base()), &observed).steps;
    assert_eq!(
        steps,
        [
            Step::Remember {
                layer: "esx-system/a".into(),
                profile: good.clone()
            },
            Step::Remember {
                layer: "esx-system/esx-base-profile".into(),
                profile: base()
            },
            Step::Remember {
                layer: "esx-system/esx-base-profile@host".into(),
                profile: base()
            },
            Step::MakeBase { profile: base() },
            Step::Forget {
                layer: "esx-system/gone".into()
            },
        ]
    );
    // A base layer that was deleted comes back as it was, whatever the host looks like now.
    let observed = Observed {
        objects: vec![],
        last_good: [("esx-system/esx-base-profile".to_owned(), good.clone())].into(),
    };
    let steps = plan(&desired(&observed, &base()), &observed).steps;
    assert_eq!(
        steps,
        [
            Step::Remember {
                layer: "esx-system/esx-base-profile@host".into(),
                profile: good.clone()
            },
            Step::MakeBase { profile: good }
        ]
    );
}
