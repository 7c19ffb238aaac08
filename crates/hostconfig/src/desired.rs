//! What the layers ask for: each read on its own, then merged. Pure.

use kinds::{
    flux::OWNER_NAME,
    host::{BASE_LAYER, HostConfiguration, NAMESPACE},
    object::{self, Object},
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{
    merge::{Layer, Merged, merge_layers},
    observe::Observed,
    profile::{self, Profile, ProfileError},
};

/// What the host should be like.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// The layers, in the order of their names.
    pub layers: Vec<DesiredLayer>,
    /// All that can be read of them, merged.
    pub merged: Merged,
    /// SHA-256 of the merged profile.
    pub hash: String,
}

/// One layer.
#[derive(Clone, Debug)]
pub struct DesiredLayer {
    /// `namespace/name`.
    pub name: String,
    /// Whether it is the base layer.
    pub base: bool,
    /// Its object; `None` for a base layer that is still to be made.
    pub object: Option<Object>,
    /// What it says, or why that can't be used.
    pub content: Result<Profile, ProfileError>,
    /// What of it is in force: its content or, if that can't be used, the last one that could.
    pub in_force: Option<Value>,
    /// Whether it asks for metrics to be sent.
    pub metrics: bool,
}

impl Desired {
    /// Takes objects in place of those that this was read from, if they ask for the same: most changes of an object are
    /// of its status or of annotations. Otherwise gives them back; then everything is to be read again.
    ///
    /// # Errors
    /// The objects, when a layer came, went or asks for something else.
    pub fn renew(&mut self, objects: Vec<Object>) -> Result<(), Vec<Object>> {
        let same = objects.len() == self.layers.len()
            && objects
                .iter()
                .all(|object| self.layers.iter().any(|layer| layer.is_read_from(object)));
        if !same {
            return Err(objects);
        }
        for object in objects {
            if let Some(layer) = self.layers.iter_mut().find(|layer| layer.is_read_from(&object)) {
                layer.object = Some(object);
            }
        }
        Ok(())
    }
}

impl DesiredLayer {
    /// Whether its object comes from Git.
    #[must_use]
    pub fn is_gits(&self) -> bool {
        self.object.as_ref().is_some_and(is_gits)
    }

    /// Whether reading an object would give this layer: the same name, owner and content.
    fn is_read_from(&self, object: &Object) -> bool {
        self.object.as_ref().is_some_and(|known| {
            object::name(known) == object::name(object)
                && object::namespace(known) == object::namespace(object)
                && is_gits(known) == is_gits(object)
                && known.get("spec") == object.get("spec")
        })
    }
}

fn is_gits(object: &Object) -> bool {
    !object["metadata"]["labels"][OWNER_NAME].is_null()
}

/// The name of the base layer.
#[must_use]
pub fn base_name() -> String {
    format!("{NAMESPACE}/{BASE_LAYER}")
}

/// What the base layer is remembered as beside its last good content: as it last was without Git. No object has
/// such a name.
#[must_use]
pub fn own_base_name() -> String {
    format!("{NAMESPACE}/{BASE_LAYER}@host")
}

/// Reads and merges the layers. `base` is the base layer for a host that has none yet.
#[must_use]
pub fn desired(observed: &Observed, base: &Value) -> Desired {
    let mut layers: Vec<DesiredLayer> = observed
        .objects
        .iter()
        .map(|object| layer(object, observed))
        .collect();
    if !layers.iter().any(|layer| layer.base) {
        // A base layer that somebody deleted comes back as it was: what the host looks like now is what the
        // layers have made of it. One that Git had and let go of comes back as it was before Git had it.
        let profile = [own_base_name(), base_name()]
            .iter()
            .find_map(|name| observed.last_good.get(name))
            .unwrap_or(base);
        let content = profile::parse_unchecked(profile);
        let in_force = content.as_ref().ok().map(|profile| profile.value.clone());
        layers.push(DesiredLayer {
            name: base_name(),
            base: true,
            object: None,
            content,
            in_force,
            metrics: false,
        });
    }
    layers.sort_by(|a, b| a.name.cmp(&b.name));
    let merged = merge_layers(&in_force(&layers));
    Desired {
        hash: hash(&merged.profile),
        layers,
        merged,
    }
}

fn layer(object: &Object, observed: &Observed) -> DesiredLayer {
    let typed = HostConfiguration::from_object(object).unwrap_or_default();
    let name = format!("{}/{}", object::namespace(object), object::name(object));
    let base = name == base_name();
    // The base layer describes what was found, which may be outside of what may be asked for.
    let content = if base {
        profile::parse_unchecked(&typed.spec.profile)
    } else {
        profile::parse(&typed.spec.profile)
    };
    let in_force = match &content {
        Ok(profile) => Some(profile.value.clone()),
        Err(_) => observed.last_good.get(&name).cloned(),
    };
    let metrics = !typed.spec.metrics_collection.is_null();
    DesiredLayer {
        base,
        name,
        object: Some(object.clone()),
        content,
        in_force,
        metrics,
    }
}

fn in_force(layers: &[DesiredLayer]) -> Vec<Layer> {
    let layer = |l: &DesiredLayer| {
        Some(Layer {
            name: l.name.clone(),
            base: l.base,
            profile: l.in_force.clone()?,
        })
    };
    layers.iter().filter_map(layer).collect()
}

/// SHA-256 of a JSON value; the same for the same content, because keys are sorted.
pub(crate) fn hash(value: &Value) -> String {
    Sha256::digest(value.to_string().as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
