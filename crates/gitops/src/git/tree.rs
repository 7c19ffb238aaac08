//! The files of a commit, read straight from the object database: folder by folder and file by file as they
//! are asked for, so that a repository of any size costs only what is used of it.

use std::{
    collections::HashMap,
    io::{self, BufRead as _, BufReader, Read, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout},
    sync::{Arc, Mutex, PoisonError},
};

use kustomize::{Entry, Tree, TreeError};

use super::Git;

/// In the error of a tree that can't be read.
pub(crate) const DAMAGED: &str = "what was fetched is damaged";

/// Bounds on what is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Bytes of one file.
    pub(crate) file: u64,
    /// Bytes of one folder's list (about 40 for each entry).
    pub(crate) folder: u64,
}

/// A commit as a folder tree. Shared by all builds of the commit; one `git cat-file` serves them.
pub(crate) struct CommitTree {
    state: Mutex<State>,
    bounds: Bounds,
}

struct State {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    root: String,
    folders: HashMap<String, Arc<Vec<Item>>>,
    /// Set when the conversation with git got out of step.
    broken: bool,
}

/// An entry of a folder.
#[derive(Clone)]
pub(crate) struct Item {
    pub(crate) name: String,
    mode: u32,
    id: String,
}

impl Drop for State {
    fn drop(&mut self) {
        // It reads no more, so it may end at once; waiting for it leaves no zombie.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl CommitTree {
    /// Opens a commit of a repository.
    pub(crate) fn open(git: &Git, repository: &Path, commit: &str, bounds: Bounds) -> io::Result<Self> {
        let mut child = git.reader(repository).spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("git was started without pipes"));
        };
        let state = State {
            child,
            input,
            output: BufReader::new(output),
            root: format!("{commit}^{{tree}}"),
            folders: HashMap::new(),
            broken: false,
        };
        Ok(Self {
            state: Mutex::new(state),
            bounds,
        })
    }

    fn with<T>(
        &self,
        path: &str,
        act: impl FnOnce(&mut State) -> Result<T, TreeError>,
    ) -> Result<T, TreeError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.broken {
            return Err(TreeError::Failed {
                path: path.into(),
                why: DAMAGED.into(),
            });
        }
        act(&mut state)
    }
}

impl State {
    /// One object: its kind and bytes, or `None` with its size if it is larger than `most`.
    fn object(
        &mut self,
        path: &str,
        id: &str,
        most: u64,
    ) -> Result<(String, Result<Vec<u8>, u64>), TreeError> {
        let answer = self.ask(id, most);
        self.broken |= answer.is_err();
        answer.map_err(|e| TreeError::Failed {
            path: path.into(),
            why: format!("{DAMAGED}: {e}"),
        })
    }

    fn ask(&mut self, id: &str, most: u64) -> io::Result<(String, Result<Vec<u8>, u64>)> {
        self.input.write_all(id.as_bytes())?;
        self.input.write_all(b"\n")?;
        self.input.flush()?;
        let mut header = String::new();
        (&mut self.output).take(1024).read_line(&mut header)?;
        let mut words = header.split_whitespace();
        let (_, Some(kind), Some(size)) = (words.next(), words.next(), words.next()) else {
            return Err(io::Error::other(format!("object {id}: {}", header.trim())));
        };
        let kind = kind.to_owned();
        let size: u64 = size.parse().map_err(|_| io::Error::other("git gave no size"))?;
        let content = if size > most {
            // The bytes come all the same and must be passed by.
            io::copy(&mut (&mut self.output).take(size), &mut io::sink())?;
            Err(size)
        } else {
            let mut bytes = Vec::new();
            (&mut self.output).take(size).read_to_end(&mut bytes)?;
            if u64::try_from(bytes.len()).unwrap_or(u64::MAX) < size {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(bytes)
        };
        let mut newline = [0; 1];
        self.output.read_exact(&mut newline)?;
        Ok((kind, content))
    }

    fn folder(&mut self, path: &str, bounds: Bounds) -> Result<Option<Arc<Vec<Item>>>, TreeError> {
        if let Some(items) = self.folders.get(path) {
            return Ok(Some(items.clone()));
        }
        let id = if path.is_empty() {
            self.root.clone()
        } else {
            match self.item(path, bounds)? {
                Some(item) if item.mode == FOLDER => item.id,
                _ => return Ok(None),
            }
        };
        let (kind, content) = self.object(path, &id, bounds.folder)?;
        let bytes = content.map_err(|bytes| TreeError::TooLarge {
            path: path.into(),
            bytes,
            limit: bounds.folder,
        })?;
        if kind != "tree" {
            return Ok(None);
        }
        let raw = if self.root.len() > 64 { 32 } else { 20 };
        let items = parse(&bytes, raw).ok_or_else(|| TreeError::Failed {
            path: path.into(),
            why: "the folder's list is malformed".into(),
        })?;
        let items = Arc::new(items);
        self.folders.insert(path.into(), items.clone());
        Ok(Some(items))
    }

    fn item(&mut self, path: &str, bounds: Bounds) -> Result<Option<Item>, TreeError> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let Some(items) = self.folder(parent, bounds)? else {
            return Ok(None);
        };
        let at = items.binary_search_by(|item| item.name.as_str().cmp(name));
        Ok(at.ok().map(|at| items[at].clone()))
    }

