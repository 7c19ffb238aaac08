//! The commits that are on this host: what the source publishes and Kustomizations build from.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use reconcile::{Key, Signal};
use serde::{Deserialize, Serialize};

use crate::{
    config::Config,
    git::{
        Git,
        credentials::private_folder,
        fetch,
        tree::{Bounds, CommitTree},
    },
};

/// A fetched commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// `main@sha1:…`
    pub revision: String,
    /// The commit.
    pub commit: String,
    /// `spec.ignore` of the GitRepository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore: Option<String>,
    /// When it came, RFC 3339.
    pub fetched_at: String,
    /// The address that it came from, without credentials.
    #[serde(default)]
    pub url: String,
}

/// How long a tree stays open at least.
const KEPT_OPEN: Duration = Duration::from_secs(5);

/// All artifacts of the host. Cheap to clone.
#[derive(Clone)]
pub struct Artifacts(Arc<Shared>);

struct Shared {
    config: Config,
    known: Mutex<HashMap<Key, Artifact>>,
    /// Trees that are being built from, so that Kustomizations of one commit share one reader.
    open: Mutex<HashMap<(Key, String), Weak<SharedTree>>>,
    /// Repositories in which a build found damage, as a power cut may leave it.
    damaged: Mutex<HashSet<Key>>,
    /// Wakes the reconciler of GitRepositories.
    sources: Mutex<Option<Signal>>,
}

/// A tree and the private folder of its git.
pub(crate) struct SharedTree {
    pub(crate) tree: CommitTree,
    _private: tempfile::TempDir,
}

impl Artifacts {
    /// The artifacts under a state folder.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let shared = Shared {
            config: config.clone(),
            known: Mutex::default(),
            open: Mutex::default(),
            damaged: Mutex::default(),
            sources: Mutex::default(),
        };
        Self(Arc::new(shared))
    }

    /// The artifact of a GitRepository, also one of a former life of the daemon.
    #[must_use]
    pub fn get(&self, source: &Key) -> Option<Artifact> {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(artifact) = known.get(source) {
            return Some(artifact.clone());
        }
        let text = fs::read(self.record(source)).ok()?;
        let artifact: Artifact = serde_json::from_slice(&text).ok()?;
        known.insert(source.clone(), artifact.clone());
        Some(artifact)
    }

    /// Makes an artifact known, on disk first.
    pub(crate) fn publish(&self, source: &Key, artifact: Artifact) -> io::Result<()> {
        let bytes = serde_json::to_vec(&artifact)?;
        write_atomic(&self.record(source), &bytes)?;
        self.0
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(source.clone(), artifact);
        Ok(())
    }

    /// Every GitRepository of which something is kept.
    pub(crate) fn keys(&self) -> Vec<Key> {
        let Ok(entries) = fs::read_dir(self.0.config.state_dir.join("git")) else {
            return Vec::new();
        };
        let names = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
        names
            .filter_map(|name| {
                let (namespace, name) = name.strip_suffix(".git")?.split_once('_')?;
                Some(Key::new(namespace, name))
            })
            .collect()
    }

    /// Forgets a GitRepository and all that was fetched for it.
    pub(crate) fn forget(&self, source: &Key) {
        self.0
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(source);
        let folder = fetch::folder(&self.0.config.state_dir, &source.namespace, &source.name);
        for gone in [fs::remove_file(self.record(source)), fs::remove_dir_all(&folder)] {
            if let Err(error) = gone
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(repository = %source, %error, "can't remove what was fetched");
            }
        }
    }

    /// Says that what was fetched for a GitRepository can't be read: it is fetched anew.
    pub(crate) fn report_damage(&self, source: &Key) {
        self.0
            .damaged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(source.clone());
        let sources = self.0.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(signal) = &*sources {
            signal.key(source.clone());
        }
    }

    /// Who is told of damage.
    pub(crate) fn set_sources(&self, signal: Signal) {
        *self.0.sources.lock().unwrap_or_else(PoisonError::into_inner) = Some(signal);
    }

    /// Whether damage was reported since the last time this was asked.
    pub(crate) fn take_damage(&self, source: &Key) -> bool {
        self.0
            .damaged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(source)
    }

    /// The tree of an artifact. Must be called on a runtime.
    pub(crate) fn open(&self, source: &Key, artifact: &Artifact) -> io::Result<Arc<SharedTree>> {
        let config = &self.0.config;
        let id = (source.clone(), artifact.commit.clone());
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = open.get(&id).and_then(Weak::upgrade) {
            return Ok(tree);
        }
        open.retain(|_, tree| tree.strong_count() > 0);
        let private = private_folder(&config.run_dir)?;
        let git = Git::new(&config.git, private.path());
        let path = fetch::folder(&config.state_dir, &source.namespace, &source.name);
        let bounds = Bounds {
            file: config.file_bytes,
            folder: 64 << 20,
        };
        let tree = CommitTree::open(&git, &path, &artifact.commit, bounds)?;
        let tree = Arc::new(SharedTree {
            tree,
            _private: private,
        });
        open.insert(id, Arc::downgrade(&tree));
        // After a push many Kustomizations build, one soon after the other: one reader is enough for them.
        let keep = tree.clone();
        tokio::spawn(async move {
            tokio::time::sleep(KEPT_OPEN).await;
            drop(keep);
        });
        Ok(tree)
    }

    fn record(&self, source: &Key) -> std::path::PathBuf {
        fetch::folder(&self.0.config.state_dir, &source.namespace, &source.name).with_extension("json")
    }
}

/// Writes a file so that after a power cut it is either the old or the new one.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    let folder = path.parent().ok_or_else(|| io::Error::other("no folder"))?;
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    fs::File::open(folder)?.sync_all()
}
