//! From results to the status of every layer, and to events. Pure.

use std::collections::BTreeSet;

use kinds::{
    condition::{self, Condition},
    object::{self, Object},
};
use reconcile::section::{Impact, Problem};
use serde_json::{Value, json};

use crate::{
    apply::SectionResult,
    checkpoint::Enforcement,
    desired::{Desired, DesiredLayer},
    merge::{Layer, is_inside, merge_layers},
};

/// At most so many paths are listed in a status, and so many changes in an event.
const MOST: usize = 50;

/// The status of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerStatus {
    /// Namespace of its object.
    pub namespace: String,
    /// Name of its object.
    pub name: String,
    /// The status.
    pub status: Value,
}

impl LayerStatus {
    /// Whether the layer's object says so already.
    #[must_use]
    pub fn is_written(&self, desired: &Desired) -> bool {
        self.object(desired).and_then(|object| object.get("status")) == Some(&self.status)
    }

    fn object<'d>(&self, desired: &'d Desired) -> Option<&'d Object> {
        let mut objects = desired.layers.iter().filter_map(|layer| layer.object.as_ref());
        objects
            .find(|object| object::name(object) == self.name && object::namespace(object) == self.namespace)
    }
}

/// An event to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerEvent {
    /// `namespace/name` of the layer it is about.
    pub layer: String,
    /// Whether it needs a look.
    pub warning: bool,
    /// A word in camel case.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// The status of every layer that has an object.
#[must_use]
pub fn statuses(desired: &Desired, enforcement: &Enforcement, now: &str) -> Vec<LayerStatus> {
    let results = &enforcement.results;
    let changed = results.iter().any(|result| !result.report.changes.is_empty());
    let status = |layer: &DesiredLayer| {
        let object = layer.object.as_ref()?;
        let old = object.get("status").cloned().unwrap_or(Value::Null);
        let generation = object::generation(object);
        let mut conditions: Vec<Condition> = old
            .get("conditions")
            .and_then(|c| serde_json::from_value(c.clone()).ok())
            .unwrap_or_default();
        for new in conditions_of(layer, desired, enforcement) {
            condition::set(&mut conditions, new.at_generation(generation), now);
        }
        let mut status = json!({
            "conditions": conditions,
            "observedGeneration": generation,
            "profileHash": desired.hash,
        });
        let last = old.get("lastAppliedTime").filter(|_| !changed).cloned();
        if let Some(last) = last.or_else(|| changed.then(|| now.into())) {
            status["lastAppliedTime"] = last;
        }
        for (field, values) in [
            ("notEnforced", not_enforced(layer, results)),
            ("warnings", warnings(layer)),
        ] {
            if !values.is_empty() {
                status[field] = values.into();
            }
        }
        Some(LayerStatus {
            namespace: object::namespace(object).into(),
            name: object::name(object).into(),
            status,
        })
    };
    desired.layers.iter().filter_map(status).collect()
}

fn conditions_of(layer: &DesiredLayer, desired: &Desired, enforcement: &Enforcement) -> [Condition; 3] {
    let valid = valid(layer, desired);
    let compliant = compliant(layer, desired, enforcement);
    let ready = match (valid.is_true(), compliant.is_true()) {
        (true, true) => Condition::yes("Ready", "Applied", compliant.message.clone()),
        (false, _) => Condition::no("Ready", &valid.reason, valid.message.clone()),
        (true, false) => Condition::no("Ready", &compliant.reason, compliant.message.clone()),
    };
    [valid, compliant, ready]
}

