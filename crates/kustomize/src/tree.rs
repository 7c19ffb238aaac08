//! The folder tree that is built from, wherever it is kept.

use std::{collections::BTreeMap, fmt};

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link and what it points to, as written.
    Link(String),
    /// Another repository (a Git submodule), whose content is not here.
    Submodule,
}

/// Why a tree did not give a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// There is nothing at the path.
    #[error("there is no `{0}`")]
    NotFound(String),
    /// The path leads out of the tree.
    #[error("`{0}` leads out of the repository")]
    Outside(String),
    /// Symbolic links point at each other.
    #[error("`{0}` goes through too many symbolic links")]
    Loop(String),
    /// The path is a submodule or goes through one.
    #[error("`{0}` is a submodule; submodules are not fetched")]
    Submodule(String),
    /// A file is wanted and a folder is there, or the other way around.
    #[error("`{path}` is no {wanted}")]
    Kind {
        /// The path.
        path: String,
        /// `file` or `folder`.
        wanted: &'static str,
    },
    /// The file is larger than files may be.
    #[error("`{path}` has {bytes} bytes, more than the {limit} that are read")]
    TooLarge {
        /// The path.
        path: String,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The tree could not be read.
    #[error("`{path}` can't be read: {why}")]
    Failed {
        /// The path.
        path: String,
        /// Why.
        why: String,
    },
}

/// A folder tree. Paths are relative to its root, with `/`, without `.` and `..`; the root is the empty path.
/// None of the methods follows a symbolic link: [`resolve`] does, within the tree.
pub trait Tree {
    /// What stands at a path.
    fn entry(&self, path: &str) -> Result<Option<Entry>, TreeError>;
    /// The names in a folder and what they are, sorted by name.
    fn list(&self, folder: &str) -> Result<Vec<(String, Entry)>, TreeError>;
    /// The bytes of a file.
    fn read(&self, file: &str) -> Result<Vec<u8>, TreeError>;
}

/// How many symbolic links one path may go through.
const LINKS: usize = 16;

/// The path that `path`, seen from the folder `base`, really is: `.` and `..` worked out and symbolic links
/// followed, all within the tree. The last part need not exist.
pub fn resolve(tree: &dyn Tree, base: &str, path: &str) -> Result<String, TreeError> {
    let outside = || TreeError::Outside(path.into());
    let mut links = 0;
    let mut done: Vec<String> = Vec::new();
    // What is still to be walked, last part first.
    let mut todo: Vec<String> = parts(path);
    if !path.starts_with('/') {
        todo.extend(parts(base));
    }
    while let Some(part) = todo.pop() {
        match part.as_str() {
            "" | "." => continue,
            ".." => {
                done.pop().ok_or_else(outside)?;
                continue;
            }
            _ => done.push(part),
        }
        let here = done.join("/");
        match tree.entry(&here)? {
            Some(Entry::Link(target)) => {
                links += 1;
                if links > LINKS {
                    return Err(TreeError::Loop(path.into()));
                }
                if target.starts_with('/') {
                    return Err(TreeError::Outside(here));
                }
                done.pop();
                todo.extend(parts(&target));
            }
            Some(Entry::Submodule) => return Err(TreeError::Submodule(here)),
            Some(Entry::File) if !todo.is_empty() => {
                return Err(TreeError::Kind {
                    path: here,
                    wanted: "folder",
                });
            }
            _ => {}
        }
    }
    Ok(done.join("/"))
}

/// The parts of a path, last first.
fn parts(path: &str) -> Vec<String> {
    path.rsplit('/').map(String::from).collect()
}

/// `folder/name`, or `name` in the root.
#[must_use]
pub fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.into()
    } else {
        format!("{folder}/{name}")
    }
}

/// A tree in memory.
#[derive(Clone, Default)]
pub struct MemoryTree {
    files: BTreeMap<String, Vec<u8>>,
    links: BTreeMap<String, String>,
}

impl MemoryTree {
    /// An empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With a file more.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.into(), content.into());
        self
    }

    /// With a symbolic link more.
    #[must_use]
    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.links.insert(path.into(), target.into());
        self
    }
}

impl fmt::Debug for MemoryTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.files.keys())
            .entries(self.links.keys())
            .finish()
    }
}

impl Tree for MemoryTree {
    fn entry(&self, path: &str) -> Result<Option<Entry>, TreeError> {
        if let Some(target) = self.links.get(path) {
            return Ok(Some(Entry::Link(target.clone())));
        }
        if self.files.contains_key(path) {
            return Ok(Some(Entry::File));
        }
        let folder = format!("{path}/");
        let inside = |key: &String| key.starts_with(&folder);
        let is_folder = path.is_empty() || self.files.keys().any(inside) || self.links.keys().any(inside);
        Ok(is_folder.then_some(Entry::Folder))
    }

    fn list(&self, folder: &str) -> Result<Vec<(String, Entry)>, TreeError> {
        let prefix = if folder.is_empty() {
            String::new()
        } else {
            format!("{folder}/")
        };
        let mut found = BTreeMap::new();
        for path in self.files.keys().chain(self.links.keys()) {
            let Some(rest) = path.strip_prefix(&prefix) else {
                continue;
            };
            let name = rest.split('/').next().unwrap_or(rest);
            if let Some(entry) = self.entry(&join(folder, name))? {
                found.insert(name.to_owned(), entry);
            }
        }
        Ok(found.into_iter().collect())
    }

    fn read(&self, file: &str) -> Result<Vec<u8>, TreeError> {
        self.files
            .get(file)
            .cloned()
            .ok_or_else(|| TreeError::NotFound(file.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        let tree = MemoryTree::new()
            .file("base/a.yaml", "")
            .file("site/b.yaml", "")
            .link("site/up", "../base")
            .link("site/out", "../../etc/passwd")
            .link("site/abs", "/etc/passwd")
            .link("loop", "loop2")
            .link("loop2", "loop")
            .link("site/deep", "up/a.yaml");
        let at = |base: &str, path: &str| resolve(&tree, base, path);
        assert_eq!(at("site", "../base").unwrap(), "base");
        assert_eq!(at("", "./site/").unwrap(), "site");
        assert_eq!(at("", ".").unwrap(), "");
        assert_eq!(at("site", "up/a.yaml").unwrap(), "base/a.yaml");
        assert_eq!(at("site", "deep").unwrap(), "base/a.yaml");
        assert_eq!(at("", "/site").unwrap(), "site");
        assert!(matches!(at("site", "../../x"), Err(TreeError::Outside(_))));
        assert!(matches!(at("site", "out"), Err(TreeError::Outside(_))));
        assert!(matches!(at("site", "abs"), Err(TreeError::Outside(_))));
        assert!(matches!(at("", "loop"), Err(TreeError::Loop(_))));
        assert!(matches!(at("site", "b.yaml/c"), Err(TreeError::Kind { .. })));
        assert_eq!(at("site", "new").unwrap(), "site/new");
    }
}
