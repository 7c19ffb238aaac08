//! The reconciler of Kustomization: one run builds, compares, applies, deletes what is gone, looks at health,
//! and says so.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use apiserver::{Client, Status, client::EventType};
use async_trait::async_trait;
use base64::Engine as _;
use kinds::{
    condition,
    flux::{CrossReference, Kustomization},
    object::{self, Gvk, Gvr, Object, ObjectKey},
};
use kustomize::BuildError;
use reconcile::{Key, Outcome, Reconciler, Signal};
use serde_json::Value;
use telemetry::{Clock, Metrics};
use tokio::time::Instant;

use crate::{
    apply::{self, Done, How},
    artifacts::{Artifact, Artifacts},
    config::Config,
    desired::{self, Desired, Hash},
    health::{Health, Verdict, some},
    observe::{self, Live},
    owned::Owned,
    plan::{self, Why},
    report::{self, Report},
    source,
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

/// The last build of a Kustomization, without the objects: these are built again when one must be applied.
#[derive(Clone)]
struct Memo {
    /// Of everything that went into the build.
    input: Hash,
    outcome: Result<Arc<Desired>, Arc<Vec<BuildError>>>,
}

/// What is the same in the whole of a run.
struct Run<'r> {
    key: &'r Key,
    object: &'r Object,
    kustomization: &'r Kustomization,
    source: Key,
    artifact: Artifact,
    variables: BTreeMap<String, String>,
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

    async fn run(&self, key: &Key, object: &Object, kustomization: &Kustomization) -> Report {
        let failed = |reason: &'static str, why: String| Report {
            result: report::Result::Failed(reason, why),
            revision: String::new(),
            inventory: None,
            desired: None,
        };
        let Some(source) = source::source_of(object) else {
            let kind = &kustomization.spec.source_ref.kind;
            return failed(
                "ArtifactFailed",
                format!("spec.sourceRef: sources of kind {kind} are not supported; use a GitRepository"),
            );
        };
        let Some(artifact) = self.artifacts.get(&source) else {
            return failed(
                "ArtifactFailed",
                format!("GitRepository {source} has nothing fetched yet"),
            );
        };
        if let Err(why) = self.dependencies(key, kustomization, &artifact).await {
            return Report {
                result: report::Result::Dependency(why),
                revision: String::new(),
                inventory: None,
                desired: None,
            };
        }
        let variables = match self.variables(kustomization).await {
            Ok(variables) => variables,
            Err(why) => {
                return Report {
                    revision: artifact.revision,
                    ..failed("BuildFailed", why)
                };
            }
        };
        let run = Run {
            key,
            object,
            kustomization,
            source,
            artifact,
            variables,
        };
        match self.apply(&run).await {
            Ok(report) => report,
            Err(status) => Report {
                revision: run.artifact.revision.clone(),
                ..failed("ReconciliationFailed", status.to_string())
            },
        }
    }

    async fn apply(&self, run: &Run<'_>) -> Result<Report, Status> {
        let report = |result, inventory, desired| Report {
            result,
            revision: run.artifact.revision.clone(),
            inventory,
            desired,
        };
        let input = run.input();
        let memo = self
            .memo
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(run.key)
            .filter(|m| m.input == input)
            .cloned();
        let (outcome, mut objects) = match memo {
            Some(memo) => (memo.outcome, None),
            None => {
                let (outcome, objects) = match self.build(run).await {
                    Ok((desired, objects)) => (Ok(Arc::new(desired)), Some(objects)),
                    Err(errors) => (Err(Arc::new(errors)), None),
                };
                let memo = Memo {
                    input,
                    outcome: outcome.clone(),
                };
                self.memo
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(run.key.clone(), memo);
                (outcome, objects)
            }
        };
        let desired = match outcome {
            Ok(desired) => desired,
            Err(errors) => return Ok(report(report::Result::Broken(errors.to_vec()), None, None)),
        };
        let inventory = run.inventory();
        let registry = self.client.api().registry();
        let resource = |key: &ObjectKey| registry.by_kind(&key.group, &key.kind).map(|kind| kind.gvr());
        let wanted = desired.wanted.iter().map(|w| (w.key.clone(), w.gvr.clone()));
        let before = inventory
            .iter()
            .filter_map(|key| Some((key.clone(), resource(key)?)));
        let live = observe::observe(&self.client, wanted.chain(before)).await?;
        let known = self.owned.known(desired.wanted.iter().map(|w| w.key.clone()));
        let plan = plan::plan(
            &desired,
            &inventory,
            &live,
            &known,
            run.key,
            run.kustomization.spec.prune,
        );
        if !plan.apply.is_empty() && objects.is_none() {
            objects = match self.build(run).await {
                Ok((again, objects)) if again == *desired => Some(objects),
                Ok(_) => {
                    return Err(Status::new(
                        500,
                        "InternalError",
                        "the same commit was built in two ways",
                    ));
                }
                Err(errors) => return Ok(report(report::Result::Broken(errors), None, None)),
            };
        }
        // What is about to go is no longer guarded.
        self.owned.forget(
            run.key,
            plan.delete.iter().chain(plan.release.iter().map(|(key, _)| key)),
        );
        let how = How {
            concurrency: self.config.concurrency,
            force: run.kustomization.spec.force,
        };
        let objects = objects.unwrap_or_default();
        let done = apply::carry_out(&self.client, registry, &desired, &objects, &plan, how).await;
        drop(objects);
        self.owned.remember(run.key, done.known.clone());
        self.tell(run, &desired, &plan, &done).await;
        let result = self.judge(run, &desired, &live, &done).await?;
        let inventory = next_inventory(&desired, &inventory, &live, &done);
        Ok(report(result, Some(inventory), Some(desired)))
    }

    /// Builds on a thread of its own: reading and parsing a large folder takes a while.
    async fn build(&self, run: &Run<'_>) -> Result<(Desired, Vec<Value>), Vec<BuildError>> {
        let wrong = |why: String| vec![BuildError::new(&format!("GitRepository {}", run.source), why)];
        let tree = self.artifacts.open(&run.source, &run.artifact);
        let tree = tree.map_err(|e| wrong(format!("can't open the fetched commit: {e}")))?;
        let (client, ignore) = (self.client.clone(), run.artifact.ignore.clone());
        let (kustomization, variables) = (run.kustomization.clone(), run.variables.clone());
        let built = tokio::task::spawn_blocking(move || {
            let registry = client.api().registry();
            desired::desire(
                &tree.tree,
                ignore.as_deref(),
                &kustomization,
                &variables,
                registry,
            )
        });
        built
            .await
            .unwrap_or_else(|e| Err(wrong(format!("the build broke off: {e}"))))
    }

    /// Whether all that this one depends on is ready.
    async fn dependencies(
        &self,
        key: &Key,
        kustomization: &Kustomization,
        artifact: &Artifact,
    ) -> Result<(), String> {
        for needed in &kustomization.spec.depends_on {
            let namespace = if needed.namespace.is_empty() {
                &key.namespace
            } else {
                &needed.namespace
            };
            let needed = Key::new(namespace, &needed.name);
            self.dependents
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(needed.clone())
                .or_default()
                .insert(key.clone());
            let found = self.client.get(&gvr(), &needed.namespace, &needed.name).await;
            let found = found.map_err(|status| status.to_string())?;
            let Some(found) = found else {
                return Err(format!("the dependency {needed} is not there"));
            };
            let Ok(other) = Kustomization::from_object(&found) else {
                return Err(format!("the dependency {needed} can't be read"));
            };
            let ready =
                condition::find(&other.status.conditions, "Ready").is_some_and(condition::Condition::is_true);
            if !ready || other.status.observed_generation != other.metadata.generation {
                return Err(format!("the dependency {needed} is not ready"));
            }
            let same_source = other.spec.source_ref == kustomization.spec.source_ref;
            if same_source && other.status.last_applied_revision != artifact.revision {
                return Err(format!(
                    "the dependency {needed} is not at {} yet",
                    artifact.revision
                ));
            }
        }
        Ok(())
    }

    async fn variables(&self, kustomization: &Kustomization) -> Result<BTreeMap<String, String>, String> {
        let mut variables = BTreeMap::new();
        let Some(post_build) = &kustomization.spec.post_build else {
            return Ok(variables);
        };
        for from in &post_build.substitute_from {
            let plural = match from.kind.as_str() {
                "ConfigMap" => "configmaps",
                "Secret" => "secrets",
                other => {
                    return Err(format!(
                        "spec.postBuild.substituteFrom: {other} is neither ConfigMap nor Secret"
                    ));
                }
            };
            let namespace = &kustomization.metadata.namespace;
            let found = self
                .client
                .get(&Gvr::new("v1", plural), namespace, &from.name)
                .await;
            let found = found.map_err(|status| status.to_string())?;
            let Some(found) = found else {
                if from.optional {
                    continue;
                }
                return Err(format!(
                    "spec.postBuild.substituteFrom: there is no {} {namespace}/{}",
                    from.kind, from.name
                ));
            };
            for (name, value) in found.get("data").and_then(Value::as_object).into_iter().flatten() {
                let text = value.as_str().unwrap_or_default();
                let text = if from.kind == "Secret" {
                    let bytes = base64::engine::general_purpose::STANDARD
                        .decode(text)
                        .unwrap_or_default();
                    String::from_utf8_lossy(&bytes).into_owned()
                } else {
                    text.to_owned()
                };
                // A newline at the end comes from the file that the value was made from.
                variables.insert(name.clone(), text.trim_end_matches('\n').to_owned());
            }
        }
        variables.extend(post_build.substitute.clone());
        Ok(variables)
    }

    /// Failures first, then health.
    async fn judge(
        &self,
        run: &Run<'_>,
        desired: &Desired,
        live: &HashMap<ObjectKey, Live>,
        done: &Done,
    ) -> Result<report::Result, Status> {
        if !done.failed.is_empty() {
            let place = |key: &ObjectKey| {
                desired
                    .wanted
                    .iter()
                    .find(|w| w.key == *key)
                    .map(|w| format!("{}: ", w.place))
                    .unwrap_or_default()
            };
            let lines: Vec<String> = done
                .failed
                .iter()
                .map(|(key, why)| format!("{}{key}: {why}", place(key)))
                .collect();
            return Ok(report::Result::Failed("ReconciliationFailed", some(&lines)));
        }
        if !done.undeleted.is_empty() {
            let lines: Vec<String> = done
                .undeleted
                .iter()
                .map(|(key, why)| format!("{key}: {why}"))
                .collect();
            return Ok(report::Result::Failed("PruneFailed", some(&lines)));
        }
        let verdict = if run.kustomization.spec.wait {
            let health = |key| done.health.get(key).or_else(|| live.get(key).map(|l| &l.health));
            Verdict::of(desired.wanted.iter().map(|w| (&w.key, health(&w.key))))
        } else if run.kustomization.spec.health_checks.is_empty() {
            Verdict::Healthy
        } else {
            let mut health: Vec<(ObjectKey, Option<Health>)> = Vec::new();
            for reference in &run.kustomization.spec.health_checks {
                health.push(self.health_of(run, reference).await?);
            }
            Verdict::of(health.iter().map(|(key, health)| (key, health.as_ref())))
        };
        let since = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if verdict == Verdict::Healthy {
                waiting.remove(run.key);
                return Ok(report::Result::Applied);
            }
            let input = run.input();
            let entry = waiting
                .entry(run.key.clone())
                .or_insert_with(|| (input, Instant::now()));
            if entry.0 != input {
                *entry = (input, Instant::now());
            }
            entry.1
        };
        Ok(match verdict {
            Verdict::Unhealthy(why) => report::Result::Failed("HealthCheckFailed", why),
            Verdict::Waiting(why) if since.elapsed() > run.kustomization.spec.run_timeout() => {
                report::Result::Failed("HealthCheckFailed", format!("not ready in time:\n{why}"))
            }
            Verdict::Waiting(why) => report::Result::Waiting(why),
            Verdict::Healthy => report::Result::Applied,
        })
    }

    async fn health_of(
        &self,
        run: &Run<'_>,
        reference: &CrossReference,
    ) -> Result<(ObjectKey, Option<Health>), Status> {
        let namespace = if reference.namespace.is_empty() {
            &run.key.namespace
        } else {
            &reference.namespace
        };
        let gvk = Gvk::new(&reference.api_version, &reference.kind);
        let registry = self.client.api().registry();
        let kind = registry.by_kind(&gvk.group, &gvk.kind).or_else(|| {
            registry
                .iter()
                .find(|k| reference.api_version.is_empty() && k.kind == gvk.kind)
        });
        let mut key = ObjectKey {
            group: gvk.group,
            kind: gvk.kind,
            namespace: namespace.clone(),
            name: reference.name.clone(),
        };
        let Some(kind) = kind else {
            return Ok((
                key,
                Some(Health::Failed("this host does not serve the kind".into())),
            ));
        };
        if kind.scope == kinds::registry::Scope::Cluster {
            key.namespace.clear();
        }
        let found = self.client.get(&kind.gvr(), &key.namespace, &key.name).await?;
        Ok((key, found.as_ref().map(crate::health::of)))
    }

    /// Events of a run: what changed and what was put right.
    async fn tell(&self, run: &Run<'_>, desired: &Desired, plan: &plan::Plan, done: &Done) {
        let names = |keys: &[ObjectKey]| some(&keys.iter().map(ToString::to_string).collect::<Vec<_>>());
        let mut parts = Vec::new();
        for (verb, keys) in [
            ("created", &done.created),
            ("changed", &done.changed),
            ("deleted", &done.deleted),
        ] {
            if !keys.is_empty() {
                parts.push(format!(
                    "{} {verb}: {}",
                    keys.len(),
                    names(keys).replace('\n', ", ")
                ));
            }
        }
        if !parts.is_empty() {
            let message = format!("{}: {}", run.artifact.revision, parts.join("; "));
            self.client
                .event(run.object, EventType::Normal, "Applied", &message)
                .await;
        }
        let deleted: HashSet<usize> = plan
            .apply
            .iter()
            .filter(|(_, why)| *why == Why::Drift)
            .map(|(at, _)| *at)
            .collect();
        for key in done.reverted.iter().take(20) {
            let at = desired
                .wanted
                .iter()
                .position(|w| w.key == *key)
                .filter(|at| deleted.contains(at));
            let place = at.map(|at| desired.wanted[at].place.clone()).unwrap_or_default();
            let message = format!("{key} was changed by somebody else and is as {place} says again");
            self.client
                .event(run.object, EventType::Warning, "DriftCorrected", &message)
                .await;
        }
        for (at, other) in plan.taken.iter().take(20) {
            let message = format!(
                "{} belonged to the Kustomization {other} and is taken over",
                desired.wanted[*at].key
            );
            self.client
                .event(run.object, EventType::Warning, "TakenOver", &message)
                .await;
        }
    }

    /// Deletes the objects of a Kustomization that is being deleted, if it prunes, and lets it go.
    async fn finalize(&self, key: &Key, object: &Object, kustomization: &Kustomization) -> Outcome {
        if !object::finalizers(object).contains(&FINALIZER) {
            return Outcome::Done;
        }
        let delete = match kustomization.spec.deletion_policy.as_deref() {
            Some("Delete" | "WaitForTermination") => true,
            Some("Orphan") => false,
            _ => kustomization.spec.prune && !kustomization.spec.suspend,
        };
        self.owned.forget_all(key);
        if delete {
            let registry = self.client.api().registry();
            let inventory = inventory_of(kustomization);
            let resource = |key: &ObjectKey| registry.by_kind(&key.group, &key.kind).map(|kind| kind.gvr());
            let keys = inventory
                .iter()
                .filter_map(|key| Some((key.clone(), resource(key)?)));
            let live = match observe::observe(&self.client, keys).await {
                Ok(live) => live,
                Err(status) => return Outcome::Failed(status.to_string()),
            };
            let nothing = Desired::default();
            let plan = plan::plan(&nothing, &inventory, &live, &HashMap::new(), key, true);
            let how = How {
                concurrency: 1,
                force: false,
            };
            let done = apply::carry_out(&self.client, registry, &nothing, &[], &plan, how).await;
            if let Some((key, why)) = done.undeleted.first() {
                return Outcome::Failed(format!("can't delete {key}: {why}"));
            }
        }
        match self
            .client
            .set_finalizer(&gvr(), &key.namespace, &key.name, FINALIZER, false)
            .await
        {
            Ok(()) => Outcome::Done,
            Err(status) => Outcome::Failed(status.to_string()),
        }
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

impl Run<'_> {
    /// A digest of everything that a build depends on.
    fn input(&self) -> Hash {
        desired::digest(&serde_json::json!([
            self.artifact.commit,
            self.artifact.ignore,
            self.object.get("spec"),
            self.variables,
        ]))
    }

    fn inventory(&self) -> Vec<ObjectKey> {
        inventory_of(self.kustomization)
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

/// What belongs to the Kustomization after a run. Nothing that may be there is lost from it.
fn next_inventory(
    desired: &Desired,
    before: &[ObjectKey],
    live: &HashMap<ObjectKey, Live>,
    done: &Done,
) -> Vec<(ObjectKey, String)> {
    let failed: HashSet<&ObjectKey> = done.failed.iter().map(|(key, _)| key).collect();
    let there = |key: &ObjectKey| !failed.contains(key) || live.contains_key(key);
    let mut next: Vec<(ObjectKey, String)> = desired
        .wanted
        .iter()
        .filter(|w| there(&w.key))
        .map(|w| (w.key.clone(), w.gvr.version.clone()))
        .collect();
    let have: HashSet<ObjectKey> = next.iter().map(|(key, _)| key.clone()).collect();
    let kept: Vec<&ObjectKey> = if done.failed.is_empty() {
        done.undeleted.iter().map(|(key, _)| key).collect()
    } else {
        before.iter().collect()
    };
    next.extend(
        kept.into_iter()
            .filter(|key| !have.contains(*key))
            .map(|key| (key.clone(), String::new())),
    );
    next
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
