//! Get, list at a revision and replay of history.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, named_params, params};
use tokio::sync::Semaphore;

use super::{Faults, Options, schema};
use crate::{Change, Entry, Error, Key, ListPage, ListQuery, recent::Recent};

/// Changes that a watcher takes from the history at a time.
const REPLAY_COUNT: usize = 64;
/// And their bytes, about.
const REPLAY_BYTES: usize = 1 << 20;

/// A small pool of connections. Cheap to clone.
#[derive(Clone)]
pub(super) struct Readers(Arc<Pool>);

struct Pool {
    source: Source,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
    faults: Faults,
}

enum Source {
    File(PathBuf, Options),
    /// A database in memory has only the writer's connection.
    Memory(Arc<Mutex<Connection>>),
}

impl Readers {
    pub(super) fn of_file(path: PathBuf, options: &Options, faults: Faults) -> Self {
        Self::new(
            Source::File(path, options.clone()),
            options.readers.max(1),
            faults,
        )
    }

    pub(super) fn of_memory(connection: Arc<Mutex<Connection>>, faults: Faults) -> Self {
        Self::new(Source::Memory(connection), 1, faults)
    }

    fn new(source: Source, permits: usize, faults: Faults) -> Self {
        let (idle, permits) = (Mutex::default(), Arc::new(Semaphore::new(permits)));
        Self(Arc::new(Pool {
            source,
            idle,
            permits,
            faults,
        }))
    }

    pub(super) fn close(&self) {
        self.0.permits.close();
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Runs a read on a thread that may block.
    async fn read<T, F>(&self, read: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &Faults) -> Result<T, Error> + Send + 'static,
    {
        let permit = self
            .0
            .permits
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| Error::Closed)?;
        let pool = self.0.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            pool.with(read)
        });
        task.await.map_err(|error| Error::Database(error.into()))?
    }

    pub(super) async fn get(&self, key: Key) -> Result<Option<Entry>, Error> {
        self.read(move |connection, faults| get(connection, &key).map_err(|e| faults.of(e)))
            .await
    }

    pub(super) async fn list(&self, query: ListQuery, recent: Arc<Recent>) -> Result<ListPage, Error> {
        self.read(move |connection, faults| list(connection, &query, &recent, faults))
            .await
    }

    /// Changes of a resource after a revision; `None` if the history no longer reaches back so far.
    pub(super) async fn replay(&self, resource: Arc<str>, after: u64) -> Result<Option<Vec<Change>>, Error> {
        self.read(move |connection, faults| replay(connection, &resource, after).map_err(|e| faults.of(e)))
            .await
    }

    pub(super) async fn check(&self) -> Result<(), Error> {
        self.read(|connection, faults| {
            let found: String = connection
                .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
                .map_err(|e| faults.of(e))?;
            if found == "ok" {
                Ok(())
            } else {
                Err(faults.damaged(found))
            }
        })
        .await
    }
}

impl Pool {
    fn with<T>(&self, read: impl FnOnce(&Connection, &Faults) -> Result<T, Error>) -> Result<T, Error> {
        let (path, options) = match &self.source {
            Source::File(path, options) => (path, options),
            Source::Memory(connection) => {
                return read(
                    &connection.lock().unwrap_or_else(PoisonError::into_inner),
                    &self.faults,
                );
            }
        };
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => schema::open_reader(path, options).map_err(|e| self.faults.of(e))?,
        };
        let result = read(&connection, &self.faults);
        if !self.permits.is_closed() {
            self.idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(connection);
        }
        result
    }
}

pub(super) fn get(connection: &Connection, key: &Key) -> Result<Option<Entry>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT revision, value FROM objects WHERE resource = ?1 AND namespace = ?2 AND name = ?3",
    )?;
    statement
        .query_row(params![&*key.resource, key.namespace, key.name], |row| {
            Ok(Entry {
                key: key.clone(),
                revision: row.get(0)?,
                value: bytes(row, 1)?,
            })
        })
        .optional()
}

fn bytes(row: &Row<'_>, column: usize) -> Result<Bytes, rusqlite::Error> {
    Ok(Bytes::copy_from_slice(row.get_ref(column)?.as_blob()?))
}

