//! What each host is told, and which generation that has.
//!
//! # Generations
//!
//! A host's assignment is made of its own row, its site's and its repository's. Each of the three carries `told`, the
//! number at which something in it that hosts are told changed last; the numbers come from one counter that only
//! rises. The assignment's generation is the highest of the three: a change of a repository that 50,000 hosts follow
//! writes one row.
//!
//! # After a restore
//!
//! Numbers are `epoch << 32 | count`. A restore starts a new epoch (the time of the restore), so that numbers given
//! afterwards are higher than all that hosts ever saw. Past epochs are remembered with their first and last number:
//! a number in none of them was given after the backup was made. What the restored database says of a site may be
//! older than what its hosts were told since. So a host that says, in hello, that it has such a number is *ahead*
//! ([`Assignments::said`]):
//!
//! * nothing is sent to it until something it is told changes in the new epoch;
//! * and then, as long as the site's *target* was not set in the new epoch, the target is the one that the host itself
//!   reports; until it has reported one, nothing is sent.
//!
//! An orchestrator whose database was put back behind our back (a snapshot of its disk) is found out in the same
//! way, by the first such host, and starts a new epoch by itself.

use std::collections::BTreeMap;

use link::message::{Assignment, Source, Target};

use crate::db::{Row, Sql, Tx};
use crate::log::{Kind, Op};
use crate::model::{Credentials, Map};
use crate::{Error, Fleet, args};

const COUNT_BITS: u32 = 32;

/// See [`Fleet::assignments`].
#[derive(Clone, Copy, Debug)]
pub struct Assignments<'a>(pub(crate) &'a Fleet);

impl Fleet {
    /// What hosts are told.
    #[must_use]
    pub fn assignments(&self) -> Assignments<'_> {
        Assignments(self)
    }

    /// When the database was made or last restored, in seconds since 1970. Rises with each restore.
    pub async fn epoch(&self) -> Result<i64, Error> {
        let row = self
            .db()
            .row("SELECT value FROM counter WHERE name='assignment'", vec![])
            .await?;
        Ok(row.map_or(0, |row| row.int(0)) >> COUNT_BITS)
    }
}

/// An assignment with its generation.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbered {
    /// Higher than that of any assignment of this host before.
    pub generation: u64,
    /// What the host shall be.
    pub assignment: Assignment,
}

/// The next number.
pub(crate) async fn next(tx: &mut Tx<'_>) -> Result<i64, Error> {
    let first = (tx.now.millis() / 1000) << COUNT_BITS | 1;
    let row = tx
        .row(
            "INSERT INTO counter (name,value) VALUES ('assignment',$1) \
             ON CONFLICT (name) DO UPDATE SET value=counter.value+1 RETURNING value",
            args![first],
        )
        .await?;
    Ok(row.map_or(first, |row| row.int(0)))
}

/// The number that was given last.
async fn last(tx: &mut Tx<'_>) -> Result<Option<i64>, Error> {
    let row = tx
        .row(
            "SELECT value FROM counter WHERE name='assignment' FOR UPDATE",
            vec![],
        )
        .await?;
    Ok(row.map(|row| row.int(0)))
}

/// Starts a new epoch.
pub(crate) async fn new_epoch(tx: &mut Tx<'_>) -> Result<(), Error> {
    let now = (tx.now.millis() / 1000) << COUNT_BITS;
    let last = match last(tx).await? {
        Some(last) => last,
        None => next(tx).await?,
    };
    let mut past = past(tx.row(PAST, vec![]).await?);
    past.push(((last >> COUNT_BITS) << COUNT_BITS, last));
    let text = serde_json::to_string(&past).unwrap_or_default();
    tx.run(
        "INSERT INTO meta (name,value) VALUES ('epochs',$1) ON CONFLICT (name) DO UPDATE SET value=$1",
        args![text],
    )
    .await?;
    // A clock that went back must not take the epoch with it.
    let first = now.max(((last >> COUNT_BITS) + 1) << COUNT_BITS);
    tx.run(
        "UPDATE counter SET value=$1 WHERE name='assignment'",
        args![first],
    )
    .await
    .map(drop)
}

const PAST: &str = "SELECT value FROM meta WHERE name='epochs'";

/// First and last number of each past epoch.
fn past(row: Option<Row>) -> Vec<(i64, i64)> {
    row.map(|row| row.json(0)).unwrap_or_default()
}

/// Says that what is told to the hosts of something changed. `kind` is `host`, `site` or `repository`.
pub(crate) fn tell(tx: &mut Tx<'_>, tenant: &str, kind: &'static str, id: &str) {
    tx.changed(tenant, Kind::Assignment, Op::Upsert, id, kind, None);
}

/// Rows of one question.
const ROWS: usize = 500;

