use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use link::message::{Hello, Status};
use serde_json::Value;

use super::facts::{COLUMNS, Facts, SECTIONS};
use super::{Answer, Job, Key, What, events, usage};
use crate::db::{Row, Sql, Tx};
use crate::log::word;
use crate::model::{Connection, Time};
use crate::sites::summary;
use crate::{Error, Fleet, Kind, Op, args};

/// Bounds of what one host may have us keep.
const MOST_SECTIONS: usize = 4096;
const LONGEST_NAME: usize = 300;
/// All that is kept of a host together, characters.
const MOST_KEPT: i64 = 8 << 20;

/// Does all jobs in one transaction.
pub(super) async fn all(fleet: &Fleet, node: &str, jobs: &[Job]) -> Result<Vec<Answer>, Error> {
    let events = fleet.options().events;
    fleet
        .db()
        .write(|tx| {
            Box::pin(async move {
                let mut answers = Vec::with_capacity(jobs.len());
                let mut sites = BTreeSet::new();
                let mut known = together(tx, jobs).await?;
                for job in jobs {
                    // What is known of a host is as it was before its first job.
                    let stored = known.remove(&job.key);
                    answers.push(one(tx, node, job, stored, &mut sites, events).await?);
                }
                // In order, so that two writers never wait for each other; each once, however many of its hosts spoke.
                summary::refresh_all(tx, &sites).await?;
                Ok(answers)
            })
        })
        .await
}

type Sites = BTreeSet<(String, String)>;

/// A host as it is stored, its row held.
struct Stored {
    name: String,
    site: Option<String>,
    generation: i64,
    state: (String, String),
    node: Option<String>,
    boot: String,
    address: String,
    skew: i64,
    facts: Facts,
}

/// The hosts that jobs are about, their rows held. In order, so that two writers never wait for each other.
async fn together(tx: &mut Tx<'_>, jobs: &[Job]) -> Result<HashMap<Key, Stored>, Error> {
    let mut hosts: BTreeMap<&Arc<str>, BTreeSet<&Arc<str>>> = BTreeMap::new();
    for job in jobs {
        if !matches!(job.what, What::Acknowledged(_)) {
            hosts.entry(&job.key.0).or_default().insert(&job.key.1);
        }
    }
    let mut all = HashMap::with_capacity(jobs.len());
    for (tenant, hosts) in hosts {
        let mut sql = select(tenant);
        sql.push(" AND id IN ").list(hosts.iter().map(|host| &***host));
        sql.push(" ORDER BY id FOR UPDATE");
        for row in tx.query(sql).await? {
            all.insert((tenant.clone(), row.str(0).into()), Stored::read(&row));
        }
    }
    Ok(all)
}

async fn stored(tx: &mut Tx<'_>, (tenant, host): &Key) -> Result<Option<Stored>, Error> {
    let mut sql = select(tenant);
    sql.push(" AND id=").bind(&**host).push(" FOR UPDATE");
    Ok(tx.query(sql).await?.first().map(Stored::read))
}

fn select(tenant: &str) -> Sql {
    let mut sql = Sql::new("SELECT id,name,site,status_generation,state,reason,node,boot,address,skew,");
    sql.push(COLUMNS)
        .push(" FROM host WHERE phase='enrolled' AND tenant=")
        .bind(tenant);
    sql
}

impl Stored {
    fn read(row: &Row) -> Self {
        Self {
            name: row.text(1),
            site: row.opt_text(2),
            generation: row.int(3),
            state: (row.text(4), row.text(5)),
            node: row.opt_text(6),
            boot: row.text(7),
            address: row.text(8),
            skew: row.int(9),
            facts: Facts::read(row, 10),
        }
    }
}

