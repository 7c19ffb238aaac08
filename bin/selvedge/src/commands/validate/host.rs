//! Checks the host configurations of a folder together, as the host merges them.

use std::collections::BTreeMap;

use hostconfig::{
    Layer, merge_layers,
    profile::{Position, ProfileError, parse, parse_unchecked},
};
use kinds::{
    object::{self, Gvk},
    registry::Registry,
};
use kustomize::{Located, block_scalar_start, position_of};
use serde_json::Value;

use super::Level;

/// Something found, at a place in a profile or at a field of the object.
pub(super) struct Found<'l> {
    pub(super) located: &'l Located,
    pub(super) level: Level,
    /// Where in the profile's text.
    pub(super) position: Option<Position>,
    /// Path in the profile, as `esx.network_vss.…`; empty if the whole profile is meant.
    pub(super) path: String,
    pub(super) message: String,
}

/// Everything that is wrong with the host configurations among `objects`.
pub(super) fn check<'l>(objects: &'l [Located], registry: &Registry) -> Vec<Found<'l>> {
    let mut found = Vec::new();
    let mut layers = Vec::new();
    let mut by_name: BTreeMap<String, &Located> = BTreeMap::new();
    for located in objects.iter().filter(|located| is_layer(located, registry)) {
        let profile = &located.object["spec"]["profile"];
        match parse(profile) {
            Ok(profile) => {
                for path in profile.unknown {
                    let message = "this field is not known; it is kept and has no effect".into();
                    found.push(Found {
                        located,
                        level: Level::Warning,
                        position: None,
                        path,
                        message,
                    });
                }
                let name = layer_name(&located.object);
                by_name.insert(name.clone(), located);
                layers.push(Layer {
                    name,
                    base: false,
                    profile: profile.value,
                });
            }
            Err(error) => {
                // What can be read of it still takes part in the comparison with the others.
                if let (ProfileError::Fields(_), Ok(profile)) = (&error, parse_unchecked(profile)) {
                    let name = layer_name(&located.object);
                    by_name.insert(name.clone(), located);
                    layers.push(Layer {
                        name,
                        base: false,
                        profile: profile.value,
                    });
                }
                found.extend(unreadable(located, error));
            }
        }
    }
    let merged = merge_layers(&layers);
    for conflict in &merged.conflicts {
        for located in conflict.layers.iter().filter_map(|name| by_name.get(name)) {
            // The finding names the field already.
            let message = conflict
                .to_string()
                .replacen(&format!("{} ", conflict.path), "", 1);
            let path = conflict.path.clone();
            found.push(Found {
                located,
                level: Level::Error,
                position: None,
                path,
                message,
            });
        }
    }
    let known: Vec<String> = found.iter().map(|found| found.path.clone()).collect();
    for problem in vswitch::validate(&merged.profile)
        .into_iter()
        .filter(|p| !known.contains(&p.path))
    {
        for located in merged
            .layers_at(&problem.path)
            .into_iter()
            .filter_map(|name| by_name.get(name))
        {
            let (path, message) = (problem.path.clone(), problem.message.clone());
            found.push(Found {
                located,
                level: Level::Error,
                position: None,
                path,
                message,
            });
        }
    }
    found
}

fn is_layer(located: &Located, registry: &Registry) -> bool {
    let gvk = Gvk::of(&located.object);
    gvk.kind == "HostConfiguration" && registry.by_gvk(&gvk).is_some()
}

fn layer_name(object: &Value) -> String {
    let namespace = object::namespace(object);
    let namespace = if namespace.is_empty() {
        kinds::host::NAMESPACE
    } else {
        namespace
    };
    format!("{namespace}/{}", object::name(object))
}

fn unreadable(located: &Located, error: ProfileError) -> Vec<Found<'_>> {
    let found = |position, path, message| Found {
        located,
        level: Level::Error,
        position,
        path,
        message,
    };
    match error {
        ProfileError::Syntax {
            position,
            path,
            message,
        } => vec![found(Some(position), path, message)],
        ProfileError::Shape(message) => vec![found(None, String::new(), message)],
        ProfileError::Fields(fields) => fields
            .into_iter()
            .map(|field| found(field.position, field.path, field.message))
            .collect(),
    }
}

impl Found<'_> {
    /// Line and column in the file.
    pub(super) fn place(&self, text: &str) -> (usize, usize) {
        let Located {
            index, item, object, ..
        } = self.located;
        let start = block_scalar_start(text, *index, *item, "spec.profile");
        let in_profile = self.position.map(|p| (p.line, p.column)).or_else(|| {
            // JSON is YAML, so that the same search finds a path in a profile.
            let profile = object["spec"]["profile"].as_str()?;
            let path = if profile_is_wrapped(profile) {
                format!("profile.{}", self.path)
            } else {
                self.path.clone()
            };
            position_of(profile, 0, None, &path)
        });
        start
            .zip(in_profile)
            .map(|(start, (line, column))| start.at(line, column))
            .or_else(|| position_of(text, *index, *item, "spec.profile"))
            .unwrap_or((self.located.line, 1))
    }
}

fn profile_is_wrapped(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|value| value.get("profile").is_some())
}
