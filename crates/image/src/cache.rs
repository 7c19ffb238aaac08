//! The cache: images by name, each fetched once, ready without any network afterwards.
//!
//! ```text
//! <dir>/<key>/index.json, disk-0.qcow2 …   an image that is ready; made by one rename
//! <dir>/.partial/<key>.part, .json         a download on its way; survives a restart
//! <dir>/.work/<key>/                       an import on its way; thrown away at start
//! ```

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Client;
use serde::{Deserialize, Serialize};
use telemetry::Clock;
use tokio::sync::{OnceCell, watch};
use tokio::task::JoinSet;

use crate::fetch::{self, Download, Fetched, HttpOptions, Miss, Validator};
use crate::import::{self, Imported, Source, blocking};
use crate::ovf::OvfInfo;
use crate::progress::Progress;
use crate::reference::{ImageRef, Library};
use crate::{Error, Limits, files};

pub mod evict;

/// A disk of an image. The file is read-only and never changes; it refers to no other file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The file.
    pub path: PathBuf,
    /// Its format. Say it to QEMU: a guest that may choose the format may read other files.
    pub format: DiskFormat,
    /// Size that a guest sees, in bytes.
    pub virtual_size: u64,
}

/// The format of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// QEMU's copy-on-write format.
    Qcow2,
    /// As it is.
    Raw,
}

impl DiskFormat {
    /// As QEMU names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

/// An image that is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedImage {
    /// Its disks, in the order of the hardware.
    pub disks: Vec<Disk>,
    /// What its maker says of the virtual machine, if it was an OVA.
    pub ovf: Option<OvfInfo>,
    /// `sha256:` and the checksum of what was fetched.
    pub digest: String,
    /// Where it came from, without a password.
    pub source_url: String,
    /// By what the server tells one content from another.
    pub validator: Validator,
}

/// An image in the cache, as [`Cache::list`] sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name of its directory.
    pub key: String,
    /// As a manifest wrote it.
    pub image: String,
    /// Bytes on disk.
    pub bytes: u64,
    /// When it was last asked for, to the hour.
    pub last_used: jiff::Timestamp,
}

/// `index.json`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IndexFile {
    image: String,
    digest: String,
    source_url: String,
    validator: Validator,
    fetched: String,
    disks: Vec<IndexDisk>,
    ovf: Option<OvfInfo>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IndexDisk {
    file: String,
    format: DiskFormat,
    virtual_size: u64,
    bytes: u64,
}

const INDEX: &str = "index.json";
const PARTIAL: &str = ".partial";
const WORK: &str = ".work";

/// How an image on its way is.
#[derive(Clone)]
enum State {
    Running(Progress),
    Done(Box<Result<CachedImage, Error>>),
}

struct Inner {
    dir: PathBuf,
    libraries: Vec<Library>,
    http: HttpOptions,
    limits: Limits,
    clock: Clock,
    client: OnceCell<Client>,
    on_the_way: Mutex<HashMap<String, watch::Receiver<State>>>,
}

/// The image cache of a host. Downloads stop when it is dropped, and go on with the next one.
pub struct Cache {
    inner: Arc<Inner>,
    tasks: Mutex<JoinSet<()>>,
}

