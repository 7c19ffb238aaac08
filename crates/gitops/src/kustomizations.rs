//! The reconciler of Kustomization: one run builds, compares, applies, deletes what is gone, looks at health,
//! and says so.
//!
//! | module | what it is |
//! |---|---|
//! | `run` | one run, from the fetched commit to what was carried out |
//! | `judge` | whether it went well, and the events that say so |
//! | `finalize` | the end of a Kustomization |

mod finalize;
mod judge;
mod run;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use apiserver::{Client, client::EventType};
use async_trait::async_trait;
use kinds::{
    condition,
    flux::Kustomization,
    object::{self, Gvr, Object, ObjectKey},
};
use reconcile::{Key, Outcome, Reconciler, Signal};
use telemetry::{Clock, Metrics};
use tokio::time::Instant;

use self::run::Memo;
use crate::{
    artifacts::Artifacts,
    config::Config,
    desired::{self, Hash},
    owned::Owned,
    plan, report,
};

/// Held by a Kustomization that is being deleted until its objects are.
const FINALIZER: &str = "finalizers.fluxcd.io";

/// Reconciles Kustomizations.
pub struct Kustomizations {
    client: Client,
    config: Config,
    artifacts: Artifacts,
    clock: Clock,
    signal: Signal,
    owned: Owned,
    memo: Mutex<HashMap<Key, Memo>>,
    /// Kustomizations that wait for another one.
    dependents: Mutex<HashMap<Key, HashSet<Key>>>,
    /// Since when health is waited for, and of what.
    waiting: Mutex<HashMap<Key, (Hash, Instant)>>,
}

impl Kustomizations {
    /// `signal` is the one of the queue that the reconciler is driven by.
    #[must_use]
    pub fn new(client: Client, config: Config, artifacts: Artifacts, clock: Clock, signal: Signal) -> Self {
        Self {
            client,
            config,
            artifacts,
            clock,
            signal,
            owned: Owned::default(),
            memo: Mutex::default(),
            dependents: Mutex::default(),
            waiting: Mutex::default(),
        }
    }

    /// A driver for it, with the watch it needs.
    #[must_use]
    pub fn driver(self: Arc<Self>, queue: reconcile::Queue, metrics: &Metrics) -> reconcile::Driver {
        let options = reconcile::Options {
            workers: 16,
            longest_backoff: Duration::from_secs(60),
            ..Default::default()
        };
        let (client, clock) = (self.client.clone(), self.clock.clone());
        let seen = crate::seen::Seen::default();
        reconcile::Driver::new(self, queue, options, metrics, clock).watches(&client, gvr(), move |object| {
            if seen.is_new(object) {
                reconcile::Wake::own(object)
            } else {
                reconcile::Wake::Nothing
            }
        })
    }

    /// Watches the objects that Kustomizations applied and runs their Kustomization as soon as somebody else
    /// writes one. Never returns.
    pub async fn guard(&self) {
        self.owned.follow(&self.client, &self.signal).await;
    }

    async fn reconcile_one(&self, key: &Key, object: &Object, kustomization: &Kustomization) -> Outcome {
        if !object::finalizers(object).contains(&FINALIZER)
            && let Err(status) = self
                .client
                .set_finalizer(&gvr(), &key.namespace, &key.name, FINALIZER, true)
                .await
        {
            return Outcome::Failed(status.to_string());
        }
        self.owned.start(key);
        let report = self.run(key, object, kustomization).await;
        let waits = matches!(
            report.result,
            report::Result::Waiting(_) | report::Result::Failed("HealthCheckFailed", _)
        );
        if self.owned.end(key, waits) {
            self.signal.key(key.clone());
        }
        let value = report::status(kustomization, &report, &self.clock.now_rfc3339());
        let became = kustomization.status.last_applied_revision != report.revision
            || !condition::find(&kustomization.status.conditions, "Ready")
                .is_some_and(condition::Condition::is_true);
        match self
            .client
            .set_status(&gvr(), &key.namespace, &key.name, value)
            .await
        {
            Ok(_) => {}
            Err(status) => return Outcome::Failed(format!("can't write the status: {status}")),
        }
        let spec = &kustomization.spec;
        match report.result {
            report::Result::Applied => {
                if became {
                    self.wake_dependents(key);
                }
                Outcome::Again(spec.interval.max(Duration::from_secs(1)))
            }
            report::Result::Waiting(_) => Outcome::Again(self.config.health_interval),
            report::Result::Dependency(why) => {
                tracing::debug!(kustomization = %key, why, "waits");
                Outcome::Again(
                    spec.retry()
                        .clamp(Duration::from_secs(1), Duration::from_secs(30)),
                )
            }
            report::Result::Failed(reason, why) => {
                self.client.event(object, EventType::Warning, reason, &why).await;
                Outcome::Failed(why.replace('\n', "; "))
            }
            report::Result::Broken(errors) => {
                let message = report::broken(&errors);
                self.client
                    .event(object, EventType::Warning, "BuildFailed", &message)
                    .await;
                Outcome::Failed(message.replace('\n', "; "))
            }
        }
    }

