//! Carries a plan out and calls the sections. Has no choices to make.

use std::sync::Arc;

use apiserver::{Client, Status};
use kinds::host::{BASE, BASE_LAYER, NAMESPACE};
use reconcile::section::{Section, SectionReport};
use serde_json::{Value, json};

use crate::{
    checkpoint,
    layers::{LayerFiles, LayersError},
    plan::{Plan, Step},
};

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The disk.
    #[error("the last good configuration can't be kept")]
    Files(#[from] LayersError),
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

/// Carries out the steps; a step that fails does not hold up the others, whose errors are all given back.
pub(crate) async fn carry_out(plan: &Plan, client: &Client, files: &LayerFiles) -> Vec<ApplyError> {
    let mut errors = Vec::new();
    for step in &plan.steps {
        let result = match step {
            Step::Remember { layer, profile } => files.write(layer, profile).map_err(ApplyError::from),
            Step::Forget { layer } => files.remove(layer).map_err(ApplyError::from),
            Step::MakeBase { profile } => make_base(client, profile).await.map_err(ApplyError::from),
        };
        errors.extend(result.err());
    }
    errors
}

async fn make_base(client: &Client, profile: &Value) -> Result<(), Status> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    let text = serde_json::to_string_pretty(profile).unwrap_or_default();
    let base = json!({
        "apiVersion": "esx.vmware.com/v1alpha1", "kind": "HostConfiguration",
        "metadata": {"name": BASE_LAYER, "namespace": NAMESPACE},
        "spec": {"layertype": BASE, "profile": text},
    });
    for object in [namespace, base] {
        match client.create(&object).await {
            Err(status) if status.reason != "AlreadyExists" => return Err(status),
            _ => {}
        }
    }
    Ok(())
}

/// Calls the sections one after the other and verifies what they did.
pub(crate) async fn enforce(sections: &[Arc<dyn Section>], profile: &Value) -> Vec<SectionResult> {
    let mut results = Vec::new();
    for section in sections {
        let report = checkpoint::run_and_verify(section.as_ref(), profile).await;
        results.push(SectionResult {
            name: section.name(),
            claims: section.claims(),
            report,
        });
    }
    results
}
