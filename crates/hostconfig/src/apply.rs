//! Carries a plan out and calls the sections. Has no choices to make.

use std::sync::Arc;

use apiserver::{Client, Status};
use kinds::{
    host::{BASE, BASE_LAYER, NAMESPACE},
    object::Object,
};
use reconcile::section::{Problem, Section, SectionReport};
use serde_json::{Value, json};

use crate::{
    layers::{LayerFiles, LayersError},
    plan::{Plan, Step},
};

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The disk.
    #[error("the last good configuration can't be kept")]
    Files(#[from] LayersError),
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopped,
    /// The API.
    #[error("the base layer can't be made")]
    Base(#[from] Status),
}

/// How a section's run went.
#[derive(Clone, Debug)]
pub struct SectionResult {
    /// The section.
    pub name: &'static str,
    /// What it enforces, under `esx`.
    pub claims: &'static [&'static str],
    /// How it went.
    pub report: SectionReport,
}

/// What carrying out a plan gave.
#[derive(Debug, Default)]
pub(crate) struct CarriedOut {
    /// The base layer, if it was made.
    pub(crate) base: Option<Object>,
    /// What failed.
    pub(crate) errors: Vec<ApplyError>,
}

/// Carries out the steps; a step that fails does not hold up the others.
pub(crate) async fn carry_out(plan: &Plan, client: &Client, files: &LayerFiles) -> CarriedOut {
    let mut done = CarriedOut::default();
    for step in &plan.steps {
        let result = match step.clone() {
            Step::Remember { layer, profile } => {
                on_disk(files, move |files| files.write(&layer, &profile)).await
            }
            Step::Forget { layer } => on_disk(files, move |files| files.remove(&layer)).await,
            Step::MakeBase { profile } => match make_base(client, &profile).await {
                Ok(base) => {
                    done.base = base;
                    Ok(())
                }
                Err(status) => Err(status.into()),
            },
        };
        done.errors.extend(result.err());
    }
    done
}

/// Writing waits for the disk, which must not hold up other tasks.
async fn on_disk(
    files: &LayerFiles,
    work: impl FnOnce(&LayerFiles) -> Result<(), LayersError> + Send + 'static,
) -> Result<(), ApplyError> {
    let files = files.clone();
    match tokio::task::spawn_blocking(move || work(&files)).await {
        Ok(result) => result.map_err(ApplyError::from),
        Err(_) => Err(ApplyError::Stopped),
    }
}

/// Makes the base layer; `None` if it is there by now.
async fn make_base(client: &Client, profile: &Value) -> Result<Option<Object>, Status> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    let text = serde_json::to_string_pretty(profile).unwrap_or_default();
    let base = json!({
        "apiVersion": "esx.vmware.com/v1alpha1", "kind": "HostConfiguration",
        "metadata": {"name": BASE_LAYER, "namespace": NAMESPACE},
        "spec": {"layertype": BASE, "profile": text},
    });
    let mut made = None;
    for object in [namespace, base] {
        made = match client.create(&object).await {
            Ok(object) => Some(object),
            Err(status) if status.reason == "AlreadyExists" => None,
            Err(status) => return Err(status),
        };
    }
    Ok(made)
}

/// Calls the sections one after the other and verifies what they did.
pub(crate) async fn enforce(sections: &[Arc<dyn Section>], profile: &Arc<Value>) -> Vec<SectionResult> {
    let mut results = Vec::new();
    for section in sections {
        let report = run_and_verify(section.as_ref(), profile).await;
        results.push(SectionResult {
            name: section.name(),
            claims: section.claims(),
            report,
        });
    }
    results
}

/// Runs a section and, if it changed something, runs it again: a change that is needed a second time had no lasting
/// effect, and that is a problem.
async fn run_and_verify(section: &dyn Section, profile: &Arc<Value>) -> SectionReport {
    let mut first = section.reconcile(profile).await;
    if first.changes.is_empty() || !first.problems.is_empty() {
        return first;
    }
    let second = section.reconcile(profile).await;
    // Others may have changed the system in between, so only what was needed twice counts.
    let lasted = |message: &str| !first.changes.iter().any(|change| change.message == message);
    let (new, lost): (Vec<_>, Vec<_>) = second
        .changes
        .into_iter()
        .partition(|change| lasted(&change.message));
    first.changes.extend(new);
    first.problems = second.problems;
    first.problems.extend(lost.into_iter().map(|change| Problem {
        path: String::new(),
        reason: "NotVerified".into(),
        message: format!("this change did not last: {}", change.message),
    }));
    first.not_enforced = second.not_enforced;
    first.pending = second.pending;
    first
}
