//! The reconciler over a real API and store, with a section that stands for a domain.

#![expect(clippy::unwrap_used, reason = "a failed unwrap here is a failed test")]

use std::sync::{Arc, Mutex};

use apiserver::{Api, Client};
use async_trait::async_trait;
use hostconfig::HostConfig;
use kinds::{gvr, object::Object, registry::Registry};
use reconcile::{
    Outcome, Reconciler,
    section::{Applied, Problem, Section, SectionReport},
};
use serde_json::{Value, json};
use store::SqliteStore;
use telemetry::Clock;

/// Remembers what it was asked for; reports what it is told to.
#[derive(Default)]
struct Switches {
    asked: Mutex<Vec<Arc<Value>>>,
    problems: Mutex<Vec<Problem>>,
    stubborn: Mutex<bool>,
}

#[async_trait]
impl Section for Switches {
    fn name(&self) -> &'static str {
        "vswitch"
    }

    fn claims(&self) -> &'static [&'static str] {
        &["network_vss"]
    }

    async fn reconcile(&self, profile: &Arc<Value>) -> SectionReport {
        let mut asked = self.asked.lock().unwrap();
        let changed = asked.last() != Some(profile) || *self.stubborn.lock().unwrap();
        asked.push(profile.clone());
        let changes = if changed {
            vec![Applied {
                message: "made vSwitch1".into(),
                drift: false,
            }]
        } else {
            vec![]
        };
        SectionReport {
            changes,
            problems: self.problems.lock().unwrap().clone(),
            ..SectionReport::default()
        }
    }
}

impl Switches {
    fn now(&self) -> Value {
        let asked = self.asked.lock().unwrap();
        asked
            .last()
            .map(|profile| Value::clone(profile))
            .unwrap_or_default()
    }

    fn mtu(&self) -> Value {
        let profile = self.now();
        let switches = profile
            .pointer("/esx/network_vss/switches")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        switches
            .iter()
            .find(|s| s["name"] == "vSwitch1")
            .map_or(Value::Null, |s| s["mtu"].clone())
    }
}

struct Lab {
    client: Client,
    switches: Arc<Switches>,
    host: HostConfig,
    folder: tempfile::TempDir,
}

fn base() -> Value {
    json!({"esx": {"network_vss": {"switches": [{"name": "vSwitch0", "bridge": {"nics": ["vmnic0"]}}]}}})
}

impl Lab {
    fn new() -> Self {
        let clock = Clock::fixed("2026-01-31T12:00:00Z".parse().unwrap());
        let store = Arc::new(SqliteStore::in_memory().unwrap());
        let api = Api::new(Arc::new(Registry::builtin()), store, clock);
        let (client, switches, folder) = (
            Client::new(api, "hostconfig"),
            Arc::<Switches>::default(),
            tempfile::tempdir().unwrap(),
        );
        let host = HostConfig::new(client.clone(), vec![switches.clone()], base(), folder.path());
        Self {
            client,
            switches,
            host,
            folder,
        }
    }

    /// A daemon that has been started anew on the same state.
    fn restarted(self) -> Self {
        let host = HostConfig::new(
            self.client.clone(),
            vec![self.switches.clone()],
            json!({"esx": {}}),
            self.folder.path(),
        );
        Self { host, ..self }
    }

    async fn run(&self) -> Outcome {
        self.host.reconcile(&HostConfig::key()).await
    }

    async fn put(&self, name: &str, profile: &str) {
        let layer = json!({
            "apiVersion": "esx.vmware.com/v1alpha1", "kind": "HostConfiguration", "metadata": {"name": name, "namespace": "esx-system"},
            "spec": {"layertype": "Incremental", "profile": profile},
        });
        self.client.apply(&layer, true, false).await.unwrap();
    }

    async fn get(&self, name: &str) -> Object {
        self.client
            .get(&gvr::host_configurations(), "esx-system", name)
            .await
            .unwrap()
            .unwrap()
    }

    async fn ready(&self, name: &str) -> (String, String) {
        let status = self.get(name).await["status"].clone();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions
            .into_iter()
            .find(|c| c["type"] == "Ready")
            .unwrap_or_default();
        (
            ready["reason"].as_str().unwrap_or("-").into(),
            ready["message"].as_str().unwrap_or_default().into(),
        )
    }

    async fn events(&self) -> Vec<String> {
        let list = self.client.list(&gvr::events(), None).await.unwrap();
        let mut reasons: Vec<String> = list
            .items
            .iter()
            .map(|e| e["reason"].as_str().unwrap_or_default().to_owned())
            .collect();
        reasons.sort();
        reasons
    }
}

