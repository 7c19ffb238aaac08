//! One run, from the fetched commit to what was carried out.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, PoisonError},
};

use apiserver::Status;
use base64::Engine as _;
use kinds::{
    condition,
    flux::Kustomization,
    object::{Gvr, Object, ObjectKey},
};
use kustomize::BuildError;
use reconcile::Key;
use serde_json::Value;

use super::{Kustomizations, gvr, inventory_of, judge::next_inventory};
use crate::{
    apply::{self, How},
    artifacts::Artifact,
    desired::{self, Desired, Hash},
    git::{tree::DAMAGED, url::Url},
    observe, plan,
    report::{self, Report},
    source, unsupported,
};

/// The last build of a Kustomization, without the objects: these are built again when one must be applied.
#[derive(Clone)]
pub(super) struct Memo {
    /// Of everything that went into the build.
    pub(super) input: Hash,
    outcome: Result<Arc<Desired>, Arc<Vec<BuildError>>>,
}

/// What is the same in the whole of a run.
pub(super) struct Run<'r> {
    pub(super) key: &'r Key,
    pub(super) object: &'r Object,
    pub(super) kustomization: &'r Kustomization,
    pub(super) source: Key,
    pub(super) artifact: Artifact,
    pub(super) variables: BTreeMap<String, String>,
}

impl Kustomizations {
    pub(super) async fn run(&self, key: &Key, object: &Object, kustomization: &Kustomization) -> Report {
        let failed = |reason: &'static str, why: String| Report {
            result: report::Result::Failed(reason, why),
            revision: String::new(),
            inventory: None,
            desired: None,
        };
        if let Some(refused) = unsupported::refused(object) {
            let reason = match refused.field {
                "spec.sourceRef" => "ArtifactFailed",
                _ => "BuildFailed",
            };
            return failed(reason, refused.message());
        }
        let Some(source) = source::source_of(object) else {
            return failed(
                "ArtifactFailed",
                "spec.sourceRef: it names no GitRepository".into(),
            );
        };
        let Some(artifact) = self.artifacts.get(&source) else {
            return failed(
                "ArtifactFailed",
                format!("GitRepository {source} has nothing fetched yet"),
            );
        };
        if let Some(why) = self.moved(&source, &artifact).await {
            return failed("ArtifactFailed", why);
        }
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
                // What damage prevented may work when it is mended.
                let lasting = outcome.as_ref().map_or_else(|errors| !damaged(errors), |_| true);
                if lasting {
                    let memo = Memo {
                        input,
                        outcome: outcome.clone(),
                    };
                    self.memo
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(run.key.clone(), memo);
                }
                (outcome, objects)
            }
        };
        let desired = match outcome {
            Ok(desired) => desired,
            Err(errors) => return Ok(report(report::Result::Broken(errors.to_vec()), None, None)),
        };
        let inventory = run.inventory();
        if desired.wanted.is_empty() && desired.not_served.is_empty() && !inventory.is_empty() {
            // A folder emptied by mistake, or a wrong path, must not take the disks of all machines with it.
            let why =
                "there is no manifest; nothing is deleted: to remove everything, remove the Kustomization";
            let error = BuildError::new(&run.kustomization.spec.path, why.to_owned());
            return Ok(report(report::Result::Broken(vec![error]), None, None));
        }
        let registry = self.client.api().registry();
        let resource = |key: &ObjectKey| registry.by_kind(&key.group, &key.kind).map(|kind| kind.gvr());
        let wanted = desired.wanted.iter().map(|w| (w.key.clone(), w.gvr.clone()));
        let before = inventory
            .iter()
            .filter_map(|key| Some((key.clone(), resource(key)?)));
        let live = observe::observe(&self.client, wanted.chain(before)).await?;
        let known = self.owned.known(desired.wanted.iter().map(|w| w.key.clone()));
        let wanted: HashSet<&ObjectKey> = desired.wanted.iter().map(|w| &w.key).collect();
        let gone: Vec<&ObjectKey> = inventory.iter().filter(|key| !wanted.contains(key)).collect();
        let held = self.held_by_others(run.key, &gone).await?;
        let plan = plan::plan(
            &desired,
            &inventory,
            &live,
            &known,
            &held,
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
        let mut done = apply::carry_out(&self.client, registry, &desired, &objects, &plan, how).await;
        done.undeleted.extend(plan.refused.iter().cloned());
        drop(objects);
        self.owned.remember(run.key, done.known.clone());
        for other in &plan.left_to {
            self.signal.key(other.clone());
        }
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
        let built = built
            .await
            .unwrap_or_else(|e| Err(wrong(format!("the build broke off: {e}"))));
        if let Err(errors) = &built
            && damaged(errors)
        {
            self.artifacts.report_damage(&run.source);
        }
        built
    }

    /// Why a fetched commit does not count: it came from another repository than the one that is named now. The folder
    /// of a site that moved is not looked for in the repository that it moved away from.
    async fn moved(&self, source: &Key, artifact: &Artifact) -> Option<String> {
        let found = self
            .client
            .get(&source::gvr(), &source.namespace, &source.name)
            .await;
        let address = found.ok()??.pointer("/spec/url")?.as_str()?.to_owned();
        let url = Url::parse(&address).ok()?.address;
        (!artifact.url.is_empty() && url != artifact.url).then(|| {
            format!(
                "nothing is fetched yet from {url}, which GitRepository {source} names now; what came from {} stays in force",
                artifact.url
            )
        })
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
}

/// Whether what was fetched could not be read, which a fetch mends.
fn damaged(errors: &[BuildError]) -> bool {
    errors.iter().any(|e| e.message.contains(DAMAGED))
}

impl Run<'_> {
    /// A digest of everything that a build depends on.
    pub(super) fn input(&self) -> Hash {
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
