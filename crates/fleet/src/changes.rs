//! What changed, for those who watch: pages by server-sent events, other tasks, other processes.
//!
//! A row of the change log names an object; what it is now is read when it is told, so that ten changes of a host in a
//! second are told as one. Numbers are given at the end of transactions, one after the other: who has read up to *n*
//! misses none below it.
//!
//! ```text
//!   commit ──▶ db.changed() (this process) · NOTIFY (others, a hint) · a look each second (PostgreSQL)
//!          ──▶ one reader a tenant ──▶ its watchers, each told what it may see
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{broadcast, watch};

use crate::db::{Db, Row, Sql};
use crate::log::{Kind, Op};
use crate::model::Map;
use crate::{Caller, Error, Fleet, args};

/// Changes read at a time.
const BATCH: usize = 500;
/// Batches that a slow watcher may be behind before it must begin again.
const BEHIND: usize = 64;
/// Changes closer together than this are told together.
const GATHER: Duration = Duration::from_millis(50);
/// How often to look without a hint: on PostgreSQL another process may have written.
const LOOK: Duration = Duration::from_secs(1);

/// See [`Fleet::changes`].
#[derive(Clone, Copy, Debug)]
pub struct Changes<'a>(&'a Fleet);

impl Fleet {
    /// What changed.
    #[must_use]
    pub fn changes(&self) -> Changes<'_> {
        Changes(self)
    }
}

/// A row of the change log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    /// Its number.
    pub seq: i64,
    /// The tenant's id.
    pub tenant: String,
    /// What kind of object.
    pub kind: Kind,
    /// What happened.
    pub op: Op,
    /// The object's id.
    pub id: String,
    /// Its name; for [`Kind::Assignment`]: `host`, `site` or `repository`.
    pub name: String,
    /// Id of the site that it belongs to.
    pub site: Option<String>,
}

/// A change as it is told.
#[derive(Clone, Debug)]
pub struct Change {
    /// The number of the newest row behind it.
    pub seq: i64,
    /// What kind of object.
    pub kind: Kind,
    /// What happened.
    pub op: Op,
    /// The object's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The object as in lists; `{id,name}` when it is gone or is read elsewhere.
    pub object: Arc<Value>,
    /// Name and labels of its site, which decide who sees it; none if it is the tenant's.
    site: Option<Arc<(String, Map)>>,
}

fn raw(row: &Row) -> Option<Raw> {
    Some(Raw {
        seq: row.int(0),
        tenant: row.text(1),
        kind: Kind::parse(row.str(2))?,
        op: if row.str(3) == "delete" {
            Op::Delete
        } else {
            Op::Upsert
        },
        id: row.text(4),
        name: row.text(5),
        site: row.opt_text(6),
    })
}

/// The rows after a number, of one tenant or all, of some kinds or all; and the number up to which that is.
async fn read(db: &Db, tenant: Option<&str>, kinds: &[Kind], after: i64) -> Result<(Vec<Raw>, i64), Error> {
    let mut sql = Sql::new("SELECT seq,tenant,kind,op,id,name,site FROM change WHERE seq>");
    sql.bind(after);
    if let Some(tenant) = tenant {
        sql.push(" AND tenant=").bind(tenant);
    }
    if !kinds.is_empty() {
        sql.push(" AND kind IN ")
            .list(kinds.iter().map(|kind| kind.as_str()));
    }
    sql.push(" ORDER BY seq LIMIT ").bind(BATCH);
    let rows = db.query(sql).await?;
    let last = rows.last().map_or(after, |row| row.int(0));
    Ok((rows.iter().filter_map(raw).collect(), last))
}

/// Reads the log of all tenants on and on.
#[derive(Debug)]
pub struct Tail {
    fleet: Fleet,
    kinds: Vec<Kind>,
    after: i64,
    changed: watch::Receiver<u64>,
}

impl Tail {
    /// The next rows; waits until there are some. Failures of the database are to be waited out by the caller: nothing
    /// is lost, the next call begins where this one did.
    pub async fn next(&mut self) -> Result<Vec<Raw>, Error> {
        loop {
            self.changed.mark_unchanged();
            let (rows, last) = read(self.fleet.db(), None, &self.kinds, self.after).await?;
            self.after = last;
            if !rows.is_empty() {
                return Ok(rows);
            }
            wait(self.fleet.db(), &mut self.changed).await;
        }
    }

    /// The number up to which it has read.
    #[must_use]
    pub fn position(&self) -> i64 {
        self.after
    }
}

/// Until there may be something new.
async fn wait(db: &Db, changed: &mut watch::Receiver<u64>) {
    if db.shared() {
        let _ = tokio::time::timeout(LOOK, changed.changed()).await;
    } else {
        let _ = changed.changed().await;
    }
}

type Told = Result<Arc<Vec<Change>>, ()>;

/// The readers of this process, one a watched tenant.
#[derive(Debug, Default)]
pub(crate) struct Hub(Mutex<HashMap<String, broadcast::Sender<Told>>>);

/// A watcher.
pub struct Subscription {
    fleet: Fleet,
    caller: Caller,
    after: i64,
    catching_up: bool,
    feed: broadcast::Receiver<Told>,
}

