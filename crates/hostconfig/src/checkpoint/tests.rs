use std::sync::Mutex;

use kinds::object::Object;
use reconcile::section::{Applied, Problem, SectionReport};
use serde_json::json;

use super::*;
use crate::{desired::desired, observe::Observed};

/// A host whose one setting `esx.x.mode` decides what can be reached.
#[derive(Default)]
struct Host {
    mode: Mutex<Value>,
    enforced: Mutex<Vec<Value>>,
}

#[async_trait]
impl Section for Host {
    fn name(&self) -> &'static str {
        "x"
    }

    fn claims(&self) -> &'static [&'static str] {
        &["x"]
    }

    async fn reconcile(&self, profile: &Arc<Value>) -> SectionReport {
        let wanted = profile["esx"]["x"]["mode"].clone();
        self.enforced.lock().unwrap().push(wanted.clone());
        if wanted == "contradiction" {
            let problem = Problem {
                path: "esx.x.mode".into(),
                reason: "Contradiction".into(),
                message: "nothing was changed".into(),
            };
            return SectionReport {
                problems: vec![problem],
                ..SectionReport::default()
            };
        }
        let changed = std::mem::replace(&mut *self.mode.lock().unwrap(), wanted.clone()) != wanted;
        let changes = if changed {
            vec![Applied {
                message: format!("mode is {wanted}"),
                drift: false,
            }]
        } else {
            vec![]
        };
        SectionReport {
            changes,
            ..SectionReport::default()
        }
    }
}

#[async_trait]
impl Connectivity for Host {
    async fn reachable(&self) -> BTreeSet<String> {
        match self.mode.lock().unwrap().as_str() {
            Some("cut off") => BTreeSet::new(),
            Some("half") => BTreeSet::from(["gateway".into()]),
            _ => BTreeSet::from(["gateway".into(), "Git server".into()]),
        }
    }
}

fn want(mode: &str) -> Desired {
    let layer: Object = json!({
        "apiVersion": "esx.vmware.com/v1alpha1", "kind": "HostConfiguration", "metadata": {"name": "a", "namespace": "esx-system"},
        "spec": {"profile": json!({"esx": {"x": {"mode": mode}}}).to_string()},
    });
    desired(
        &Observed {
            objects: vec![layer],
            ..Observed::default()
        },
        &json!({"esx": {}}),
    )
}

struct Lab {
    host: Arc<Host>,
    folder: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        Self {
            host: Arc::default(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint::new(self.folder.path().join("h/checkpoint.json"), self.host.clone())
    }

    async fn run(&self, mode: &str) -> Option<Quarantine> {
        let sections: [Arc<dyn Section>; 1] = [self.host.clone()];
        self.checkpoint().enforce(&sections, &want(mode)).await.quarantine
    }

    fn mode(&self) -> Value {
        self.host.mode.lock().unwrap().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_good_change_stays() {
    let lab = Lab::new();
    assert_eq!(lab.run("one").await, None);
    assert_eq!(lab.run("two").await, None);
    assert_eq!(lab.mode(), "two");
    assert_eq!(
        lab.checkpoint().read().good.unwrap().profile,
        want("two").merged.profile
    );
}

#[tokio::test(start_paused = true)]
async fn a_change_that_cuts_off_is_taken_back_and_stays_so() {
    let lab = Lab::new();
    lab.run("one").await;
    for bad in ["cut off", "half"] {
        let quarantine = lab.run(bad).await.unwrap();
        assert_eq!(quarantine.layers, ["esx-system/a"]);
        assert!(
            quarantine.message.contains("Git server"),
            "{}",
            quarantine.message
        );
        assert_eq!(lab.mode(), "one");
        lab.host.enforced.lock().unwrap().clear();
        assert_eq!(lab.run(bad).await, Some(quarantine));
        assert_eq!(*lab.host.enforced.lock().unwrap(), ["one"], "not tried again");
    }
    assert_eq!(lab.run("two").await, None);
    assert_eq!(lab.mode(), "two");
}

#[tokio::test(start_paused = true)]
async fn a_trial_goes_on_after_a_crash_with_the_list_from_before() {
    let lab = Lab::new();
    lab.run("one").await;
    // Killed after the change was made and before it was judged.
    let mut record = lab.checkpoint().read();
    let reachable = lab.host.reachable().await;
    record.trying = Some(Trying {
        hash: want("cut off").hash,
        reachable,
    });
    let old = Record::default();
    lab.checkpoint().write(&old, record).await;
    *lab.host.mode.lock().unwrap() = "cut off".into();
    assert!(lab.run("cut off").await.is_some());
    assert_eq!(lab.mode(), "one");
}

#[tokio::test(start_paused = true)]
async fn with_all_links_down_nothing_is_taken_back() {
    let lab = Lab::new();
    lab.run("one").await;
    *lab.host.mode.lock().unwrap() = "cut off".into();
    assert_eq!(lab.run("half").await, None);
    assert_eq!(lab.mode(), "half");
}

#[tokio::test(start_paused = true)]
async fn what_a_section_refused_is_nothing_to_go_back_to() {
    let lab = Lab::new();
    lab.run("one").await;
    // A change in two layers: when only the first has come, the two contradict each other.
    assert_eq!(lab.run("contradiction").await, None);
    assert_eq!(
        lab.checkpoint().read().good.unwrap().profile,
        want("one").merged.profile
    );
    assert!(lab.run("cut off").await.is_some());
    assert_eq!(lab.mode(), "one");
}

#[tokio::test(start_paused = true)]
async fn a_crash_and_another_change_in_a_trial_prove_nothing() {
    let lab = Lab::new();
    lab.run("one").await;
    let mut record = lab.checkpoint().read();
    let reachable = lab.host.reachable().await;
    record.trying = Some(Trying {
        hash: want("half").hash,
        reachable,
    });
    lab.checkpoint().write(&Record::default(), record).await;
    // Killed while it was cut off; after that the second layer of the same push is there too.
    *lab.host.mode.lock().unwrap() = "half".into();
    assert!(lab.run("cut off").await.is_some());
    assert_eq!(lab.mode(), "one");
}
