//! `kustomization.yaml`: what it may say, and building what it says.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::{
    build::{BuildError, Builder, wrong},
    generate::{self, Generator, GeneratorOptions},
    manifest,
    patch::{self, Patch},
    position,
    resource::{self, Resource},
    transform::{self, Image, LabelSet, Replicas},
    tree::{self, Entry},
    yaml,
};

/// The fields of a `kustomization.yaml` that are understood.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Spec {
    pub(crate) resources: Vec<String>,
    bases: Vec<String>,
    components: Vec<String>,
    pub(crate) namespace: String,
    pub(crate) name_prefix: String,
    pub(crate) name_suffix: String,
    pub(crate) labels: Vec<LabelSet>,
    common_labels: BTreeMap<String, String>,
    pub(crate) common_annotations: BTreeMap<String, String>,
    patches: Vec<Patch>,
    patches_strategic_merge: Vec<String>,
    #[serde(rename = "patchesJson6902")]
    patches_json6902: Vec<Patch>,
    config_map_generator: Vec<Generator>,
    secret_generator: Vec<Generator>,
    generator_options: Option<GeneratorOptions>,
    pub(crate) images: Vec<Image>,
    pub(crate) replicas: Vec<Replicas>,
}

/// What a Kustomization object asks for beyond its folder. Applied after the folder is built.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overlay {
    /// `spec.targetNamespace`; empty for none.
    pub namespace: String,
    /// `spec.namePrefix`.
    pub name_prefix: String,
    /// `spec.nameSuffix`.
    pub name_suffix: String,
    /// `spec.patches`, with the old `patchesStrategicMerge` and `patchesJson6902` behind them.
    pub patches: Vec<Patch>,
    /// `spec.images`.
    pub images: Vec<Image>,
    /// `spec.components`, relative to the folder.
    pub components: Vec<String>,
    /// `spec.commonMetadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `spec.commonMetadata.annotations`.
    pub annotations: BTreeMap<String, String>,
}

const UNDERSTOOD: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata",
    "resources",
    "bases",
    "components",
    "namespace",
    "namePrefix",
    "nameSuffix",
    "labels",
    "commonLabels",
    "commonAnnotations",
    "patches",
    "patchesStrategicMerge",
    "patchesJson6902",
    "configMapGenerator",
    "secretGenerator",
    "generatorOptions",
    "images",
    "replicas",
    // Only the order of the output: ours is that of the apply.
    "sortOptions",
    // Only annotations that say where an object came from: ours has its own.
    "buildMetadata",
];

/// Builds a folder that has a kustomization file.
pub(crate) fn build(
    builder: &mut Builder<'_>,
    folder: &str,
    file: &str,
) -> Result<Vec<Resource>, BuildError> {
    let spec = read(builder, file)?;
    enter(builder, folder, file)?;
    let resources = accumulate(builder, folder, file, &spec, Vec::new());
    builder.open.pop();
    resources
}

/// Adds a component: its resources, then its changes over all that is there already.
fn component(
    builder: &mut Builder<'_>,
    base: &str,
    path: &str,
    resources: Vec<Resource>,
) -> Result<Vec<Resource>, BuildError> {
    let folder = builder.folder_at(base, path)?;
    let Some(file) = builder.kustomization_file(&folder)? else {
        return Err(BuildError::new(&folder, "a component needs a kustomization.yaml"));
    };
    let spec = read(builder, &file)?;
    enter(builder, &folder, &file)?;
    let resources = accumulate(builder, &folder, &file, &spec, resources);
    builder.open.pop();
    resources
}

fn enter(builder: &mut Builder<'_>, folder: &str, file: &str) -> Result<(), BuildError> {
    if builder.open.iter().any(|open| open == folder) {
        let path = builder.open.join(" → ");
        return Err(BuildError::new(
            file,
            format!("kustomizations include each other: {path} → {folder}"),
        ));
    }
    if builder.open.len() >= 32 {
        return Err(BuildError::new(file, "kustomizations are nested deeper than 32"));
    }
    builder.open.push(folder.into());
    Ok(())
}