impl Subscription {
    /// The next changes that the watcher may see; waits until there are some. [`Error::TooOld`] when it was too slow:
    /// then it must read everything anew.
    pub async fn next(&mut self) -> Result<Vec<Change>, Error> {
        loop {
            let told = if self.catching_up {
                let (rows, last) = read(self.fleet.db(), Some(&self.caller.tenant), &[], self.after).await?;
                if rows.is_empty() && last == self.after {
                    self.catching_up = false;
                    continue;
                }
                let told = Arc::new(tell(&self.fleet, &self.caller.tenant, rows).await?);
                self.after = last;
                told
            } else {
                match self.feed.recv().await {
                    Ok(Ok(told)) => told,
                    // The reader met an unavailable database: look for ourselves.
                    Ok(Err(())) => {
                        self.catching_up = true;
                        continue;
                    }
                    Err(_) => return Err(Error::TooOld { asked: self.after }),
                }
            };
            let seen: Vec<Change> = told
                .iter()
                .filter(|change| (change.seq > self.after || self.catching_up) && self.may_see(change))
                .cloned()
                .collect();
            self.after = self.after.max(told.last().map_or(0, |change| change.seq));
            if !seen.is_empty() {
                return Ok(seen);
            }
        }
    }

    fn may_see(&self, change: &Change) -> bool {
        match (&change.site, change.kind) {
            (_, Kind::Assignment | Kind::Revocation) => false,
            (Some(site), _) => self.caller.role_at(&site.0, &site.1).is_some(),
            // Repositories are the tenant's, as in their list.
            (None, Kind::Repository | Kind::Rollout) => self.caller.role_anywhere().is_some(),
            (None, _) => self.caller.role().is_some(),
        }
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}

impl Changes<'_> {
    /// The number of the newest row.
    pub async fn newest(&self) -> Result<i64, Error> {
        let row = self
            .0
            .db()
            .row("SELECT value FROM counter WHERE name='change'", vec![])
            .await?;
        Ok(row.map_or(0, |row| row.int(0)))
    }

    /// Reads the log of all tenants on and on, from now or after a number. For tasks of the server.
    pub async fn tail(&self, kinds: &[Kind], after: Option<i64>) -> Result<Tail, Error> {
        let changed = self.0.db().changed();
        let after = match after {
            Some(after) => after,
            None => self.newest().await?,
        };
        Ok(Tail {
            fleet: self.0.clone(),
            kinds: kinds.to_vec(),
            after,
            changed,
        })
    }

    /// Watches the caller's tenant from now, or after a number that was told before. [`Error::TooOld`] if the log no
    /// longer has what came since (or, after a restore, not yet): the watcher reads everything anew.
    pub async fn subscribe(&self, caller: &Caller, after: Option<i64>) -> Result<Subscription, Error> {
        caller.require_anywhere(crate::Role::Viewer)?;
        let newest = self.newest().await?;
        let feed = self.feed(&caller.tenant, newest);
        let from = after.unwrap_or(newest);
        if from > newest || from < newest && self.oldest().await? > from + 1 {
            return Err(Error::TooOld { asked: from });
        }
        Ok(Subscription {
            fleet: self.0.clone(),
            caller: caller.clone(),
            after: from,
            catching_up: true,
            feed,
        })
    }

    async fn oldest(&self) -> Result<i64, Error> {
        let row = self.0.db().row("SELECT MIN(seq) FROM change", vec![]).await?;
        Ok(row.and_then(|row| row.opt_int(0)).unwrap_or(i64::MAX))
    }

    /// The tenant's reader, started after a number if there is none.
    fn feed(&self, tenant: &str, after: i64) -> broadcast::Receiver<Told> {
        let mut hub = self.0.0.hub.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = hub.get(tenant) {
            return sender.subscribe();
        }
        let (sender, receiver) = broadcast::channel(BEHIND);
        hub.insert(tenant.to_owned(), sender.clone());
        tokio::spawn(run(self.0.clone(), tenant.to_owned(), after, sender));
        receiver
    }

