//! Numbered steps, forward only. A step that was released is never changed; a new one is added.

use super::{Db, Sql};
use crate::{Error, args};

/// The steps. C's tables are in steps of their own.
const STEPS: &[&str] = &[
    include_str!("migrations/0001_fleet.sql"),
    include_str!("migrations/0002_steering.sql"),
];

pub(super) fn newest() -> i64 {
    i64::try_from(STEPS.len()).unwrap_or(i64::MAX)
}

pub(super) async fn run(db: &Db) -> Result<(), Error> {
    to(db, newest()).await
}

pub(super) async fn to(db: &Db, to: i64) -> Result<(), Error> {
    db.write(|tx| {
        Box::pin(async move {
            if tx.shared() {
                // Processes that start together take turns.
                tx.run("SELECT pg_advisory_xact_lock(7359001)", vec![]).await?;
            }
            tx.run(
                "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL PRIMARY KEY)",
                vec![],
            )
            .await?;
            let found = tx
                .row("SELECT COALESCE(MAX(version),0) FROM schema_version", vec![])
                .await?
                .map_or(0, |row| row.int(0));
            if found > newest() {
                return Err(Error::Newer {
                    found,
                    known: newest(),
                });
            }
            for (version, step) in (1..).zip(STEPS) {
                if version <= found || version > to {
                    continue;
                }
                let (bytes, string, rowless) = if tx.shared() {
                    ("BYTEA", "TEXT COLLATE \"C\"", "")
                } else {
                    ("BLOB", "TEXT", " WITHOUT ROWID")
                };
                for statement in step.split(";\n") {
                    let statement: String = statement
                        .lines()
                        .filter(|line| !line.trim_start().starts_with("--"))
                        .collect::<Vec<_>>()
                        .join("\n");
                    if statement.trim().is_empty() {
                        continue;
                    }
                    let statement = statement
                        .replace("BYTES", bytes)
                        .replace("STRING", string)
                        .replace(" CLUSTERED", rowless);
                    tx.execute(Sql::new(&statement)).await?;
                }
                tx.run("INSERT INTO schema_version (version) VALUES ($1)", args![version])
                    .await?;
            }
            Ok(())
        })
    })
    .await
}
