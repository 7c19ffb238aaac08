//! From what is wanted and what is there to the steps. Pure.

use serde_json::Value;

use crate::{
    desired::{Desired, base_name, own_base_name},
    observe::Observed,
};

/// Steps, in order. Enforcement comes last, so that what is enforced is on disk before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
}

/// One step, with its reason.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make the object of the base layer: the host has none.
    MakeBase {
        /// Its profile.
        profile: Value,
    },
    /// Keep the content of a layer, which can be used, as its last good one: it has changed.
    Remember {
        /// `namespace/name`.
        layer: String,
        /// Its profile.
        profile: Value,
    },
    /// Forget the last good content of a layer: its object is gone.
    Forget {
        /// `namespace/name`.
        layer: String,
    },
}

/// Plans what to do before the sections are called.
#[must_use]
pub fn plan(desired: &Desired, observed: &Observed) -> Plan {
    let mut steps = Vec::new();
    for layer in &desired.layers {
        let Ok(profile) = &layer.content else { continue };
        let own = (layer.base && !layer.is_gits()).then(own_base_name);
        for name in [Some(layer.name.clone()), own].into_iter().flatten() {
            if observed.last_good.get(&name) != Some(&profile.value) {
                steps.push(Step::Remember {
                    layer: name,
                    profile: profile.value.clone(),
                });
            }
        }
        if layer.object.is_none() {
            steps.push(Step::MakeBase {
                profile: profile.value.clone(),
            });
        }
    }
    for name in observed.last_good.keys() {
        if ![base_name(), own_base_name()].contains(name)
            && !desired.layers.iter().any(|layer| layer.name == *name)
        {
            steps.push(Step::Forget { layer: name.clone() });
        }
    }
    Plan { steps }
}
