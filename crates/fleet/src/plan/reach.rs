//! What a site's folder is built from, so that a site that a commit does not touch is told by ids alone.
//!
//! A folder whose kustomization files name nothing outside of it is its own tree. Others reach out (`../../base`):
//! every text in a kustomization file that is a path to something outside counts as a part of the site. That is
//! more than kustomize reads, never less.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kustomize::{
    Entry, Tree, TreeError,
    tree::{join, resolve},
};
use serde_json::Value;

use super::git::CommitTree;

/// Folders below a site's folder that are looked into for kustomization files.
const MOST_FOLDERS: usize = 10_000;

/// The group of Flux's `Kustomization`, as every manifest of one has it.
const FLUX: &[u8] = b"kustomize.toolkit.fluxcd.io";

/// What folders reach, for one commit.
pub(super) struct Reach<'t> {
    tree: &'t CommitTree,
    /// By folder: what it names outside of itself.
    known: HashMap<String, BTreeSet<String>>,
    /// A file was seen that may hold a Flux `Kustomization`: then more is built than what was reached.
    pub(super) goes_on: bool,
}

impl<'t> Reach<'t> {
    pub(super) fn new(tree: &'t CommitTree) -> Self {
        Self {
            tree,
            known: HashMap::new(),
            goes_on: false,
        }
    }

    /// Ids of everything that the folder is built from, by path. Equal for two commits: they build the same.
    pub(super) fn parts(&mut self, folder: &str) -> Result<BTreeMap<String, Option<String>>, TreeError> {
        let mut parts = BTreeMap::new();
        let mut todo = vec![folder.trim_matches('/').to_owned()];
        // `.sourceignore` files on the way down change what is taken.
        let mut above = String::new();
        for part in std::iter::once("").chain(todo[0].clone().split('/')) {
            above = join(&above, part).trim_matches('/').to_owned();
            let file = join(&above, ".sourceignore");
            parts.insert(file.clone(), self.tree.id(&file)?);
        }
        while let Some(path) = todo.pop() {
            if parts.len() > MOST_FOLDERS {
                return Err(TreeError::Failed {
                    path: folder.into(),
                    why: format!("it is built from more than {MOST_FOLDERS} places"),
                });
            }
            let id = self.tree.id(&path)?;
            if parts.insert(path.clone(), id).is_some() {
                continue;
            }
            let entry = self.tree.entry(&path)?;
            if matches!(entry, Some(Entry::File)) && !self.goes_on {
                let bytes = self.tree.read(&path)?;
                self.goes_on = bytes.windows(FLUX.len()).any(|some| some == FLUX);
            }
            if matches!(entry, Some(Entry::Folder)) {
                todo.extend(
                    self.outside(&path)?
                        .into_iter()
                        .filter(|p| !parts.contains_key(p)),
                );
            }
        }
        Ok(parts)
    }

    /// What is named outside of a folder, in it and below.
    fn outside(&mut self, folder: &str) -> Result<BTreeSet<String>, TreeError> {
        if let Some(known) = self.known.get(folder) {
            return Ok(known.clone());
        }
        let mut outside = BTreeSet::new();
        let mut todo = vec![folder.to_owned()];
        let mut looked = 0_usize;
        while let Some(here) = todo.pop() {
            looked += 1;
            if looked > MOST_FOLDERS {
                return Err(TreeError::Failed {
                    path: folder.into(),
                    why: format!("there are more than {MOST_FOLDERS} folders in it"),
                });
            }
            for (name, entry) in self.tree.list(&here)? {
                let path = join(&here, &name);
                match entry {
                    Entry::Folder => todo.push(path),
                    Entry::Link(target) => self.leaves(folder, &here, &target, &mut outside),
                    Entry::File => {
                        let names = matches!(
                            name.as_str(),
                            "kustomization.yaml" | "kustomization.yml" | "Kustomization"
                        );
                        if !names && (self.goes_on || !is_manifest(&name)) {
                            continue;
                        }
                        let bytes = self.tree.read(&path)?;
                        self.goes_on |= bytes.windows(FLUX.len()).any(|some| some == FLUX);
                        if names {
                            for text in texts(&String::from_utf8_lossy(&bytes)) {
                                self.leaves(folder, &here, &text, &mut outside);
                            }
                        }
                    }
                    Entry::Submodule => {}
                }
            }
        }
        self.known.insert(folder.to_owned(), outside.clone());
        Ok(outside)
    }

    /// Adds what a text in `here` names, if that is outside of `folder` and there.
    fn leaves(&self, folder: &str, here: &str, text: &str, outside: &mut BTreeSet<String>) {
        for path in [text, text.split_once('=').map_or("", |(_, path)| path)] {
            if path.is_empty() || path.len() > 4096 || !(path.contains("..") || path.starts_with('/')) {
                continue;
            }
            let Ok(path) = resolve(self.tree, here, path) else {
                continue;
            };
            let inside = folder.is_empty() || path == folder || path.starts_with(&format!("{folder}/"));
            if !inside {
                outside.insert(path);
            }
        }
    }
}

fn is_manifest(name: &str) -> bool {
    [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end))
}

/// Every text in a YAML file; of one that can't be read, every word, since the build will say what is wrong.
fn texts(yaml: &str) -> Vec<String> {
    fn collect(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::String(text) => into.push(text.clone()),
            Value::Array(items) => items.iter().for_each(|item| collect(item, into)),
            Value::Object(map) => map.values().for_each(|item| collect(item, into)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    match kustomize::parse_manifests(
        "kustomization.yaml",
        yaml.as_bytes(),
        &kustomize::Limits::default(),
    ) {
        Ok(documents) => documents
            .iter()
            .for_each(|located| collect(&located.object, &mut found)),
        Err(_) => found.extend(yaml.split_whitespace().map(str::to_owned)),
    }
    found
}
