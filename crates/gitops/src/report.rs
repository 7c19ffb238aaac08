//! The result of a run as the status of its Kustomization. Pure.

use kinds::{
    condition::{self, Condition},
    flux::{self, Inventory, InventoryEntry, Kustomization},
    object::ObjectKey,
};
use kustomize::{BuildError, NotServed};
use serde_json::{Value, json};

use crate::{
    desired::{Desired, inventory_id},
    health::some,
};

/// How a run ended.
#[derive(Clone, Debug)]
pub(crate) enum Result {
    /// Everything is applied and, if asked for, healthy.
    Applied,
    /// Applied; health is waited for.
    Waiting(String),
    /// Something is wrong: the reason as Flux has it, and a message.
    Failed(&'static str, String),
    /// The folder can't be built: all errors, with file and line.
    Broken(Vec<BuildError>),
    /// A Kustomization that this one needs is not ready.
    Dependency(String),
}

/// What a run has to say.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) result: Result,
    /// The commit that was looked at; empty if there was none.
    pub(crate) revision: String,
    /// What is applied now; `None` if that did not change.
    pub(crate) inventory: Option<Vec<(ObjectKey, String)>>,
    /// What was wanted; `None` if that could not be found out.
    pub(crate) desired: Option<std::sync::Arc<Desired>>,
}

/// At most so many errors and objects are listed in a status.
const LISTED: usize = 100;

/// The new status.
pub(crate) fn status(kustomization: &Kustomization, report: &Report, now: &str) -> Value {
    let mut status = kustomization.status.clone();
    let generation = kustomization.metadata.generation;
    status.observed_generation = generation;
    if let Some(requested) = kustomization.metadata.annotations.get(flux::REQUESTED_AT) {
        status.last_handled_reconcile_at = requested.clone();
    }
    if !report.revision.is_empty() {
        status.last_attempted_revision = report.revision.clone();
    }
    if let Some(inventory) = &report.inventory {
        let mut entries: Vec<InventoryEntry> = inventory
            .iter()
            .map(|(key, version)| InventoryEntry {
                id: inventory_id(key),
                v: version.clone(),
            })
            .collect();
        entries.sort();
        status.inventory = Some(Inventory { entries });
    }
    if let Some(desired) = &report.desired {
        status.warnings = desired.warnings.clone();
    }
    if matches!(report.result, Result::Applied) {
        status.last_applied_revision = report.revision.clone();
    }
    let health = kustomization.spec.wait || !kustomization.spec.health_checks.is_empty();
    let not_served = report
        .desired
        .as_ref()
        .map(|d| d.not_served.as_slice())
        .unwrap_or_default();
    for condition in conditions(report, health, not_served) {
        condition::set(&mut status.conditions, condition.at_generation(generation), now);
    }
    let stay: &[&str] = match report.result {
        Result::Applied if health => &["Ready", "Healthy"],
        Result::Applied => &["Ready"],
        _ => &["Ready", "Healthy", "Reconciling"],
    };
    status.conditions.retain(|c| stay.contains(&c.kind.as_str()));
    let mut value = serde_json::to_value(&status).unwrap_or_default();
    if let Result::Broken(errors) = &report.result {
        let listed: Vec<Value> = errors.iter().take(LISTED).map(error).collect();
        value["errors"] = listed.into();
    }
    if !not_served.is_empty() {
        value["notServed"] = not_served.iter().take(LISTED).map(left_out).collect();
    }
    value
}

fn error(error: &BuildError) -> Value {
    json!({"file": error.file, "line": error.line, "column": error.column, "field": error.field, "message": error.message})
}

fn left_out(object: &NotServed) -> Value {
    json!({
        "apiVersion": object.gvk.api_version(),
        "kind": object.gvk.kind,
        "namespace": object.key.namespace,
        "name": object.key.name,
        "source": object.place,
    })
}

fn conditions(report: &Report, health: bool, not_served: &[NotServed]) -> Vec<Condition> {
    let retry = || {
        Condition::yes(
            "Reconciling",
            "ProgressingWithRetry",
            "tried again; what was applied before stays in force",
        )
    };
    match &report.result {
        Result::Applied => {
            let mut message = format!("Applied revision: {}", report.revision);
            if !not_served.is_empty() {
                let names: Vec<String> = not_served
                    .iter()
                    .map(|n| format!("{} ({}, {})", n.key, n.gvk.api_version(), n.place))
                    .collect();
                message.push_str(&format!(
                    "\nLeft out, of kinds that this host does not serve yet: {}",
                    some(&names)
                ));
            }
            let mut conditions = vec![Condition::yes("Ready", "ReconciliationSucceeded", message)];
            if health {
                conditions.push(Condition::yes("Healthy", "Succeeded", "all objects are ready"));
            }
            conditions
        }
        Result::Waiting(why) => {
            let message = format!("Applied revision: {}; waiting for\n{why}", report.revision);
            vec![
                Condition::unknown("Ready", "Progressing", message.clone()),
                Condition::unknown("Healthy", "Progressing", why.clone()),
                Condition::yes("Reconciling", "Progressing", message),
            ]
        }
        Result::Failed(reason, why) => {
            let mut conditions = vec![Condition::no("Ready", reason, why.clone()), retry()];
            if *reason == "HealthCheckFailed" {
                conditions.push(Condition::no("Healthy", reason, why.clone()));
            }
            conditions
        }
        Result::Broken(errors) => vec![Condition::no("Ready", "BuildFailed", broken(errors)), retry()],
        Result::Dependency(why) => vec![Condition::no("Ready", "DependencyNotReady", why.clone()), retry()],
    }
}

/// The errors of a folder in a message.
pub(crate) fn broken(errors: &[BuildError]) -> String {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let noun = if errors.len() == 1 { "error" } else { "errors" };
    format!(
        "{} {noun}; nothing of the commit is applied:\n{}",
        errors.len(),
        some(&lines)
    )
}