impl Cache {
    /// Opens a cache, making its directory if need be.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory cannot be made.
    pub fn new(
        dir: impl Into<PathBuf>,
        libraries: Vec<Library>,
        http: HttpOptions,
        limits: Limits,
        clock: Clock,
    ) -> Result<Self, Error> {
        let dir = dir.into();
        let made = |path: PathBuf| fs::create_dir_all(&path).map_err(|e| Error::io("making", &path, e));
        made(dir.join(PARTIAL))?;
        // An import that was cut begins anew.
        if let Err(error) = fs::remove_dir_all(dir.join(WORK))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(Error::io("clearing", dir.join(WORK), error));
        }
        made(dir.join(WORK))?;
        let inner = Inner {
            dir,
            libraries,
            http,
            limits,
            clock,
            client: OnceCell::new(),
            on_the_way: Mutex::new(HashMap::new()),
        };
        Ok(Self {
            inner: Arc::new(inner),
            tasks: Mutex::new(JoinSet::new()),
        })
    }

    /// An image, if it is ready. Touches no network.
    #[must_use]
    pub fn get(&self, image: &ImageRef) -> Option<CachedImage> {
        self.inner.lookup(image)
    }

    /// Brings an image into the cache, or finds it there, which needs no network. However many ask at once, it is fetched
    /// once; each is told the progress. Who stops asking does not stop the download.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::is_transient`] says whether trying later is worth it.
    pub async fn ensure(&self, image: &ImageRef, progress: impl Fn(Progress)) -> Result<CachedImage, Error> {
        if let Some(found) = self.inner.lookup(image) {
            return Ok(found);
        }
        let mut state = self.join(image);
        loop {
            let now = state.borrow_and_update().clone();
            match now {
                State::Running(so_far) => progress(so_far),
                State::Done(result) => return *result,
            }
            if state.changed().await.is_err() {
                let last = state.borrow().clone();
                return match last {
                    State::Done(result) => *result,
                    State::Running(_) => Err(Error::Closed {
                        image: image.to_string(),
                    }),
                };
            }
        }
    }

    /// Joins the fetching of an image, or begins it.
    fn join(&self, image: &ImageRef) -> watch::Receiver<State> {
        let key = image.key();
        let mut on_the_way = self
            .inner
            .on_the_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // One that was cut without a result is no use to anybody.
        if let Some(state) = on_the_way.get(&key).filter(|state| state.has_changed().is_ok()) {
            return state.clone();
        }
        let (sender, receiver) = watch::channel(State::Running(Progress::default()));
        on_the_way.insert(key.clone(), receiver.clone());
        drop(on_the_way);

        let (inner, image) = (Arc::clone(&self.inner), image.clone());
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let sender = Arc::new(sender);
            let result = inner.bring(&image, &sender).await;
            if let Err(error) = &result {
                tracing::warn!(%image, error = %telemetry::chain(error), "image is not ready");
            }
            inner
                .on_the_way
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&key);
            sender.send_replace(State::Done(Box::new(result)));
        });
        receiver
    }

    /// Every image that is ready.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Entry>, Error> {
        let dir = &self.inner.dir;
        let mut found = Vec::new();
        for item in fs::read_dir(dir).map_err(|e| Error::io("listing", dir, e))? {
            let item = item.map_err(|e| Error::io("listing", dir, e))?;
            let Ok(key) = item.file_name().into_string() else {
                continue;
            };
            let path = item.path().join(INDEX);
            let index = fs::read(&path)
                .ok()
                .and_then(|text| serde_json::from_slice::<IndexFile>(&text).ok());
            let used = fs::metadata(&path).and_then(|meta| meta.modified()).ok();
            let used = used.and_then(|time| jiff::Timestamp::try_from(time).ok());
            if let (Some(index), Some(last_used)) = (index, used) {
                let bytes = index.disks.iter().map(|disk| disk.bytes).sum();
                found.push(Entry {
                    key,
                    image: index.image,
                    bytes,
                    last_used,
                });
            }
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    /// Removes images that no disk rests on, the longest unused first, until at most `keep` bytes are left or all that
    /// is left is in use. `in_use` are files of [`Disk::path`]. Returns what was removed.
    ///
    /// # Errors
    /// [`Error::Io`] if one cannot be removed.
    pub fn evict(&self, in_use: &BTreeSet<PathBuf>, keep: u64) -> Result<Vec<Entry>, Error> {
        let entries = self.list()?;
        let used: BTreeSet<&str> = in_use
            .iter()
            .filter_map(|path| path.strip_prefix(&self.inner.dir).ok()?.iter().next()?.to_str())
            .collect();
        let mut removed = Vec::new();
        for entry in evict::plan(&entries, &used, keep) {
            let path = self.inner.dir.join(&entry.key);
            // Out of sight by one rename, so that a removal that is cut leaves no half image.
            let aside = self.inner.dir.join(WORK).join(format!("{}.gone", entry.key));
            fs::rename(&path, &aside)
                .and_then(|()| fs::remove_dir_all(&aside))
                .map_err(|e| Error::io("removing", &path, e))?;
            removed.push(entry.clone());
        }
        Ok(removed)
    }
}

impl Inner {
    /// Reads the index of an image and holds it against the files.
    fn lookup(&self, image: &ImageRef) -> Option<CachedImage> {
        let dir = self.dir.join(image.key());
        let path = dir.join(INDEX);
        let index: IndexFile = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        let whole =
            |disk: &IndexDisk| fs::metadata(dir.join(&disk.file)).is_ok_and(|meta| meta.len() == disk.bytes);
        if !index.disks.iter().all(whole) {
            tracing::warn!(%image, dir = %dir.display(), "a cached image lost a disk, fetching it again");
            return None;
        }
        self.touch(&path);
        let disk = |disk: IndexDisk| Disk {
            path: dir.join(disk.file),
            format: disk.format,
            virtual_size: disk.virtual_size,
        };
        Some(CachedImage {
            disks: index.disks.into_iter().map(disk).collect(),
            ovf: index.ovf,
            digest: index.digest,
            source_url: index.source_url,
            validator: index.validator,
        })
    }