    fn entry(&mut self, path: &str, item: &Item) -> Result<Entry, TreeError> {
        Ok(match item.mode {
            FOLDER => Entry::Folder,
            LINK => {
                let (_, content) = self.object(path, &item.id, 4096)?;
                let bytes = content.map_err(|bytes| TreeError::TooLarge {
                    path: path.into(),
                    bytes,
                    limit: 4096,
                })?;
                Entry::Link(String::from_utf8_lossy(&bytes).into_owned())
            }
            SUBMODULE => Entry::Submodule,
            _ => Entry::File,
        })
    }
}

const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
const SUBMODULE: u32 = 0o160_000;

/// Git's binary list of a folder: `mode SP name NUL id`, again and again. Names that could lead elsewhere
/// are left out: no git makes them, only somebody who wants to harm does.
pub(crate) fn parse(mut bytes: &[u8], raw: usize) -> Option<Vec<Item>> {
    let mut items = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|b| *b == b' ')?;
        let mode = u32::from_str_radix(std::str::from_utf8(&bytes[..space]).ok()?, 8).ok()?;
        let end = bytes.iter().position(|b| *b == 0)?;
        let name = String::from_utf8_lossy(bytes.get(space + 1..end)?).into_owned();
        let id = bytes.get(end + 1..end + 1 + raw)?;
        let id = id.iter().map(|byte| format!("{byte:02x}")).collect();
        bytes = &bytes[end + 1 + raw..];
        let harmful = name.is_empty()
            || name == "."
            || name == ".."
            || name.contains('/')
            || name.eq_ignore_ascii_case(".git");
        if !harmful {
            items.push(Item { name, mode, id });
        }
    }
    // Git sorts folders as if their names ended in a slash.
    items.sort_by(|a, b| a.name.cmp(&b.name));
    Some(items)
}

impl Tree for CommitTree {
    fn entry(&self, path: &str) -> Result<Option<Entry>, TreeError> {
        if path.is_empty() {
            return Ok(Some(Entry::Folder));
        }
        self.with(path, |state| match state.item(path, self.bounds)? {
            Some(item) => state.entry(path, &item).map(Some),
            None => Ok(None),
        })
    }

    fn list(&self, folder: &str) -> Result<Vec<(String, Entry)>, TreeError> {
        self.with(folder, |state| {
            let Some(items) = state.folder(folder, self.bounds)? else {
                return Err(TreeError::NotFound(folder.into()));
            };
            let mut listed = Vec::with_capacity(items.len());
            for item in items.iter() {
                listed.push((
                    item.name.clone(),
                    state.entry(&kustomize::tree::join(folder, &item.name), item)?,
                ));
            }
            Ok(listed)
        })
    }

    fn read(&self, file: &str) -> Result<Vec<u8>, TreeError> {
        self.with(file, |state| {
            let item = state
                .item(file, self.bounds)?
                .ok_or_else(|| TreeError::NotFound(file.into()))?;
            if matches!(item.mode, FOLDER | LINK | SUBMODULE) {
                return Err(TreeError::Kind {
                    path: file.into(),
                    wanted: "file",
                });
            }
            let (_, content) = state.object(file, &item.id, self.bounds.file)?;
            content.map_err(|bytes| TreeError::TooLarge {
                path: file.into(),
                bytes,
                limit: self.bounds.file,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_are_read_and_harmful_names_left_out() {
        let id = [7_u8; 20];
        let mut bytes = Vec::new();
        for (mode, name) in [
            ("100644", "b.yaml"),
            ("40000", "a"),
            ("120000", ".."),
            ("100644", "x/y"),
            ("40000", ".GIT"),
        ] {
            bytes.extend([mode.as_bytes(), b" ", name.as_bytes(), b"\0", &id].concat());
        }
        let items = parse(&bytes, 20).unwrap();
        let seen: Vec<(&str, u32)> = items.iter().map(|i| (i.name.as_str(), i.mode)).collect();
        assert_eq!(seen, [("a", FOLDER), ("b.yaml", 0o100_644)]);
        assert_eq!(items[0].id, "07".repeat(20));
        assert!(parse(&bytes[..bytes.len() - 1], 20).is_none());
    }

    proptest! {
        #[test]
        fn foreign_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes, 20);
            let mut like = b"40000 name\0".to_vec();
            like.extend(&bytes);
            let _ = parse(&like, 32);
        }

        #[test]
        fn addresses_do_not_panic(text in "\\PC{0,60}", user in "[a-z:@/%0-9-]{0,20}") {
            for text in [text.clone(), format!("https://{user}{text}"), format!("ssh://{user}"), format!("{user}:{text}")] {
                if let Ok(url) = crate::git::url::Url::parse(&text) {
                    prop_assert!(!url.address.starts_with('-'));
                }
            }
        }
    }
}
