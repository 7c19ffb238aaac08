//! What a Flux `Kustomization` asks for beyond its folder.

use kinds::flux::Kustomization;
use serde::Deserialize as _;

use crate::{BuildError, Image, Options, Overlay, Patch, Target};

/// What to build a Kustomization's folder with.
///
/// # Errors
/// One of its patches, images or targets can't be read.
pub fn options(kustomization: &Kustomization, ignore: Option<&str>) -> Result<Options, BuildError> {
    let spec = &kustomization.spec;
    let wrong = |field: &str, why: String| BuildError {
        field: format!("spec.{field}"),
        ..BuildError::new(
            &format!("Kustomization {}", kustomization.metadata.full_name()),
            why,
        )
    };
    let mut patches = Vec::new();
    for patch in &spec.patches {
        patches.push(Patch::deserialize(patch).map_err(|e| wrong("patches", e.to_string()))?);
    }
    for patch in &spec.patches_strategic_merge {
        patches.push(Patch {
            patch: Some(patch.to_string()),
            ..Patch::default()
        });
    }
    for entry in &spec.patches_json6902 {
        let target = entry.get("target").cloned().unwrap_or_default();
        let target = Target::deserialize(&target).map_err(|e| wrong("patchesJson6902", e.to_string()))?;
        let text = entry
            .get("patch")
            .map(|p| p.as_str().map_or_else(|| p.to_string(), str::to_owned));
        patches.push(Patch {
            patch: text,
            target: Some(target),
            ..Patch::default()
        });
    }
    let images = spec
        .images
        .iter()
        .map(Image::deserialize)
        .collect::<Result<Vec<_>, _>>();
    let common = spec.common_metadata.clone().unwrap_or_default();
    Ok(Options {
        ignore: ignore.map(str::to_owned),
        overlay: Overlay {
            namespace: spec.target_namespace.clone().unwrap_or_default(),
            name_prefix: spec.name_prefix.clone().unwrap_or_default(),
            name_suffix: spec.name_suffix.clone().unwrap_or_default(),
            patches,
            images: images.map_err(|e| wrong("images", e.to_string()))?,
            components: spec.components.clone(),
            labels: common.labels,
            annotations: common.annotations,
        },
        ..Options::default()
    })
}
