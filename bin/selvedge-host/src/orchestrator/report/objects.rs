//! The sections that come from the API's objects. Pure.

use std::collections::{BTreeMap, BTreeSet};

use kinds::{
    flux::{OWNER_NAME, OWNER_NAMESPACE},
    object::{self, Object},
    vm::{VirtualMachineClass, class_namespaces},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::quarantine::Quarantined;

/// At most so many objects are listed that are not as they should be.
const FAILING: usize = 20;
/// The longest message, in characters.
const LONGEST: usize = 500;

/// The objects that the status is made of.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub(crate) repositories: Vec<Object>,
    pub(crate) kustomizations: Vec<Object>,
    pub(crate) layers: Vec<Object>,
    pub(crate) machines: Vec<Object>,
    pub(crate) classes: Vec<Object>,
}

/// How an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Health {
    Ready,
    Progressing,
    Degraded,
    Failing,
}

/// An object that is not as it should be.
struct Unwell<'o> {
    health: Health,
    kind: &'static str,
    object: &'o Object,
    reason: String,
    message: String,
}

fn text(object: &Object, pointer: &str) -> String {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

/// A condition's status, reason and message.
fn condition(object: &Object, kind: &str) -> Option<(String, String, String)> {
    let list = object.pointer("/status/conditions")?.as_array()?;
    let found = list.iter().find(|c| c["type"] == kind)?;
    let field = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    Some((field("status"), field("reason"), field("message")))
}

/// The commit in `main@sha1:…`.
pub(crate) fn commit(revision: &str) -> String {
    revision
        .rsplit_once(':')
        .map_or(revision, |(_, commit)| commit)
        .to_owned()
}

/// So much of a commit as people read.
fn short(commit: &str) -> &str {
    commit.get(..8).unwrap_or(commit)
}

/// One line, not too long.
pub(crate) fn line(message: &str) -> String {
    let message = message.trim().replace(":\n", ": ").replace('\n', "; ");
    match message.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &message[..at]),
        None => message,
    }
}

/// A URL without what signs in.
pub(crate) fn public_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((user, _)) if scheme == "ssh" && !user.contains(':') => url.to_owned(),
        Some((_, host)) => format!("{scheme}://{host}{path}"),
        None => url.to_owned(),
    }
}

fn is_main(object: &Object) -> bool {
    object::namespace(object) == gitops::NAMESPACE && object::name(object) == gitops::NAME
}

impl Objects {
    fn repository(&self) -> Option<&Object> {
        self.repositories.iter().find(|object| is_main(object))
    }

    fn kustomization(&self) -> Option<&Object> {
        self.kustomizations.iter().find(|object| is_main(object))
    }

    /// The commit that the site's folder was last applied from, whole.
    pub(crate) fn applied(&self) -> String {
        let main = self.kustomization();
        main.map(|object| commit(&text(object, "/status/lastAppliedRevision")))
            .unwrap_or_default()
    }

    /// The commit that was tried last.
    pub(crate) fn attempted(&self) -> String {
        let main = self.kustomization();
        main.map(|object| commit(&text(object, "/status/lastAttemptedRevision")))
            .unwrap_or_default()
    }

    /// The section `source`; none when there is no source. `origin` says where it comes from.
    pub(crate) fn source(&self, origin: Value, quarantined: &[Quarantined]) -> Option<Value> {
        let repository = self.repository()?;
        let spec = &repository["spec"];
        let fetched = commit(&text(repository, "/status/artifact/revision"));
        let kustomization = self.kustomization();
        let path = kustomization
            .map(|object| text(object, "/spec/path"))
            .unwrap_or_default();
        let pinned = spec.pointer("/ref/commit").and_then(Value::as_str);
        let target = match pinned {
            Some(commit) => json!({"mode": "pinned", "commit": commit}),
            None => json!({"mode": "follow"}),
        };
        Some(json!({
            "url": public_url(spec["url"].as_str().unwrap_or_default()),
            "branch": spec.pointer("/ref/branch").and_then(Value::as_str).unwrap_or_default(),
            "path": path,
            "fetched": fetched,
            "applied": self.applied(),
            "attempted": self.attempted(),
            "message": self.source_message(),
            "quarantined": quarantined,
            "target": target,
            "origin": origin,
            "suspended": spec["suspend"] == true,
        }))
    }

    /// Why the commit that is applied is not the one that is wanted; empty if it is.
    fn source_message(&self) -> String {
        let unwell = self.unwell();
        let about = unwell
            .iter()
            .find(|u| is_main(u.object) && matches!(u.kind, "GitRepository" | "Kustomization"));
        about.map(|unwell| self.sentence(unwell)).unwrap_or_default()
    }

