//! What is there now: the host configurations, and the last good content of each.

use std::collections::BTreeMap;

use apiserver::{Client, Status};
use kinds::object::{self, Object};
use serde_json::Value;

use crate::layers::LayerFiles;

/// What is there now.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// All host configurations that are not being deleted.
    pub objects: Vec<Object>,
    /// Last good content by `namespace/name`.
    pub last_good: BTreeMap<String, Value>,
}

/// Reads what is there now.
pub(crate) async fn observe(client: &Client, files: &LayerFiles) -> Result<Observed, Status> {
    let list = client.list(&kinds::gvr::host_configurations(), None).await?;
    let objects = list
        .items
        .into_iter()
        .filter(|object| !object::is_deleting(object))
        .collect();
    let files = files.clone();
    // A task that was stopped has nobody left to tell.
    let last_good = tokio::task::spawn_blocking(move || files.read())
        .await
        .unwrap_or_default();
    Ok(Observed { objects, last_good })
}