fn valid(layer: &DesiredLayer, desired: &Desired) -> Condition {
    if let Err(error) = &layer.content {
        let in_force = match &layer.in_force {
            Some(_) => "its last good content stays in force",
            None => "nothing of it is in force",
        };
        return Condition::no(
            "Valid",
            "InvalidProfile",
            format!("spec.profile: {error}; {in_force}"),
        );
    }
    let conflicts: Vec<String> = desired
        .merged
        .conflicts
        .iter()
        .filter(|c| c.layers.contains(&layer.name))
        .map(ToString::to_string)
        .collect();
    if conflicts.is_empty() {
        Condition::yes(
            "Valid",
            "Valid",
            "The profile can be read and agrees with the other layers",
        )
    } else {
        Condition::no("Valid", "Conflict", listed(&conflicts, "; "))
    }
}

fn compliant(layer: &DesiredLayer, desired: &Desired, enforcement: &Enforcement) -> Condition {
    if let Some(quarantine) = &enforcement.quarantine
        && (quarantine.layers.contains(&layer.name) || (quarantine.layers.is_empty() && !layer.base))
    {
        return Condition::no("Compliant", "Quarantined", quarantine.message.clone());
    }
    let results = &enforcement.results;
    let mut reason = None;
    let mut messages = Vec::new();
    let mut pending = Impact::None;
    for result in results {
        for problem in result
            .report
            .problems
            .iter()
            .filter(|p| is_about(p, result, layer, desired))
        {
            reason.get_or_insert(problem.reason.clone());
            messages.push(message(problem));
        }
        if touches(layer, result.claims) {
            pending = pending.max(result.report.pending);
        }
    }
    if let Some(reason) = reason {
        return Condition::no("Compliant", &reason, listed(&messages, "; "));
    }
    match pending {
        Impact::Maintenance => Condition::no(
            "Compliant",
            "NeedsMaintenance",
            "Changes wait for maintenance: virtual machines must be stopped",
        ),
        Impact::Reboot => Condition::no(
            "Compliant",
            "NeedsReboot",
            "Changes wait for a restart of the host",
        ),
        Impact::None if layer.in_force.is_none() => {
            Condition::no("Compliant", "NotInForce", "Nothing of the layer is in force")
        }
        Impact::None => Condition::yes("Compliant", "Compliant", "The host is as the layer says"),
    }
}

fn message(problem: &Problem) -> String {
    if problem.path.is_empty() {
        problem.message.clone()
    } else {
        format!("{}: {}", problem.path, problem.message)
    }
}

/// A problem is about the layers that ask for the value at its path; one without a path is about all layers that ask
/// for something the section enforces.
fn is_about(problem: &Problem, result: &SectionResult, layer: &DesiredLayer, desired: &Desired) -> bool {
    let about = if problem.path.is_empty() {
        result
            .claims
            .iter()
            .flat_map(|claim| desired.merged.layers_at(&format!("esx.{claim}")))
            .collect()
    } else {
        desired.merged.layers_at(&problem.path)
    };
    about.contains(&layer.name.as_str())
}

/// Whether a layer asks for something under the claims.
fn touches(layer: &DesiredLayer, claims: &[&str]) -> bool {
    let Some(profile) = &layer.in_force else {
        return false;
    };
    claims.iter().any(|claim| {
        profile
            .pointer(&format!("/esx/{}", claim.replace('.', "/")))
            .is_some()
    })
}

