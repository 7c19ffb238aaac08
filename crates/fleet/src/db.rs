//! The database: SQLite by default, PostgreSQL by a URL; the same SQL on both.
//!
//! | module | what it is |
//! |---|---|
//! | `value` | [`Value`], [`Row`], [`Sql`]: what goes in and comes out; `$1` placeholders on both |
//! | `sqlite` | one writer with group commit, a pool of readers, WAL |
//! | `postgres` | a pool; READ COMMITTED, with row locks where it matters |
//! | `migrate` | numbered, forward-only |
//! | `backup` | a portable dump that both can write and read |
//!
//! # Writes
//!
//! [`Db::write`] runs a closure in one transaction and tries it again when the database says that it collided with
//! another. So the closure must do nothing but talk to its transaction. What it returns is told only after
//! the commit.
//!
//! On SQLite transactions take turns. One that finds others waiting leaves the commit to the last of them (at most
//! [`sqlite::BATCH`]): each runs in a savepoint, one fsync pays for all, and nobody is answered before it.
//!
//! # SQL for both
//!
//! BIGINT, TEXT, DOUBLE PRECISION and (as `BYTES` in migrations) BYTEA/BLOB only; times are milliseconds, booleans
//! 0 and 1, JSON is TEXT. `STRING` in migrations is text that sorts by bytes. A statement may end in ` FOR UPDATE`:
//! SQLite, whose writers take turns anyway, gets it without.

pub mod backup;
mod migrate;
mod postgres;
pub mod sqlite;
mod value;

use std::marker::PhantomData;
use std::path::Path;
use std::time::Duration;

use futures::future::BoxFuture;
use telemetry::Clock;
use tokio::sync::watch;

use crate::Error;
use crate::log::Log;
use crate::model::Time;
pub(crate) use value::is_unique;
pub use value::{Row, Sql, Value};

/// How often a transaction is tried when it collides.
const TRIES: u32 = 10;

/// An open database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Db {
    backend: Backend,
    clock: Clock,
    /// Counts commits of this process that changed something people watch.
    changed: std::sync::Arc<watch::Sender<u64>>,
}

#[derive(Clone, Debug)]
enum Backend {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Postgres),
}

/// A transaction. `'env` is what its closure may borrow.
pub struct Tx<'env> {
    conn: Conn,
    /// The time of the transaction.
    pub now: Time,
    /// What is to be written to the audit and change logs at its end.
    pub(crate) log: Log,
    env: PhantomData<&'env ()>,
}

#[allow(
    clippy::large_enum_variant,
    reason = "one lives on the stack for the length of a transaction"
)]
enum Conn {
    Sqlite(sqlite::Turn),
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
}

/// Makes the arguments of a statement: `args![id, name, 5]`.
#[macro_export]
macro_rules! args {
    ($($value:expr),* $(,)?) => { vec![$($crate::db::Value::from($value)),*] };
}

impl Db {
    /// Opens `sqlite:PATH` or `postgres://…` and brings its schema up to date.
    pub async fn open(url: &str, clock: &Clock) -> Result<Self, Error> {
        let db = Self::connect(url, clock).await?;
        migrate::run(&db).await?;
        backup::check(&db).await?;
        Ok(db)
    }

