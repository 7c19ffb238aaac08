//! SQLite: one writer whose transactions share commits, and a pool of readers.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, SqliteConnection};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};

use super::value::{failed, from_sqlite};
use super::{Conn, Row, Sql, Tx};
use crate::Error;
use crate::model::Time;

/// At most so many transactions share a commit,
pub const BATCH: usize = 256;
/// or as many as come in this time.
const BATCH_TIME: Duration = Duration::from_millis(25);
/// Readers at a time.
const READERS: u32 = 4;
/// How long to wait for another process that writes (the command line, a backup).
const BUSY: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub(super) struct Sqlite {
    shared: Arc<Shared>,
    readers: SqlitePool,
}

#[derive(Debug)]
struct Shared {
    writer: Arc<Mutex<Writer>>,
    /// Transactions that wait for their turn.
    waiting: AtomicUsize,
}

#[derive(Debug)]
struct Writer {
    /// None when closed.
    conn: Option<SqliteConnection>,
    open: Option<Batch>,
}

/// Transactions that were answered "yes, when it is committed".
#[derive(Debug)]
struct Batch {
    count: usize,
    since: tokio::time::Instant,
    outcome: watch::Sender<Option<Outcome>>,
}

#[derive(Clone, Debug)]
enum Outcome {
    Committed,
    /// Why not.
    Lost {
        why: String,
    },
}

/// A transaction's hold of the writer. Dropped in the middle, it takes back what it did and settles the batch.
pub(super) struct Turn {
    shared: Arc<Shared>,
    writer: Option<OwnedMutexGuard<Writer>>,
}

impl Sqlite {
    pub(super) async fn open(path: &Path) -> Result<Self, Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // An answered write survives a power cut.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY)
            .foreign_keys(false)
            // The writer goes through the rows of a whole fleet when all of it reports.
            .pragma("cache_size", "-32768")
            // Pages that are written again and again go to the database's file once, not each few megabytes.
            .pragma("wal_autocheckpoint", "8192")
            .pragma("temp_store", "memory")
            .pragma("journal_size_limit", "67108864")
            .statement_cache_capacity(512)
            .disable_statement_logging();
        let conn = SqliteConnection::connect_with(&options).await.map_err(failed)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(Duration::from_secs(5))
            .connect_with(
                options
                    .create_if_missing(false)
                    // What readers share is the system's cache of the file.
                    .pragma("cache_size", "-4096")
                    .pragma("query_only", "on"),
            )
            .await
            .map_err(failed)?;
        Ok(Self {
            shared: Arc::new(Shared {
                writer: Arc::new(Mutex::new(Writer {
                    conn: Some(conn),
                    open: None,
                })),
                waiting: AtomicUsize::new(0),
            }),
            readers,
        })
    }

    pub(super) async fn query(&self, sql: Sql) -> Result<Vec<Row>, Error> {
        let (text, args) = sql.sqlite()?;
        let rows = sqlx::query_with(text, args)
            .fetch_all(&self.readers)
            .await
            .map_err(failed)?;
        rows.iter().map(from_sqlite).collect()
    }

    pub(super) async fn write<'env, T, F>(&self, now: Time, f: &F) -> Result<(T, bool), Error>
    where
        F: for<'t> Fn(&'t mut Tx<'env>) -> BoxFuture<'t, Result<T, Error>> + Send + Sync,
    {
        let mut turn = Turn::wait(&self.shared).await;
        turn.begin().await?;
        let mut tx = Tx::new(Conn::Sqlite(turn), now);
        let result = crate::log::logged(&mut tx, f).await;
        let Conn::Sqlite(mut turn) = tx.conn else {
            unreachable!("it was made four lines above")
        };
        match result {
            Ok(value) => {
                let outcome = turn.keep().await?;
                wait_for(outcome).await?;
                Ok(value)
            }
            Err(error) => {
                turn.undo().await;
                Err(error)
            }
        }
    }

    pub(super) fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        let mut writer = self.shared.writer.lock().await;
        if let Some(conn) = writer.conn.take() {
            let _ = conn.close().await;
        }
    }
}

async fn wait_for(mut outcome: watch::Receiver<Option<Outcome>>) -> Result<(), Error> {
    let known = outcome.wait_for(Option::is_some).await;
    match known.as_deref() {
        Ok(Some(Outcome::Committed)) => Ok(()),
        Ok(Some(Outcome::Lost { why })) => Err(Error::Unavailable(why.clone().into())),
        Ok(None) | Err(_) => Err(Error::Unavailable("the writer is gone".into())),
    }
}

/// Counts one that waits; if it goes away before its turn, an open batch may have waited for it.
struct Waiting {
    shared: Arc<Shared>,
    done: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let left = self.shared.waiting.fetch_sub(1, Ordering::SeqCst) - 1;
        if !self.done && left == 0 {
            let shared = self.shared.clone();
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move {
                    let mut writer = shared.writer.clone().lock_owned().await;
                    commit(&mut writer).await;
                });
            }
        }
    }
}

