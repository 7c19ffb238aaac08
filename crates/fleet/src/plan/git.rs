//! A commit as a folder tree, read from a bare repository by the `git` program, and the ids of its folders.

use std::{
    collections::HashMap,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use kustomize::{Entry, Tree, TreeError, tree::join};

/// Bytes of one file.
const LARGEST_FILE: u64 = 16 << 20;
/// Bytes of the list of one folder.
const LARGEST_FOLDER: u64 = 64 << 20;
/// Folder lists that are kept.
const KEPT: usize = 100_000;

const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
const SUBMODULE: u32 = 0o160_000;

/// One `git cat-file --batch`, shared by the trees of all commits that are looked at.
pub(super) struct Reader(Mutex<Conversation>);

struct Conversation {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// By tree id, so that folders that commits have in common are read once.
    folders: HashMap<String, Arc<Vec<Item>>>,
    broken: bool,
}

#[derive(Clone)]
struct Item {
    name: String,
    mode: u32,
    id: String,
}

struct Object {
    kind: String,
    id: String,
    /// The size, if it is too large to be read.
    content: Result<Vec<u8>, u64>,
}

impl Drop for Conversation {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Reader {
    /// Starts reading a bare repository.
    pub(super) fn open(repository: &Path) -> io::Result<Self> {
        let mut child = Command::new("git")
            .arg("-c")
            .arg("safe.directory=*")
            .arg("--git-dir")
            .arg(repository)
            .args(["cat-file", "--batch"])
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("git was started without pipes"));
        };
        Ok(Self(Mutex::new(Conversation {
            child,
            input,
            output: BufReader::new(output),
            folders: HashMap::new(),
            broken: false,
        })))
    }

    /// A commit's tree; `None` if there is no such commit.
    pub(super) fn commit(self: &Arc<Self>, commit: &str) -> io::Result<Option<CommitTree>> {
        // What is asked is a line of git's protocol.
        if commit.is_empty() || !commit.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let mut conversation = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let object = conversation.ask(&format!("{commit}^{{tree}}"), LARGEST_FOLDER)?;
        Ok(object
            .filter(|object| object.kind == "tree")
            .map(|object| CommitTree {
                reader: Arc::clone(self),
                root: object.id,
            }))
    }
}

impl Conversation {
    fn ask(&mut self, name: &str, most: u64) -> io::Result<Option<Object>> {
        if self.broken {
            return Err(io::Error::other("the repository can't be read"));
        }
        let answer = self.converse(name, most);
        self.broken |= answer.is_err();
        answer
    }

    fn converse(&mut self, name: &str, most: u64) -> io::Result<Option<Object>> {
        self.input.write_all(name.as_bytes())?;
        self.input.write_all(b"\n")?;
        self.input.flush()?;
        let mut header = String::new();
        (&mut self.output).take(4096).read_line(&mut header)?;
        if header.trim_end().ends_with(" missing") {
            return Ok(None);
        }
        let mut words = header.split_whitespace();
        let (Some(id), Some(kind), Some(Ok(size))) =
            (words.next(), words.next(), words.next().map(str::parse::<u64>))
        else {
            return Err(io::Error::other(format!("git answered {:?}", header.trim())));
        };
        let (id, kind) = (id.to_owned(), kind.to_owned());
        let content = if size > most {
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
        Ok(Some(Object { kind, id, content }))
    }

    fn folder(&mut self, path: &str, id: &str) -> Result<Arc<Vec<Item>>, TreeError> {
        if let Some(items) = self.folders.get(id) {
            return Ok(Arc::clone(items));
        }
        let failed = |why: String| TreeError::Failed {
            path: path.into(),
            why,
        };
        let object = self.ask(id, LARGEST_FOLDER).map_err(|e| failed(e.to_string()))?;
        let object = object.ok_or_else(|| failed("the folder's list is missing".into()))?;
        let bytes = object.content.map_err(|bytes| TreeError::TooLarge {
            path: path.into(),
            bytes,
            limit: LARGEST_FOLDER,
        })?;
        let items =
            parse(&bytes, id.len() / 2).ok_or_else(|| failed("the folder's list is malformed".into()))?;
        let items = Arc::new(items);
        if self.folders.len() >= KEPT {
            self.folders.clear();
        }
        self.folders.insert(id.to_owned(), Arc::clone(&items));
        Ok(items)
    }

    fn item(&mut self, root: &str, path: &str) -> Result<Option<Item>, TreeError> {
        let mut here = Item {
            name: String::new(),
            mode: FOLDER,
            id: root.to_owned(),
        };
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if here.mode != FOLDER {
                return Ok(None);
            }
            let items = self.folder(path, &here.id)?;
            match items.binary_search_by(|item| item.name.as_str().cmp(part)) {
                Ok(at) => here = items[at].clone(),
                Err(_) => return Ok(None),
            }
        }
        Ok(Some(here))
    }
}