/// Whether the last two runs gave the section the same profile to read, not an equal one.
fn nothing_was_read_again(switches: &Switches) -> bool {
    let asked = switches.asked.lock().unwrap();
    matches!(asked.as_slice(), [.., one, other] if Arc::ptr_eq(one, other))
}

const GOOD: &str = r#"{"esx": {"network_vss": {"switches": [{"name": "vSwitch1", "mtu": 9000}]}}}"#;

#[tokio::test]
async fn a_fresh_host_gets_a_base_layer_and_keeps_it() {
    let lab = Lab::new();
    assert_eq!(lab.run().await, Outcome::Done);
    assert_eq!(lab.switches.now(), base());
    let layer = lab.get("esx-base-profile").await;
    assert_eq!(layer["spec"]["layertype"], "Base");
    assert_eq!(lab.run().await, Outcome::Done);
    assert_eq!(lab.ready("esx-base-profile").await.0, "Applied");
    // Deleted by a person, and the daemon now sees another host: the old base comes back.
    let lab = lab.restarted();
    lab.client
        .delete(&gvr::host_configurations(), "esx-system", "esx-base-profile")
        .await
        .unwrap();
    assert_eq!(lab.run().await, Outcome::Done);
    assert_eq!(lab.switches.now(), base());
    assert_eq!(
        serde_json::from_str::<Value>(
            lab.get("esx-base-profile").await["spec"]["profile"]
                .as_str()
                .unwrap()
        )
        .unwrap(),
        base()
    );
}

#[tokio::test]
async fn a_base_layer_that_git_lets_go_of_is_again_what_it_was_before() {
    let lab = Lab::new();
    lab.run().await;
    let gits = json!({
        "apiVersion": "esx.vmware.com/v1alpha1", "kind": "HostConfiguration",
        "metadata": {
            "name": "esx-base-profile", "namespace": "esx-system",
            "labels": {kinds::flux::OWNER_NAME: "site", kinds::flux::OWNER_NAMESPACE: "flux-system"},
        },
        "spec": {"layertype": "Base", "profile": GOOD},
    });
    lab.client.apply(&gits, true, false).await.unwrap();
    assert_eq!(lab.run().await, Outcome::Done);
    assert_eq!(lab.switches.mtu(), 9000);
    let lab = lab.restarted();
    lab.client
        .delete(&gvr::host_configurations(), "esx-system", "esx-base-profile")
        .await
        .unwrap();
    assert_eq!(lab.run().await, Outcome::Done);
    assert_eq!(lab.switches.now(), base());
}

#[tokio::test]
async fn a_layer_is_enforced_broken_and_mended() {
    let lab = Lab::new();
    lab.run().await;
    lab.put("vswitch-config", GOOD).await;
    assert_eq!(lab.run().await, Outcome::Done);
    assert_eq!(
        (lab.switches.mtu(), lab.ready("vswitch-config").await.0),
        (json!(9000), "Applied".into())
    );
    let written = lab.get("vswitch-config").await;
    assert_eq!(lab.run().await, Outcome::Done);
    assert_eq!(
        lab.get("vswitch-config").await["metadata"]["resourceVersion"],
        written["metadata"]["resourceVersion"]
    );

    lab.put("vswitch-config", &GOOD[..40]).await;
    assert_eq!(lab.run().await, Outcome::Done);
    let (reason, message) = lab.ready("vswitch-config").await;
    assert_eq!(reason, "InvalidProfile");
    assert!(
        message.contains("line 1, column 40") && message.contains("stays in force"),
        "{message}"
    );
    let lab = lab.restarted();
    assert_eq!(lab.run().await, Outcome::Done);
    assert_eq!(lab.switches.mtu(), 9000, "also after a restart");

    lab.put("vswitch-config", &GOOD.replace("9000", "1600")).await;
    assert_eq!(lab.run().await, Outcome::Done);
    assert_eq!(
        (lab.switches.mtu(), lab.ready("vswitch-config").await.0),
        (json!(1600), "Applied".into())
    );

    lab.client
        .delete(&gvr::host_configurations(), "esx-system", "vswitch-config")
        .await
        .unwrap();
    assert_eq!(lab.run().await, Outcome::Done);
    assert_eq!(lab.switches.now(), base(), "without the layer the base is back");
    let files = std::fs::read_dir(lab.folder.path().join("hostconfig/layers")).unwrap();
    let left = files.filter(|file| {
        let name = file.as_ref().unwrap().file_name();
        !name.to_string_lossy().starts_with("esx-system_esx-base-profile")
    });
    assert_eq!(left.count(), 0, "what is gone is forgotten");
    assert_eq!(lab.events().await, ["Configured", "Configured", "InvalidProfile"]);
}