    /// The section `health`.
    pub(crate) fn health(&self) -> Value {
        let unwell = self.unwell();
        let total =
            self.repositories.len() + self.kustomizations.len() + self.layers.len() + self.machines.len();
        let worst = unwell.first().map_or(Health::Ready, |unwell| unwell.health);
        let state = match worst {
            Health::Ready => "healthy",
            Health::Progressing => "progressing",
            Health::Degraded => "degraded",
            Health::Failing => "failing",
        };
        let failing: Vec<Value> = unwell
            .iter()
            .filter(|unwell| unwell.health > Health::Progressing)
            .take(FAILING)
            .map(|unwell| {
                json!({
                    "kind": unwell.kind,
                    "namespace": object::namespace(unwell.object),
                    "name": object::name(unwell.object),
                    "reason": unwell.reason,
                    "message": line(&unwell.message),
                })
            })
            .collect();
        json!({
            "state": state,
            "reason": self.reason(&unwell),
            "ready": total - unwell.len(),
            "total": total,
            "failing": failing,
        })
    }

    /// The one sentence that a person needs.
    fn reason(&self, unwell: &[Unwell<'_>]) -> String {
        let Some(first) = unwell.first() else {
            return String::new();
        };
        let alike = unwell
            .iter()
            .filter(|u| u.kind == first.kind && u.health == first.health)
            .count();
        let sentence = self.sentence(first);
        if alike > 1 && first.kind == "VirtualMachine" {
            let all = self.machines.len();
            line(&format!(
                "{alike} of {all} virtual machines are not ready; {sentence}"
            ))
        } else {
            line(&sentence)
        }
    }

    fn sentence(&self, unwell: &Unwell<'_>) -> String {
        let Unwell {
            object,
            reason,
            message,
            ..
        } = unwell;
        let who = format!("{}/{}", object::namespace(object), object::name(object));
        let message = line(message);
        match unwell.kind {
            "GitRepository" => {
                let url = public_url(&text(object, "/spec/url"));
                match unwell.health {
                    Health::Progressing => format!("fetching from {url}"),
                    _ => format!("can't fetch from {url}: {message}"),
                }
            }
            "Kustomization" => {
                let attempted = commit(&text(object, "/status/lastAttemptedRevision"));
                let which = if is_main(object) {
                    String::new()
                } else {
                    format!(" (Kustomization {who})")
                };
                match (unwell.health, attempted.is_empty()) {
                    (Health::Progressing, true) => format!("nothing was applied yet{which}: {message}"),
                    (Health::Progressing, false) => {
                        format!("commit {} is being applied{which}: {message}", short(&attempted))
                    }
                    (_, true) => format!("nothing can be applied{which}: {message}"),
                    (_, false) => format!("commit {} is refused{which}: {message}", short(&attempted)),
                }
            }
            "HostConfiguration" if reason == "Quarantined" => {
                format!("the network configuration {who} was {message}")
            }
            "HostConfiguration" => format!("the host configuration {who} is not in force: {message}"),
            _ => format!("the virtual machine {who}: {message}"),
        }
    }

    /// All that is not as it should be, the worst first; of the same health what explains the others first.
    fn unwell(&self) -> Vec<Unwell<'_>> {
        let mut unwell: Vec<Unwell<'_>> = Vec::new();
        let lists = [
            ("Kustomization", &self.kustomizations, kustomization as Judge),
            ("GitRepository", &self.repositories, repository),
            ("HostConfiguration", &self.layers, layer),
            ("VirtualMachine", &self.machines, machine),
        ];
        for (kind, list, judge) in lists {
            for object in list {
                if let Some((health, reason, message)) = judge(object) {
                    unwell.push(Unwell {
                        health,
                        kind,
                        object,
                        reason,
                        message,
                    });
                }
            }
        }
        // The host's own source before others; the sort keeps the order of kinds.
        unwell.sort_by_key(|u| (std::cmp::Reverse(u.health), !is_main(u.object)));
        unwell
    }

    /// The section `compliance`.
    pub(crate) fn compliance(&self) -> Value {
        let mut state = "unknown";
        let mut message = String::new();
        let mut quarantined = false;
        for object in &self.layers {
            match condition(object, "Compliant") {
                Some((status, ..)) if status == "True" && state == "unknown" => state = "compliant",
                Some((status, reason, why)) if status == "False" => {
                    state = "nonCompliant";
                    quarantined |= reason == "Quarantined";
                    if message.is_empty() {
                        message = line(&format!("{}: {why}", object::name(object)));
                    }
                }
                _ => {}
            }
        }
        // What is applied is not what is true. A commit that was taken back is no drift: the host is as the good one says.
        let drift = state == "nonCompliant" && !quarantined && self.applied() == self.attempted();
        json!({"state": state, "drift": drift, "message": message})
    }

    /// The section `objects`: what Git put here.
    pub(crate) fn counts(&self) -> Value {
        let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
        let mut ids: BTreeSet<&str> = BTreeSet::new();
        for kustomization in &self.kustomizations {
            let entries = kustomization
                .pointer("/status/inventory/entries")
                .and_then(Value::as_array);
            for id in entries
                .into_iter()
                .flatten()
                .filter_map(|entry| entry["id"].as_str())
            {
                if ids.insert(id) {
                    let kind = id.rsplit('_').next().unwrap_or_default();
                    *kinds.entry(kind.to_owned()).or_default() += 1;
                }
            }
        }
        let mut digest = Sha256::new();
        for id in ids {
            digest.update(id);
            digest.update([0]);
        }
        let digest: String = digest
            .finalize()
            .iter()
            .take(16)
            .map(|b| format!("{b:02x}"))
            .collect();
        json!({"digest": digest, "kinds": kinds})
    }

