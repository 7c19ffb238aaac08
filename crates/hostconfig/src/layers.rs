//! The last good content of every layer, on disk, so that a broken push does not take away what worked, across
//! reboots too.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde_json::Value;

/// Why the last good content can't be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}", .path.display())]
pub struct LayersError {
    /// What was tried.
    what: &'static str,
    /// The file or folder.
    path: PathBuf,
    /// Why it failed.
    #[source]
    source: io::Error,
}

/// A folder with one file for each layer: `namespace_name.json`. Names of objects have no `_` and no `/`.
#[derive(Clone, Debug)]
pub struct LayerFiles {
    folder: PathBuf,
}

impl LayerFiles {
    /// The files in a folder, which is made when the first one is written.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// All profiles by `namespace/name`. A file that can't be read or is no JSON counts as absent: power may have
    /// gone before it was ever complete.
    #[must_use]
    pub fn read(&self) -> BTreeMap<String, Value> {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return BTreeMap::new();
        };
        let layer = |path: PathBuf| {
            let (namespace, name) = path
                .file_name()?
                .to_str()?
                .strip_suffix(".json")?
                .split_once('_')?;
            let profile = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
            Some((format!("{namespace}/{name}"), profile))
        };
        entries.filter_map(|entry| layer(entry.ok()?.path())).collect()
    }

    /// Writes a profile so that either the old or the new one is there after power loss.
    pub fn write(&self, name: &str, profile: &Value) -> Result<(), LayersError> {
        fs::create_dir_all(&self.folder).map_err(self.failed("can't make", &self.folder))?;
        write_atomically(&self.path(name), &serde_json::to_vec(profile).unwrap_or_default())
    }

    /// Forgets a layer; gone already is fine.
    pub fn remove(&self, name: &str) -> Result<(), LayersError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.failed("can't remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{}.json", name.replace('/', "_")))
    }

    fn failed(&self, what: &'static str, path: &Path) -> impl Fn(io::Error) -> LayersError + use<> {
        let path = path.to_owned();
        move |source| LayersError {
            what,
            path: path.clone(),
            source,
        }
    }
}

/// Writes beside, syncs, renames, syncs the folder.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), LayersError> {
    let beside = path.with_extension("new");
    let failed = |source| LayersError {
        what: "can't write",
        path: path.to_owned(),
        source,
    };
    let write = || -> io::Result<()> {
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        match path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(failed)
}
