//! The store on SQLite.
//!
//! Two kinds of connections: one that writes, owned by the writer thread, and a few that only read. The
//! database is in WAL mode, so that readers never wait for the writer; `synchronous=FULL`, so that an answered
//! write survives power loss.

mod fault;
mod feed;
mod reader;
mod schema;
mod writer;

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use telemetry::Clock;
use tokio::sync::{mpsc, oneshot};

use self::{
    fault::Faults,
    feed::Feed,
    reader::Readers,
    writer::{Message, Operation, Verb, Writer},
};
use crate::{Entry, Error, Key, ListPage, ListQuery, Make, Store, Watch, recent::Recent};

/// Writes that may wait at a time; further writers wait for room.
const QUEUE: usize = 1024;

/// How a store is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Writes kept in the history, about.
    pub history_count: u64,
    /// Bytes of values kept in the history, about.
    pub history_bytes: u64,
    /// Recent changes kept in memory for watchers.
    pub recent_count: usize,
    /// Bytes of values of those.
    pub recent_bytes: usize,
    /// SQLite's page cache for each connection, in KiB.
    pub page_cache_kib: u32,
    /// Connections that read.
    pub readers: usize,
    /// Resources that live in memory only.
    pub ephemeral: Vec<Ephemeral>,
    /// Tells the age of ephemeral objects.
    pub clock: Clock,
}

/// A resource that lives in memory only, and its bounds.
#[derive(Clone, Debug)]
pub struct Ephemeral {
    /// `group/plural`.
    pub resource: Arc<str>,
    /// Objects not written for so long go at the next [`SqliteStore::maintain`] or write.
    pub time_to_live: Option<Duration>,
    /// At most so many objects.
    pub max_count: usize,
    /// At most so many bytes of values (only with `evict`).
    pub max_bytes: usize,
    /// Whether the oldest go when there are too many; else creating one more is refused.
    pub evict: bool,
}

impl Ephemeral {
    /// Events: an hour, 2,000, 4 MiB; the oldest go first.
    #[must_use]
    pub fn events() -> Self {
        Self {
            resource: "/events".into(),
            time_to_live: Some(Duration::from_secs(3600)),
            max_count: 2000,
            max_bytes: 4 << 20,
            evict: true,
        }
    }

    /// Leases: kept until deleted, 2,000 of them.
    #[must_use]
    pub fn leases() -> Self {
        Self {
            resource: "coordination.k8s.io/leases".into(),
            time_to_live: None,
            max_count: 2000,
            max_bytes: usize::MAX,
            evict: false,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            history_count: 10_000,
            history_bytes: 32 << 20,
            recent_count: 4096,
            recent_bytes: 4 << 20,
            page_cache_kib: 1024,
            readers: 2,
            ephemeral: vec![Ephemeral::events(), Ephemeral::leases()],
            clock: Clock::system(),
        }
    }
}

/// A store on SQLite. Dropping it finishes the writes that wait and closes the database.
pub struct SqliteStore {
    recent: Arc<Recent>,
    readers: Readers,
    writer: Option<mpsc::Sender<Message>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Held as long as the store is open: one process a database.
    lock: Option<File>,
}

/// How full a store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Writes in the history.
    pub history_count: u64,
    /// Bytes of values in the history.
    pub history_bytes: u64,
    /// Bytes of the database file.
    pub file_bytes: u64,
    /// Bytes of it that are unused.
    pub free_bytes: u64,
    /// The oldest revision from which a watch can start.
    pub oldest: u64,
}

