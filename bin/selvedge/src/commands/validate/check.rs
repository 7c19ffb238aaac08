//! Checks every object of a folder as the host would.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::bail;
use kinds::{
    object::{self, Gvk, ObjectKey},
    registry::{Registry, Scope},
    vm::predefined_classes,
};
use kustomize::{
    Limits, Located,
    build::{BuildError, Options, build},
    parse_manifests, position_of,
    tree::Tree,
};

use super::{Finding, Level, Report, folder::Folder, host};

/// Checks the folder `path` of the repository at `root`.
pub(super) fn check(root: &Path, path: &str) -> anyhow::Result<Report> {
    if !root.is_dir() {
        bail!("{} is no folder", root.display());
    }
    let folder = Folder::new(root);
    let mut checker = Checker {
        folder: &folder,
        registry: Registry::builtin(),
        report: Report::default(),
    };
    let objects = checker.objects(path)?;
    checker.report.objects = objects.len();
    checker.twice(&objects);
    for located in &objects {
        checker.object(located);
    }
    checker.hosts(&objects);
    checker.references(&objects);
    checker
        .report
        .findings
        .sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    Ok(checker.report)
}

struct Checker<'f> {
    folder: &'f Folder,
    registry: Registry,
    report: Report,
}

impl Checker<'_> {
    /// The objects as they would be applied. If the folder can't be built, the errors are findings and the
    /// objects of every file that can be read by itself are checked all the same.
    fn objects(&mut self, path: &str) -> anyhow::Result<Vec<Located>> {
        let errors = match build(self.folder, path, &Options::default()) {
            Ok(built) => {
                self.report.skipped = built.skipped;
                self.report
                    .findings
                    .extend(built.warnings.into_iter().map(|w| from_build(Level::Warning, w)));
                return Ok(built.objects);
            }
            Err(errors) => errors,
        };
        self.report
            .findings
            .extend(errors.into_iter().map(|error| from_build(Level::Error, error)));
        let mut objects = Vec::new();
        for file in self.folder.files(path)? {
            if [".yaml", ".yml"].iter().any(|end| file.ends_with(end)) {
                let text = self.folder.read(&file)?;
                objects.extend(parse_manifests(&file, &text, &Limits::default()).unwrap_or_default());
            }
        }
        Ok(objects)
    }

    /// Two objects of one name: the later would silently replace the earlier.
    fn twice(&mut self, objects: &[Located]) {
        let mut seen: BTreeMap<ObjectKey, &Located> = BTreeMap::new();
        for located in objects {
            let key = ObjectKey::of(&self.defaulted(located));
            if let Some(first) = seen.insert(key, located) {
                let message = format!(
                    "this object is also in {}; one would replace the other: rename or remove one",
                    first.place()
                );
                self.find(Level::Error, located, "metadata.name", message);
            }
        }
    }

    fn object(&mut self, located: &Located) {
        let gvk = Gvk::of(&located.object);
        let Some(kind) = self.registry.by_gvk(&gvk).cloned() else {
            let message = match self.registry.by_kind(&gvk.group, &gvk.kind) {
                Some(kind) => {
                    let served: Vec<&str> = kind
                        .versions
                        .iter()
                        .map(|version| version.name.as_str())
                        .collect();
                    format!(
                        "version {} is not served; this host serves {}",
                        gvk.version,
                        served.join(", ")
                    )
                }
                None => format!(
                    "{gvk} is not served by this host yet; the object is left out and named in the status"
                ),
            };
            self.find(Level::Notice, located, "", message);
            return;
        };
        let mut object = self.defaulted(located);
        for path in kind.unknown_fields(&object) {
            self.find(
                Level::Warning,
                located,
                &path,
                "this field is not known; it is kept and has no effect".into(),
            );
        }
        kind.set_defaults(&mut object);
        for error in kind.validate(&object) {
            self.find(Level::Error, located, &error.path, error.message);
        }
    }

    /// The host configurations together.
    fn hosts(&mut self, objects: &[Located]) {
        for found in host::check(objects, &self.registry) {
            let (line, column) = found.place(&self.text(found.located));
            self.report.findings.push(Finding {
                level: found.level,
                file: found.located.file.clone(),
                line,
                column,
                object: ObjectKey::of(&found.located.object).to_string(),
                field: if found.path.is_empty() {
                    "spec.profile".into()
                } else {
                    found.path
                },
                message: found.message,
            });
        }
    }

    /// Classes, ConfigMaps and Secrets that virtual machines name. They may be on the host already, so that one
    /// that is not here is worth knowing, not an error.
    fn references(&mut self, objects: &[Located]) {
        let mut here: BTreeSet<ObjectKey> = objects
            .iter()
            .map(|located| ObjectKey::of(&self.defaulted(located)))
            .collect();
        here.extend(predefined_classes().iter().map(ObjectKey::of));
        for located in objects
            .iter()
            .filter(|l| object::kind(&l.object) == "VirtualMachine")
        {
            let machine = self.defaulted(located);
            let namespace = object::namespace(&machine);
            for (field, group, kind, places) in [
                (
                    "spec.className",
                    "vmoperator.vmware.com",
                    "VirtualMachineClass",
                    vec![namespace, "default"],
                ),
                ("spec.vmMetadata.configMapName", "", "ConfigMap", vec![namespace]),
                ("spec.vmMetadata.secretName", "", "Secret", vec![namespace]),
            ] {
                let pointer = format!("/{}", field.replace('.', "/"));
                let Some(name) = machine.pointer(&pointer).and_then(|value| value.as_str()) else {
                    continue;
                };
                let key = |place: &str| ObjectKey {
                    group: group.into(),
                    kind: kind.into(),
                    namespace: place.into(),
                    name: name.into(),
                };
                if !places.iter().any(|place| here.contains(&key(place))) {
                    let message = format!(
                        "{kind} {name:?} is not in this folder; the host must have it from elsewhere"
                    );
                    self.find(Level::Notice, located, field, message);
                }
            }
        }
    }

    /// The object with the namespace that the host would give it.
    fn defaulted(&self, located: &Located) -> object::Object {
        let mut object = located.object.clone();
        let gvk = Gvk::of(&object);
        let namespaced = self
            .registry
            .by_kind(&gvk.group, &gvk.kind)
            .is_none_or(|k| k.scope == Scope::Namespaced);
        if namespaced && object::namespace(&object).is_empty() {
            let namespace = if gvk.kind == "HostConfiguration" {
                "esx-system"
            } else {
                "default"
            };
            object::metadata_mut(&mut object).insert("namespace".into(), namespace.into());
        }
        object
    }

    fn find(&mut self, level: Level, located: &Located, field: &str, message: String) {
        let (line, column) = self.position(located, field);
        self.report.findings.push(Finding {
            level,
            file: located.file.clone(),
            line,
            column,
            object: ObjectKey::of(&located.object).to_string(),
            field: field.into(),
            message,
        });
    }

    fn position(&self, located: &Located, field: &str) -> (usize, usize) {
        let text = self.text(located);
        let found = if field.is_empty() {
            None
        } else {
            position_of(&text, located.index, located.item, field)
        };
        found.unwrap_or((located.line, 1))
    }
}

impl Checker<'_> {
    /// The file that an object is in; empty if it can't be read any more.
    fn text(&self, located: &Located) -> String {
        let bytes = self.folder.read(&located.file).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn from_build(level: Level, error: BuildError) -> Finding {
    Finding {
        level,
        file: error.file,
        line: error.line,
        column: error.column,
        object: String::new(),
        field: error.field,
        message: error.message,
    }
}