    /// Opens a database as it is. For backups and tests; [`Db::open`] is for everything else.
    pub async fn connect(url: &str, clock: &Clock) -> Result<Self, Error> {
        let backend = if let Some(path) = url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            Backend::Sqlite(sqlite::Sqlite::open(Path::new(path)).await?)
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Backend::Postgres(postgres::Postgres::open(url).await?)
        } else {
            return Err(Error::invalid(
                "database.url",
                "is neither sqlite:PATH nor postgres://…",
            ));
        };
        Ok(Self {
            backend,
            clock: clock.clone(),
            changed: std::sync::Arc::new(watch::Sender::new(0)),
        })
    }

    /// Brings the schema to version `to` at most; what [`Db::open`] does with the newest.
    pub async fn migrate_to(&self, to: i64) -> Result<(), Error> {
        migrate::to(self, to).await
    }

    /// The newest schema version that this program knows.
    #[must_use]
    pub fn newest_schema() -> i64 {
        migrate::newest()
    }

    /// Whether it is PostgreSQL, which several processes may share.
    #[must_use]
    pub fn shared(&self) -> bool {
        matches!(self.backend, Backend::Postgres(_))
    }

    /// Runs `f` in one transaction; commits if it returns well. Tried again when it collides with another.
    pub async fn write<'env, T, F>(&self, f: F) -> Result<T, Error>
    where
        T: Send,
        F: for<'t> Fn(&'t mut Tx<'env>) -> BoxFuture<'t, Result<T, Error>> + Send + Sync,
    {
        let mut pause = Duration::from_millis(2);
        for attempt in 1.. {
            let result = match &self.backend {
                Backend::Sqlite(db) => db.write(self.now(), &f).await,
                Backend::Postgres(db) => db.write(self.now(), &f).await,
            };
            match result {
                Ok((value, logged)) => {
                    if logged {
                        self.changed.send_modify(|n| *n = n.wrapping_add(1));
                    }
                    return Ok(value);
                }
                Err(Error::Database(source)) if attempt < TRIES && value::collided(source.as_ref()) => {
                    tokio::time::sleep(pause + value::jitter(pause)).await;
                    pause = (pause * 2).min(Duration::from_millis(500));
                }
                Err(Error::Database(source)) if value::collided(source.as_ref()) => {
                    return Err(Error::Unavailable(source));
                }
                Err(error) => return Err(error),
            }
        }
        unreachable!("the loop returns")
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Time {
        self.clock.now().into()
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Wakes those who wait for changes: another process committed some.
    pub(crate) fn poke(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Wakes when this process committed something to the change log.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Reads rows outside a transaction.
    pub async fn rows(&self, sql: &'static str, args: Vec<Value>) -> Result<Vec<Row>, Error> {
        self.query(Sql::fixed(sql, args)).await
    }

    /// Reads the first row.
    pub async fn row(&self, sql: &'static str, args: Vec<Value>) -> Result<Option<Row>, Error> {
        Ok(self.rows(sql, args).await?.into_iter().next())
    }

    /// Reads the rows of a statement that was put together.
    pub async fn query(&self, sql: Sql) -> Result<Vec<Row>, Error> {
        match &self.backend {
            Backend::Sqlite(db) => db.query(sql).await,
            Backend::Postgres(db) => db.query(sql).await,
        }
    }

    /// Asks the database for a sign of life.
    pub async fn ping(&self) -> Result<(), Error> {
        self.rows("SELECT value FROM meta WHERE name='created'", vec![])
            .await
            .map(drop)
    }

    /// The `LISTEN` connection of PostgreSQL; none on SQLite.
    pub(crate) async fn listen(&self, channel: &str) -> Result<Option<sqlx::postgres::PgListener>, Error> {
        match &self.backend {
            Backend::Sqlite(_) => Ok(None),
            Backend::Postgres(db) => db.listen(channel).await.map(Some),
        }
    }

    /// Closes it; what is under way ends first.
    pub async fn close(&self) {
        match &self.backend {
            Backend::Sqlite(db) => db.close().await,
            Backend::Postgres(db) => db.close().await,
        }
    }
}

impl Tx<'_> {
    fn new(conn: Conn, now: Time) -> Self {
        Self {
            conn,
            now,
            log: Log::default(),
            env: PhantomData,
        }
    }

    /// Reads rows.
    pub async fn rows(&mut self, sql: &'static str, args: Vec<Value>) -> Result<Vec<Row>, Error> {
        self.query(Sql::fixed(sql, args)).await
    }

    /// Reads the first row.
    pub async fn row(&mut self, sql: &'static str, args: Vec<Value>) -> Result<Option<Row>, Error> {
        Ok(self.rows(sql, args).await?.into_iter().next())
    }

    /// Reads the rows of a statement that was put together.
    pub async fn query(&mut self, sql: Sql) -> Result<Vec<Row>, Error> {
        match &mut self.conn {
            Conn::Sqlite(turn) => turn.query(sql).await,
            Conn::Postgres(tx) => postgres::query(tx, sql).await,
        }
    }

    /// Writes; how many rows it touched.
    pub async fn run(&mut self, sql: &'static str, args: Vec<Value>) -> Result<u64, Error> {
        self.execute(Sql::fixed(sql, args)).await
    }

    /// Runs a statement that was put together; how many rows it touched.
    pub async fn execute(&mut self, sql: Sql) -> Result<u64, Error> {
        match &mut self.conn {
            Conn::Sqlite(turn) => turn.execute(sql).await,
            Conn::Postgres(tx) => postgres::execute(tx, sql).await,
        }
    }

    /// Whether it is on PostgreSQL.
    #[must_use]
    pub fn shared(&self) -> bool {
        matches!(self.conn, Conn::Postgres(_))
    }
}
