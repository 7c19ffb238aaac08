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

/// Reads the host configurations.
pub(crate) async fn objects(client: &Client) -> Result<Vec<Object>, Status> {
    let list = client.list(&kinds::gvr::host_configurations(), None).await?;
    let there = |object: &Object| !object::is_deleting(object);
    Ok(list.items.into_iter().filter(there).collect())
}

/// Reads the last good content of each.
pub(crate) async fn last_good(files: &LayerFiles) -> BTreeMap<String, Value> {
    let files = files.clone();
    // A task that was stopped has nobody left to tell.
    tokio::task::spawn_blocking(move || files.read())
        .await
        .unwrap_or_default()
}