const OF: &str = "SELECT h.name,h.labels,h.told,h.acknowledged,h.ahead,h.target_mode,h.target,\
     t.name,s.id,s.name,s.labels,s.variables,s.secret_values,s.path,s.branch,s.policy,s.target,s.targeted,s.told,\
     r.id,r.url,r.branch,r.auth,r.credentials,r.ca_pem,r.known_hosts,r.told,r.hosted,h.id \
     FROM host h JOIN tenant t ON t.id=h.tenant \
     LEFT JOIN site s ON s.tenant=h.tenant AND s.id=h.site \
     LEFT JOIN repository r ON r.tenant=s.tenant AND r.id=s.repository \
     WHERE h.phase='enrolled' AND h.tenant=";

fn generation(row: &Row) -> i64 {
    row.int(2).max(row.int(18)).max(row.int(26))
}

impl Assignments<'_> {
    /// What a host is to be told; none if there is nothing to tell it: it isn't enrolled or has no site, or it is ahead
    /// of this database (see the module).
    pub async fn of(&self, tenant: &str, host: &str) -> Result<Option<Numbered>, Error> {
        let mut sql = Sql::new(OF);
        sql.bind(tenant).push(" AND h.id=").bind(host);
        let rows = self.0.db().query(sql).await?;
        rows.first().map_or(Ok(None), |row| self.read(tenant, row))
    }

    /// The same for many: those that are to be told something, with it.
    pub async fn of_many(&self, tenant: &str, hosts: &[String]) -> Result<Vec<(String, Numbered)>, Error> {
        let mut all = Vec::with_capacity(hosts.len());
        for some in hosts.chunks(ROWS) {
            let mut sql = Sql::new(OF);
            sql.bind(tenant).push(" AND h.id IN ");
            sql.list(some.iter().map(String::as_str));
            for row in self.0.db().query(sql).await? {
                if let Some(numbered) = self.read(tenant, &row)? {
                    all.push((row.text(28), numbered));
                }
            }
        }
        Ok(all)
    }

    fn read(&self, tenant: &str, row: &Row) -> Result<Option<Numbered>, Error> {
        let Some(site) = row.opt_text(8) else {
            return Ok(None);
        };
        let generation = generation(row);
        let ahead = row.int(4);
        if generation <= ahead {
            return Ok(None);
        }
        let target = if ahead > row.int(17) {
            // The target is older than what the host was told once: its own word counts.
            match (row.str(5), row.opt_text(6)) {
                ("pinned", Some(commit)) => Target::Pinned { commit },
                ("follow", _) => Target::Follow,
                _ => return Ok(None),
            }
        } else {
            match (row.opt_text(16), row.opt_text(15)) {
                (Some(commit), _) => Target::Pinned { commit },
                // Under a policy nothing is applied before the rollout says so.
                (None, Some(_)) => Target::Pinned {
                    commit: String::new(),
                },
                (None, None) => Target::Follow,
            }
        };
        let mut labels: Map = row.json(10);
        labels.extend(row.json::<Map>(1));
        Ok(Some(Numbered {
            generation: u64::try_from(generation).unwrap_or(0),
            assignment: Assignment {
                tenant: row.text(7),
                site: row.text(9),
                host: row.text(0),
                labels,
                source: self.source(tenant, row)?,
                variables: row.json(11),
                secret_variables: self.0.secret_variables(tenant, &site, row.bytes(12))?,
                target,
            },
        }))
    }

    fn source(&self, tenant: &str, row: &Row) -> Result<Option<Source>, Error> {
        let Some(id) = row.opt_text(19) else {
            return Ok(None);
        };
        let credentials = match row.bytes(23) {
            Some(sealed) => self.0.open_credentials(tenant, &id, &sealed)?,
            None => Credentials::default(),
        };
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        let auth = row.str(22);
        let basic = auth == "basic";
        Ok(Some(Source {
            url: row.text(20),
            branch: row.opt_text(14).unwrap_or_else(|| row.text(21)),
            path: row.text(13),
            interval: String::new(),
            username: some(credentials.username).filter(|_| basic),
            password: some(credentials.password).filter(|_| basic),
            bearer: some(credentials.bearer).filter(|_| auth == "bearer"),
            identity: some(credentials.identity).filter(|_| auth == "ssh"),
            known_hosts: row.opt_text(25).and_then(some),
            ca: row.opt_text(24).and_then(some),
        }))
    }

    /// The hosts that changes of kind [`Kind::Assignment`] are about: of those enrolled. `what` are the things that changed,
    /// `host`, `site` or `repository`.
    pub async fn hosts_of<'i>(
        &self,
        tenant: &str,
        what: &str,
        ids: impl IntoIterator<Item = &'i str>,
    ) -> Result<Vec<String>, Error> {
        let (join, column) = match what {
            "site" => ("", "h.site"),
            "repository" => (
                " JOIN site s ON s.tenant=h.tenant AND s.id=h.site",
                "s.repository",
            ),
            _ => ("", "h.id"),
        };
        let ids: Vec<&str> = ids.into_iter().collect();
        let mut hosts = Vec::with_capacity(ids.len());
        for some in ids.chunks(ROWS) {
            let mut sql = Sql::new("SELECT h.id FROM host h");
            sql.push(join)
                .push(" WHERE h.phase='enrolled' AND h.tenant=")
                .bind(tenant);
            sql.push(" AND ").push(column).push(" IN ");
            sql.list(some.iter().copied());
            hosts.extend(self.0.db().query(sql).await?.iter().map(|row| row.text(0)));
        }
        Ok(hosts)
    }

    /// Sets or takes away the target commits of sites, in the caller's transaction. For rollouts.
    pub async fn set_targets(
        &self,
        tx: &mut Tx<'_>,
        tenant: &str,
        targets: &[(String, Option<String>)],
    ) -> Result<(), Error> {
        if targets.is_empty() {
            return Ok(());
        }
        let told = next(tx).await?;
        let epoch = (told >> COUNT_BITS) << COUNT_BITS;
        let mut by_commit: BTreeMap<Option<&str>, Vec<&str>> = BTreeMap::new();
        for (site, commit) in targets {
            by_commit.entry(commit.as_deref()).or_default().push(site);
        }
        for (commit, sites) in by_commit {
            for some in sites.chunks(ROWS) {
                let mut sql = Sql::new("UPDATE site SET target=");
                sql.bind(commit).push(",targeted=").bind(told);
                sql.push(",told=").bind(told);
                sql.push(" WHERE tenant=").bind(tenant).push(" AND id IN ");
                sql.list(some.iter().copied());
                sql.push(" AND (COALESCE(target,'')<>")
                    .bind(commit.unwrap_or_default());
                sql.push(" OR targeted<").bind(epoch).push(") RETURNING id,name");
                for row in tx.query(sql).await? {
                    let (site, name) = (row.text(0), row.text(1));
                    tell(tx, tenant, "site", &site);
                    tx.changed(tenant, Kind::Site, Op::Upsert, &site, &name, Some(&site));
                }
            }
        }
        Ok(())
    }

    /// A host said (in hello or after an assignment) which generation is in force on it, and perhaps why it refused.
    /// Returns what it should be told instead, if that is something else.
    pub async fn said(
        &self,
        tenant: &str,
        host: &str,
        said: u64,
        refused: Option<&str>,
    ) -> Result<Option<Numbered>, Error> {
        let said = i64::try_from(said).unwrap_or(0);
        let mut sql = Sql::new(OF);
        sql.bind(tenant).push(" AND h.id=").bind(host);
        let rows = self.0.db().query(sql).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let ours = generation(row);
        let refused = refused.unwrap_or("");
        if said != ours && said > row.int(4) && !self.gave(said).await? {
            self.is_ahead(tenant, host, said).await?;
            // What was asked for since the restore is told all the same, with the host's own target.
            return self.of(tenant, host).await;
        }
        if refused.is_empty() && said > row.int(3) {
            self.0
                .db()
                .write(|tx| {
                    Box::pin(async move {
                        tx.run(
                            "UPDATE host SET acknowledged=$3, refused='' WHERE tenant=$1 AND id=$2",
                            args![tenant, host, said],
                        )
                        .await
                    })
                })
                .await?;
        } else if !refused.is_empty() {
            let refused: &str = refused.get(..refused.floor_char_boundary(1024)).unwrap_or("");
            self.0
                .db()
                .write(|tx| {
                    Box::pin(async move {
                        tx.run(
                            "UPDATE host SET refused=$3 WHERE tenant=$1 AND id=$2 AND refused<>$3",
                            args![tenant, host, refused],
                        )
                        .await
                    })
                })
                .await?;
            return Ok(None);
        }
        if said == ours {
            Ok(None)
        } else {
            self.read(tenant, row)
        }
    }

    /// Whether a number was given by this database, and not by a later one that was lost.
    async fn gave(&self, number: i64) -> Result<bool, Error> {
        if number == 0 {
            return Ok(true);
        }
        let db = self.0.db();
        let counter = db
            .row("SELECT value FROM counter WHERE name='assignment'", vec![])
            .await?;
        let last = counter.map_or(0, |row| row.int(0));
        let first = (last >> COUNT_BITS) << COUNT_BITS;
        if (first..=last).contains(&number) {
            return Ok(true);
        }
        let past = past(db.row(PAST, vec![]).await?);
        Ok(past
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&number)))
    }

    /// A host knows more than this database: it was restored from a backup.
    async fn is_ahead(&self, tenant: &str, host: &str, said: i64) -> Result<(), Error> {
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    tx.run(
                        "UPDATE host SET ahead=$3, acknowledged=$3 WHERE tenant=$1 AND id=$2 AND ahead<$3",
                        args![tenant, host, said],
                    )
                    .await?;
                    if last(tx).await?.is_none_or(|last| last < said) {
                        // Put back without our restore: numbers would be given twice.
                        new_epoch(tx).await?;
                    }
                    Ok(())
                })
            })
            .await
    }
}