async fn one(
    tx: &mut Tx<'_>,
    node: &str,
    job: &Job,
    known: Option<Stored>,
    sites: &mut Sites,
    most_events: i64,
) -> Result<Answer, Error> {
    let key = &job.key;
    if let What::Acknowledged(generation) = job.what {
        // Nothing of what is known of the host matters to it.
        let sql = "UPDATE host SET acknowledged=$3,refused='' WHERE tenant=$1 AND id=$2 AND acknowledged<$3";
        tx.run(sql, args![&*key.0, &*key.1, generation]).await?;
        return Ok(Answer::Done);
    }
    let found = match known {
        Some(known) => Some(known),
        // Another job of the same host came before, or there is none.
        None => stored(tx, key).await?,
    };
    let Some(stored) = found else {
        return Ok(Answer::Lost);
    };
    match &job.what {
        What::Acknowledged(_) => unreachable!("done above"),
        What::Connected { hello, address, skew } => {
            connected(tx, node, key, &stored, (hello, address, *skew), sites).await
        }
        What::Status(status) => report(tx, key, &stored, status, sites).await,
        What::Events(items) => {
            if events::write(tx, key, items, most_events).await? {
                changed(tx, key, &stored);
            }
            Ok(Answer::Done)
        }
        What::Clock(skew) => {
            let new = Extra {
                skew: *skew,
                ..Extra::of(&stored)
            };
            store(tx, key, &stored, &stored.facts, &new, sites).await?;
            Ok(Answer::Done)
        }
        What::Connection(is, at) => {
            if stored.node.as_deref() != Some(node) {
                // It came back at another process.
                return Ok(Answer::Lost);
            }
            let mut facts = stored.facts.clone();
            facts.connection = *is;
            facts.last_seen = Some(*at);
            let new = Extra {
                node: (*is != Connection::Offline).then(|| node.to_owned()),
                ..Extra::of(&stored)
            };
            store(tx, key, &stored, &facts, &new, sites).await?;
            Ok(Answer::Done)
        }
    }
}

fn changed(tx: &mut Tx<'_>, (tenant, host): &Key, stored: &Stored) {
    tx.changed(
        tenant,
        Kind::Host,
        Op::Upsert,
        host,
        &stored.name,
        stored.site.as_deref(),
    );
}

async fn connected(
    tx: &mut Tx<'_>,
    node: &str,
    key: &Key,
    stored: &Stored,
    (hello, address, skew): (&Hello, &str, Option<i64>),
    sites: &mut Sites,
) -> Result<Answer, Error> {
    let now = tx.now;
    let mut facts = stored.facts.clone();
    facts.connection = Connection::Online;
    facts.last_seen = Some(now);
    let new = Extra {
        node: Some(node.to_owned()),
        boot: hello.boot_id.chars().filter(|c| *c != '\0').take(64).collect(),
        address: address.to_owned(),
        connected: Some(now),
        generation: stored.generation,
        skew: skew.unwrap_or(stored.skew),
    };
    store(tx, key, stored, &facts, &new, sites).await?;
    Ok(Answer::Generation(u64::try_from(stored.generation).unwrap_or(0)))
}

/// Takes a status report in.
async fn report(
    tx: &mut Tx<'_>,
    key: &Key,
    stored: &Stored,
    status: &Status,
    sites: &mut Sites,
) -> Result<Answer, Error> {
    let (tenant, host) = (&*key.0, &*key.1);
    let base = i64::try_from(status.base).unwrap_or(i64::MAX);
    let generation = i64::try_from(status.generation).unwrap_or(i64::MAX);
    if base != 0 && base != stored.generation {
        return Ok(Answer::Resync);
    }
    if status.set.len() > MOST_SECTIONS
        || status
            .set
            .keys()
            .any(|name| name.is_empty() || name.len() > LONGEST_NAME || name.contains('\0'))
    {
        return Err(Error::invalid(
            "status",
            "has too many sections, or one without a fitting name",
        ));
    }
    let mut facts = stored.facts.clone();
    let mut set: BTreeMap<&str, &Value> = status.set.iter().map(|(name, v)| (name.as_str(), v)).collect();
    if let Some(value) = set.remove("usage") {
        usage::write(tx, key, value).await?;
    }
    let mut gone: Vec<String> = status.remove.clone();
    if base == 0 {
        facts.take_all(&status.set);
        let rows = tx
            .rows(
                "SELECT name FROM section WHERE tenant=$1 AND host=$2",
                args![tenant, host],
            )
            .await?;
        gone = rows
            .iter()
            .map(|row| row.text(0))
            .filter(|name| !set.contains_key(name.as_str()))
            .collect();
    } else {
        for name in SECTIONS {
            if let Some(value) = set.get(name) {
                facts.take(name, value);
            } else if status.remove.iter().any(|removed| removed == name) {
                facts.take(name, &Value::Null);
            }
        }
    }
    let wrote = write_sections(tx, (tenant, host), &set, &gone).await?;
    // Only names with a place in them are more than a handful: each report may bring others.
    if set.keys().any(|name| !SECTIONS.contains(name)) {
        bounded(tx, (tenant, host)).await?;
    }
    let new = Extra {
        generation,
        ..Extra::of(stored)
    };
    store(tx, key, stored, &facts, &new, sites).await?;
    if wrote {
        changed(tx, key, stored);
    }
    Ok(Answer::Done)
}