    /// The sections `vm/NS/NAME`.
    pub(crate) fn machines(&self) -> BTreeMap<String, Value> {
        let sections = self.machines.iter().map(|vm| {
            let (namespace, name) = (object::namespace(vm), object::name(vm));
            let (ready, reason, message) = condition(vm, "Ready").unwrap_or_default();
            let class = text(vm, "/spec/className");
            let size = self
                .class(namespace, &class)
                .and_then(|class| class.sizing().ok());
            let mut section = json!({
                "power": text(vm, "/status/powerState"),
                "wanted": vm.pointer("/spec/powerState").and_then(Value::as_str).unwrap_or("poweredOn"),
                "ready": ready == "True",
                "reason": reason,
                "message": if ready == "True" { String::new() } else { line(&message) },
                "ip": text(vm, "/status/vmIp"),
                "class": class,
                "image": public_url(&text(vm, "/spec/imageName")),
                "host": text(vm, "/status/host"),
                "owned": owned(vm),
            });
            if let Some(size) = size {
                section["cpus"] = size.cpus.into();
                section["memoryBytes"] = size.memory.into();
            }
            (format!("vm/{namespace}/{name}"), section)
        });
        sections.collect()
    }

    fn class(&self, namespace: &str, name: &str) -> Option<VirtualMachineClass> {
        let found = class_namespaces(namespace).into_iter().find_map(|namespace| {
            self.classes
                .iter()
                .find(|class| object::namespace(class) == namespace && object::name(class) == name)
        });
        VirtualMachineClass::from_object(found?).ok()
    }
}

/// Whether Git owns an object: then nobody changes it here.
fn owned(object: &Object) -> bool {
    object::label(object, OWNER_NAME).is_some() && object::label(object, OWNER_NAMESPACE).is_some()
}

type Judge = fn(&Object) -> Option<(Health, String, String)>;

fn repository(object: &Object) -> Option<(Health, String, String)> {
    match condition(object, "Ready") {
        Some((status, ..)) if status == "True" => None,
        Some((status, reason, message)) if status == "False" => Some((Health::Degraded, reason, message)),
        Some((_, reason, _)) if reason == "Suspended" => None,
        _ => Some((
            Health::Progressing,
            "Fetching".into(),
            "nothing was fetched yet".into(),
        )),
    }
}

fn kustomization(object: &Object) -> Option<(Health, String, String)> {
    let observed = object
        .pointer("/status/observedGeneration")
        .and_then(Value::as_i64);
    match condition(object, "Ready") {
        Some((status, reason, message)) if status == "False" => {
            // Nothing to apply, or something else must come first: that says what is wrong, if something is.
            let health = match reason.as_str() {
                "ArtifactFailed" | "DependencyNotReady" => Health::Progressing,
                _ => Health::Failing,
            };
            Some((health, reason, message))
        }
        Some((status, ..)) if status == "True" && observed == Some(object::generation(object)) => None,
        Some((_, reason, message)) => Some((Health::Progressing, reason, message)),
        None => Some((
            Health::Progressing,
            "Progressing".into(),
            "it was not looked at yet".into(),
        )),
    }
}

fn layer(object: &Object) -> Option<(Health, String, String)> {
    match condition(object, "Ready") {
        Some((status, ..)) if status == "True" => None,
        Some((status, reason, message)) if status == "False" => {
            let health = match reason.as_str() {
                "Quarantined" | "InvalidProfile" | "Conflict" => Health::Failing,
                _ => Health::Degraded,
            };
            Some((health, reason, message))
        }
        _ => Some((
            Health::Progressing,
            "Progressing".into(),
            "it was not looked at yet".into(),
        )),
    }
}

fn machine(object: &Object) -> Option<(Health, String, String)> {
    let list = object.pointer("/status/conditions").and_then(Value::as_array);
    let ready = list.into_iter().flatten().find(|c| c["type"] == "Ready");
    let severity = ready
        .and_then(|c| c["severity"].as_str())
        .unwrap_or_default()
        .to_owned();
    match condition(object, "Ready") {
        Some((status, ..)) if status == "True" => None,
        Some((_, reason, _)) if reason == "Paused" => None,
        Some((status, reason, message)) if status == "False" => {
            let on_its_way = severity == "Info" && reason != "NotReady";
            let health = if on_its_way {
                Health::Progressing
            } else {
                Health::Degraded
            };
            Some((health, reason, message))
        }
        Some((_, reason, message)) => Some((Health::Progressing, reason, message)),
        None => Some((
            Health::Progressing,
            "Progressing".into(),
            "it was not looked at yet".into(),
        )),
    }
}

#[cfg(test)]
mod tests;
