//! From what is wanted and what is there to the steps, each with why. Pure.

use std::collections::HashMap;

use kinds::object::ObjectKey;
use reconcile::Key;

use crate::{
    desired::{Desired, Hash, Wanted, by_key},
    observe::{Live, Mode},
};

/// What is remembered of an object since it was last applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// Of the object as it was applied.
    pub(crate) applied: Hash,
    /// Of the object as it was then.
    pub(crate) fingerprint: Hash,
}

/// Why an object is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// It is not there.
    New,
    /// Git says something else than before.
    Changed,
    /// Somebody else changed or deleted it.
    Drift,
    /// Nothing is remembered of it, after a start of the daemon.
    Unknown,
}

/// What is done.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Objects to apply, as places in `Desired::wanted`, in order.
    pub(crate) apply: Vec<(usize, Why)>,
    /// Objects to delete, in order.
    pub(crate) delete: Vec<ObjectKey>,
    /// Objects that are to go and stay for now, and why.
    pub(crate) refused: Vec<(ObjectKey, String)>,
    /// Objects to take off the inventory without deleting them.
    pub(crate) release: Vec<(ObjectKey, &'static str)>,
    /// Kustomizations that some of these are left to.
    pub(crate) left_to: Vec<Key>,
    /// Objects that another Kustomization had, by place.
    pub(crate) taken: Vec<(usize, Key)>,
}

/// Makes the plan. `inventory` is what was applied before; nothing is deleted without `prune`, and nothing that is
/// among the objects `held` by other Kustomizations: when two had it and one lets go, it is the other's alone.
pub(crate) fn plan(
    desired: &Desired,
    inventory: &[ObjectKey],
    live: &HashMap<ObjectKey, Live>,
    known: &HashMap<ObjectKey, Known>,
    held: &HashMap<ObjectKey, Key>,
    owner: &Key,
    prune: bool,
) -> Plan {
    let mut plan = Plan::default();
    for (at, wanted) in desired.wanted.iter().enumerate() {
        let why = match (live.get(&wanted.key), known.get(&wanted.key)) {
            (None, Some(_)) => Some(Why::Drift),
            (None, None) => Some(Why::New),
            (Some(live), _) if live.mode != Mode::Override => None,
            (Some(live), known) => {
                if let Some(other) = live.owner.as_ref().filter(|other| *other != owner) {
                    plan.taken.push((at, other.clone()));
                }
                match known {
                    None => Some(Why::Unknown),
                    Some(known) if known.applied != wanted.hash => Some(Why::Changed),
                    Some(known) if known.fingerprint != live.fingerprint => Some(Why::Drift),
                    Some(_) => None,
                }
            }
        };
        plan.apply.extend(why.map(|why| (at, why)));
    }
    let wanted = by_key(&desired.wanted);
    let mut gone: Vec<&ObjectKey> = inventory.iter().filter(|key| !wanted.contains_key(key)).collect();
    // What needs others goes before what others need.
    gone.sort_by_key(|key| std::cmp::Reverse(kustomize::order::stage(&key.kind)));
    for key in gone {
        let not_served = desired.not_served.iter().any(|n| n.key == *key);
        match live.get(key) {
            None => plan.release.push((key.clone(), "gone already")),
            _ if not_served => plan
                .release
                .push((key.clone(), "of a version that is no longer served")),
            Some(_) if !prune => plan.release.push((key.clone(), "prune is off")),
            Some(live) if live.keep => plan.release.push((key.clone(), "its prune mark says disabled")),
            Some(live) if live.owner.as_ref() != Some(owner) => {
                plan.release.push((key.clone(), "it belongs to another now"));
            }
            Some(_) if let Some(other) = held.get(key) => {
                plan.release.push((key.clone(), "another has it too"));
                if !plan.left_to.contains(other) {
                    plan.left_to.push(other.clone());
                }
            }
            Some(_) if let Some(inhabitant) = inhabitant(key, desired) => {
                // It would take with it what is wanted: virtual machines and their disks.
                let why = format!("{}: {} is wanted in it", inhabitant.place, inhabitant.key);
                plan.refused.push((key.clone(), why));
            }
            Some(_) => plan.delete.push(key.clone()),
        }
    }
    plan
}

/// Something that is wanted in a namespace.
fn inhabitant<'d>(namespace: &ObjectKey, desired: &'d Desired) -> Option<&'d Wanted> {
    is_namespace(namespace)
        .then(|| desired.wanted.iter().find(|w| w.key.namespace == namespace.name))
        .flatten()
}

