//! The reconciler: one key, `host`; reads everything, makes it so, reports.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use apiserver::{Client, client::EventType};
use async_trait::async_trait;
use kinds::object::Object;
use reconcile::{Key, Outcome, Reconciler, section::Section};
use serde_json::Value;
use telemetry::{Clock, chain};
use tracing::{debug, warn};

use crate::{
    apply,
    checkpoint::{Checkpoint, Connectivity, Enforcement},
    desired::{Desired, desired},
    layers::LayerFiles,
    observe::{self, Observed},
    plan::plan,
    report,
};

/// The name of the one key.
pub const KEY: &str = "host";

/// Makes the host follow its host configurations.
pub struct HostConfig {
    client: Client,
    sections: Vec<Arc<dyn Section>>,
    folder: PathBuf,
    files: LayerFiles,
    checkpoint: Option<Checkpoint>,
    base: Value,
    clock: Clock,
    /// What the layers asked for in the last run, if all of it was written down. A run takes it and puts it back.
    known: Mutex<Option<Desired>>,
}

impl HostConfig {
    /// A reconciler. `base` is the profile `{"esx": {…}}` of a fresh host: it becomes the base layer of a host that
    /// has none. `state_dir` holds the last good content of the layers, in the folder
    /// `hostconfig`.
    #[must_use]
    pub fn new(
        client: Client,
        sections: Vec<Arc<dyn Section>>,
        base: Value,
        state_dir: impl Into<PathBuf>,
    ) -> Self {
        let clock = client.api().clock().clone();
        let folder = state_dir.into().join("hostconfig");
        let files = LayerFiles::new(folder.join("layers"));
        Self {
            client,
            sections,
            files,
            folder,
            checkpoint: None,
            base,
            clock,
            known: Mutex::default(),
        }
    }

    /// Takes back a configuration with which something can't be reached any more that could be before.
    #[must_use]
    pub fn with_connectivity(mut self, connectivity: Arc<dyn Connectivity>) -> Self {
        self.checkpoint = Some(Checkpoint::new(self.folder.join("checkpoint.json"), connectivity));
        self
    }

    /// The one key.
    #[must_use]
    pub fn key() -> Key {
        Key::new("", KEY)
    }

    async fn run(&self) -> Outcome {
        let objects = match observe::objects(&self.client).await {
            Ok(objects) => objects,
            Err(status) => return Outcome::Failed(format!("can't list host configurations: {status}")),
        };
        let (desired, errors) = self.desired(objects).await;
        let enforcement = match &self.checkpoint {
            Some(checkpoint) => checkpoint.enforce(&self.sections, &desired).await,
            None => {
                let results = apply::enforce(&self.sections, &desired.merged.profile).await;
                Enforcement {
                    results,
                    quarantine: None,
                }
            }
        };
        let unreported = self.report(&desired, &enforcement).await;
        if errors.is_empty() {
            *self.known() = Some(desired);
        }
        let first = enforcement.results.iter().flat_map(|r| &r.report.problems).next();
        match (first, errors.first(), unreported) {
            (Some(problem), _, _) => Outcome::Failed(format!("{}: {}", problem.reason, problem.message)),
            (None, Some(error), _) => Outcome::Failed(chain(error).to_string()),
            (None, None, Some(error)) => Outcome::Failed(error),
            (None, None, None) => Outcome::Done,
        }
    }

    /// What the layers ask for, and what of it could not be written down. Most runs are about the host, not about the
    /// layers: what was read of the same content is not read again.
    async fn desired(&self, objects: Vec<Object>) -> (Desired, Vec<apply::ApplyError>) {
        let known = self.known().take();
        let objects = match known {
            Some(mut known) => match known.renew(objects) {
                Ok(()) => return (known, Vec::new()),
                Err(objects) => objects,
            },
            None => objects,
        };
        let last_good = observe::last_good(&self.files).await;
        let observed = Observed { objects, last_good };
        let mut desired = desired(&observed, &self.base);
        let done = apply::carry_out(&plan(&desired, &observed), &self.client, &self.files).await;
        for error in &done.errors {
            warn!(error = %chain(error), "host configuration");
        }
        let fresh = desired
            .layers
            .iter_mut()
            .find(|layer| layer.base && layer.object.is_none());
        if let Some(layer) = fresh {
            layer.object = done.base;
        }
        (desired, done.errors)
    }

    fn known(&self) -> MutexGuard<'_, Option<Desired>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn report(&self, desired: &Desired, enforcement: &Enforcement) -> Option<String> {
        let statuses = report::statuses(desired, enforcement, &self.clock.now_rfc3339());
        for event in report::events(desired, &enforcement.results, &statuses) {
            let layer = desired.layers.iter().find(|layer| layer.name == event.layer);
            if let Some(object) = layer.and_then(|layer| layer.object.as_ref()) {
                let kind = if event.warning {
                    EventType::Warning
                } else {
                    EventType::Normal
                };
                self.client
                    .event(object, kind, &event.reason, &event.message)
                    .await;
            }
        }
        let mut error = None;
        for status in statuses.into_iter().filter(|status| !status.is_written(desired)) {
            let gvr = kinds::gvr::host_configurations();
            match self
                .client
                .set_status(&gvr, &status.namespace, &status.name, status.status)
                .await
            {
                Ok(written) => debug!(layer = %status.name, written, "status"),
                Err(e) => {
                    error = Some(format!(
                        "can't write the status of {}/{}: {e}",
                        status.namespace, status.name
                    ));
                }
            }
        }
        error
    }
}

#[async_trait]
impl Reconciler for HostConfig {
    fn name(&self) -> &'static str {
        "hostconfig"
    }

    async fn keys(&self) -> Vec<Key> {
        vec![Self::key()]
    }

    async fn reconcile(&self, _key: &Key) -> Outcome {
        self.run().await
    }
}