impl SqliteStore {
    /// Opens a database, made (readable by its owner only) if there is none. Finishes in milliseconds,
    /// whatever the number of objects.
    ///
    /// # Errors
    /// [`Error::Unusable`] when it is of another program or a newer version, or in use by another process;
    /// [`Error::Damaged`]; [`Error::NoSpace`]; [`Error::Database`] for the rest.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        let path = path.as_ref();
        let lock = schema::prepare_file(path)?;
        Self::start(Some(path.to_owned()), options, Some(lock))
    }

    /// A store that is gone when dropped, for tests.
    ///
    /// # Errors
    /// If memory lacks.
    pub fn in_memory() -> Result<Self, Error> {
        Self::in_memory_with(Options::default())
    }

    /// The same with options.
    ///
    /// # Errors
    /// If memory lacks.
    pub fn in_memory_with(options: Options) -> Result<Self, Error> {
        Self::start(None, options, None)
    }

    fn start(path: Option<PathBuf>, options: Options, lock: Option<File>) -> Result<Self, Error> {
        let faults = Faults::new(path.as_deref());
        let (connection, opened) = schema::open(path.as_deref(), &options, &faults)?;
        let recent = Arc::new(Recent::new(
            opened.revision,
            opened.compacted,
            options.recent_count,
            options.recent_bytes,
            &options.ephemeral,
        ));
        let connection = Arc::new(Mutex::new(connection));
        let readers = match path {
            Some(path) => Readers::of_file(path, &options, faults.clone()),
            None => Readers::of_memory(connection.clone(), faults.clone()),
        };
        let writer = Writer::new(connection, recent.clone(), options, faults, &opened);
        let (sender, receiver) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .stack_size(512 << 10)
            .spawn(move || writer.run(receiver))
            .map_err(|error| Error::Database(error.into()))?;
        Ok(Self {
            recent,
            readers,
            writer: Some(sender),
            thread: Mutex::new(Some(thread)),
            lock,
        })
    }

    /// Housekeeping: lets expired ephemeral objects go and gives unused pages of the file back. To be called
    /// every minute or so.
    ///
    /// # Errors
    /// As for a write.
    pub async fn maintain(&self) -> Result<Usage, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Maintain(reply)).await?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Reads the whole database and compares it with itself; takes seconds for a large one.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub async fn check(&self) -> Result<(), Error> {
        self.readers.check().await
    }

    /// Finishes the writes that wait, ends all watches and closes the database.
    pub async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.send(Message::Close(reply)).await.is_ok() {
            // An error means that it is closed already.
            let _ = answer.await;
        }
        self.readers.close();
    }

    async fn send(&self, message: Message) -> Result<(), Error> {
        let writer = self.writer.as_ref().ok_or(Error::Closed)?;
        writer.send(message).await.map_err(|_| Error::Closed)
    }

    async fn write(&self, key: &Key, verb: Verb, make: Make) -> Result<Entry, Error> {
        let (reply, answer) = oneshot::channel();
        let operation = Operation {
            key: key.clone(),
            verb,
            make,
            reply,
        };
        self.send(Message::Write(operation)).await?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn create(&self, key: &Key, make: Make) -> Result<Entry, Error> {
        self.write(key, Verb::Create, make).await
    }

    async fn update(&self, key: &Key, expected: u64, make: Make) -> Result<Entry, Error> {
        self.write(key, Verb::Update(expected), make).await
    }

    async fn delete(&self, key: &Key, expected: u64, make: Make) -> Result<Entry, Error> {
        self.write(key, Verb::Delete(expected), make).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>, Error> {
        match self.recent.get(key) {
            Some(entry) => Ok(entry),
            None => self.readers.get(key.clone()).await,
        }
    }

    async fn list(&self, query: ListQuery) -> Result<ListPage, Error> {
        match self.recent.list(&query) {
            Some(page) => page,
            None => self.readers.list(query, self.recent.clone()).await,
        }
    }

    fn watch(&self, resource: &str, after: u64) -> Result<Watch, Error> {
        let resource: Arc<str> = resource.into();
        let (wake, ephemeral) = self.recent.subscribe(&resource, after)?;
        let history = (!ephemeral).then(|| self.readers.clone());
        Ok(Watch::new(Box::new(Feed::new(
            resource,
            after,
            wake,
            self.recent.clone(),
            history,
        ))))
    }

    fn revision(&self) -> u64 {
        self.recent.revision()
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // The writer ends when it can receive no more; then the file is closed and may be opened again.
        self.writer = None;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the store's writer panicked");
        }
        self.readers.close();
        // Closing the file is not enough: a child process that is being started may have a copy of it.
        if let Some(Err(error)) = self.lock.take().map(|lock| lock.unlock()) {
            tracing::warn!(%error, "the store's lock was not given back");
        }
    }
}
