//! A site's objects at a commit, as its hosts would apply them.

use std::{collections::BTreeMap, sync::Arc};

use kinds::{
    object::{self, ObjectKey},
    registry::Registry,
};
use kustomize::{Build, BuildError, Options, Tree, check, substitute::substitute};
use serde_json::Value;

/// Errors that are told of a site.
const MOST_ERRORS: usize = 20;

/// A site's objects, or everything that is wrong with them.
pub(super) type Built = Result<BTreeMap<ObjectKey, Value>, Vec<String>>;

/// A folder's objects before variables are filled in, which sites that share the folder have in common.
pub(super) type Folder = Result<Arc<Build>, Vec<String>>;

/// Builds a folder.
pub(super) fn folder(tree: &dyn Tree, path: &str, options: &Options) -> Folder {
    kustomize::build(tree, path, options)
        .map(Arc::new)
        .map_err(|errors| said(&errors))
}

/// Fills in a site's variables and checks the objects as the API of its hosts will.
pub(super) fn objects(
    tree: &dyn Tree,
    folder: &Folder,
    variables: &BTreeMap<String, String>,
    registry: &Registry,
) -> Built {
    let mut located = folder.as_ref().map_err(Clone::clone)?.objects.clone();
    let mut errors = Vec::new();
    for one in &mut located {
        if let Err((field, why)) = substitute(&mut one.object, variables) {
            errors.push(BuildError {
                line: one.line,
                field,
                ..BuildError::new(&one.file, why.to_string())
            });
        }
    }
    let checked = check(tree, located, registry);
    errors.extend(checked.errors);
    if !errors.is_empty() {
        return Err(said(&errors));
    }
    let keyed = checked.objects.into_iter().map(|mut located| {
        tidy(&mut located.object);
        (ObjectKey::of(&located.object), located.object)
    });
    Ok(keyed.collect())
}

/// Takes off what only the API writes.
fn tidy(object: &mut Value) {
    if let Some(root) = object.as_object_mut() {
        root.remove("status");
    }
    let metadata = object::metadata_mut(object);
    for field in [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "generation",
        "managedFields",
        "selfLink",
    ] {
        metadata.remove(field);
    }
}

/// Errors as `selvedge validate` says them: file, line, column, field.
fn said(errors: &[BuildError]) -> Vec<String> {
    let mut lines: Vec<String> = errors.iter().take(MOST_ERRORS).map(ToString::to_string).collect();
    if errors.len() > MOST_ERRORS {
        lines.push(format!("… and {} more", errors.len() - MOST_ERRORS));
    }
    lines
}
