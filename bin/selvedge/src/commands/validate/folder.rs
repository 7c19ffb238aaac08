//! A folder on disk as a tree to build from.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use kustomize::tree::{Entry, Tree, TreeError};

/// A file larger than this is no manifest.
const LIMIT: u64 = 16 << 20;

/// A folder on disk. Symbolic links are seen as links, never followed.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(root: &Path) -> Self {
        Self(root.to_path_buf())
    }

    /// Every file below, in order, as paths relative to the root.
    pub(crate) fn files(&self, folder: &str) -> Result<Vec<String>, TreeError> {
        let mut files = Vec::new();
        for (name, entry) in self.list(folder)? {
            let path = kustomize::tree::join(folder, &name);
            match entry {
                Entry::File => files.push(path),
                Entry::Folder if name != ".git" => files.extend(self.files(&path)?),
                _ => {}
            }
        }
        Ok(files)
    }
}

fn failed(path: &str, error: &std::io::Error) -> TreeError {
    match error.kind() {
        ErrorKind::NotFound => TreeError::NotFound(path.into()),
        _ => TreeError::Failed {
            path: path.into(),
            why: error.to_string(),
        },
    }
}

impl Tree for Folder {
    fn entry(&self, path: &str) -> Result<Option<Entry>, TreeError> {
        let full = self.0.join(path);
        let kind = match fs::symlink_metadata(&full) {
            Ok(metadata) => metadata.file_type(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(path, &error)),
        };
        Ok(Some(if kind.is_symlink() {
            let target = fs::read_link(&full).map_err(|error| failed(path, &error))?;
            Entry::Link(target.to_string_lossy().into_owned())
        } else if kind.is_dir() {
            Entry::Folder
        } else {
            Entry::File
        }))
    }

    fn list(&self, folder: &str) -> Result<Vec<(String, Entry)>, TreeError> {
        let read = fs::read_dir(self.0.join(folder)).map_err(|error| failed(folder, &error))?;
        let mut entries = Vec::new();
        for item in read {
            let name = item
                .map_err(|error| failed(folder, &error))?
                .file_name()
                .to_string_lossy()
                .into_owned();
            if let Some(entry) = self.entry(&kustomize::tree::join(folder, &name))? {
                entries.push((name, entry));
            }
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(entries)
    }

    fn read(&self, file: &str) -> Result<Vec<u8>, TreeError> {
        let full = self.0.join(file);
        let bytes = fs::metadata(&full).map_err(|error| failed(file, &error))?.len();
        if bytes > LIMIT {
            return Err(TreeError::TooLarge {
                path: file.into(),
                bytes,
                limit: LIMIT,
            });
        }
        fs::read(&full).map_err(|error| failed(file, &error))
    }
}