/// Refuses a host that adds section to section, however small its reports.
async fn bounded(tx: &mut Tx<'_>, (tenant, host): (&str, &str)) -> Result<(), Error> {
    let row = tx
        .row(
            "SELECT COUNT(*),CAST(COALESCE(SUM(LENGTH(value)),0) AS BIGINT) FROM section WHERE tenant=$1 AND host=$2",
            args![tenant, host],
        )
        .await?;
    let (count, size) = row.map_or((0, 0), |row| (row.int(0), row.int(1)));
    if count > i64::try_from(MOST_SECTIONS).unwrap_or(i64::MAX) || size > MOST_KEPT {
        return Err(Error::invalid(
            "status",
            "is more than is kept of one host: sections that are gone must be removed",
        ));
    }
    Ok(())
}

/// Writes sections that differ from what is stored; whether there were any.
async fn write_sections(
    tx: &mut Tx<'_>,
    (tenant, host): (&str, &str),
    set: &BTreeMap<&str, &Value>,
    gone: &[String],
) -> Result<bool, Error> {
    let mut wrote = 0;
    let all: Vec<(&str, String)> = set
        .iter()
        // JSON may have NUL in its texts, escaped: as text it has none.
        .map(|(name, value)| (*name, value.to_string()))
        .collect();
    for some in all.chunks(32) {
        let mut sql = Sql::new("INSERT INTO section (tenant,host,name,value) VALUES ");
        for (n, (name, value)) in some.iter().enumerate() {
            sql.push(if n == 0 { "(" } else { ",(" })
                .bind(tenant)
                .push(",")
                .bind(host);
            sql.push(",").bind(*name).push(",").bind(value.as_str()).push(")");
        }
        sql.push(
            " ON CONFLICT (tenant,host,name) DO UPDATE SET value=excluded.value WHERE section.value<>excluded.value",
        );
        wrote += tx.execute(sql).await?;
    }
    for (name, value) in set {
        crate::search::index::section(tx, tenant, host, name, Some(value)).await?;
    }
    for some in gone.chunks(64) {
        let mut sql = Sql::new("DELETE FROM section WHERE tenant=");
        sql.bind(tenant)
            .push(" AND host=")
            .bind(host)
            .push(" AND name IN ")
            .list(some);
        wrote += tx.execute(sql).await?;
        for name in some {
            crate::search::index::section(tx, tenant, host, name, None).await?;
        }
    }
    Ok(wrote > 0)
}

/// What a job sets beside the facts.
#[derive(PartialEq)]
struct Extra {
    node: Option<String>,
    boot: String,
    address: String,
    /// Connected now.
    connected: Option<Time>,
    generation: i64,
    /// How far the host's clock is off, milliseconds.
    skew: i64,
}

impl Extra {
    fn of(stored: &Stored) -> Self {
        Self {
            node: stored.node.clone(),
            boot: stored.boot.clone(),
            address: stored.address.clone(),
            connected: None,
            generation: stored.generation,
            skew: stored.skew,
        }
    }
}