    /// Forgets rows past their time. For the leader.
    pub async fn prune(&self) -> Result<(), Error> {
        let kept = i64::try_from(self.0.options().changes.as_millis()).unwrap_or(i64::MAX);
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let before = tx.now.millis().saturating_sub(kept);
                    // By number, which is the key: the newest row that is old enough.
                    let row = tx
                        .row(
                            "SELECT seq FROM change WHERE time<$1 ORDER BY seq DESC LIMIT 1",
                            args![before],
                        )
                        .await?;
                    match row {
                        Some(row) => {
                            tx.run("DELETE FROM change WHERE seq<=$1", args![row.int(0)])
                                .await
                        }
                        None => Ok(0),
                    }
                })
            })
            .await
            .map(drop)
    }

    /// Hears of what other processes commit: on PostgreSQL, until the end of the process. Without it they are heard of
    /// within a second.
    pub async fn listen(self) {
        loop {
            match self.0.db().listen("selvedge_change").await {
                Ok(None) => return,
                Ok(Some(mut listener)) => {
                    while listener.recv().await.is_ok() {
                        self.0.db().poke();
                    }
                }
                Err(_) => {}
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// One tenant's reader: ends when nobody watches.
async fn run(fleet: Fleet, tenant: String, mut after: i64, sender: broadcast::Sender<Told>) {
    let mut changed = fleet.db().changed();
    loop {
        {
            let mut hub = fleet.0.hub.0.lock().unwrap_or_else(PoisonError::into_inner);
            if sender.receiver_count() == 0 {
                hub.remove(&tenant);
                return;
            }
        }
        changed.mark_unchanged();
        let told = step(&fleet, &tenant, &mut after).await;
        match told {
            Ok(told) if told.is_empty() => {
                // Wakes now and then also where nothing is written, to see whether anybody still watches.
                let _ = tokio::time::timeout(LOOK, changed.changed()).await;
                tokio::time::sleep(GATHER).await;
            }
            Ok(told) => {
                let _ = sender.send(Ok(Arc::new(told)));
            }
            Err(_) => {
                let _ = sender.send(Err(()));
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

async fn step(fleet: &Fleet, tenant: &str, after: &mut i64) -> Result<Vec<Change>, Error> {
    let (rows, last) = read(fleet.db(), Some(tenant), &[], *after).await?;
    let told = tell(fleet, tenant, rows).await?;
    *after = last;
    Ok(told)
}

/// Gathers rows by object and reads what the objects are now.
async fn tell(fleet: &Fleet, tenant: &str, rows: Vec<Raw>) -> Result<Vec<Change>, Error> {
    let mut newest: HashMap<(Kind, String), Raw> = HashMap::new();
    for row in rows {
        newest.insert((row.kind, row.id.clone()), row);
    }
    if newest.is_empty() {
        return Ok(Vec::new());
    }
    let caller = Caller::system(tenant, "stream");
    let ids = |kind: Kind| -> Vec<String> {
        let of_kind = newest
            .values()
            .filter(|row| row.kind == kind && row.op == Op::Upsert);
        of_kind.map(|row| row.id.clone()).collect()
    };
    let mut objects: HashMap<(Kind, String), Value> = HashMap::new();
    let (sites, hosts) = (ids(Kind::Site), ids(Kind::Host));
    if !sites.is_empty() {
        for site in fleet.sites().some(&caller, &sites).await? {
            objects.insert((Kind::Site, site.id.clone()), json(&site));
        }
    }
    if !hosts.is_empty() {
        for host in fleet.hosts().some(&caller, &hosts).await? {
            objects.insert((Kind::Host, host.id.clone()), json(&host));
        }
    }
    for id in ids(Kind::Repository) {
        if let Some(repository) = fleet.repositories().find(tenant, &id).await? {
            objects.insert((Kind::Repository, id), json(&repository));
        }
    }
    for id in ids(Kind::Rollout) {
        if let Some(object) = found(fleet.rollouts().get(&caller, &id).await)? {
            objects.insert((Kind::Rollout, id), object);
        }
    }
    for id in ids(Kind::Alert) {
        if let Some(object) = found(fleet.alerts().get(&caller, &id).await)? {
            objects.insert((Kind::Alert, id), object);
        }
    }
    let places = places(fleet, tenant, newest.values()).await?;
    let mut told: Vec<Change> = newest
        .into_values()
        .map(|row| {
            let object = objects
                .remove(&(row.kind, row.id.clone()))
                .unwrap_or_else(|| serde_json::json!({"id": row.id, "name": row.name}));
            Change {
                seq: row.seq,
                kind: row.kind,
                op: row.op,
                site: row.site.and_then(|site| places.get(&site).cloned()),
                id: row.id,
                name: row.name,
                object: Arc::new(object),
            }
        })
        .collect();
    told.sort_by_key(|change| change.seq);
    Ok(told)
}

fn json<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// An object as JSON; none if it went meanwhile.
fn found<T: serde::Serialize>(read: Result<T, Error>) -> Result<Option<Value>, Error> {
    match read {
        Ok(object) => Ok(Some(json(&object))),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Names and labels of the sites that rows belong to.
async fn places<'a>(
    fleet: &Fleet,
    tenant: &str,
    rows: impl Iterator<Item = &'a Raw>,
) -> Result<HashMap<String, Arc<(String, Map)>>, Error> {
    let mut places: HashMap<String, Arc<(String, Map)>> = HashMap::new();
    let mut ids: Vec<String> = Vec::new();
    for row in rows {
        if let Some(site) = &row.site {
            // A site that is gone has no labels; whoever was bound to its name hears of it.
            let name = if row.kind == Kind::Site {
                row.name.clone()
            } else {
                String::new()
            };
            places.insert(site.clone(), Arc::new((name, Map::new())));
            ids.push(site.clone());
        }
    }
    if ids.is_empty() {
        return Ok(places);
    }
    let mut sql = Sql::new("SELECT id,name,labels FROM site WHERE tenant=");
    sql.bind(tenant).push(" AND id IN ").list(&ids);
    for row in fleet.db().query(sql).await? {
        places.insert(row.text(0), Arc::new((row.text(1), row.json(2))));
    }
    Ok(places)
}