    /// Which of these objects other Kustomizations have in their inventories too, and which has it. A namespace
    /// counts as theirs if they have something in it.
    async fn held_by_others(
        &self,
        owner: &Key,
        objects: &[&ObjectKey],
    ) -> Result<HashMap<ObjectKey, Key>, apiserver::Status> {
        let mut held = HashMap::new();
        if objects.is_empty() {
            return Ok(held);
        }
        for other in self.client.list(&gvr(), None).await?.items {
            let key = Key::of(&other);
            // One that goes itself will not look after anything.
            if key == *owner || object::is_deleting(&other) {
                continue;
            }
            let Ok(kustomization) = Kustomization::from_object(&other) else {
                continue;
            };
            let inventory: HashSet<ObjectKey> = inventory_of(&kustomization).into_iter().collect();
            let namespaces: HashSet<&str> = inventory.iter().map(|key| key.namespace.as_str()).collect();
            let both = objects.iter().filter(|object| {
                inventory.contains(**object)
                    || (plan::is_namespace(object) && namespaces.contains(object.name.as_str()))
            });
            held.extend(both.map(|object| ((*object).clone(), key.clone())));
        }
        Ok(held)
    }

    fn wake_dependents(&self, key: &Key) {
        let dependents = self
            .dependents
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key)
            .unwrap_or_default();
        dependents
            .into_iter()
            .for_each(|dependent| self.signal.key(dependent));
    }

    fn forget(&self, key: &Key) {
        self.owned.forget_all(key);
        self.memo
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }
}

fn inventory_of(kustomization: &Kustomization) -> Vec<ObjectKey> {
    let entries = kustomization
        .status
        .inventory
        .iter()
        .flat_map(|inventory| &inventory.entries);
    entries
        .filter_map(|entry| desired::from_inventory_id(&entry.id))
        .collect()
}

/// The resource.
pub(crate) fn gvr() -> Gvr {
    Gvr::new("kustomize.toolkit.fluxcd.io/v1", "kustomizations")
}

#[async_trait]
impl Reconciler for Kustomizations {
    fn name(&self) -> &'static str {
        "kustomization"
    }

    async fn keys(&self) -> Vec<Key> {
        match self.client.list(&gvr(), None).await {
            Ok(list) => list.items.iter().map(Key::of).collect(),
            Err(status) => {
                tracing::warn!(error = %status, "can't list Kustomizations");
                Vec::new()
            }
        }
    }

    async fn reconcile(&self, key: &Key) -> Outcome {
        let object = match self.client.get(&gvr(), &key.namespace, &key.name).await {
            Ok(Some(object)) => object,
            Ok(None) => {
                self.forget(key);
                return Outcome::Done;
            }
            Err(status) => return Outcome::Failed(status.to_string()),
        };
        let kustomization = match Kustomization::from_object(&object) {
            Ok(kustomization) => kustomization,
            Err(error) => return Outcome::Failed(telemetry::chain(&error).to_string()),
        };
        if object::is_deleting(&object) {
            return self.finalize(key, &object, &kustomization).await;
        }
        if kustomization.spec.suspend {
            return Outcome::Done;
        }
        self.reconcile_one(key, &object, &kustomization).await
    }
}
