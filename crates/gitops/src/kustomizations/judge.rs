//! Whether a run went well, and the events that say so.

use std::{
    collections::{HashMap, HashSet},
    sync::PoisonError,
};

use apiserver::{Status, client::EventType};
use kinds::{
    flux::CrossReference,
    object::{Gvk, ObjectKey},
};
use tokio::time::Instant;

use super::{Kustomizations, run::Run};
use crate::{
    apply::Done,
    desired::Desired,
    health::{Health, Verdict, some},
    observe::Live,
    plan::{self, Why},
    report,
};

impl Kustomizations {
    /// Failures first, then health.
    pub(super) async fn judge(
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
    pub(super) async fn tell(&self, run: &Run<'_>, desired: &Desired, plan: &plan::Plan, done: &Done) {
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
}

/// What belongs to the Kustomization after a run. Nothing that may be there is lost from it.
pub(super) fn next_inventory(
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
