use std::str::FromStr as _;
use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Executor as _};

use super::value::{failed, from_postgres};
use super::{Conn, Row, Sql, Tx};
use crate::Error;
use crate::model::Time;

/// Connections of one process. A few per core of a usual database server.
const CONNECTIONS: u32 = 16;

#[derive(Clone, Debug)]
pub(super) struct Postgres {
    pool: PgPool,
}

impl Postgres {
    pub(super) async fn open(url: &str) -> Result<Self, Error> {
        let options = PgConnectOptions::from_str(url)
            // What sqlx says about a URL may quote it, with its password.
            .map_err(|_| Error::invalid("database.url", "is not a PostgreSQL URL"))?
            .application_name("selvedge-orchestrator")
            .statement_cache_capacity(512)
            .disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(Duration::from_secs(3))
            .connect_with(options)
            .await
            .map_err(failed)?;
        Ok(Self { pool })
    }

    pub(super) async fn write<'env, T, F>(&self, now: Time, f: &F) -> Result<(T, bool), Error>
    where
        F: for<'t> Fn(&'t mut Tx<'env>) -> BoxFuture<'t, Result<T, Error>> + Send + Sync,
    {
        let mut tx = Tx::new(Conn::Postgres(self.pool.begin().await.map_err(failed)?), now);
        let result = crate::log::logged(&mut tx, f).await;
        let Conn::Postgres(inner) = tx.conn else {
            unreachable!("it was made three lines above")
        };
        match result {
            Ok(value) => inner.commit().await.map_err(failed).map(|()| value),
            Err(error) => {
                // The connection may be what failed; the pool looks at it before it is used again.
                let _ = inner.rollback().await;
                Err(error)
            }
        }
    }

    pub(super) async fn query(&self, sql: Sql) -> Result<Vec<Row>, Error> {
        let (text, args) = sql.postgres()?;
        let rows = sqlx::query_with(text, args)
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        rows.iter().map(from_postgres).collect()
    }

    pub(super) async fn listen(&self, channel: &str) -> Result<PgListener, Error> {
        let mut listener = PgListener::connect_with(&self.pool).await.map_err(failed)?;
        listener.listen(channel).await.map_err(failed)?;
        Ok(listener)
    }

    pub(super) fn pool(&self) -> &PgPool {
        &self.pool
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

pub(super) async fn query(
    tx: &mut sqlx::Transaction<'static, sqlx::Postgres>,
    sql: Sql,
) -> Result<Vec<Row>, Error> {
    let (text, args) = sql.postgres()?;
    let rows = (**tx)
        .fetch_all(sqlx::query_with(text, args))
        .await
        .map_err(failed)?;
    rows.iter().map(from_postgres).collect()
}

pub(super) async fn execute(
    tx: &mut sqlx::Transaction<'static, sqlx::Postgres>,
    sql: Sql,
) -> Result<u64, Error> {
    let (text, args) = sql.postgres()?;
    let done = (**tx)
        .execute(sqlx::query_with(text, args))
        .await
        .map_err(failed)?;
    Ok(done.rows_affected())
}
