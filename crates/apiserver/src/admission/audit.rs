//! The audit log: one JSON object a line, durable before the write it is about.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use jiff::Timestamp;
use kinds::{Object, object, registry::KindDef};
use serde::Serialize;
use serde_json::Value;

use super::Request;
use crate::Caller;

/// The same refusal again within so many seconds is only counted: a client that asks in a loop must not wear
/// out the disk.
const QUIET_SECONDS: i64 = 60;
/// Refusals that are remembered for that.
const REMEMBERED: usize = 256;

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Decision {
    /// It was refused.
    Refused,
    /// It was let through because the caller is in the break-glass group.
    BreakGlass,
    /// It was let through; recorded because the caller came through the orchestrator.
    Allowed,
}

/// One line of the audit log.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// When, RFC 3339.
    pub time: String,
    /// User name.
    pub user: String,
    /// Groups.
    pub groups: Vec<String>,
    /// For who came through the orchestrator: from which address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// What was asked for.
    pub verb: &'static str,
    /// `v1/configmaps`, with `/status` for that.
    pub resource: String,
    /// Namespace, if any.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name.
    pub name: String,
    /// What became of it.
    pub decision: Decision,
    /// Why it was refused.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The object before, without `managedFields` and without the values of Secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<Object>,
    /// The object after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<Object>,
    /// How often the same was refused since it was last written down.
    #[serde(skip_serializing_if = "is_zero")]
    pub repeated: u64,
    #[serde(skip)]
    second: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde asks for")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Record {
    pub(super) fn new(
        time: Timestamp,
        kind: &KindDef,
        request: &Request<'_>,
        decision: Decision,
        message: &str,
    ) -> Self {
        let secret = kind.group.is_empty() && kind.kind == "Secret";
        let shown = |object: Option<&Object>| object.map(|object| shown(object, secret));
        let subresource = request.subresource.map(|s| format!("/{s}")).unwrap_or_default();
        Self {
            time: time.to_string(),
            second: time.as_second(),
            user: request.caller.user.clone(),
            groups: request.caller.groups.clone(),
            from: request.caller.from.clone(),
            verb: request.verb.as_str(),
            resource: format!("{}{subresource}", request.gvr),
            namespace: request.namespace.into(),
            name: request.name.into(),
            decision,
            message: message.into(),
            old: shown(request.old),
            new: shown(request.new),
            repeated: 0,
        }
    }

    /// Somebody opened a console, a screen or a log.
    pub(super) fn access(time: Timestamp, caller: &Caller, what: &str, namespace: &str, name: &str) -> Self {
        Self {
            time: time.to_string(),
            second: time.as_second(),
            user: caller.user.clone(),
            groups: caller.groups.clone(),
            from: caller.from.clone(),
            verb: "open",
            resource: what.into(),
            namespace: namespace.into(),
            name: name.into(),
            decision: Decision::Allowed,
            message: String::new(),
            old: None,
            new: None,
            repeated: 0,
        }
    }
}

fn shown(object: &Object, secret: bool) -> Object {
    let mut object = object.clone();
    let metadata = object::metadata_mut(&mut object);
    metadata.remove("managedFields");
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        // It repeats the object, values of Secrets included.
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    if secret {
        for field in ["data", "stringData"] {
            let values = object.get_mut(field).and_then(Value::as_object_mut);
            for value in values.into_iter().flat_map(|map| map.values_mut()) {
                *value = "(not shown)".into();
            }
        }
    }
    object
}

/// Where refused writes and writes under break-glass are recorded.
#[async_trait]
pub trait Audit: Send + Sync + 'static {
    /// Records; a failure is for the log of the process, it holds no write up.
    async fn record(&self, record: Record);
}

/// Records nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAudit;

#[async_trait]
impl Audit for NoAudit {
    async fn record(&self, _: Record) {}
}

/// Appends to a file, with `fsync`. When it has grown to its bound it is renamed to `<file>.1`, that to
/// `<file>.2` and so on; the last goes.
pub struct FileAudit(Arc<Mutex<Log>>);