    /// Notes that an image was asked for; by the hour is enough, and spares the flash.
    fn touch(&self, index: &Path) {
        let now = self.clock.now();
        let touch = || {
            let file = fs::File::open(index)?;
            let last = jiff::Timestamp::try_from(file.metadata()?.modified()?).unwrap_or_default();
            if now.duration_since(last).as_hours().abs() >= 1 {
                file.set_modified(now.into())?;
            }
            std::io::Result::Ok(())
        };
        if let Err(error) = touch() {
            tracing::debug!(%error, path = %index.display(), "the time of use was not noted");
        }
    }

    /// Fetches and imports an image.
    async fn bring(
        &self,
        image: &ImageRef,
        sender: &Arc<watch::Sender<State>>,
    ) -> Result<CachedImage, Error> {
        // It may have become ready between the look and the begin.
        if let Some(found) = self.lookup(image) {
            return Ok(found);
        }
        let key = image.key();
        let name = image.to_string();
        let told = Arc::clone(sender);
        let report = move |progress: Progress| {
            // Whole MiBs are enough for people, and spare waking everybody for each piece.
            told.send_if_modified(|state| {
                let State::Running(old) = state else { return false };
                let news = old.phase != progress.phase || old.done >> 20 != progress.done >> 20;
                *old = progress;
                news
            });
        };
        let (source, source_url, validator) = self.obtain(image, &name, &key, &report).await?;

        let work = self.dir.join(WORK).join(&key);
        let remade = work.clone();
        blocking(&name, move || {
            let _ = fs::remove_dir_all(&remade);
            fs::create_dir_all(&remade).map_err(|e| Error::io("making", &remade, e))
        })
        .await?;
        let imported = import::import(&name, &source, &work, &self.limits, &report).await;
        let installed = match imported {
            Ok(imported) => {
                self.install(&name, &key, &work, imported, source_url, validator)
                    .await
            }
            Err(error) => Err(error),
        };
        // What was downloaded is of no use any more: it is imported, or it cannot be. Only when we failed for reasons of
        // our own is it worth keeping.
        let kept = matches!(
            &installed,
            Err(Error::Tool { .. } | Error::Io { .. } | Error::Closed { .. })
        );
        if source.ours && !kept {
            let base = self.dir.join(PARTIAL).join(&key);
            let _ = fs::remove_file(base.with_extension("json"));
            let _ = fs::remove_file(base.with_extension("part"));
        }
        if installed.is_err() {
            let _ = fs::remove_dir_all(&work);
        }
        installed?;
        self.lookup(image).ok_or(Error::Closed { image: name })
    }

    /// Makes what was imported an image, by one rename.
    async fn install(
        &self,
        name: &str,
        key: &str,
        work: &Path,
        imported: Imported,
        source_url: String,
        validator: Validator,
    ) -> Result<(), Error> {
        let (name, dir, key, work) = (name.to_owned(), self.dir.clone(), key.to_owned(), work.to_owned());
        let fetched = self.clock.now_rfc3339();
        blocking(&name.clone(), move || {
            let mut disks = Vec::new();
            for disk in imported.disks {
                files::seal(&name, &disk.path)?;
                let bytes = fs::metadata(&disk.path)
                    .map_err(|e| Error::io("reading", &disk.path, e))?
                    .len();
                let file = disk
                    .path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                disks.push(IndexDisk {
                    file,
                    format: disk.format,
                    virtual_size: disk.virtual_size,
                    bytes,
                });
            }
            let index = IndexFile {
                image: name.clone(),
                digest: imported.digest,
                source_url,
                validator,
                fetched,
                disks,
                ovf: imported.ovf,
            };
            let text =
                serde_json::to_vec_pretty(&index).map_err(|e| Error::io("writing", &work, e.into()))?;
            files::write_whole(&name, &work.join(INDEX), &text)?;
            files::sync_dir(&work)?;
            let target = dir.join(&key);
            // There is one only if it lost a disk.
            let _ = fs::remove_dir_all(&target);
            fs::rename(&work, &target).map_err(|e| files::write_error(&name, &target, e))?;
            files::sync_dir(&dir)
        })
        .await
    }

