//! A portable copy of the database, made while it is in use: a dump that SQLite and PostgreSQL both write and read.
//!
//! One JSON value a line: a header; then for each table its name and columns, and its rows; at the end the count of rows,
//! without which the file was cut short. The dump is one snapshot. It has no master key: without that its secrets stay
//! sealed, so keep a copy of the key elsewhere.
//!
//! Not in it: sessions, tries to sign in, processes, leases, the change log.
//!
//! A restore needs an empty database. It starts a new epoch of assignments (see [`crate::assignments`]): a host that was
//! told more since the backup was made is not taken back to what the backup says.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use telemetry::Clock;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::value::{failed, from_postgres, from_sqlite};
use super::{Backend, Db, Row, Sql, Value};
use crate::model::Time;
use crate::{Error, args};

const FORMAT: &str = "selvedge-orchestrator-backup";
/// Tables whose rows mean nothing later or elsewhere.
const LEFT_OUT: &[&str] = &[
    "schema_version",
    "session",
    "throttle",
    "idempotency",
    "node",
    "lease",
    "change",
];
/// Rows a transaction of a restore.
const CHUNK: usize = 500;
const LONGEST_LINE: usize = 64 * 1024 * 1024;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    format: String,
    schema: i64,
    created_at: Time,
}

#[derive(Debug, Serialize, Deserialize)]
struct Table {
    table: String,
    columns: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct End {
    rows: u64,
    /// SHA-256 over all lines before, hexadecimal.
    sha256: String,
}

/// Where a backup goes, with what was written so far counted into a hash.
struct Out<'a, W> {
    to: &'a mut W,
    hash: Context,
}

impl<W: AsyncWrite + Unpin> Out<'_, W> {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.hash.update(bytes);
        self.to.write_all(bytes).await.map_err(file)
    }

    async fn line<T: Serialize>(&mut self, value: &T) -> Result<(), Error> {
        let mut line = serde_json::to_vec(value).map_err(|e| file(e.into()))?;
        line.push(b'\n');
        self.write(&line).await
    }
}

fn sum(hash: &Context) -> String {
    crate::log::hex(hash.clone().finish().as_ref())
}

/// A snapshot that rows are streamed from.
enum Snapshot {
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>),
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
}

impl Snapshot {
    async fn of(db: &Db) -> Result<Self, Error> {
        Ok(match &db.backend {
            Backend::Sqlite(sqlite) => Self::Sqlite(sqlite.readers().begin().await.map_err(failed)?),
            Backend::Postgres(postgres) => Self::Postgres(
                postgres
                    .pool()
                    .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    .await
                    .map_err(failed)?,
            ),
        })
    }

    async fn rows(&mut self, sql: Sql) -> Result<Vec<Row>, Error> {
        match self {
            Self::Sqlite(tx) => {
                let (text, args) = sql.sqlite()?;
                let rows = sqlx::query_with(text, args)
                    .fetch_all(&mut **tx)
                    .await
                    .map_err(failed)?;
                rows.iter().map(from_sqlite).collect()
            }
            Self::Postgres(tx) => {
                let (text, args) = sql.postgres()?;
                let rows = sqlx::query_with(text, args)
                    .fetch_all(&mut **tx)
                    .await
                    .map_err(failed)?;
                rows.iter().map(from_postgres).collect()
            }
        }
    }

    /// Writes each row as a line; how many there were.
    async fn dump<W: AsyncWrite + Unpin>(&mut self, sql: Sql, out: &mut Out<'_, W>) -> Result<u64, Error> {
        let mut lines = Lines::default();
        match self {
            Self::Sqlite(tx) => {
                let (text, args) = sql.sqlite()?;
                let mut rows = sqlx::query_with(text, args).fetch(&mut **tx);
                while let Some(row) = rows.try_next().await.map_err(failed)? {
                    lines.add(from_sqlite(&row)?, out).await?;
                }
            }
            Self::Postgres(tx) => {
                let (text, args) = sql.postgres()?;
                let mut rows = sqlx::query_with(text, args).fetch(&mut **tx);
                while let Some(row) = rows.try_next().await.map_err(failed)? {
                    lines.add(from_postgres(&row)?, out).await?;
                }
            }
        }
        out.write(&lines.buffer).await?;
        Ok(lines.count)
    }
}