fn optional_bytes(row: &Row<'_>, column: usize) -> Result<Option<Bytes>, rusqlite::Error> {
    Ok(row
        .get_ref(column)?
        .as_blob_or_null()?
        .map(Bytes::copy_from_slice))
}

fn list(
    connection: &Connection,
    query: &ListQuery,
    recent: &Recent,
    faults: &Faults,
) -> Result<ListPage, Error> {
    // Everything up to here is committed, so the snapshot below has it.
    let published = recent.revision();
    let db = |e: rusqlite::Error| faults.of(e);
    let snapshot = connection.unchecked_transaction().map_err(db)?;
    let durable: u64 = snapshot
        .query_row("SELECT coalesce(max(revision), 0) FROM history", [], |row| {
            row.get(0)
        })
        .map_err(db)?;
    // The snapshot may have durable writes that are not published yet, and nothing after those.
    let newest = published.max(durable);
    let page = match query.at {
        Some(asked) if asked > newest => return Err(Error::Future { asked, newest }),
        Some(asked) if asked < durable => {
            let oldest: u64 = snapshot
                .query_row("SELECT value FROM meta WHERE name = 'compacted'", [], |row| {
                    row.get(0)
                })
                .map_err(db)?;
            if asked < oldest {
                return Err(Error::TooOld { asked, oldest });
            }
            page_then(&snapshot, query, asked)
        }
        Some(asked) => page_now(&snapshot, query, asked),
        None => page_now(&snapshot, query, newest),
    };
    page.map_err(db)
}

/// A page of the newest state.
fn page_now(connection: &Connection, query: &ListQuery, revision: u64) -> Result<ListPage, rusqlite::Error> {
    let mut page = page_of(
        current(connection, query, revision, limit(query))?,
        Vec::new(),
        query,
        revision,
    );
    if page.more
        && let Some(last) = page.entries.last()
    {
        let (in_one, namespace) = one_namespace(query);
        let mut count = connection.prepare_cached(
            "SELECT count(*) FROM objects WHERE resource = ?1 AND (namespace, name) > (?2, ?3)
             AND (?4 = 0 OR namespace = ?5)",
        )?;
        let left = count.query_row(
            params![
                &*query.resource,
                last.key.namespace,
                last.key.name,
                in_one,
                namespace
            ],
            |row| row.get(0),
        )?;
        page.remaining = Some(left);
    }
    Ok(page)
}

/// A page of an older state: what was not written since, and what the later writes replaced.
fn page_then(connection: &Connection, query: &ListQuery, revision: u64) -> Result<ListPage, rusqlite::Error> {
    let limit = limit(query);
    let kept = current(connection, query, revision, limit)?;
    let (in_one, namespace) = one_namespace(query);
    let (after_namespace, after_name) = start(query);
    let mut statement = connection.prepare_cached(
        "SELECT h.namespace, h.name, h.previous_revision, h.previous FROM (
             SELECT min(revision) AS first FROM history
             WHERE resource = :resource AND (namespace, name) > (:after_namespace, :after_name)
                 AND (:in_one = 0 OR namespace = :namespace) AND revision > :revision
             GROUP BY namespace, name
         ) later JOIN history h ON h.revision = later.first
         WHERE h.previous IS NOT NULL ORDER BY h.namespace, h.name LIMIT :limit",
    )?;
    let replaced = statement.query_map(
        named_params! {
            ":resource": &*query.resource, ":after_namespace": after_namespace, ":after_name": after_name,
            ":in_one": in_one, ":namespace": namespace, ":revision": revision, ":limit": limit,
        },
        |row| entry(query, row),
    )?;
    let replaced = replaced.collect::<Result<Vec<_>, _>>()?;
    Ok(page_of(kept, replaced, query, revision))
}