/// Writes the host's row if it differs, and marks its site and the change.
async fn store(
    tx: &mut Tx<'_>,
    key: &Key,
    stored: &Stored,
    facts: &Facts,
    extra: &Extra,
    sites: &mut Sites,
) -> Result<(), Error> {
    let (tenant, host) = (&*key.0, &*key.1);
    let (state, reason) = facts.state();
    let state_word = word(&state);
    let same_state = state_word == stored.state.0 && reason == stored.state.1;
    if extra.skew != stored.skew {
        changed(tx, key, stored);
    }
    if same_state && *facts == stored.facts {
        if *extra != Extra::of(stored) {
            // A report whose sections nobody counts: only its generation is new.
            tx.run(
                "UPDATE host SET node=$3,boot=$4,address=$5,connected_at=COALESCE($6,connected_at),\
                 status_generation=$7,skew=$8 WHERE tenant=$1 AND id=$2",
                args![
                    tenant,
                    host,
                    &extra.node,
                    &extra.boot,
                    &extra.address,
                    extra.connected,
                    extra.generation,
                    extra.skew
                ],
            )
            .await?;
        }
        return Ok(());
    }
    let now = tx.now;
    tx.run(
        "UPDATE host SET node=$3,boot=$4,address=$5,connected_at=COALESCE($6,connected_at),status_generation=$7,\
         connection=$8,last_seen_at=$9,applied=$10,attempted=$11,quarantined=$12,drift=$13,compliance=$14,\
         versions=$15,health=$16,health_reason=$17,target_mode=$18,target=$19,state=$20,rank=$21,reason=$22,\
         skew=$24,updated_at=$23,since=CASE WHEN state=$20 THEN since ELSE $23 END WHERE tenant=$1 AND id=$2",
        args![
            tenant,
            host,
            &extra.node,
            &extra.boot,
            &extra.address,
            extra.connected,
            extra.generation,
            word(&facts.connection),
            facts.last_seen,
            &facts.applied,
            &facts.attempted,
            crate::sites::json(&facts.quarantined),
            facts.drift,
            word(&facts.compliance),
            crate::sites::json(&facts.versions),
            &facts.health,
            &facts.health_reason,
            &facts.target_mode,
            &facts.target,
            state_word,
            summary::rank(state),
            &reason,
            now,
            extra.skew
        ],
    )
    .await?;
    // A host that only connected anew looks as before.
    let shown = !same_state
        || Facts {
            last_seen: stored.facts.last_seen,
            ..facts.clone()
        } != stored.facts;
    if shown {
        changed(tx, key, stored);
        if let Some(site) = &stored.site {
            sites.insert((tenant.to_owned(), site.clone()));
        }
    }
    Ok(())
}

/// Makes hosts stale and offline that no process has.
pub(super) async fn sweep(tx: &mut Tx<'_>, beat: i64) -> Result<u64, Error> {
    let now = tx.now.millis();
    let mut sites = Sites::new();
    let mut swept = 0;
    for (is, from, missed) in [
        (Connection::Offline, "('online','stale')", 44),
        (Connection::Stale, "('online')", 22),
    ] {
        let mut sql =
            Sql::new("SELECT tenant,id FROM host WHERE node IS NULL AND phase='enrolled' AND connection IN ");
        sql.push(from)
            .push(" AND COALESCE(last_seen_at,0)<")
            .bind(now - beat * missed / 10);
        sql.push(" ORDER BY tenant,id LIMIT 2000");
        for row in tx.query(sql).await? {
            let key: Key = (row.str(0).into(), row.str(1).into());
            let Some(stored) = stored(tx, &key).await? else {
                continue;
            };
            if stored.node.is_some() || stored.facts.connection == is {
                continue;
            }
            let mut facts = stored.facts.clone();
            facts.connection = is;
            store(tx, &key, &stored, &facts, &Extra::of(&stored), &mut sites).await?;
            swept += 1;
        }
    }
    summary::refresh_all(tx, &sites).await?;
    Ok(swept)
}
