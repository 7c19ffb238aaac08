//! The one thread that writes.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use rusqlite::{Connection, params};
use tokio::sync::{mpsc, oneshot};

use super::{Faults, Options, Usage, fault::Fault, reader, schema::Opened};
use crate::{
    Change, Entry, Error, Key, Make,
    recent::{Recent, Write},
};

/// Writes in one transaction.
const BATCH: usize = 256;
/// Revisions reserved at a time.
const RESERVE: u64 = 10_000;
/// Free pages that are worth giving back: fewer are soon used again.
const FREE_PAGES: u64 = 256;

pub(super) enum Verb {
    Create,
    Update(u64),
    Delete(u64),
}

type Reply = oneshot::Sender<Result<Entry, Error>>;

pub(super) struct Operation {
    pub(super) key: Key,
    pub(super) verb: Verb,
    pub(super) make: Make,
    pub(super) reply: Reply,
}

pub(super) enum Message {
    Write(Operation),
    Maintain(oneshot::Sender<Result<Usage, Error>>),
    Close(oneshot::Sender<()>),
}

pub(super) struct Writer {
    connection: Arc<Mutex<Connection>>,
    recent: Arc<Recent>,
    options: Options,
    faults: Faults,
    /// The newest revision given out.
    issued: u64,
    /// Revisions up to this one are reserved durably.
    reserved: u64,
    history_count: u64,
    history_bytes: u64,
    compacted: u64,
}

/// What a transaction did.
#[derive(Default)]
struct Done {
    changes: Vec<(Change, u64)>,
    replies: Vec<(Reply, Result<Entry, Error>)>,
    history_count: u64,
    history_bytes: u64,
    reserved: Option<u64>,
    compacted: Option<u64>,
}

impl Writer {
    pub(super) fn new(
        connection: Arc<Mutex<Connection>>,
        recent: Arc<Recent>,
        options: Options,
        faults: Faults,
        opened: &Opened,
    ) -> Self {
        Self {
            connection,
            recent,
            options,
            faults,
            issued: opened.revision,
            reserved: opened.revision,
            history_count: opened.history_count,
            history_bytes: opened.history_bytes,
            compacted: opened.compacted,
        }
    }

