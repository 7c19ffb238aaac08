//! The task that gives every rollout its turns. One process at a time has the lease for it.
//!
//! ```text
//!   change log (sites, hosts, repositories, rollouts) ─► which lines ─┐
//!   timers: watched time, maintenance windows ────────────────────────┼─► turn ─► when next
//!   start, or the lease was taken over: every line ───────────────────┘
//! ```
//!
//! Nothing is asked of a fleet in which nothing happens: a wake reads the change log from where it was, and a line
//! is looked at only if one of its sites or hosts changed or a timer ended. Turns are idempotent transactions, so
//! that a process may be killed at any point; what it has not counted of the watched time is counted again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    store::Line,
    turns::{self, Next},
};
use crate::{Error, Fleet, args, db::Sql, plan::Source};

/// The lease.
const LEASE: &str = "rollouts";
/// How long the lease holds; it is asked for again at a third of it.
const TERM: Duration = Duration::from_secs(15);
/// Changes that are looked at one by one; if there are more, every line is looked at.
const ONE_BY_ONE: usize = 5000;
/// Time between two looks at the same line, so that a storm of reports costs one look.
const CALM: Duration = Duration::from_millis(500);
/// A look at many sites costs more: a line is looked at for a tenth of the time at most, but so often at least.
const LONGEST_CALM: Duration = Duration::from_secs(20);
/// At most this much of the time between two wakes counts as watched.
const MOST_WATCHED: Duration = Duration::from_secs(60);
/// How often the watched time is written down.
const KEEP: Duration = Duration::from_secs(30);

/// Gives rollouts their turns.
pub struct Driver {
    fleet: Fleet,
    node: String,
    lines: BTreeMap<Line, Watch>,
    /// The last change that was looked at; `None`: not the leader, or it has just begun.
    seen: Option<i64>,
    leads_until: Option<Instant>,
    source: Option<Arc<dyn Source>>,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("node", &self.node)
            .field("lines", &self.lines.len())
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Watch {
    steady: Duration,
    at: Instant,
    next: Next,
    /// Something changed since the last turn.
    dirty: bool,
    /// There may be a new commit: the turn is not put off.
    urgent: bool,
    turned: Option<Instant>,
    /// How long the next turn waits after this one at least.
    calm: Duration,
    kept: Instant,
}

impl Watch {
    fn new(now: Instant) -> Self {
        Self {
            steady: Duration::ZERO,
            at: now,
            next: Next::default(),
            dirty: true,
            urgent: false,
            turned: None,
            calm: CALM,
            kept: now,
        }
    }

    fn watch(&mut self, now: Instant) {
        self.steady += now.saturating_duration_since(self.at).min(MOST_WATCHED);
        self.at = now;
    }

    fn is_due(&self, now: Instant, wall: Timestamp) -> bool {
        if self.urgent {
            return true;
        }
        if self.turned.is_some_and(|turned| now < turned + self.calm) {
            return false;
        }
        self.dirty
            || self.next.due.is_some_and(|due| due <= self.steady)
            || self.next.due_at.is_some_and(|at| at <= wall)
    }

    /// How long until it may be due.
    fn wait(&self, now: Instant, wall: Timestamp) -> Option<Duration> {
        if self.urgent {
            return Some(Duration::ZERO);
        }
        let calm = self.turned.map_or(Duration::ZERO, |turned| {
            (turned + self.calm).saturating_duration_since(now)
        });
        let timer = self.next.due.map(|due| due.saturating_sub(self.steady));
        let window = self
            .next
            .due_at
            .map(|at| Duration::try_from(at.duration_since(wall)).unwrap_or_default());
        let dirty = self.dirty.then_some(Duration::ZERO);
        [timer, window, dirty]
            .into_iter()
            .flatten()
            .min()
            .map(|wait| wait.max(calm))
    }
}

impl Driver {
    /// For the process `node`.
    #[must_use]
    pub fn new(fleet: Fleet, node: &str) -> Self {
        Self {
            fleet,
            node: node.into(),
            lines: BTreeMap::new(),
            seen: None,
            leads_until: None,
            source: None,
        }
    }

    /// Where commits can be read, so that a rollout covers only the sites that its commit changes. Without it every
    /// rollout covers all sites.
    #[must_use]
    pub fn reading(mut self, source: Arc<dyn Source>) -> Self {
        self.source = Some(source);
        self
    }