    /// Finds or downloads the file.
    async fn obtain(
        &self,
        image: &ImageRef,
        name: &str,
        key: &str,
        report: &(impl Fn(Progress) + Send + Sync),
    ) -> Result<(Source, String, Validator), Error> {
        let mut tried = Vec::new();
        let mut failed = Vec::new();
        for place in self.places(image) {
            match place {
                Place::Local(path) if matches!(image, ImageRef::File(_)) && !self.in_library(&path) => {
                    return Err(Error::OutsideLibraries {
                        image: name.into(),
                        libraries: self.directories().map(|dir| dir.display().to_string()).collect(),
                    });
                }
                Place::Local(path) => match fs::metadata(&path) {
                    Ok(meta) if meta.is_file() => {
                        let url = format!("file://{}", path.display());
                        return Ok((Source { path, ours: false }, url, Validator::default()));
                    }
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        failed.push(format!("{}: {error}", path.display()));
                    }
                    _ => tried.push(path.display().to_string()),
                },
                Place::Remote(url) => {
                    let client = self.client(name).await?;
                    let base = self.dir.join(PARTIAL).join(key);
                    let download = Download {
                        client,
                        image: name,
                        base,
                        limits: self.limits,
                        report,
                    };
                    let shown = crate::reference::without_password(&url);
                    match download.run(&url).await {
                        Ok(Fetched { path, url, validator }) => {
                            return Ok((Source { path, ours: true }, url, validator));
                        }
                        Err(Miss::NotFound) => tried.push(shown),
                        Err(Miss::Failed(reason)) => failed.push(format!("{shown}: {reason}")),
                        Err(Miss::Fatal(error)) => return Err(error),
                    }
                }
            }
        }
        // "Not found" is said only if nobody who may have it failed to answer, but for the https that was a guess.
        let guessed = matches!(image, ImageRef::Host(_)) && !tried.is_empty();
        if failed.is_empty() || guessed {
            let tried = if tried.is_empty() {
                "no library is configured".into()
            } else {
                tried.join(", ")
            };
            return Err(Error::NotFound {
                image: name.into(),
                tried,
            });
        }
        Err(Error::Unreachable {
            image: name.into(),
            reason: failed.join("; "),
        })
    }

    /// The libraries that are directories.
    fn directories(&self) -> impl Iterator<Item = &Path> {
        self.libraries.iter().filter_map(|library| match library {
            Library::Dir(dir) => Some(dir.as_path()),
            Library::Url(_) => None,
        })
    }

    /// Whether a file, followed through links, is in a library. Whoever writes manifests may use what was put
    /// there for them, and not read the host's other files through a guest's disk.
    fn in_library(&self, path: &Path) -> bool {
        let real = match fs::canonicalize(path) {
            Ok(real) => real,
            // What is not there, or can't be followed, is told apart only inside a library.
            Err(_) => {
                let plain = path
                    .components()
                    .all(|part| part != std::path::Component::ParentDir);
                return plain && self.directories().any(|dir| path.starts_with(dir));
            }
        };
        self.directories()
            .any(|dir| fs::canonicalize(dir).is_ok_and(|dir| real.starts_with(dir)))
    }

    fn places(&self, image: &ImageRef) -> Vec<Place> {
        match image {
            ImageRef::Url(url) => vec![Place::Remote(url.clone())],
            ImageRef::Host(text) => {
                vec![
                    Place::Remote(format!("https://{text}")),
                    Place::Remote(format!("http://{text}")),
                ]
            }
            ImageRef::File(path) => vec![Place::Local(path.clone())],
            ImageRef::Name(name) => {
                let in_library = |library: &Library| match library {
                    Library::Dir(dir) => Place::Local(dir.join(name)),
                    Library::Url(base) => Place::Remote(format!("{}/{name}", base.trim_end_matches('/'))),
                };
                self.libraries.iter().map(in_library).collect()
            }
        }
    }

    async fn client(&self, image: &str) -> Result<&Client, Error> {
        let make = || async { fetch::client(&self.http) };
        self.client
            .get_or_try_init(make)
            .await
            .map_err(|reason| Error::Unreachable {
                image: image.into(),
                reason,
            })
    }
}

/// Where an image may be.
enum Place {
    Local(PathBuf),
    Remote(String),
}
