//! What is wrong with the objects of a build, said with file, line, column and field.

use std::collections::{BTreeMap, HashMap};

use kinds::{
    host,
    object::{self, Gvk, ObjectKey},
    registry::{Registry, Scope},
};
use serde_json::Value;

use crate::{
    build::BuildError,
    manifest::{self, Limits, Located},
    position::{self, TextStart},
    tree::{self, Tree},
};

/// The objects of a build, looked at.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// Objects of kinds that are served, each with the namespace that it will have.
    pub objects: Vec<Located>,
    /// Objects of kinds, or versions of kinds, that are not served.
    pub not_served: Vec<NotServed>,
    /// What must be mended before anything is applied.
    pub errors: Vec<BuildError>,
    /// What is worth a look.
    pub warnings: Vec<BuildError>,
}

/// An object of a kind that is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotServed {
    /// What it says it is.
    pub gvk: Gvk,
    /// Its key.
    pub key: ObjectKey,
    /// Its file and line.
    pub place: String,
}

/// Checks objects as the API will, before any of them is applied. `tree` is read again for positions, only
/// when there is something to point at.
#[must_use]
pub fn check(tree: &dyn Tree, objects: Vec<Located>, registry: &Registry) -> Checked {
    let mut checker = Checker {
        tree,
        texts: HashMap::new(),
        checked: Checked::default(),
    };
    let mut seen: HashMap<ObjectKey, String> = HashMap::with_capacity(objects.len());
    for mut located in objects {
        let gvk = Gvk::of(&located.object);
        let Some(kind) = registry.by_gvk(&gvk) else {
            let key = ObjectKey::of(&located.object);
            checker.checked.not_served.push(NotServed {
                gvk,
                key,
                place: located.place(),
            });
            continue;
        };
        place(&mut located.object, kind.scope);
        let key = ObjectKey::of(&located.object);
        match seen.get(&key) {
            Some(first) if !key.name.is_empty() => {
                let message = format!("{key} is there twice; the first is at {first}");
                checker.error(&located, "metadata.name", message);
            }
            _ => {
                seen.insert(key, located.place());
            }
        }
        let mut whole = located.object.clone();
        kind.set_defaults(&mut whole);
        for wrong in kind.validate(&whole) {
            checker.error(&located, &wrong.path, wrong.message);
        }
        for path in kind.unknown_fields(&located.object) {
            checker.warning(
                &located,
                &path,
                "the field is not known; it is kept and has no effect".into(),
            );
        }
        if gvk.kind == "HostConfiguration" {
            checker.profile(&located);
        }
        checker.checked.objects.push(located);
    }
    checker.checked
}

/// Gives an object of a namespaced kind that names no namespace the one it belongs into; takes it from
/// objects of cluster scope, where some write one by mistake.
pub fn place(object: &mut Value, scope: Scope) {
    let wanted = match (scope, object::kind(object)) {
        (Scope::Cluster, _) => {
            object::metadata_mut(object).remove("namespace");
            return;
        }
        (Scope::Namespaced, "HostConfiguration") => host::NAMESPACE,
        (Scope::Namespaced, _) => "default",
    };
    if object::namespace(object).is_empty() {
        object::metadata_mut(object).insert("namespace".into(), wanted.into());
    }
}

struct Checker<'t> {
    tree: &'t dyn Tree,
    /// Files that were read for positions.
    texts: HashMap<String, String>,
    checked: Checked,
}

impl Checker<'_> {
    fn error(&mut self, located: &Located, field: &str, message: String) {
        let error = self.at(located, field, message);
        self.checked.errors.push(error);
    }

    fn warning(&mut self, located: &Located, field: &str, message: String) {
        // Positions cost reading a file: not worth it for more than a person reads.
        let warning = if self.checked.warnings.len() < 100 {
            self.at(located, field, message)
        } else {
            BuildError {
                line: located.line,
                field: field.into(),
                ..BuildError::new(&located.file, message)
            }
        };
        self.checked.warnings.push(warning);
    }

    fn at(&mut self, located: &Located, field: &str, message: String) -> BuildError {
        let text = self.text(&located.file);
        let found = position::position_of(text, located.index, located.item, field);
        let (line, column) = found.unwrap_or((located.line, 1));
        let excerpt = manifest::excerpt(text, line, column);
        let message = format!("{}: {message}", ObjectKey::of(&located.object));
        BuildError {
            file: located.file.clone(),
            line,
            column,
            field: field.into(),
            message,
            excerpt,
        }
    }

    fn text(&mut self, file: &str) -> &str {
        let tree = self.tree;
        self.texts.entry(file.into()).or_insert_with(|| {
            let target = tree::resolve(tree, "", file).unwrap_or_else(|_| file.into());
            let bytes = tree.read(&target).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }

    /// The JSON inside a HostConfiguration. Broken JSON is an error here, so that the last good profile stays
    /// in force; what the profile asks for is judged by the host, so that is only a warning.
    fn profile(&mut self, located: &Located) {
        const FIELD: &str = "spec.profile";
        let Some(Value::String(json)) = located.object.pointer("/spec/profile") else {
            return;
        };
        if json.trim().is_empty() {
            return;
        }
        let start =
            position::block_scalar_start(self.text(&located.file), located.index, located.item, FIELD);
        let limits = Limits {
            documents: 1,
            ..Limits::default()
        };
        let profile = match manifest::parse_json(json, &limits) {
            Ok(profile) => profile,
            Err((line, column, message)) => {
                let message = format!("the profile is not JSON: {message}");
                let mut error = self.at(located, FIELD, message);
                point(&mut error, start, line, column);
                error.excerpt = manifest::excerpt(self.text(&located.file), error.line, error.column);
                self.checked.errors.push(error);
                return;
            }
        };
        for wrong in host::check(&profile) {
            let mut warning = self.at(located, FIELD, wrong.message);
            if let Some((line, column)) = position::position_of(json, 0, None, &wrong.path) {
                point(&mut warning, start, line, column);
            }
            warning.field = wrong.path;
            self.checked.warnings.push(warning);
        }
    }
}

fn point(error: &mut BuildError, start: Option<TextStart>, line: usize, column: usize) {
    if let Some(start) = start {
        (error.line, error.column) = start.at(line, column);
    }
}

/// Warnings by how often they occur, for a status that must stay short.
#[must_use]
pub fn summary(warnings: &[BuildError], most: usize) -> Vec<String> {
    let mut by_text: BTreeMap<String, usize> = BTreeMap::new();
    for warning in warnings.iter().take(10_000) {
        *by_text.entry(warning.to_string()).or_default() += 1;
    }
    let more = by_text.len().saturating_sub(most);
    let mut lines: Vec<String> = by_text.into_keys().take(most).collect();
    if more > 0 {
        lines.push(format!("… and {more} more"));
    }
    lines
}
