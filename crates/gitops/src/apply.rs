//! Carries a plan out. Has no choices to make; a run that was killed is simply run again.

use std::collections::HashMap;

use apiserver::{Client, Status, client::Applied};
use futures::{StreamExt as _, stream};
use kinds::{
    object::{Object, ObjectKey},
    registry::Registry,
};
use serde_json::Value;

use crate::{
    desired::{Desired, Wanted},
    health::Health,
    observe::Live,
    plan::{Known, Plan, Why},
    revert,
};

/// What carrying out did.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Objects that are now as wanted, with what to remember of them.
    pub(crate) known: Vec<(ObjectKey, Known)>,
    /// Their health, as they were answered.
    pub(crate) health: HashMap<ObjectKey, Health>,
    pub(crate) created: Vec<ObjectKey>,
    pub(crate) changed: Vec<ObjectKey>,
    /// What somebody else had changed and is as in Git again.
    pub(crate) reverted: Vec<ObjectKey>,
    pub(crate) deleted: Vec<ObjectKey>,
    /// Objects that could not be applied, each with why.
    pub(crate) failed: Vec<(ObjectKey, String)>,
    /// Objects that could not be deleted, each with why.
    pub(crate) undeleted: Vec<(ObjectKey, String)>,
}

/// How objects are applied.
#[derive(Clone, Copy)]
pub(crate) struct How {
    pub(crate) concurrency: usize,
    /// Objects are made anew when a field can't change.
    pub(crate) force: bool,
}

/// Applies, stage by stage; what failed in a stage does not hold up the others. Then, if all went well,
/// deletes.
pub(crate) async fn carry_out(
    client: &Client,
    registry: &Registry,
    desired: &Desired,
    objects: &[Value],
    plan: &Plan,
    how: How,
) -> Done {
    let mut done = Done::default();
    let mut again: Vec<(usize, Why)> = Vec::new();
    let mut at = 0;
    while at < plan.apply.len() {
        let stage = desired.wanted[plan.apply[at].0].stage;
        let end = plan.apply[at..]
            .iter()
            .position(|(n, _)| desired.wanted[*n].stage != stage);
        let end = end.map_or(plan.apply.len(), |n| at + n);
        let failed = apply_all(client, desired, objects, &plan.apply[at..end], how, &mut done).await;
        for (step, status) in failed {
            // What it needs (its namespace, say) may come later in the same commit.
            if status.is_not_found() {
                again.push(step);
            } else {
                done.failed
                    .push((desired.wanted[step.0].key.clone(), status.to_string()));
            }
        }
        at = end;
    }
    if !again.is_empty() {
        for ((at, _), status) in apply_all(client, desired, objects, &again, how, &mut done).await {
            done.failed
                .push((desired.wanted[at].key.clone(), status.to_string()));
        }
    }
    if done.failed.is_empty() {
        for key in &plan.delete {
            match delete(client, registry, key).await {
                Ok(()) => done.deleted.push(key.clone()),
                Err(status) => done.undeleted.push((key.clone(), status.to_string())),
            }
        }
    }
    done
}

type Failed = Vec<((usize, Why), Status)>;

async fn apply_all(
    client: &Client,
    desired: &Desired,
    objects: &[Value],
    steps: &[(usize, Why)],
    how: How,
    done: &mut Done,
) -> Failed {
    let runs = steps.iter().copied().map(|(at, why)| async move {
        let result = apply_one(client, &desired.wanted[at], &objects[at], why, how.force).await;
        ((at, why), result)
    });
    let results: Vec<_> = stream::iter(runs)
        .buffer_unordered(how.concurrency.max(1))
        .collect()
        .await;
    let mut failed = Vec::new();
    for ((at, why), result) in results {
        let wanted = &desired.wanted[at];
        let (applied, object) = match result {
            Ok(answer) => answer,
            Err(status) => {
                failed.push(((at, why), status));
                continue;
            }
        };
        let live = Live::of(&object);
        done.known.push((
            wanted.key.clone(),
            Known {
                applied: wanted.hash,
                fingerprint: live.fingerprint,
            },
        ));
        done.health.insert(wanted.key.clone(), live.health);
        match (applied, why) {
            (Applied::Unchanged, _) => {}
            (_, Why::Drift) => done.reverted.push(wanted.key.clone()),
            (Applied::Created, _) => done.created.push(wanted.key.clone()),
            (Applied::Changed, _) => done.changed.push(wanted.key.clone()),
        }
    }
    failed
}

async fn apply_one(
    client: &Client,
    wanted: &Wanted,
    object: &Value,
    why: Why,
    force: bool,
) -> Result<(Applied, Object), Status> {
    let (applied, answer) = match client.apply(object, true, false).await {
        Ok(answer) => answer,
        // 422 is also what a changed immutable field gives.
        Err(status) if force && status.code == 422 => {
            client
                .delete(&wanted.gvr, &wanted.key.namespace, &wanted.key.name)
                .await?;
            client.apply(object, true, false).await?
        }
        Err(status) => return Err(status),
    };
    if matches!(why, Why::Drift | Why::Unknown)
        && applied != Applied::Created
        && let Some(clean) = revert::without_foreign(&answer)
    {
        let answer = client.update(&clean).await?;
        return Ok((Applied::Changed, answer));
    }
    Ok((applied, answer))
}

/// Deletes an object; gone already is fine.
pub(crate) async fn delete(client: &Client, registry: &Registry, key: &ObjectKey) -> Result<(), Status> {
    let Some(kind) = registry.by_kind(&key.group, &key.kind) else {
        return Ok(());
    };
    client.delete(&kind.gvr(), &key.namespace, &key.name).await
}
