//! Events: what repeats is counted, and no object may flood the others out.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use kinds::{
    gvr,
    object::{self, Gvk, Object},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Client, EventType};
use crate::{Status, api::Target};

/// New events that an object may have at once.
const BURST: f64 = 25.0;
/// New events an object may have after that, a second.
const RATE: f64 = 1.0 / 30.0;
/// Objects that are remembered for that.
const OBJECTS: usize = 1000;
/// Longest message, in bytes, as in Kubernetes.
const LONGEST: usize = 1024;

/// How many new events each object may still have: a token bucket each.
#[derive(Default)]
pub(super) struct Budget(Mutex<HashMap<String, (f64, i64)>>);

impl Budget {
    /// Whether an object may have one more new event.
    fn take(&self, object: &str, now: i64) -> bool {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        #[expect(clippy::cast_precision_loss, reason = "seconds, and only a rate")]
        let filled =
            |(left, since): (f64, i64)| (left + now.saturating_sub(since).max(0) as f64 * RATE).min(BURST);
        if buckets.len() >= OBJECTS && !buckets.contains_key(object) {
            // Those that are full again have nothing to remember.
            buckets.retain(|_, bucket| filled(*bucket) < BURST);
            if buckets.len() >= OBJECTS {
                return false;
            }
        }
        let bucket = buckets.entry(object.to_owned()).or_insert((BURST, now));
        let left = filled(*bucket);
        *bucket = ((left - 1.0).max(0.0).min(left), now);
        left >= 1.0
    }
}

impl Client {
    pub(super) async fn record_event(
        &self,
        regarding: &Object,
        kind: EventType,
        reason: &str,
        message: &str,
    ) -> Result<(), Status> {
        let gvk = Gvk::of(regarding);
        let (own_namespace, about) = (object::namespace(regarding), object::name(regarding));
        let namespace = if own_namespace.is_empty() {
            "default"
        } else {
            own_namespace
        };
        let message = shortened(message);
        let kind = match kind {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        };
        let involved = json!({
            "apiVersion": gvk.api_version(), "kind": gvk.kind, "namespace": own_namespace, "name": about,
            "uid": object::uid(regarding), "resourceVersion": regarding.pointer("/metadata/resourceVersion"),
        });
        let who = format!("{}/{namespace}/{about}/{}", gvk.kind, object::uid(regarding));
        // The same event has the same name, so that it is found without remembering it.
        let digest = Sha256::digest([&who, kind, reason, message, &self.manager].join("\0"));
        let hash: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let about: String = about.chars().take(200).collect();
        let name = format!("{}.{hash}", about.trim_end_matches(['.', '-']));
        let (gvr, now) = (gvr::events(), self.api.clock().now_rfc3339());
        let once_more = |event: &mut Object| {
            let count = event.get("count").and_then(Value::as_i64).unwrap_or(1);
            event["count"] = count.saturating_add(1).into();
            event["lastTimestamp"] = now.as_str().into();
            true
        };
        let target = Target::new(&gvr, namespace, &name);
        match self
            .api
            .modify(&self.caller, target, &self.options(), once_more)
            .await
        {
            Err(status) if status.is_not_found() => {}
            outcome => return outcome.map(|_| ()),
        }
        if !self.events.take(&who, self.api.clock().now().as_second()) {
            tracing::info!(object = %who, reason, message, "too many events about this object; this one is only logged");
            return Ok(());
        }
        let component = format!("selvedge.dev/{}", self.manager);
        let event = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": namespace},
            "involvedObject": involved, "type": kind, "reason": reason, "message": message, "count": 1,
            "firstTimestamp": now, "lastTimestamp": now,
            "source": {"component": component}, "reportingComponent": component, "reportingInstance": "",
        });
        match self.create(&event).await {
            // Another recorded the same at this moment.
            Err(status) if status.is_already_exists() => Ok(()),
            outcome => outcome.map(|_| ()),
        }
    }
}

fn shortened(message: &str) -> &str {
    if message.len() <= LONGEST {
        return message;
    }
    let end = (0..=LONGEST)
        .rev()
        .find(|at| message.is_char_boundary(*at))
        .unwrap_or(0);
    &message[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_has_a_burst_and_then_a_rate() {
        let budget = Budget::default();
        let taken = (0..100).filter(|_| budget.take("a", 0)).count();
        assert_eq!(taken, 25);
        assert!(budget.take("b", 0));
        assert!(!budget.take("a", 20));
        assert!(budget.take("a", 65));
        assert!(!budget.take("a", 66));
        assert_eq!((0..100).filter(|_| budget.take("a", 100_000)).count(), 25);
    }

    #[test]
    fn the_budget_itself_is_bounded() {
        let budget = Budget::default();
        for i in 0..5000 {
            budget.take(&i.to_string(), 0);
        }
        assert!(budget.0.lock().unwrap().len() <= OBJECTS);
        assert!(
            budget.take("new", 1000),
            "those that are full again are forgotten"
        );
    }

    #[test]
    fn messages_are_cut_between_characters() {
        assert_eq!(shortened("short"), "short");
        assert_eq!(shortened(&"é".repeat(600)).len(), 1024);
    }
}
