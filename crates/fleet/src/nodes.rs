//! The orchestrator's processes: who is there, who leads, who has which host.
//!
//! Several processes share one PostgreSQL. Each shows that it lives by counting up its row; others judge by when they
//! *saw* the count change, on their own clock, so that clocks that differ do no harm. On SQLite there is one process: it
//! leads, and writes nothing to say so.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::Time;
use crate::{Error, Fleet, args};

/// See [`Fleet::nodes`].
#[derive(Clone, Copy, Debug)]
pub struct Nodes<'a>(&'a Fleet);

impl Fleet {
    /// The orchestrator's processes.
    #[must_use]
    pub fn nodes(&self) -> Nodes<'_> {
        Nodes(self)
    }
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its id, new at each start.
    pub id: String,
    /// Where the others reach it.
    pub url: String,
    /// When it started, by its own clock.
    pub started_at: Time,
    /// When it was counted up last, by its own clock.
    pub renewed_at: Time,
}

/// What was seen of counters of others, and when, by this process's own clock.
#[derive(Debug, Default)]
pub(crate) struct Seen(Mutex<HashMap<String, (i64, Instant)>>);

impl Seen {
    /// How long a counter has stood at this value.
    fn unchanged(&self, name: String, beat: i64) -> Duration {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let entry = seen.entry(name).or_insert((beat, now));
        if entry.0 != beat {
            *entry = (beat, now);
        }
        now - entry.1
    }

    fn forget(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

impl Nodes<'_> {
    /// Shows that this process lives. Every few seconds on PostgreSQL; on SQLite only the first call writes.
    pub async fn beat(&self, id: &str, url: &str) -> Result<(), Error> {
        let db = self.0.db();
        if !db.shared() {
            let there = db
                .row("SELECT 1 FROM node WHERE id=$1 AND url=$2", args![id, url])
                .await?;
            if there.is_some() {
                return Ok(());
            }
        }
        db.write(|tx| {
            Box::pin(async move {
                let now = tx.now;
                tx.run(
                    "INSERT INTO node (id,url,beat,started_at,renewed_at) VALUES ($1,$2,1,$3,$3) \
                     ON CONFLICT (id) DO UPDATE SET url=$2, beat=node.beat+1, renewed_at=$3",
                    args![id, url, now],
                )
                .await
            })
        })
        .await
        .map(drop)
    }

    /// All processes that are believed to live.
    pub async fn list(&self) -> Result<Vec<Node>, Error> {
        let rows = self
            .0
            .db()
            .rows(
                "SELECT id,url,started_at,renewed_at FROM node ORDER BY id",
                vec![],
            )
            .await?;
        Ok(rows
            .iter()
            .map(|row| Node {
                id: row.text(0),
                url: row.text(1),
                started_at: row.time(2),
                renewed_at: row.time(3),
            })
            .collect())
    }

    /// The process that has a host's link: id and URL.
    pub async fn of_host(&self, tenant: &str, host: &str) -> Result<Option<(String, String)>, Error> {
        let row = self
            .0
            .db()
            .row(
                "SELECT n.id,n.url FROM host h JOIN node n ON n.id=h.node WHERE h.tenant=$1 AND h.id=$2",
                args![tenant, host],
            )
            .await?;
        Ok(row.map(|row| (row.text(0), row.text(1))))
    }

    /// Whether this process holds the lease `name`: call it at least three times in `term`. Who does not renew for a
    /// `term` loses it to the next who asks.
    pub async fn lead(&self, name: &str, node: &str, term: Duration) -> Result<bool, Error> {
        let db = self.0.db();
        if !db.shared() {
            return Ok(true);
        }
        let row = db
            .row("SELECT holder,beat FROM lease WHERE name=$1", args![name])
            .await?;
        let took = match row {
            None => {
                db.write(|tx| {
                    Box::pin(async move {
                        tx.run(
                            "INSERT INTO lease (name,holder,term,beat) VALUES ($1,$2,1,1) ON CONFLICT DO NOTHING",
                            args![name, node],
                        )
                        .await
                    })
                })
                .await?
            }
            Some(row) if row.str(0) == node => {
                db.write(|tx| {
                    Box::pin(async move {
                        tx.run(
                            "UPDATE lease SET beat=beat+1 WHERE name=$1 AND holder=$2",
                            args![name, node],
                        )
                        .await
                    })
                })
                .await?
            }
            Some(row) => {
                let beat = row.int(1);
                if self.0.0.seen.unchanged(format!("lease {name} {}", row.str(0)), beat) < term {
                    return Ok(false);
                }
                db.write(|tx| {
                    Box::pin(async move {
                        tx.run(
                            "UPDATE lease SET holder=$2, term=term+1, beat=beat+1 WHERE name=$1 AND beat=$3",
                            args![name, node, beat],
                        )
                        .await
                    })
                })
                .await?
            }
        };
        Ok(took == 1)
    }

    /// Gives a lease back, so that the next need not wait.
    pub async fn resign(&self, name: &str, node: &str) -> Result<(), Error> {
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    tx.run("DELETE FROM lease WHERE name=$1 AND holder=$2", args![name, node])
                        .await
                })
            })
            .await
            .map(drop)
    }

    /// Takes processes out that did not count up for `term`, and sets their hosts free: those become stale and offline
    /// unless they come back elsewhere. For the leader; `me` lives. Returns who was taken out.
    pub async fn reap(&self, me: &str, term: Duration) -> Result<Vec<String>, Error> {
        let db = self.0.db();
        let rows = db
            .rows("SELECT id,beat FROM node WHERE id<>$1", args![me])
            .await?;
        let mut gone = Vec::new();
        for row in rows {
            let id = row.text(0);
            let name = format!("node {id}");
            // On SQLite any other process is one of the past.
            if !db.shared() || self.0.0.seen.unchanged(name.clone(), row.int(1)) >= term {
                self.leave(&id).await?;
                self.0.0.seen.forget(&name);
                gone.push(id);
            }
        }
        Ok(gone)
    }

    /// Takes a process out and sets its hosts free. A process that ends in order calls it for itself.
    pub async fn leave(&self, id: &str) -> Result<(), Error> {
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let now = tx.now;
                    tx.run("DELETE FROM node WHERE id=$1", args![id]).await?;
                    // It had them until just now, as far as anybody knows.
                    tx.run(
                        "UPDATE host SET node=NULL, last_seen_at=$2 WHERE node=$1 AND connection='online'",
                        args![id, now],
                    )
                    .await?;
                    tx.run("UPDATE host SET node=NULL WHERE node=$1", args![id]).await
                })
            })
            .await
            .map(drop)
    }
}
