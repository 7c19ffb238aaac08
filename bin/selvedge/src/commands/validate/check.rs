//! Checks a folder as the host would, with the host's own code.

use std::{collections::BTreeSet, path::Path};

use anyhow::bail;
use kinds::{
    object::{self, ObjectKey},
    registry::Registry,
    vm::predefined_classes,
};
use kustomize::{
    Limits, Located,
    build::{BuildError, Options, build},
    check::{NotServed, check as check_objects},
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
    let mut report = Report::default();
    let objects = read(&folder, path, &mut report)?;
    report.objects = objects.len();
    let registry = Registry::builtin();
    let checked = check_objects(&folder, objects, &registry);
    // Profiles are looked at below: together, and to the last value.
    let other = |error: &BuildError| error.field != "spec.profile" && !error.field.starts_with("esx");
    report.add(Level::Error, checked.errors.into_iter().filter(other));
    report.add(Level::Warning, checked.warnings.into_iter().filter(other));
    report.findings.extend(
        checked
            .not_served
            .into_iter()
            .map(|object| not_served(object, &registry)),
    );
    for found in host::check(&checked.objects, &registry) {
        let (line, column) = found.place(&text(&folder, found.located));
        report.findings.push(Finding {
            level: found.level,
            file: found.located.file.clone(),
            line,
            column,
            field: if found.path.is_empty() {
                "spec.profile".into()
            } else {
                found.path
            },
            message: format!("{}: {}", ObjectKey::of(&found.located.object), found.message),
        });
    }
    references(&folder, &checked.objects, &mut report);
    for located in &checked.objects {
        report.findings.extend(asked_in_vain(&folder, located));
    }
    report
        .findings
        .sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    Ok(report)
}

/// The objects as they would be applied. If the folder can't be built, the errors are findings and the objects
/// of every file that can be read by itself are checked all the same.
fn read(folder: &Folder, path: &str, report: &mut Report) -> anyhow::Result<Vec<Located>> {
    let errors = match build(folder, path, &Options::default()) {
        Ok(built) => {
            report.skipped = built.skipped;
            report.add(Level::Warning, built.warnings);
            return Ok(built.objects);
        }
        Err(errors) => errors,
    };
    report.add(Level::Error, errors);
    let mut objects = Vec::new();
    for file in folder.files(path)? {
        if [".yaml", ".yml"].iter().any(|end| file.ends_with(end)) {
            let text = folder.read(&file)?;
            objects.extend(parse_manifests(&file, &text, &Limits::default()).unwrap_or_default());
        }
    }
    Ok(objects)
}

fn not_served(object: NotServed, registry: &Registry) -> Finding {
    let NotServed { gvk, key, place } = object;
    let why = match registry.by_kind(&gvk.group, &gvk.kind) {
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
        None => {
            format!("{gvk} is not served by this host yet; the object is left out and named in the status")
        }
    };
    let (file, line) = place.rsplit_once(':').unwrap_or((&place, ""));
    Finding {
        level: Level::Notice,
        file: file.into(),
        line: line.parse().unwrap_or(0),
        column: 1,
        field: String::new(),
        message: format!("{key}: {why}"),
    }
}

/// What a GitRepository or Kustomization asks for that the host does not do.
fn asked_in_vain(folder: &Folder, located: &Located) -> Vec<Finding> {
    let found = gitops::unsupported(&located.object);
    if found.is_empty() {
        return Vec::new();
    }
    let key = ObjectKey::of(&located.object);
    let text = text(folder, located);
    let found = found.into_iter().map(|one| {
        let position = position_of(&text, located.index, located.item, one.field);
        let (line, column) = position.unwrap_or((located.line, 1));
        let consequence = if one.refused {
            "; the host refuses the object"
        } else {
            ""
        };
        Finding {
            level: Level::Warning,
            file: located.file.clone(),
            line,
            column,
            field: one.field.into(),
            message: format!("{key}: {}{consequence}", one.why),
        }
    });
    found.collect()
}

/// Classes, ConfigMaps and Secrets that virtual machines name. They may be on the host already, so that one that
/// is not here is worth knowing, not an error.
fn references(folder: &Folder, objects: &[Located], report: &mut Report) {
    let mut here: BTreeSet<ObjectKey> = objects
        .iter()
        .map(|located| ObjectKey::of(&located.object))
        .collect();
    here.extend(predefined_classes().iter().map(ObjectKey::of));
    for located in objects
        .iter()
        .filter(|l| object::kind(&l.object) == "VirtualMachine")
    {
        let machine = &located.object;
        let namespace = object::namespace(machine);
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
            if places.iter().any(|place| here.contains(&key(place))) {
                continue;
            }
            let position = position_of(&text(folder, located), located.index, located.item, field);
            let (line, column) = position.unwrap_or((located.line, 1));
            report.findings.push(Finding {
                level: Level::Notice,
                file: located.file.clone(),
                line,
                column,
                field: field.into(),
                message: format!(
                    "{}: {kind} {name:?} is not in this folder; the host must have it from elsewhere",
                    ObjectKey::of(machine)
                ),
            });
        }
    }
}

impl Report {
    fn add(&mut self, level: Level, errors: impl IntoIterator<Item = BuildError>) {
        self.findings.extend(errors.into_iter().map(|error| Finding {
            level,
            file: error.file,
            line: error.line,
            column: error.column,
            field: error.field,
            message: error.message,
        }));
    }
}

/// The file that an object is in; empty if it can't be read any more.
fn text(folder: &Folder, located: &Located) -> String {
    let bytes = folder.read(&located.file).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