/// Objects whose last write is not after a revision.
fn current(
    connection: &Connection,
    query: &ListQuery,
    revision: u64,
    limit: i64,
) -> Result<Vec<Entry>, rusqlite::Error> {
    let (after_namespace, after_name) = start(query);
    let mut statement = match &query.namespace {
        Some(_) => connection.prepare_cached(
            "SELECT namespace, name, revision, value FROM objects
             WHERE resource = ?1 AND namespace = ?6 AND (namespace, name) > (?2, ?3) AND revision <= ?4
             ORDER BY namespace, name LIMIT ?5",
        )?,
        None => connection.prepare_cached(
            "SELECT namespace, name, revision, value FROM objects
             WHERE resource = ?1 AND (namespace, name) > (?2, ?3) AND revision <= ?4 AND ?6 IS NULL
             ORDER BY namespace, name LIMIT ?5",
        )?,
    };
    let rows = statement.query_map(
        params![
            &*query.resource,
            after_namespace,
            after_name,
            revision,
            limit,
            query.namespace
        ],
        |row| entry(query, row),
    )?;
    rows.collect()
}

fn entry(query: &ListQuery, row: &Row<'_>) -> Result<Entry, rusqlite::Error> {
    let key = Key {
        resource: query.resource.clone(),
        namespace: row.get(0)?,
        name: row.get(1)?,
    };
    Ok(Entry {
        key,
        revision: row.get(2)?,
        value: bytes(row, 3)?,
    })
}

fn page_of(kept: Vec<Entry>, replaced: Vec<Entry>, query: &ListQuery, revision: u64) -> ListPage {
    let mut entries = kept;
    if !replaced.is_empty() {
        entries.extend(replaced);
        entries.sort_by(|a, b| (&a.key.namespace, &a.key.name).cmp(&(&b.key.namespace, &b.key.name)));
    }
    let more = query.limit > 0 && entries.len() > query.limit;
    if more {
        entries.truncate(query.limit);
    }
    ListPage {
        entries,
        revision,
        more,
        remaining: (!more).then_some(0),
    }
}

/// One more than asked for, to know whether there is more; -1 is no limit.
fn limit(query: &ListQuery) -> i64 {
    if query.limit == 0 {
        -1
    } else {
        i64::try_from(query.limit).map_or(-1, |limit| limit.saturating_add(1))
    }
}

fn start(query: &ListQuery) -> (&str, &str) {
    query
        .after
        .as_ref()
        .map_or(("", ""), |(namespace, name)| (namespace, name))
}

fn one_namespace(query: &ListQuery) -> (bool, &str) {
    query
        .namespace
        .as_deref()
        .map_or((false, ""), |namespace| (true, namespace))
}

/// Changes of a resource after a revision, from the history; `None` if that no longer reaches back so far.
fn replay(
    connection: &Connection,
    resource: &Arc<str>,
    after: u64,
) -> Result<Option<Vec<Change>>, rusqlite::Error> {
    let snapshot = connection.unchecked_transaction()?;
    let compacted: u64 =
        snapshot.query_row("SELECT value FROM meta WHERE name = 'compacted'", [], |row| {
            row.get(0)
        })?;
    if after < compacted {
        return Ok(None);
    }
    // A change's value is what the next change of the same object replaced, or what is stored now.
    let mut statement = snapshot.prepare_cached(
        "SELECT h.revision, h.namespace, h.name, h.previous, h.last, coalesce(
             h.last,
             (SELECT n.previous FROM history n WHERE n.resource = h.resource AND n.namespace = h.namespace
                 AND n.name = h.name AND n.revision > h.revision ORDER BY n.revision LIMIT 1),
             (SELECT o.value FROM objects o WHERE o.resource = h.resource AND o.namespace = h.namespace
                 AND o.name = h.name))
         FROM history h WHERE h.resource = ?1 AND h.revision > ?2 ORDER BY h.revision",
    )?;
    let mut rows = statement.query(params![&**resource, after])?;
    let (mut changes, mut size) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let change = Change {
            key: Key {
                resource: resource.clone(),
                namespace: row.get(1)?,
                name: row.get(2)?,
            },
            revision: row.get(0)?,
            previous: optional_bytes(row, 3)?,
            deleted: optional_bytes(row, 4)?.is_some(),
            value: bytes(row, 5)?,
        };
        size += change.value.len() + change.previous.as_ref().map_or(0, Bytes::len);
        changes.push(change);
        if changes.len() >= REPLAY_COUNT || size >= REPLAY_BYTES {
            break;
        }
    }
    Ok(Some(changes))
}
