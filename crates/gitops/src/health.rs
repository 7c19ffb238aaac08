//! Whether an object is as its own controller wants it: the rules that Flux and kubectl share, read from
//! generation and conditions.
//!
//! This is also the place where a commit that makes objects unhealthy will be quarantined and the last good
//! one applied again. Today such a commit is reported (`Healthy=False`, an Event) and stays in force: what is
//! here gives the verdict, [`Verdict::of`], and nothing yet acts on it.

use kinds::object::{self, Object, ObjectKey};
use serde_json::Value;

/// How an object is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// As wanted.
    Ready,
    /// On its way there.
    Progressing(String),
    /// It will not get there by itself.
    Failed(String),
}

/// Kinds whose controller writes a `Ready` condition: without one they are not ready yet.
const REPORTING: &[&str] = &[
    "VirtualMachine",
    "HostConfiguration",
    "GitRepository",
    "Kustomization",
];

/// The health of an object.
pub(crate) fn of(object: &Object) -> Health {
    if object::is_deleting(object) {
        return Health::Progressing("it is being deleted".into());
    }
    let status = object.get("status");
    let observed = status
        .and_then(|s| s.get("observedGeneration"))
        .and_then(Value::as_i64);
    if observed.is_some_and(|seen| seen < object::generation(object)) {
        return Health::Progressing("its controller has not seen the newest change".into());
    }
    let conditions = status.and_then(|s| s.get("conditions")).and_then(Value::as_array);
    let condition = |kind: &str| {
        conditions
            .into_iter()
            .flatten()
            .find(|c| c.get("type").and_then(Value::as_str) == Some(kind))
            .map(|c| {
                let text = |field: &str| {
                    c.get(field)
                        .and_then(Value::as_str)
                        .unwrap_or_default()
                        .to_owned()
                };
                let reason = if text("message").is_empty() {
                    text("reason")
                } else {
                    text("message")
                };
                (text("status"), reason)
            })
    };
    if let Some((status, why)) = condition("Stalled")
        && status == "True"
    {
        return Health::Failed(why);
    }
    match condition("Ready") {
        Some((status, _)) if status == "True" => Health::Ready,
        Some((_, why)) => Health::Progressing(why),
        None if REPORTING.contains(&object::kind(object)) => {
            Health::Progressing("it has no Ready condition yet".into())
        }
        None => Health::Ready,
    }
}

/// How all objects of a commit are doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All are ready.
    Healthy,
    /// Some are on their way: a line for each of the first few.
    Waiting(String),
    /// Some will not get there.
    Unhealthy(String),
}

impl Verdict {
    /// The verdict over objects; `None` is an object that is not there.
    pub(crate) fn of<'a>(objects: impl IntoIterator<Item = (&'a ObjectKey, Option<&'a Health>)>) -> Self {
        let (mut waiting, mut failed) = (Vec::new(), Vec::new());
        for (key, health) in objects {
            match health {
                Some(Health::Ready) => {}
                Some(Health::Progressing(why)) => waiting.push(format!("{key}: {why}")),
                Some(Health::Failed(why)) => failed.push(format!("{key}: {why}")),
                None => waiting.push(format!("{key}: it is not there")),
            }
        }
        match (failed.as_slice(), waiting.as_slice()) {
            ([], []) => Self::Healthy,
            ([], waiting) => Self::Waiting(some(waiting)),
            (failed, _) => Self::Unhealthy(some(failed)),
        }
    }
}

/// The first few of many, for a condition's message.
pub(crate) fn some(lines: &[String]) -> String {
    const MOST: usize = 10;
    let mut text = lines.iter().take(MOST).cloned().collect::<Vec<_>>().join("\n");
    if lines.len() > MOST {
        text.push_str(&format!("\n… and {} more", lines.len() - MOST));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn health_is_read_from_generation_and_conditions() {
        let ready = json!({"kind": "VirtualMachine", "metadata": {"generation": 2},
            "status": {"observedGeneration": 2, "conditions": [{"type": "Ready", "status": "True"}]}});
        assert_eq!(of(&ready), Health::Ready);
        let mut old = ready.clone();
        old["metadata"]["generation"] = json!(3);
        assert!(matches!(of(&old), Health::Progressing(_)));
        let mut wrong = ready.clone();
        wrong["status"]["conditions"][0] = json!({"type": "Ready", "status": "False", "message": "no image"});
        assert_eq!(of(&wrong), Health::Progressing("no image".into()));
        let stalled =
            json!({"status": {"conditions": [{"type": "Stalled", "status": "True", "reason": "X"}]}});
        assert_eq!(of(&stalled), Health::Failed("X".into()));
        assert_eq!(of(&json!({"kind": "ConfigMap"})), Health::Ready);
        assert!(matches!(
            of(&json!({"kind": "VirtualMachine"})),
            Health::Progressing(_)
        ));
        assert!(matches!(
            of(&json!({"kind": "ConfigMap", "metadata": {"deletionTimestamp": "x"}})),
            Health::Progressing(_)
        ));
    }
}