/// Whether this is a namespace, which takes with it what is in it.
pub(crate) fn is_namespace(key: &ObjectKey) -> bool {
    key.group.is_empty() && key.kind == "Namespace"
}

#[cfg(test)]
mod tests {
    use kinds::object::Gvr;
    use kustomize::order::stage;

    use super::*;
    use crate::health::Health;

    fn key(kind: &str, name: &str) -> ObjectKey {
        ObjectKey {
            group: String::new(),
            kind: kind.into(),
            namespace: "n".into(),
            name: name.into(),
        }
    }

    fn wanted(name: &str, hash: u8) -> Wanted {
        Wanted {
            key: key("ConfigMap", name),
            gvr: Gvr::new("v1", "configmaps"),
            stage: stage("ConfigMap"),
            hash: [hash; 16],
            place: String::new(),
        }
    }

    fn live(fingerprint: u8) -> Live {
        Live {
            fingerprint: [fingerprint; 16],
            owner: Some(Key::new("flux-system", "site")),
            keep: false,
            mode: Mode::Override,
            health: Health::Ready,
        }
    }

    #[test]
    fn each_step_has_its_reason() {
        let owner = Key::new("flux-system", "site");
        let names = [
            "same", "new", "changed", "drifted", "deleted", "unknown", "taken", "ignored",
        ];
        let desired = Desired {
            wanted: names.iter().map(|n| wanted(n, 1)).collect(),
            ..Desired::default()
        };
        let mut there: HashMap<ObjectKey, Live> = HashMap::new();
        let mut known: HashMap<ObjectKey, Known> = HashMap::new();
        for name in names {
            let k = key("ConfigMap", name);
            if !matches!(name, "new" | "deleted") {
                there.insert(k.clone(), live(if name == "drifted" { 9 } else { 2 }));
            }
            if !matches!(name, "new" | "unknown") {
                let applied = [if name == "changed" { 8 } else { 1 }; 16];
                known.insert(
                    k,
                    Known {
                        applied,
                        fingerprint: [2; 16],
                    },
                );
            }
        }
        let other = Key::new("x", "other");
        there.get_mut(&key("ConfigMap", "taken")).unwrap().owner = Some(other.clone());
        there.get_mut(&key("ConfigMap", "ignored")).unwrap().mode = Mode::Ignore;
        let inventory = ["same", "old", "kept", "lost", "foreign"]
            .map(|n| key("ConfigMap", n))
            .into_iter()
            .chain([key("ConfigMap", "shared")])
            .chain([key("VirtualMachine", "vm")]);
        let inventory: Vec<ObjectKey> = inventory.collect();
        for gone in [
            key("ConfigMap", "old"),
            key("ConfigMap", "shared"),
            key("VirtualMachine", "vm"),
        ] {
            there.insert(gone, live(2));
        }
        there.insert(
            key("ConfigMap", "kept"),
            Live {
                keep: true,
                ..live(2)
            },
        );
        there.insert(
            key("ConfigMap", "foreign"),
            Live {
                owner: None,
                ..live(2)
            },
        );

        let second = Key::new("x", "second");
        let held = HashMap::from([(key("ConfigMap", "shared"), second.clone())]);

        let made = plan(&desired, &inventory, &there, &known, &held, &owner, true);
        let steps: Vec<(&str, Why)> = made.apply.iter().map(|(at, why)| (names[*at], *why)).collect();
        assert_eq!(
            steps,
            [
                ("new", Why::New),
                ("changed", Why::Changed),
                ("drifted", Why::Drift),
                ("deleted", Why::Drift),
                ("unknown", Why::Unknown),
            ]
        );
        assert_eq!(made.taken, [(6, other)]);
        // The machine goes before the configuration that it may use.
        assert_eq!(
            made.delete,
            [key("VirtualMachine", "vm"), key("ConfigMap", "old")]
        );
        let released: Vec<&str> = made.release.iter().map(|(k, _)| k.name.as_str()).collect();
        assert_eq!(released, ["kept", "lost", "foreign", "shared"]);
        assert_eq!(made.left_to, [second]);

        let kept = plan(&desired, &inventory, &there, &known, &held, &owner, false);
        assert!(kept.delete.is_empty());
        assert_eq!(kept.apply, made.apply);
    }
}