    /// Serves messages until no one can send any more, or until told to close.
    pub(super) fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut closing = None;
        while messages.blocking_recv_many(&mut batch, BATCH) > 0 {
            let (mut durable, mut ephemeral, mut maintain) = (Vec::new(), Vec::new(), Vec::new());
            for message in batch.drain(..) {
                match message {
                    Message::Write(operation) if self.recent.is_ephemeral(&operation.key.resource) => {
                        ephemeral.push(operation);
                    }
                    Message::Write(operation) => durable.push(operation),
                    Message::Maintain(reply) => maintain.push(reply),
                    Message::Close(reply) => closing = Some(reply),
                }
            }
            if !durable.is_empty() {
                self.write_durable(durable);
            }
            for operation in ephemeral {
                self.write_ephemeral(operation);
            }
            for reply in maintain {
                // A caller that went away needs no answer.
                let _ = reply.send(self.maintain());
            }
            if closing.is_some() {
                break;
            }
        }
        messages.close();
        self.recent.close();
        self.finish();
        drop(messages);
        if let Some(reply) = closing {
            let _ = reply.send(());
        }
    }

    /// One transaction for all; each is answered when it is durable.
    fn write_durable(&mut self, operations: Vec<Operation>) {
        let connection = self.connection.clone();
        let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = Done::default();
        let result = self.transaction(&connection, operations, &mut done);
        match result {
            Ok(()) => {
                self.history_count = done.history_count;
                self.history_bytes = done.history_bytes;
                self.reserved = done.reserved.unwrap_or(self.reserved);
                if let Some(compacted) = done.compacted {
                    self.compacted = compacted;
                    self.recent.set_compacted(compacted);
                }
                drop(connection);
                self.recent.publish(done.changes);
                for (reply, result) in done.replies {
                    let _ = reply.send(result);
                }
            }
            Err(fault) => {
                drop(connection);
                tracing::error!(error = %fault, writes = done.replies.len(), "writes failed");
                for (reply, result) in done.replies {
                    // Refusals stand; what would have been written was not.
                    let _ = reply.send(result.and_then(|_| Err(self.faults.of(fault.clone()))));
                }
            }
        }
    }

    fn transaction(
        &mut self,
        connection: &Connection,
        operations: Vec<Operation>,
        done: &mut Done,
    ) -> Result<(), Fault> {
        done.history_count = self.history_count;
        done.history_bytes = self.history_bytes;
        let transaction = match connection.unchecked_transaction() {
            Ok(transaction) => transaction,
            Err(error) => return Err(refuse(operations, error, done)),
        };
        let mut operations = operations.into_iter();
        while let Some(Operation {
            key,
            verb,
            make,
            reply,
        }) = operations.next()
        {
            match self.write_one(connection, &key, &verb, make, done) {
                Ok(result) => done.replies.push((reply, result)),
                Err(error) => {
                    // The transaction is lost, with all that was in it.
                    let fault = Fault::from(error);
                    done.replies.push((reply, Err(self.faults.of(fault.clone()))));
                    done.replies
                        .extend(operations.map(|left| (left.reply, Err(self.faults.of(fault.clone())))));
                    return Err(fault);
                }
            }
        }
        if done.changes.is_empty() {
            return Ok(());
        }
        if self.issued > self.reserved {
            done.reserved = Some(reserve(connection, self.issued)?);
        }
        self.compact(connection, done)?;
        transaction.commit()?;
        Ok(())
    }

    /// One write in the transaction. The outer error is the database's and ends the transaction.
    fn write_one(
        &mut self,
        connection: &Connection,
        key: &Key,
        verb: &Verb,
        make: Make,
        done: &mut Done,
    ) -> Result<Result<Entry, Error>, rusqlite::Error> {
        let stored = reader::get(connection, key)?;
        let stored = match (verb, stored) {
            (Verb::Create, None) => None,
            (Verb::Create, Some(_)) => return Ok(Err(Error::Exists(key.clone()))),
            (Verb::Update(_) | Verb::Delete(_), None) => return Ok(Err(Error::NotFound(key.clone()))),
            (Verb::Update(expected) | Verb::Delete(expected), Some(stored)) => {
                if stored.revision != *expected {
                    let (expected, actual) = (*expected, stored.revision);
                    return Ok(Err(Error::Conflict {
                        key: key.clone(),
                        expected,
                        actual,
                    }));
                }
                Some(stored)
            }
        };
        let revision = self.next();
        let Ok(value) = catch_unwind(AssertUnwindSafe(|| make(revision))) else {
            return Ok(Err(Error::Database(
                "the bytes of an object could not be made".into(),
            )));
        };
        let (resource, namespace, name) = (&*key.resource, &key.namespace, &key.name);
        match verb {
            Verb::Create => connection
                .prepare_cached(
                    "INSERT INTO objects (resource, namespace, name, revision, value) VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![resource, namespace, name, revision, &value[..]])?,
            Verb::Update(_) => connection
                .prepare_cached(
                    "UPDATE objects SET revision = ?4, value = ?5 WHERE resource = ?1 AND namespace = ?2 AND name = ?3",
                )?
                .execute(params![resource, namespace, name, revision, &value[..]])?,
            Verb::Delete(_) => connection
                .prepare_cached(
                    "DELETE FROM objects WHERE resource = ?1 AND namespace = ?2 AND name = ?3",
                )?
                .execute(params![resource, namespace, name])?,
        };
        let deleted = matches!(verb, Verb::Delete(_));
        let (previous, before) = stored.map_or((None, 0), |stored| (Some(stored.value), stored.revision));
        let last = deleted.then_some(&value[..]);
        // Each row has a cost beside its values.
        let size = (previous.as_ref().map_or(0, Bytes::len) + last.map_or(0, <[u8]>::len) + 64) as u64;
        connection
            .prepare_cached(
                "INSERT INTO history (revision, resource, namespace, name, bytes, previous_revision, previous, last)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![revision, resource, namespace, name, size, before, previous.as_deref(), last])?;
        done.history_count += 1;
        done.history_bytes += size;
        let change = Change {
            key: key.clone(),
            revision,
            value: value.clone(),
            previous,
            deleted,
        };
        done.changes.push((change, before));
        Ok(Ok(Entry {
            key: key.clone(),
            revision,
            value,
        }))
    }

    fn next(&mut self) -> u64 {
        self.issued += 1;
        self.recent.issue(self.issued);
        self.issued
    }

    /// Lets the oldest of the history go when there is too much, a good piece at a time. Never what this
    /// transaction wrote: the newest row tells readers their revision.
    fn compact(&self, connection: &Connection, done: &mut Done) -> Result<(), Fault> {
        let (count, bytes) = (self.options.history_count, self.options.history_bytes);
        if done.history_count <= count + count / 8 && done.history_bytes <= bytes + bytes / 8 {
            return Ok(());
        }
        let first_new = done.changes.first().map_or(0, |(change, _)| change.revision);
        let mut oldest =
            connection.prepare_cached("SELECT revision, bytes FROM history ORDER BY revision")?;
        let mut rows = oldest.query([])?;
        let mut up_to = None;
        while done.history_count > count || done.history_bytes > bytes {
            let Some(row) = rows.next()? else { break };
            let (revision, size): (u64, u64) = (row.get(0)?, row.get(1)?);
            if revision >= first_new {
                break;
            }
            up_to = Some(revision);
            done.history_count = done.history_count.saturating_sub(1);
            done.history_bytes = done.history_bytes.saturating_sub(size);
        }
        drop(rows);
        if let Some(up_to) = up_to {
            connection
                .prepare_cached("DELETE FROM history WHERE revision <= ?1")?
                .execute([up_to])?;
            connection
                .prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'compacted'")?
                .execute([up_to])?;
            done.compacted = Some(up_to);
        }
        Ok(())
    }

    fn write_ephemeral(&mut self, operation: Operation) {
        let Operation {
            key,
            verb,
            make,
            reply,
        } = operation;
        let write = match verb {
            Verb::Create => Write::Create,
            Verb::Update(expected) => Write::Update(expected),
            Verb::Delete(expected) => Write::Delete(expected),
        };
        let result = self.ephemeral(&key, &write, make);
        if matches!(write, Write::Create)
            && let Err(error) = self.expire()
        {
            tracing::warn!(error = %telemetry::chain(&error), "expired objects could not be removed");
        }
        let _ = reply.send(result);
    }

    fn ephemeral(&mut self, key: &Key, write: &Write, make: Make) -> Result<Entry, Error> {
        let revision = self.next();
        if revision > self.reserved {
            let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
            self.reserved = reserve(&connection, revision).map_err(|fault| self.faults.of(fault))?;
        }
        let now = self.options.clock.now().as_second();
        let recent = &self.recent;
        let written = catch_unwind(AssertUnwindSafe(|| recent.write(key, write, make, revision, now)));
        written.unwrap_or_else(|_| Err(Error::Database("the bytes of an object could not be made".into())))
    }

    fn expire(&mut self) -> Result<(), Error> {
        let now = self.options.clock.now().as_second();
        while let Some((key, revision, value)) = self.recent.expired(now) {
            let make: Make = Box::new(move |revision| stamp(&value, revision));
            self.ephemeral(&key, &Write::Delete(revision), make)?;
        }
        Ok(())
    }

    fn maintain(&mut self) -> Result<Usage, Error> {
        self.expire()?;
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let pragma = |name: &str| -> Result<u64, Error> {
            connection
                .query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
                .map_err(|e| self.faults.of(e))
        };
        if pragma("freelist_count")? > FREE_PAGES {
            give_back(&connection, FREE_PAGES * 16).map_err(|e| self.faults.of(e))?;
        }
        let page = pragma("page_size")?;
        Ok(Usage {
            history_count: self.history_count,
            history_bytes: self.history_bytes,
            file_bytes: pragma("page_count")? * page,
            free_bytes: pragma("freelist_count")? * page,
            oldest: self.compacted,
        })
    }

    /// On a clean end the reserved revisions that were not used are given back.
    fn finish(&mut self) {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if self.issued < self.reserved {
            let write = connection
                .execute(
                    "UPDATE meta SET value = ?1 WHERE name = 'reserved'",
                    [self.issued],
                )
                .map_err(|error| self.faults.of(error));
            if let Err(error) = write {
                tracing::warn!(error = %telemetry::chain(&error), "the store's last revision was not written");
            }
        }
        // Closing the last connection folds the WAL into the database.
    }
}

/// All of a batch gets the error that its transaction could not begin with.
fn refuse(operations: Vec<Operation>, error: rusqlite::Error, done: &mut Done) -> Fault {
    let refused = operations.into_iter().map(|operation| {
        // Any success stands for "would have been written": the caller puts the fault in its place.
        let entry = Entry {
            key: operation.key,
            revision: 0,
            value: Bytes::new(),
        };
        (operation.reply, Ok(entry))
    });
    done.replies.extend(refused);
    error.into()
}

/// Gives unused pages back to the file system.
fn give_back(connection: &Connection, pages: u64) -> Result<(), rusqlite::Error> {
    let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut rows = vacuum.query([])?;
    // One page a step.
    while rows.next()?.is_some() {}
    Ok(())
}

/// Reserves revisions after `issued`.
fn reserve(connection: &Connection, issued: u64) -> Result<u64, Fault> {
    let reserved = issued.saturating_add(RESERVE);
    connection
        .prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'reserved'")?
        .execute([reserved])?;
    Ok(reserved)
}

/// The value with another `metadata.resourceVersion`; as it is if it is no object.
fn stamp(value: &Bytes, revision: u64) -> Bytes {
    let Ok(mut object) = serde_json::from_slice::<serde_json::Value>(value) else {
        return value.clone();
    };
    if let Some(metadata) = object
        .get_mut("metadata")
        .and_then(serde_json::Value::as_object_mut)
    {
        metadata.insert("resourceVersion".into(), revision.to_string().into());
    }
    serde_json::to_vec(&object).map_or_else(|_| value.clone(), Bytes::from)
}