fn accumulate(
    builder: &mut Builder<'_>,
    folder: &str,
    file: &str,
    spec: &Spec,
    mut resources: Vec<Resource>,
) -> Result<Vec<Resource>, BuildError> {
    let errors_before = builder.errors.len();
    for path in spec.resources.iter().chain(&spec.bases) {
        match one_resource(builder, folder, file, path) {
            Ok(more) => resources.extend(more),
            Err(error) => builder.errors.push(error),
        }
    }
    // With resources missing, what follows would only complain about that again.
    if builder.errors.len() > errors_before {
        return Ok(resources);
    }
    for (kind, generators) in [
        ("ConfigMap", &spec.config_map_generator),
        ("Secret", &spec.secret_generator),
    ] {
        for generator in generators {
            let options = spec.generator_options.as_ref();
            generate::run(builder, folder, file, kind, generator, options, &mut resources)?;
        }
    }
    for path in &spec.components {
        resources = component(builder, folder, path, resources)?;
    }
    builder.errors.extend(resource::twice(&resources));
    let mut patches = Vec::new();
    for entry in &spec.patches_strategic_merge {
        let inline = entry.contains('\n');
        patches.push(Patch {
            path: (!inline).then(|| entry.clone()),
            patch: inline.then(|| entry.clone()),
            ..Patch::default()
        });
    }
    patches.extend(spec.patches.iter().cloned());
    for patch in &patches {
        apply_patch(builder, folder, file, patch, &mut resources)?;
    }
    transform::namespace(&mut resources, &spec.namespace);
    transform::affixes(&mut resources, &spec.name_prefix, &spec.name_suffix);
    for set in &spec.labels {
        transform::labels(&mut resources, set);
    }
    if !spec.common_labels.is_empty() {
        let set = LabelSet {
            pairs: spec.common_labels.clone(),
            include_selectors: true,
            include_templates: true,
        };
        transform::labels(&mut resources, &set);
    }
    transform::annotations(&mut resources, &spec.common_annotations);
    for patch in &spec.patches_json6902 {
        apply_patch(builder, folder, file, patch, &mut resources)?;
    }
    transform::replicas(&mut resources, &spec.replicas);
    transform::images(&mut resources, &spec.images);
    Ok(resources)
}

/// Applies what a Kustomization object asks for.
pub(crate) fn overlay(
    builder: &mut Builder<'_>,
    root: &str,
    mut resources: Vec<Resource>,
) -> Result<Vec<Resource>, BuildError> {
    let overlay = &builder.options.overlay;
    for path in &overlay.components {
        resources = component(builder, root, path, resources)?;
    }
    for patch in &overlay.patches {
        apply_patch(builder, root, root, patch, &mut resources)?;
    }
    transform::namespace(&mut resources, &overlay.namespace);
    transform::affixes(&mut resources, &overlay.name_prefix, &overlay.name_suffix);
    transform::images(&mut resources, &overlay.images);
    transform::metadata(&mut resources, &overlay.labels, &overlay.annotations);
    Ok(resources)
}

fn apply_patch(
    builder: &mut Builder<'_>,
    folder: &str,
    file: &str,
    patch: &Patch,
    resources: &mut Vec<Resource>,
) -> Result<(), BuildError> {
    let (text, origin) = match (&patch.patch, &patch.path) {
        (Some(text), _) if !text.trim().is_empty() => (text.clone().into_bytes(), None),
        (_, Some(path)) => {
            let target = tree::resolve(builder.tree, folder, path).map_err(|e| wrong(file, &e))?;
            (builder.read(&target, &target)?, Some(target))
        }
        _ => return Err(BuildError::new(file, "a patch needs `patch` or `path`")),
    };
    let applied = patch::apply(
        origin.as_deref().unwrap_or(file),
        &text,
        patch,
        &builder.options.limits,
        resources,
    );
    applied.map_err(|error| match error.line {
        // A place inside an inline patch is not one in the file.
        line @ 1.. if origin.is_none() => {
            BuildError::new(file, format!("line {line} of an inline patch: {}", error.message))
        }
        _ => error,
    })
}