#[tokio::test]
async fn a_layer_is_read_again_when_it_says_something_else_and_only_then() {
    let lab = Lab::new();
    lab.run().await;
    lab.put("vswitch-config", GOOD).await;
    lab.run().await;
    lab.run().await;
    assert!(nothing_was_read_again(&lab.switches));

    // Another revision of the object, but of nothing that it asks for.
    let mut layer = lab.get("vswitch-config").await;
    layer["metadata"]["annotations"] = json!({"seen-by": "somebody"});
    layer["status"] = json!({});
    lab.client.update(&layer).await.unwrap();
    let gvr = gvr::host_configurations();
    let status = lab
        .client
        .set_status(&gvr, "esx-system", "vswitch-config", json!({}));
    assert!(status.await.unwrap());
    assert_eq!(lab.run().await, Outcome::Done);
    assert!(nothing_was_read_again(&lab.switches));
    assert_eq!(
        lab.ready("vswitch-config").await.0,
        "Applied",
        "a status that somebody took away is there again"
    );

    lab.put("vswitch-config", &GOOD.replace("9000", "1600")).await;
    assert_eq!(lab.run().await, Outcome::Done);
    assert_eq!(lab.switches.mtu(), 1600);

    lab.put("another", &GOOD.replace("9000", "1500")).await;
    lab.run().await;
    assert_eq!(lab.ready("vswitch-config").await.0, "Conflict", "a layer came");
    let gone = lab.client.delete(&gvr, "esx-system", "another");
    gone.await.unwrap();
    lab.run().await;
    assert_eq!(lab.ready("vswitch-config").await.0, "Applied", "and went");
}

#[tokio::test]
async fn a_problem_of_a_section_is_reported_and_tried_again() {
    let lab = Lab::new();
    lab.run().await;
    lab.put("vswitch-config", GOOD).await;
    let path = "esx.network_vss.switches[vSwitch1].bridge.nics[0]".to_owned();
    *lab.switches.problems.lock().unwrap() = vec![Problem {
        path,
        reason: "UnknownNic".into(),
        message: "there is no vmnic9".into(),
    }];
    assert_eq!(
        lab.run().await,
        Outcome::Failed("UnknownNic: there is no vmnic9".into())
    );
    assert_eq!(lab.ready("vswitch-config").await.0, "UnknownNic");
    assert_eq!(lab.ready("esx-base-profile").await.0, "Applied");
    lab.switches.problems.lock().unwrap().clear();
    assert_eq!(lab.run().await, Outcome::Done);
    assert_eq!(lab.ready("vswitch-config").await.0, "Applied");
}

#[tokio::test]
async fn a_change_that_does_not_last_is_a_problem() {
    let lab = Lab::new();
    *lab.switches.stubborn.lock().unwrap() = true;
    let Outcome::Failed(message) = lab.run().await else {
        panic!()
    };
    assert_eq!(message, "NotVerified: this change did not last: made vSwitch1");
}

#[tokio::test]
async fn a_disk_that_takes_nothing_does_not_hold_up_the_host() {
    let lab = Lab::new();
    lab.run().await;
    std::fs::remove_dir_all(lab.folder.path().join("hostconfig")).unwrap();
    std::fs::write(lab.folder.path().join("hostconfig"), "in the way").unwrap();
    lab.put("vswitch-config", GOOD).await;
    let Outcome::Failed(message) = lab.run().await else {
        panic!()
    };
    assert!(
        message.starts_with("the last good configuration can't be kept: can't make"),
        "{message}"
    );
    assert_eq!(lab.switches.mtu(), 9000);
}

#[tokio::test]
async fn a_thousand_port_groups_unchanged_cost_little() {
    let lab = Lab::new();
    lab.run().await;
    let groups: Vec<Value> = (0..1000)
        .map(|n| json!({"name": format!("P{n}"), "vlan_id": n}))
        .collect();
    let profile =
        json!({"esx": {"network_vss": {"switches": [{"name": "vSwitch1", "port_groups": groups}]}}});
    lab.put("many", &profile.to_string()).await;
    assert_eq!(lab.run().await, Outcome::Done);
    assert_eq!(lab.run().await, Outcome::Done);
    let start = tokio::time::Instant::now();
    assert_eq!(lab.run().await, Outcome::Done);
    let took = start.elapsed();
    println!("unchanged run with 1000 port groups: {took:?}");
    // A release build takes about a tenth of a debug build, whose bound this is.
    assert!(took.as_millis() < 500, "{took:?}");
}