/// What of a layer nothing enforces: `esx.group.key` as a whole where no section claims it, and what sections say.
fn not_enforced(layer: &DesiredLayer, results: &[SectionResult]) -> Vec<String> {
    let mut paths = BTreeSet::new();
    let profile = layer.in_force.as_ref().unwrap_or(&Value::Null);
    let claims: BTreeSet<String> = results
        .iter()
        .flat_map(|r| r.claims)
        .map(|claim| format!("esx.{claim}"))
        .collect();
    let claimed = |path: &str| claims.iter().any(|claim| claim == path || is_inside(path, claim));
    for (group, keys) in profile["esx"].as_object().into_iter().flatten() {
        let group = kinds::host::field_path("esx", group);
        if claimed(&group) {
            continue;
        }
        match keys.as_object() {
            Some(keys) if claims.iter().any(|claim| is_inside(claim, &group)) => {
                let keys = keys.keys().map(|key| kinds::host::field_path(&group, key));
                paths.extend(keys.filter(|key| !claimed(key)));
            }
            Some(keys) => paths.extend(keys.keys().map(|key| kinds::host::field_path(&group, key))),
            None => drop(paths.insert(group)),
        }
    }
    let said: Vec<&String> = results
        .iter()
        .flat_map(|result| &result.report.not_enforced)
        .collect();
    if !said.is_empty() {
        let own = Layer {
            name: layer.name.clone(),
            base: false,
            profile: profile.clone(),
        };
        let own = merge_layers(&[own]).provenance;
        let asks = |path: &str| {
            own.keys()
                .any(|p| p == path || is_inside(p, path) || is_inside(path, p))
        };
        paths.extend(said.into_iter().filter(|path| asks(path)).cloned());
    }
    if layer.metrics {
        paths.insert("spec.metrics-collection".into());
    }
    shortened(paths.into_iter().collect())
}

fn warnings(layer: &DesiredLayer) -> Vec<String> {
    let unknown = layer
        .content
        .as_ref()
        .map(|profile| profile.unknown.as_slice())
        .unwrap_or_default();
    shortened(
        unknown
            .iter()
            .map(|path| format!("unknown field {path}: kept, without effect"))
            .collect(),
    )
}

fn shortened(mut lines: Vec<String>) -> Vec<String> {
    if lines.len() > MOST {
        let more = lines.len() - MOST;
        lines.truncate(MOST);
        lines.push(format!("and {more} more"));
    }
    lines
}

fn listed(lines: &[String], between: &str) -> String {
    shortened(lines.to_vec()).join(between)
}

/// What to tell: drift that was put right, changes that were made, layers that went from well to ill.
#[must_use]
pub fn events(desired: &Desired, results: &[SectionResult], statuses: &[LayerStatus]) -> Vec<LayerEvent> {
    let mut events = Vec::new();
    for result in results {
        // About the first layer that asks for something there, rather than the base layer that only describes.
        let mut layers = desired
            .layers
            .iter()
            .filter(|layer| layer.object.is_some() && touches(layer, result.claims));
        let about = layers.clone().find(|layer| !layer.base).or_else(|| layers.next());
        let Some(layer) = about.or_else(|| desired.layers.iter().find(|layer| layer.object.is_some())) else {
            continue;
        };
        let of = |drift: bool| -> Vec<String> {
            result
                .report
                .changes
                .iter()
                .filter(|c| c.drift == drift)
                .map(|c| c.message.clone())
                .collect()
        };
        for message in shortened(of(true)) {
            events.push(LayerEvent {
                layer: layer.name.clone(),
                warning: true,
                reason: "DriftCorrected".into(),
                message,
            });
        }
        let made = of(false);
        if !made.is_empty() {
            let message = listed(&made, "; ");
            events.push(LayerEvent {
                layer: layer.name.clone(),
                warning: false,
                reason: "Configured".into(),
                message,
            });
        }
    }
    for status in statuses {
        let name = format!("{}/{}", status.namespace, status.name);
        let old = status
            .object(desired)
            .and_then(|object| object.get("status"))
            .cloned()
            .unwrap_or(Value::Null);
        let ready = |status: &Value| -> Option<Condition> {
            let conditions: Vec<Condition> =
                serde_json::from_value(status.get("conditions")?.clone()).ok()?;
            condition::find(&conditions, "Ready").cloned()
        };
        if let Some(new) = ready(&status.status).filter(|new| !new.is_true())
            && ready(&old)
                .is_none_or(|old| (old.status, old.message) != (new.status.clone(), new.message.clone()))
        {
            events.push(LayerEvent {
                layer: name,
                warning: true,
                reason: new.reason,
                message: new.message,
            });
        }
    }
    events
}
