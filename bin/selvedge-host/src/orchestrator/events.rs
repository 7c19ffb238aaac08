//! The events of the host's API, told to the orchestrator. What can't be sent yet waits in the status book, within its
//! bound.

use std::time::Duration;

use apiserver::{Client, client::WatchEvent};
use kinds::{gvr, object::Object};
use link::{
    message::{Event, ObjectReference},
    status::StatusBook,
};
use serde_json::Value;
use tokio::time::sleep;

/// How long to wait before watching again.
const AGAIN: Duration = Duration::from_secs(1);

/// Follows the API's events for ever.
pub(super) async fn follow(client: Client, book: StatusBook) {
    loop {
        let after = client.api().revision();
        match client.watch(&gvr::events(), None, after).await {
            Ok(mut watch) => {
                while let Some(event) = watch.next().await {
                    if let WatchEvent::Applied(object) = event {
                        book.event(read(&object));
                    }
                }
            }
            Err(status) => tracing::warn!(error = %status, "can't watch the events"),
        }
        sleep(AGAIN).await;
    }
}

fn read(object: &Object) -> Event {
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let times = ["/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"];
    Event {
        time: times
            .iter()
            .map(|at| text(at))
            .find(|at| !at.is_empty())
            .unwrap_or_default(),
        kind: text("/type"),
        reason: text("/reason"),
        message: text("/message"),
        object: ObjectReference {
            kind: text("/involvedObject/kind"),
            namespace: text("/involvedObject/namespace"),
            name: text("/involvedObject/name"),
        },
    }
}