/// Git's binary list of a folder: `mode SP name NUL id`, again and again. Names that could lead elsewhere are left
/// out.
fn parse(mut bytes: &[u8], raw: usize) -> Option<Vec<Item>> {
    let mut items = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|b| *b == b' ')?;
        let mode = u32::from_str_radix(std::str::from_utf8(&bytes[..space]).ok()?, 8).ok()?;
        let end = bytes.iter().position(|b| *b == 0)?;
        let name = String::from_utf8_lossy(bytes.get(space + 1..end)?).into_owned();
        let id = bytes.get(end + 1..end + 1 + raw)?;
        let id = crate::log::hex(id);
        bytes = &bytes[end + 1 + raw..];
        let harmful = matches!(name.as_str(), "" | "." | "..")
            || name.contains('/')
            || name.eq_ignore_ascii_case(".git");
        if !harmful {
            items.push(Item { name, mode, id });
        }
    }
    items.sort_by(|a, b| a.name.cmp(&b.name));
    Some(items)
}

/// A commit's files.
pub(super) struct CommitTree {
    reader: Arc<Reader>,
    root: String,
}

impl CommitTree {
    /// The id of what stands at a path, whatever it is: equal ids are equal content.
    pub(super) fn id(&self, path: &str) -> Result<Option<String>, TreeError> {
        Ok(self
            .with(|c| c.item(&self.root, path))?
            .map(|item| format!("{:o} {}", item.mode, item.id)))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Conversation) -> T) -> T {
        act(&mut self.reader.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn entry_of(conversation: &mut Conversation, path: &str, item: &Item) -> Result<Entry, TreeError> {
        Ok(match item.mode {
            FOLDER => Entry::Folder,
            SUBMODULE => Entry::Submodule,
            LINK => {
                let failed = |why: String| TreeError::Failed {
                    path: path.into(),
                    why,
                };
                let object = conversation
                    .ask(&item.id, 4096)
                    .map_err(|e| failed(e.to_string()))?;
                let content = object.and_then(|object| object.content.ok());
                let bytes = content.ok_or_else(|| failed("the symbolic link can't be read".into()))?;
                Entry::Link(String::from_utf8_lossy(&bytes).into_owned())
            }
            _ => Entry::File,
        })
    }
}

impl Tree for CommitTree {
    fn entry(&self, path: &str) -> Result<Option<Entry>, TreeError> {
        self.with(|conversation| match conversation.item(&self.root, path)? {
            Some(item) => Self::entry_of(conversation, path, &item).map(Some),
            None => Ok(None),
        })
    }

    fn list(&self, folder: &str) -> Result<Vec<(String, Entry)>, TreeError> {
        self.with(|conversation| {
            let item = conversation.item(&self.root, folder)?;
            let Some(item) = item.filter(|item| item.mode == FOLDER) else {
                return Err(TreeError::NotFound(folder.into()));
            };
            let items = conversation.folder(folder, &item.id)?;
            let named = |item: &Item| {
                let path = join(folder, &item.name);
                Ok((item.name.clone(), Self::entry_of(conversation, &path, item)?))
            };
            items.iter().map(named).collect()
        })
    }

    fn read(&self, file: &str) -> Result<Vec<u8>, TreeError> {
        self.with(|conversation| {
            let item = conversation.item(&self.root, file)?;
            let item = item.ok_or_else(|| TreeError::NotFound(file.into()))?;
            if matches!(item.mode, FOLDER | LINK | SUBMODULE) {
                return Err(TreeError::Kind {
                    path: file.into(),
                    wanted: "file",
                });
            }
            let failed = |why: String| TreeError::Failed {
                path: file.into(),
                why,
            };
            let object = conversation
                .ask(&item.id, LARGEST_FILE)
                .map_err(|e| failed(e.to_string()))?;
            let object = object.ok_or_else(|| failed("its content is missing".into()))?;
            object.content.map_err(|bytes| TreeError::TooLarge {
                path: file.into(),
                bytes,
                limit: LARGEST_FILE,
            })
        })
    }
}