#[derive(Default)]
struct Lines {
    buffer: Vec<u8>,
    count: u64,
}

impl Lines {
    async fn add<W: AsyncWrite + Unpin>(&mut self, row: Row, out: &mut Out<'_, W>) -> Result<(), Error> {
        let values: Vec<Json> = row.0.into_iter().map(to_json).collect();
        serde_json::to_writer(&mut self.buffer, &values).map_err(|e| file(e.into()))?;
        self.buffer.push(b'\n');
        self.count += 1;
        if self.buffer.len() > 256 * 1024 {
            out.write(&self.buffer).await?;
            self.buffer.clear();
        }
        Ok(())
    }
}

fn to_json(value: Value) -> Json {
    match value {
        Value::Int(v) => v.into(),
        Value::Float(v) => v.map_or(Json::Null, |v| serde_json::json!({"f": v})),
        Value::Text(v) => v.into(),
        Value::Bytes(v) => v.map_or(Json::Null, |v| serde_json::json!({"b": STANDARD.encode(v)})),
    }
}

/// A value for a column of this type.
fn from_json(value: &Json, of: Type) -> Option<Value> {
    Some(match (of, value) {
        (Type::Int, Json::Null) => Value::Int(None),
        (Type::Float, Json::Null) => Value::Float(None),
        (Type::Text, Json::Null) => Value::Text(None),
        (Type::Bytes, Json::Null) => Value::Bytes(None),
        (Type::Int, value) => Value::Int(Some(value.as_i64()?)),
        (Type::Float, value) => Value::Float(Some(value.get("f")?.as_f64()?)),
        (Type::Text, value) => Value::Text(Some(value.as_str()?.to_owned())),
        (Type::Bytes, value) => Value::Bytes(Some(STANDARD.decode(value.get("b")?.as_str()?).ok()?)),
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Int,
    Float,
    Text,
    Bytes,
}

/// All tables with their columns.
async fn tables(snapshot: &mut Snapshot) -> Result<BTreeMap<String, Vec<(String, Type)>>, Error> {
    let sql = match snapshot {
        Snapshot::Sqlite(_) => {
            "SELECT m.name,c.name,c.type FROM sqlite_master m JOIN pragma_table_info(m.name) c \
             WHERE m.type='table' AND m.name NOT LIKE 'sqlite_%' ORDER BY m.name,c.cid"
        }
        Snapshot::Postgres(_) => {
            "SELECT c.table_name::text,c.column_name::text,c.data_type::text FROM information_schema.columns c \
             JOIN information_schema.tables t ON t.table_schema=c.table_schema AND t.table_name=c.table_name \
             WHERE c.table_schema=current_schema() AND t.table_type='BASE TABLE' \
             ORDER BY c.table_name,c.ordinal_position"
        }
    };
    let mut tables: BTreeMap<String, Vec<(String, Type)>> = BTreeMap::new();
    for row in snapshot.rows(Sql::fixed(sql, vec![])).await? {
        let of = match row.str(2).to_ascii_uppercase().as_str() {
            "BIGINT" | "INTEGER" => Type::Int,
            "DOUBLE PRECISION" => Type::Float,
            "BYTEA" | "BLOB" => Type::Bytes,
            _ => Type::Text,
        };
        tables.entry(row.text(0)).or_default().push((row.text(1), of));
    }
    Ok(tables)
}

/// Writes a backup; how many rows it has.
pub async fn write(db: &Db, out: &mut (impl AsyncWrite + Unpin)) -> Result<u64, Error> {
    let out = &mut Out {
        to: out,
        hash: Context::new(&SHA256),
    };
    let mut snapshot = Snapshot::of(db).await?;
    let schema = snapshot
        .rows(Sql::fixed("SELECT MAX(version) FROM schema_version", vec![]))
        .await?;
    let header = Header {
        format: FORMAT.to_owned(),
        schema: schema.first().map_or(0, |row| row.int(0)),
        created_at: db.now(),
    };
    out.line(&header).await?;
    let mut rows = 0;
    for (table, columns) in tables(&mut snapshot).await? {
        if LEFT_OUT.contains(&table.as_str()) {
            continue;
        }
        let columns: Vec<String> = columns.into_iter().map(|(name, _)| name).collect();
        let sql = Sql::new(&format!("SELECT {} FROM {table}", columns.join(",")));
        out.line(&Table { table, columns }).await?;
        rows += snapshot.dump(sql, out).await?;
    }
    let sha256 = sum(&out.hash);
    out.line(&End { rows, sha256 }).await?;
    out.to.flush().await.map_err(file)?;
    Ok(rows)
}

pub(crate) fn file(source: std::io::Error) -> Error {
    Error::Identity {
        what: "reading or writing the backup",
        source: Box::new(source),
    }
}

fn bad(message: &str) -> Error {
    Error::invalid("backup", message)
}

/// Reads a backup into an empty database, brings its schema up to date and starts a new epoch; how many rows it had.
///
/// A restore that is cut short leaves a database that [`Db::open`] refuses.
pub async fn restore(
    url: &str,
    clock: &Clock,
    input: &mut (impl AsyncBufRead + Unpin + Send),
) -> Result<u64, Error> {
    let first = next(input).await?.ok_or_else(|| bad("is empty"))?;
    let mut hash = Context::new(&SHA256);
    hash.update(first.as_bytes());
    let header: Header =
        serde_json::from_str(&first).map_err(|_| bad("is not a backup of the orchestrator"))?;
    if header.format != FORMAT {
        return Err(bad("is not a backup of the orchestrator"));
    }
    if header.schema > Db::newest_schema() {
        return Err(Error::Newer {
            found: header.schema,
            known: Db::newest_schema(),
        });
    }
    let db = Db::connect(url, clock).await?;
    db.migrate_to(header.schema).await?;
    let used = db.row("SELECT COUNT(*) FROM tenant", vec![]).await?;
    if used.is_some_and(|row| row.int(0) > 0) {
        return Err(Error::conflict(
            "the database is in use: restore into an empty one",
        ));
    }
    let known = &{
        let mut snapshot = Snapshot::of(&db).await?;
        tables(&mut snapshot).await?
    };
    db.write(|tx| {
        Box::pin(async move {
            // What the migrations put there comes with the backup.
            for table in known.keys().filter(|table| !LEFT_OUT.contains(&table.as_str())) {
                tx.execute(Sql::new(&format!("DELETE FROM {table}"))).await?;
            }
            tx.run("INSERT INTO meta (name,value) VALUES ('restoring','1')", vec![])
                .await
        })
    })
    .await?;
    let rows = fill(&db, known, input, hash).await?;
    db.migrate_to(Db::newest_schema()).await?;
    db.write(|tx| {
        Box::pin(async move {
            crate::assignments::new_epoch(tx).await?;
            tx.run(
                "UPDATE host SET node=NULL, last_seen_at=COALESCE(last_seen_at,connected_at)",
                vec![],
            )
            .await?;
            // What was on its way when the backup was made may have been overtaken since.
            tx.run(
                "UPDATE rollout SET phase='halted', reason='the orchestrator was restored from a backup: look at the \
                 sites, then resume' WHERE phase IN ('pending','awaitingApproval','running','succeeded')",
                vec![],
            )
            .await?;
            tx.run("DELETE FROM meta WHERE name='restoring'", vec![]).await
        })
    })
    .await?;
    db.close().await;
    Ok(rows)
}

async fn fill(
    db: &Db,
    known: &BTreeMap<String, Vec<(String, Type)>>,
    input: &mut (impl AsyncBufRead + Unpin + Send),
    mut hash: Context,
) -> Result<u64, Error> {
    let mut rows = 0;
    let mut table: Option<(String, Vec<Type>)> = None;
    let mut waiting: Vec<Vec<Value>> = Vec::new();
    while let Some(text) = next(input).await? {
        // The last line is not in its own hash.
        let before = hash.clone();
        hash.update(text.as_bytes());
        let value: Json = serde_json::from_str(&text).map_err(|_| bad("has a line that is not JSON"))?;
        if let (Json::Array(values), Some((_, types))) = (&value, &table) {
            let values: Option<Vec<Value>> = values
                .iter()
                .zip(types)
                .map(|(v, of)| from_json(v, *of))
                .collect();
            let values = values
                .filter(|values| values.len() == types.len())
                .ok_or_else(|| bad("has a row that does not fit its table"))?;
            waiting.push(values);
            rows += 1;
            if waiting.len() == CHUNK {
                insert(db, table.as_ref(), &mut waiting).await?;
            }
            continue;
        }
        insert(db, table.as_ref(), &mut waiting).await?;
        if let Ok(end) = serde_json::from_value::<End>(value.clone()) {
            return if end.rows == rows && end.sha256 == sum(&before) {
                Ok(rows)
            } else {
                Err(bad("is not as it was written"))
            };
        }
        let new: Table =
            serde_json::from_value(value).map_err(|_| bad("has a line that is not understood"))?;
        let columns = known
            .get(&new.table)
            .filter(|_| !LEFT_OUT.contains(&new.table.as_str()))
            .ok_or_else(|| bad("has a table that is not known"))?;
        let types: Option<Vec<Type>> = new
            .columns
            .iter()
            .map(|name| columns.iter().find(|(known, _)| known == name).map(|(_, of)| *of))
            .collect();
        let types = types.ok_or_else(|| bad("has a column that is not known"))?;
        // Names were found among our own: they may stand in a statement.
        table = Some((
            format!("INSERT INTO {} ({}) VALUES ", new.table, new.columns.join(",")),
            types,
        ));
    }
    Err(bad("was cut short"))
}

async fn insert(
    db: &Db,
    table: Option<&(String, Vec<Type>)>,
    waiting: &mut Vec<Vec<Value>>,
) -> Result<(), Error> {
    let Some((start, types)) = table else {
        return Ok(());
    };
    let rows = &std::mem::take(waiting);
    // PostgreSQL takes at most 65535 arguments, SQLite 32766.
    let at_a_time = (10_000 / types.len().max(1)).max(1);
    db.write(|tx| {
        Box::pin(async move {
            for some in rows.chunks(at_a_time) {
                let mut sql = Sql::new(start);
                for (n, row) in some.iter().enumerate() {
                    sql.push(if n == 0 { "" } else { "," }).list(row.iter().cloned());
                }
                tx.execute(sql).await?;
            }
            Ok(())
        })
    })
    .await
}

async fn next(input: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<String>, Error> {
    let mut text = String::new();
    let read = {
        use tokio::io::AsyncReadExt as _;
        let mut limited = (&mut *input).take(LONGEST_LINE as u64);
        limited.read_line(&mut text).await.map_err(file)?
    };
    Ok((read > 0).then_some(text))
}

/// Refuses a database whose restore was cut short.
pub(super) async fn check(db: &Db) -> Result<(), Error> {
    let row = db
        .row("SELECT value FROM meta WHERE name=$1", args!["restoring"])
        .await?;
    if row.is_some() {
        return Err(Error::conflict(
            "the restore of this database was cut short: empty it and restore again",
        ));
    }
    Ok(())
}