    /// Runs for ever; to end it, drop it.
    pub async fn run(mut self) {
        let mut changed = self.fleet.db().changed();
        loop {
            let wait = match self.wake().await {
                Ok(wait) => wait,
                Err(error) => {
                    // A database that is away comes back; what was not done is still due then.
                    tracing::warn!(error = %telemetry::chain(&error), "rollouts can't go on now");
                    self.seen = None;
                    Duration::from_secs(2)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                told = changed.changed(), if self.seen.is_some() => {
                    if told.is_err() {
                        tokio::time::sleep(wait).await;
                    }
                    // Several reports that come together are looked at together.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// One wake: everything that is due. How long until the next at the latest.
    ///
    /// # Errors
    /// The database.
    pub async fn wake(&mut self) -> Result<Duration, Error> {
        // Another process's changes are heard of by looking.
        let idle = if self.fleet.db().shared() {
            Duration::from_secs(1)
        } else {
            Duration::from_secs(5)
        };
        if !self.lead().await? {
            self.seen = None;
            self.lines.clear();
            return Ok(TERM / 3);
        }
        self.look().await?;
        let mut wait = idle.min(TERM / 3);
        let due: Vec<Line> = {
            let (now, wall) = (Instant::now(), self.fleet.clock().now());
            for watch in self.lines.values_mut() {
                watch.watch(now);
            }
            self.lines
                .iter()
                .filter(|(_, watch)| watch.is_due(now, wall))
                .map(|(line, _)| line.clone())
                .collect()
        };
        for line in due {
            self.give_turn(&line).await?;
        }
        let (now, wall) = (Instant::now(), self.fleet.clock().now());
        for watch in self.lines.values() {
            wait = wait.min(watch.wait(now, wall).unwrap_or(wait));
        }
        self.keep(now).await?;
        Ok(wait.max(Duration::from_millis(10)))
    }

    async fn give_turn(&mut self, line: &Line) -> Result<(), Error> {
        let Some(watch) = self.lines.get_mut(line) else {
            return Ok(());
        };
        let started = Instant::now();
        (watch.dirty, watch.urgent) = (false, false);
        match turns::turn(&self.fleet, line, watch.steady, self.source.as_ref()).await {
            Ok((next, steady)) => {
                watch.next = next;
                watch.steady = watch.steady.max(steady);
                let ended = Instant::now();
                watch.calm = (ended.saturating_duration_since(started) * 10).clamp(CALM, LONGEST_CALM);
                watch.turned = Some(ended);
                Ok(())
            }
            // One line that can't be read must not stop the others.
            Err(error @ (Error::Damaged { .. } | Error::Invalid { .. } | Error::Conflict { .. })) => {
                tracing::error!(repository = line.repository, error = %telemetry::chain(&error), "a rollout can't go on");
                watch.turned = Some(started);
                watch.next = Next {
                    due: Some(watch.steady + KEEP),
                    ..Next::default()
                };
                Ok(())
            }
            Err(error) => {
                watch.dirty = true;
                Err(error)
            }
        }
    }

    async fn lead(&mut self) -> Result<bool, Error> {
        let now = Instant::now();
        if self.leads_until.is_some_and(|until| now + TERM / 2 < until) {
            return Ok(true);
        }
        let leads = self.fleet.nodes().lead(LEASE, &self.node, TERM).await?;
        self.leads_until = leads.then(|| now + TERM);
        Ok(leads)
    }

    /// Reads the change log and marks the lines that it concerns.
    async fn look(&mut self) -> Result<(), Error> {
        let db = self.fleet.db();
        let row = db
            .row("SELECT value FROM counter WHERE name='change'", vec![])
            .await?;
        let newest = row.map_or(0, |row| row.int(0));
        let Some(seen) = self.seen else {
            self.every_line(true).await?;
            self.seen = Some(newest);
            return Ok(());
        };
        if newest == seen {
            return Ok(());
        }
        let rows = db
            .rows(
                "SELECT tenant,kind,id,site FROM change WHERE seq>$1 AND kind IN ('site','host','repository','rollout')
                 ORDER BY seq LIMIT $2",
                args![seen, ONE_BY_ONE],
            )
            .await?;
        if rows.len() >= ONE_BY_ONE || newest - seen > 100_000 {
            self.every_line(false).await?;
            // In a storm of reports a push must not wait for its end.
            let rows = self
                .fleet
                .db()
                .rows(
                    "SELECT DISTINCT tenant,id FROM change WHERE seq>$1 AND kind='repository'",
                    args![seen],
                )
                .await?;
            let repositories = rows.iter().map(|row| (row.text(0), row.text(1))).collect();
            self.mark("s.repository", &repositories, true).await?;
        } else {
            let (mut sites, mut repositories) = (BTreeSet::new(), BTreeSet::new());
            for row in &rows {
                let tenant = row.text(0);
                match row.str(1) {
                    "site" => sites.extend([(tenant, row.text(2))]),
                    "host" => sites.extend(row.opt_text(3).map(|site| (tenant, site))),
                    "repository" => repositories.extend([(tenant, row.text(2))]),
                    _ => self.mark_rollout(&tenant, row.str(2)).await?,
                }
            }
            self.mark("s.id", &sites, false).await?;
            self.mark("s.repository", &repositories, true).await?;
        }
        self.seen = Some(newest);
        Ok(())
    }

    async fn mark_rollout(&mut self, tenant: &str, id: &str) -> Result<(), Error> {
        // Our own writing is told of too; what a person asked for is due at once.
        let sql = "SELECT tenant,repository,branch,policy FROM rollout WHERE tenant=$1 AND id=$2 AND due_steady<=steady";
        let row = self.fleet.db().row(sql, args![tenant, id]).await?;
        if let Some(line) = row.as_ref().map(line) {
            let now = Instant::now();
            self.lines.entry(line).or_insert_with(|| Watch::new(now)).dirty = true;
        }
        Ok(())
    }

    async fn mark(
        &mut self,
        column: &str,
        ids: &BTreeSet<(String, String)>,
        urgent: bool,
    ) -> Result<(), Error> {
        let mut by_tenant: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (tenant, id) in ids {
            by_tenant.entry(tenant).or_default().push(id);
        }
        for (tenant, ids) in by_tenant {
            for ids in ids.chunks(500) {
                let mut sql = Sql::new(LINES);
                sql.push(" AND s.tenant=")
                    .bind(tenant)
                    .push(&format!(" AND {column} IN "));
                sql.list(ids.iter().copied());
                self.mark_lines(sql, urgent).await?;
            }
        }
        Ok(())
    }

    async fn every_line(&mut self, urgent: bool) -> Result<(), Error> {
        self.mark_lines(Sql::new(LINES), urgent).await
    }

    async fn mark_lines(&mut self, sql: Sql, urgent: bool) -> Result<(), Error> {
        let now = Instant::now();
        for row in self.fleet.db().query(sql).await? {
            let watch = self.lines.entry(line(&row)).or_insert_with(|| Watch::new(now));
            watch.dirty = true;
            watch.urgent |= urgent;
        }
        Ok(())
    }

    /// Writes down how long lines were watched, so that a successor goes on from there.
    async fn keep(&mut self, now: Instant) -> Result<(), Error> {
        for (line, watch) in &mut self.lines {
            if !watch.next.alive || now < watch.kept + KEEP {
                continue;
            }
            watch.kept = now;
            let millis = i64::try_from(watch.steady.as_millis()).unwrap_or(i64::MAX);
            self.fleet
                .db()
                .write(|tx| {
                    Box::pin(async move {
                        tx.run(
                            "UPDATE rollout SET steady=$5 WHERE tenant=$1 AND repository=$2 AND branch=$3 AND policy=$4
                             AND steady<$5 AND phase NOT IN ('superseded','reverted')",
                            args![&line.tenant, &line.repository, &line.branch, &line.policy, millis],
                        )
                        .await
                    })
                })
                .await?;
        }
        Ok(())
    }
}

const LINES: &str = "SELECT DISTINCT s.tenant,s.repository,COALESCE(s.branch,r.branch),s.policy FROM site s
     JOIN repository r ON r.tenant=s.tenant AND r.id=s.repository WHERE s.policy IS NOT NULL";

fn line(row: &crate::db::Row) -> Line {
    Line {
        tenant: row.text(0),
        repository: row.text(1),
        branch: row.text(2),
        policy: row.text(3),
    }
}