fn one_resource(
    builder: &mut Builder<'_>,
    folder: &str,
    file: &str,
    path: &str,
) -> Result<Vec<Resource>, BuildError> {
    if is_remote(path) {
        let message =
            format!("`{path}` is on another server; only folders and files of this repository are read");
        return Err(BuildError {
            field: "resources".into(),
            ..BuildError::new(file, message)
        });
    }
    let at = tree::resolve(builder.tree, folder, path).map_err(|e| wrong(file, &e))?;
    match builder.tree.entry(&at).map_err(|e| wrong(file, &e))? {
        Some(Entry::Folder) if builder.kustomization_file(&at)?.is_some() => builder.folder(&at),
        Some(Entry::Folder) => Err(BuildError::new(
            file,
            format!("the folder `{path}` has no kustomization.yaml; name its files"),
        )),
        Some(_) => builder.named_file(&at),
        None => Err(BuildError {
            field: "resources".into(),
            ..BuildError::new(file, format!("there is no `{path}`"))
        }),
    }
}

fn is_remote(path: &str) -> bool {
    path.contains("://")
        || path.starts_with("git@")
        || path.contains("?ref=")
        || path.starts_with("github.com/")
}

fn read(builder: &mut Builder<'_>, file: &str) -> Result<Spec, BuildError> {
    let target = tree::resolve(builder.tree, "", file).map_err(|e| wrong(file, &e))?;
    let bytes = builder.read(file, &target)?;
    let text = manifest::text_of(file, &bytes, &builder.options.limits)?;
    let mut documents = yaml::documents(file, text, &builder.options.limits)?
        .into_iter()
        .filter(|d| !d.root.is_null());
    let root = documents.next().map(|d| d.root);
    if documents.next().is_some() {
        return Err(BuildError::new(file, "a kustomization has one document"));
    }
    let errors_before = builder.errors.len();
    let mut value = root.map_or(Value::Object(serde_json::Map::new()), yaml::Node::into_value);
    let at = |field: &str, message: String| {
        let (line, column) = position::position_of(text, 0, None, field).unwrap_or_default();
        let excerpt = manifest::excerpt(text, line, column);
        BuildError {
            file: file.into(),
            line,
            column,
            field: field.into(),
            message,
            excerpt,
        }
    };
    let Some(map) = value.as_object_mut() else {
        return Err(BuildError::new(file, "a kustomization is a map"));
    };
    let group = map
        .get("apiVersion")
        .and_then(Value::as_str)
        .unwrap_or("kustomize.config.k8s.io/");
    if !group.starts_with("kustomize.config.k8s.io/") {
        return Err(at(
            "apiVersion",
            format!("`{group}` is not the API of kustomize; give the file another name"),
        ));
    }
    // A field that is there without a value is as good as absent.
    map.retain(|_, value| !value.is_null());
    for field in map.keys().filter(|field| !UNDERSTOOD.contains(&field.as_str())) {
        builder.errors.push(at(
            field,
            format!("the kustomize field `{field}` is not supported"),
        ));
    }
    for (index, set) in map
        .get("labels")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .enumerate()
    {
        if set.get("fields").is_some() {
            let field = format!("labels[{index}].fields");
            builder.errors.push(at(
                &field,
                "the kustomize field `labels.fields` is not supported".into(),
            ));
        }
    }
    for field in UNDERSTOOD {
        let Some(part) = map.get(*field) else { continue };
        let alone = Value::Object([((*field).to_owned(), part.clone())].into_iter().collect());
        if let Err(wrong) = serde_json::from_value::<Spec>(alone) {
            builder.errors.push(at(field, wrong.to_string()));
        }
    }
    if builder.errors.len() > errors_before {
        return Ok(Spec::default());
    }
    serde_json::from_value(value).map_err(|e| BuildError::new(file, e.to_string()))
}