impl Turn {
    async fn wait(shared: &Arc<Shared>) -> Self {
        shared.waiting.fetch_add(1, Ordering::SeqCst);
        let mut waiting = Waiting {
            shared: shared.clone(),
            done: false,
        };
        let writer = shared.writer.clone().lock_owned().await;
        waiting.done = true;
        Self {
            shared: shared.clone(),
            writer: Some(writer),
        }
    }

    fn writer(&mut self) -> Result<&mut Writer, Error> {
        self.writer
            .as_deref_mut()
            .ok_or_else(|| Error::Unavailable("the transaction is over".into()))
    }

    async fn begin(&mut self) -> Result<(), Error> {
        let writer = self.writer()?;
        if writer.open.is_none() {
            // Said before it is so: who is dropped while SQLite begins leaves something to settle.
            writer.open = Some(Batch {
                count: 0,
                since: tokio::time::Instant::now(),
                outcome: watch::Sender::new(None),
            });
            if let Err(error) = statement(writer, "BEGIN IMMEDIATE").await {
                writer.open = None;
                self.writer = None;
                return Err(error);
            }
        }
        statement(writer, "SAVEPOINT turn").await
    }

    pub(super) async fn query(&mut self, sql: Sql) -> Result<Vec<Row>, Error> {
        let (text, args) = sql.sqlite()?;
        let rows = conn(self.writer()?)?
            .fetch_all(sqlx::query_with(text, args))
            .await
            .map_err(failed)?;
        rows.iter().map(from_sqlite).collect()
    }

    pub(super) async fn execute(&mut self, sql: Sql) -> Result<u64, Error> {
        let (text, args) = sql.sqlite()?;
        let done = conn(self.writer()?)?
            .execute(sqlx::query_with(text, args))
            .await
            .map_err(failed)?;
        Ok(done.rows_affected())
    }

    /// Leaves what it did in the batch; commits if nobody waits.
    async fn keep(&mut self) -> Result<watch::Receiver<Option<Outcome>>, Error> {
        let waiting = self.shared.waiting.load(Ordering::SeqCst);
        let writer = self.writer()?;
        statement(writer, "RELEASE turn").await?;
        let Some(batch) = &mut writer.open else {
            return Err(Error::Unavailable("the transaction is over".into()));
        };
        batch.count += 1;
        let outcome = batch.outcome.subscribe();
        let full = batch.count >= BATCH || batch.since.elapsed() >= BATCH_TIME;
        let guard = self.writer.take();
        if waiting == 0 || full {
            // In a task of its own: a caller that goes away now must not leave a commit half asked for.
            if let Some(mut writer) = guard {
                tokio::spawn(async move { commit(&mut writer).await });
            }
        }
        Ok(outcome)
    }

    /// Takes back what it did; commits the others' if nobody waits.
    async fn undo(mut self) {
        if let Some(writer) = self.writer.take() {
            let _ = tokio::spawn(settle(self.shared.clone(), writer)).await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let (Some(writer), Ok(runtime)) = (self.writer.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(settle(self.shared.clone(), writer));
        }
    }
}

/// Takes back one turn.
async fn settle(shared: Arc<Shared>, mut writer: OwnedMutexGuard<Writer>) {
    if writer.open.is_none() {
        return;
    }
    let undone = match statement(&mut writer, "ROLLBACK TO turn").await {
        Ok(()) => statement(&mut writer, "RELEASE turn").await,
        Err(error) => Err(error),
    };
    // There is nothing to take back to if the turn was dropped while it began or was being kept; or SQLite gave the
    // whole transaction up by itself, as it does when the disk is full. Then the commit fails and says so to all.
    if undone.is_err() || shared.waiting.load(Ordering::SeqCst) == 0 {
        commit(&mut writer).await;
    }
}

/// Commits what is open and tells all who wait for it.
async fn commit(writer: &mut Writer) {
    let Some(batch) = writer.open.take() else {
        return;
    };
    let end = if batch.count == 0 { "ROLLBACK" } else { "COMMIT" };
    let outcome = match statement(writer, end).await {
        Ok(()) => Outcome::Committed,
        Err(error) => {
            let _ = statement(writer, "ROLLBACK").await;
            Outcome::Lost { why: why(&error) }
        }
    };
    batch.outcome.send_replace(Some(outcome));
}

fn why(error: &Error) -> String {
    telemetry::chain(error).to_string()
}

fn conn(writer: &mut Writer) -> Result<&mut SqliteConnection, Error> {
    writer
        .conn
        .as_mut()
        .ok_or_else(|| Error::Unavailable("the database is closed".into()))
}

async fn statement(writer: &mut Writer, sql: &'static str) -> Result<(), Error> {
    conn(writer)?.execute(sql).await.map_err(failed).map(drop)
}
