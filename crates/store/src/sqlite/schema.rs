//! The file, its tables and the settings of a connection.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags};

use super::{Faults, Options};
use crate::Error;

/// Marks the file as Selvedge's (`selv` in ASCII).
const APPLICATION_ID: i32 = 0x7365_6c76;
/// The version of the tables.
const VERSION: i32 = 1;

const TABLES: &str = "
    CREATE TABLE objects (
        id INTEGER PRIMARY KEY,
        resource TEXT NOT NULL,
        namespace TEXT NOT NULL,
        name TEXT NOT NULL,
        revision INTEGER NOT NULL,
        value BLOB NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX objects_key ON objects (resource, namespace, name);
    -- An undo log: what each write replaced. `last` is the final value of a deleted object.
    CREATE TABLE history (
        revision INTEGER PRIMARY KEY,
        resource TEXT NOT NULL,
        namespace TEXT NOT NULL,
        name TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        previous_revision INTEGER NOT NULL,
        previous BLOB,
        last BLOB
    ) STRICT;
    CREATE INDEX history_key ON history (resource, namespace, name, revision, bytes);
    -- reserved: no revision up to this one may be given out again after a restart.
    -- compacted: writes up to this revision are no longer in the history.
    CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO meta VALUES ('reserved', 0), ('compacted', 0);
";

/// What an opened database holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Opened {
    /// Revisions go on after this one.
    pub(super) revision: u64,
    pub(super) compacted: u64,
    pub(super) history_count: u64,
    pub(super) history_bytes: u64,
}

/// Makes sure that the file exists with the right permissions, and that no other process uses it.
pub(super) fn prepare_file(path: &Path) -> Result<File, Error> {
    let io = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::StorageFull => Error::NoSpace {
            path: path.display().to_string(),
        },
        _ => Error::Unusable {
            path: path.display().to_string(),
            why: error.to_string(),
        },
    };
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let mut options = OpenOptions::new();
    options
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600);
    let lock = options.open(PathBuf::from(lock_path)).map_err(io)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let why = "another process has it open; stop that first".to_owned();
            return Err(Error::Unusable {
                path: path.display().to_string(),
                why,
            });
        }
        Err(TryLockError::Error(error)) => return Err(io(error)),
    }
    let fresh = !path.exists();
    options.open(path).map_err(io)?;
    if fresh {
        // The name of a new file is durable only when its directory is.
        let directory = path
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(io)?;
    }
    Ok(lock)
}

/// Opens the connection that writes, with the tables made.
pub(super) fn open(
    path: Option<&Path>,
    options: &Options,
    faults: &Faults,
) -> Result<(Connection, Opened), Error> {
    let connection = match path {
        Some(path) => Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        ),
        None => Connection::open_in_memory(),
    }
    .map_err(|e| faults.of(e))?;
    let application: i32 = connection
        .query_row("PRAGMA application_id", [], |row| row.get(0))
        .map_err(|e| faults.of(e))?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(|e| faults.of(e))?;
    if tables > 0 && application != APPLICATION_ID {
        return Err(faults.unusable("it is a database of another program; name another file"));
    }
    let opened = set_up(&connection, options, tables == 0).map_err(|e| faults.of(e))?;
    let Some(opened) = opened else {
        return Err(
            faults.unusable("a newer version of Selvedge wrote it; install that version, or move it away")
        );
    };
    Ok((connection, opened))
}

fn set_up(
    connection: &Connection,
    options: &Options,
    fresh: bool,
) -> Result<Option<Opened>, rusqlite::Error> {
    if fresh {
        // Both only take effect before the first table is made.
        connection.execute_batch("PRAGMA page_size=4096; PRAGMA auto_vacuum=INCREMENTAL;")?;
    }
    connection.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=1000;
         PRAGMA journal_size_limit=8388608;",
    )?;
    common(connection, options)?;
    if fresh {
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {TABLES} PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={VERSION}; COMMIT;"
        ))?;
    }
    let version: i32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > VERSION {
        return Ok(None);
    }
    let meta = |name: &str| -> Result<u64, rusqlite::Error> {
        connection.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0))
    };
    // The index holds the sizes: the values themselves are not read.
    let (history_count, history_bytes) = connection.query_row(
        "SELECT count(*), coalesce(sum(bytes), 0) FROM history INDEXED BY history_key",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    Ok(Some(Opened {
        revision: meta("reserved")?,
        compacted: meta("compacted")?,
        history_count,
        history_bytes,
    }))
}

/// Settings of every connection.
fn common(connection: &Connection, options: &Options) -> Result<(), rusqlite::Error> {
    connection.execute_batch(&format!(
        "PRAGMA cache_size=-{}; PRAGMA busy_timeout=5000; PRAGMA temp_store=MEMORY; PRAGMA mmap_size=0;
         PRAGMA cell_size_check=ON; PRAGMA trusted_schema=OFF;",
        options.page_cache_kib
    ))?;
    connection.set_prepared_statement_cache_capacity(24);
    Ok(())
}

/// Opens a connection that only reads.
pub(super) fn open_reader(path: &Path, options: &Options) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    common(&connection, options)?;
    connection.execute_batch("PRAGMA query_only=ON;")?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answered_write_is_on_the_disk_and_pages_can_be_given_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("site.db");
        let _lock = prepare_file(&path).unwrap();
        let (connection, opened) = open(Some(&path), &Options::default(), &Faults::new(Some(&path))).unwrap();
        assert_eq!(opened.revision, 0);
        for (pragma, value) in [
            ("synchronous", "2"),
            ("journal_mode", "wal"),
            ("auto_vacuum", "2"),
        ] {
            let is: rusqlite::types::Value = connection
                .query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0))
                .unwrap();
            let is = match is {
                rusqlite::types::Value::Integer(number) => number.to_string(),
                rusqlite::types::Value::Text(text) => text,
                other => panic!("{other:?}"),
            };
            assert_eq!(is, value, "{pragma}");
        }
    }
}
