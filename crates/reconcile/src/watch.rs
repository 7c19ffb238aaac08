//! Watches of API objects that wake a driver.

use std::{sync::Arc, time::Duration};

use apiserver::{
    Client, Status,
    client::{Watch, WatchEvent},
};
use kinds::object::{Gvr, Object};
use tokio::time::sleep;

use crate::{Key, Signal};

/// What a changed object wakes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wake {
    /// These keys.
    Keys(Vec<Key>),
    /// All keys: the object matters to keys that it doesn't name.
    All,
    /// Nothing.
    Nothing,
}

impl Wake {
    /// The object's own key.
    #[must_use]
    pub fn own(object: &Object) -> Self {
        Self::Keys(vec![Key::of(object)])
    }
}

pub(crate) type Map = Arc<dyn Fn(&Object) -> Wake + Send + Sync>;

/// How long to wait before listing again when the API refuses.
const LIST_AGAIN: Duration = Duration::from_secs(1);

/// Follows a resource for ever: list, wake all, watch; when the watch ends, the same again.
pub(crate) async fn follow(client: Client, gvr: Gvr, map: Map, signal: Signal) {
    loop {
        match open(&client, &gvr).await {
            Ok(mut watch) => {
                signal.all();
                while let Some(event) = watch.next().await {
                    let (WatchEvent::Applied(object) | WatchEvent::Deleted(object)) = event;
                    match map(&object) {
                        Wake::Keys(keys) => keys.into_iter().for_each(|key| signal.key(key)),
                        Wake::All => signal.all(),
                        Wake::Nothing => {}
                    }
                }
                tracing::debug!(resource = %gvr, "watch ended; listing again");
            }
            Err(status) => {
                tracing::warn!(resource = %gvr, error = %status, "can't watch; trying again");
                sleep(LIST_AGAIN).await;
            }
        }
    }
}

async fn open(client: &Client, gvr: &Gvr) -> Result<Watch, Status> {
    let after = client.list(gvr, None).await?.revision;
    client.watch(gvr, None, after).await
}