struct Log {
    path: PathBuf,
    largest: u64,
    kept: u32,
    open: Option<(File, u64)>,
    /// When a refusal was written down last, in Unix seconds, and how often it was not since.
    refused: HashMap<Refusal, (i64, u64)>,
}

/// Refusals that are the same.
#[derive(PartialEq, Eq, Hash)]
struct Refusal {
    user: String,
    verb: &'static str,
    resource: String,
    namespace: String,
    name: String,
}

impl FileAudit {
    /// A log in `path`, made (readable by its owner only) if there is none. `largest` bytes a file, about;
    /// `kept` older files.
    ///
    /// # Errors
    /// When the file can't be opened.
    pub fn open(path: impl Into<PathBuf>, largest: u64, kept: u32) -> io::Result<Self> {
        let mut log = Log {
            path: path.into(),
            largest,
            kept,
            open: None,
            refused: HashMap::new(),
        };
        log.file()?;
        Ok(Self(Arc::new(Mutex::new(log))))
    }
}

#[async_trait]
impl Audit for FileAudit {
    async fn record(&self, record: Record) {
        let log = self.0.clone();
        let written = tokio::task::spawn_blocking(move || {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.append(record).map_err(|error| (log.path.clone(), error))
        });
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err((path, error))) => {
                tracing::error!(path = %path.display(), %error, "the audit log could not be written");
            }
            Err(error) => tracing::error!(%error, "the audit log could not be written"),
        }
    }
}

impl Log {
    fn file(&mut self) -> io::Result<&mut (File, u64)> {
        if self.open.is_none() {
            let fresh = !self.path.exists();
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(&self.path)?;
            let size = file.metadata()?.len();
            if fresh {
                sync_directory(&self.path)?;
            }
            self.open = Some((file, size));
        }
        self.open
            .as_mut()
            .ok_or_else(|| io::Error::other("the file was just opened"))
    }

    fn append(&mut self, mut record: Record) -> io::Result<()> {
        if record.decision == Decision::Refused && !self.is_news(&mut record) {
            return Ok(());
        }
        let mut line = serde_json::to_vec(&record)?;
        line.push(b'\n');
        let size = line.len() as u64;
        let largest = self.largest;
        let (_, now) = self.file()?;
        if *now > 0 && now.saturating_add(size) > largest {
            self.rotate()?;
        }
        let (file, now) = self.file()?;
        let written = file.write_all(&line).and_then(|()| file.sync_data());
        *now = now.saturating_add(size);
        if written.is_err() {
            // Perhaps half a line was written; the next open finds the true size.
            self.open = None;
        }
        written
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.open = None;
        let numbered = |number: u32| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.kept).rev() {
            if numbered(number).exists() {
                std::fs::rename(numbered(number), numbered(number + 1))?;
            }
        }
        if self.kept == 0 {
            std::fs::remove_file(&self.path)?;
        } else {
            std::fs::rename(&self.path, numbered(1))?;
        }
        sync_directory(&self.path)
    }

    /// Whether a refusal is to be written down, with how often it was not.
    fn is_news(&mut self, record: &mut Record) -> bool {
        let now = record.second;
        let what = Refusal {
            user: record.user.clone(),
            verb: record.verb,
            resource: record.resource.clone(),
            namespace: record.namespace.clone(),
            name: record.name.clone(),
        };
        match self.refused.get_mut(&what) {
            Some((written, times)) if now.saturating_sub(*written) < QUIET_SECONDS => {
                *times += 1;
                false
            }
            Some(known) => {
                record.repeated = known.1;
                *known = (now, 0);
                true
            }
            None => {
                if self.refused.len() >= REMEMBERED {
                    self.refused
                        .retain(|_, (written, _)| now.saturating_sub(*written) < QUIET_SECONDS);
                }
                // When that frees nothing the newcomer is written down every time.
                if self.refused.len() < REMEMBERED {
                    self.refused.insert(what, (now, 0));
                }
                true
            }
        }
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}
