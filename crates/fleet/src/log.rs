//! What each transaction leaves behind: lines of the tenant's audit log and rows of the change log.
//!
//! Both are gathered while the transaction runs and written at its end, in one order everywhere, so that the rows all
//! writers meet at (the end of an audit chain, the counter of changes) are locked for the shortest time.

use aws_lc_rs::digest;
use futures::future::BoxFuture;
use serde::Serialize;
use serde_json::Value as Json;

use crate::db::Tx;
use crate::model::{ActorKind, ObjectRef, Time};
use crate::{Caller, Error, args};

/// Kinds of objects that people watch.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, serde::Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Kind {
    /// A site.
    Site,
    /// A host.
    Host,
    /// A rollout.
    Rollout,
    /// An alert.
    Alert,
    /// A repository.
    Repository,
    /// A host that waits, or an activation key.
    Enrollment,
    /// What a host, or all hosts of a site or repository, are told: for the processes that hold links, never shown.
    Assignment,
    /// Hosts that must be cut off: for the processes that hold links, never shown.
    Revocation,
}

impl Kind {
    /// As in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Site => "site",
            Self::Host => "host",
            Self::Rollout => "rollout",
            Self::Alert => "alert",
            Self::Repository => "repository",
            Self::Enrollment => "enrollment",
            Self::Assignment => "assignment",
            Self::Revocation => "revocation",
        }
    }

    /// From the word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [
            Self::Site,
            Self::Host,
            Self::Rollout,
            Self::Alert,
            Self::Repository,
            Self::Enrollment,
            Self::Assignment,
            Self::Revocation,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == word)
    }
}

/// What happened to an object that people watch.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, serde::Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum Op {
    /// It is there, perhaps new, perhaps changed.
    Upsert,
    /// It is gone.
    Delete,
}

impl Op {
    /// As in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Upsert => "upsert",
            Self::Delete => "delete",
        }
    }
}

/// What a transaction will write at its end.
#[derive(Debug, Default)]
pub(crate) struct Log {
    audit: Vec<Line>,
    changes: Vec<Row>,
    /// The same, for looking up.
    told: std::collections::HashSet<Row>,
}

#[derive(Debug)]
struct Line {
    tenant: String,
    actor: String,
    kind: ActorKind,
    from: String,
    action: &'static str,
    object: ObjectRef,
    before: Option<Json>,
    after: Option<Json>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Row {
    tenant: String,
    kind: Kind,
    op: Op,
    id: String,
    name: String,
    site: Option<String>,
}

/// Runs the closure of a transaction and writes its logs; whether there were changes to tell.
pub(crate) async fn logged<'env, T, F>(tx: &mut Tx<'env>, f: &F) -> Result<(T, bool), Error>
where
    F: for<'t> Fn(&'t mut Tx<'env>) -> BoxFuture<'t, Result<T, Error>> + Send + Sync,
{
    let value = f(tx).await?;
    let log = std::mem::take(&mut tx.log);
    let told = !log.changes.is_empty();
    write_audit(tx, log.audit).await?;
    write_changes(tx, log.changes).await?;
    Ok((value, told))
}

impl Tx<'_> {
    /// Says who did what, for the audit log. Only types that carry no secret may come in as `before` and `after`.
    pub fn audit<B: Serialize, A: Serialize>(
        &mut self,
        caller: &Caller,
        action: &'static str,
        object: ObjectRef,
        before: Option<&B>,
        after: Option<&A>,
    ) {
        self.log.audit.push(Line {
            tenant: caller.tenant.clone(),
            actor: caller.actor.clone(),
            kind: caller.kind,
            from: caller.from.clone(),
            action,
            object,
            before: before.and_then(|v| serde_json::to_value(v).ok()),
            after: after.and_then(|v| serde_json::to_value(v).ok()),
        });
    }

    /// Says that an object changed, for those who watch. `site` is the id of the site it belongs to.
    pub fn changed(&mut self, tenant: &str, kind: Kind, op: Op, id: &str, name: &str, site: Option<&str>) {
        let row = Row {
            tenant: tenant.to_owned(),
            kind,
            op,
            id: id.to_owned(),
            name: name.to_owned(),
            site: site.map(str::to_owned),
        };
        // One transaction tells of an object once.
        if self.log.told.insert(row.clone()) {
            self.log.changes.push(row);
        }
    }
}

async fn write_audit(tx: &mut Tx<'_>, mut lines: Vec<Line>) -> Result<(), Error> {
    // Tenants in order, so that two transactions never wait for each other.
    lines.sort_by(|a, b| a.tenant.cmp(&b.tenant));
    let mut head: Option<(String, i64, String)> = None;
    for line in lines {
        let (mut seq, mut hash) = match head.take() {
            Some((tenant, seq, hash)) if tenant == line.tenant => (seq, hash),
            other => {
                finish(tx, other).await?;
                begin(tx, &line.tenant).await?
            }
        };
        seq += 1;
        let before = line.before.map(|v| v.to_string());
        let after = line.after.map(|v| v.to_string());
        let kind = word(&line.kind);
        hash = chain(
            &hash,
            &[
                &line.tenant,
                &seq.to_string(),
                &tx.now.millis().to_string(),
                &line.actor,
                &kind,
                &line.from,
                line.action,
                &line.object.kind,
                &line.object.id,
                &line.object.name,
                before.as_deref().unwrap_or(""),
                after.as_deref().unwrap_or(""),
            ],
        );
        let now = tx.now;
        tx.run(
            "INSERT INTO audit (tenant,seq,time,actor,actor_kind,source,action,object_kind,object_id,object_name,\
             before,after,hash) VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13)",
            args![
                &line.tenant,
                seq,
                now,
                line.actor,
                kind,
                line.from,
                line.action,
                line.object.kind,
                line.object.id,
                line.object.name,
                before,
                after,
                &hash
            ],
        )
        .await?;
        head = Some((line.tenant, seq, hash));
    }
    finish(tx, head).await
}

async fn begin(tx: &mut Tx<'_>, tenant: &str) -> Result<(i64, String), Error> {
    tx.run(
        "INSERT INTO audit_head (tenant,seq,hash) VALUES ($1,0,'') ON CONFLICT DO NOTHING",
        args![tenant],
    )
    .await?;
    let row = tx
        .row(
            "SELECT seq,hash FROM audit_head WHERE tenant=$1 FOR UPDATE",
            args![tenant],
        )
        .await?;
    Ok(row.map_or((0, String::new()), |row| (row.int(0), row.text(1))))
}

async fn finish(tx: &mut Tx<'_>, head: Option<(String, i64, String)>) -> Result<(), Error> {
    if let Some((tenant, seq, hash)) = head {
        tx.run(
            "UPDATE audit_head SET seq=$2, hash=$3 WHERE tenant=$1",
            args![tenant, seq, hash],
        )
        .await?;
    }
    Ok(())
}

async fn write_changes(tx: &mut Tx<'_>, rows: Vec<Row>) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    // Whoever holds this row commits before the next number is given: a reader never sees a later change first.
    let last = tx
        .row(
            "UPDATE counter SET value=value+$1 WHERE name='change' RETURNING value",
            args![rows.len()],
        )
        .await?
        .map_or(0, |row| row.int(0));
    let first = last - i64::try_from(rows.len()).unwrap_or(0) + 1;
    let now = tx.now;
    // Several rows a statement: status reports come in batches of hundreds.
    for (at, some) in rows.chunks(64).enumerate() {
        let mut sql =
            crate::db::Sql::new("INSERT INTO change (seq,tenant,kind,op,id,name,site,time) VALUES ");
        for (n, row) in some.iter().enumerate() {
            let seq = first + i64::try_from(at * 64 + n).unwrap_or(0);
            sql.push(if n == 0 { "(" } else { ",(" });
            sql.bind(seq).push(",").bind(row.tenant.as_str()).push(",");
            sql.bind(row.kind.as_str())
                .push(",")
                .bind(row.op.as_str())
                .push(",");
            sql.bind(row.id.as_str())
                .push(",")
                .bind(row.name.as_str())
                .push(",");
            sql.bind(row.site.as_deref()).push(",").bind(now).push(")");
        }
        tx.execute(sql).await?;
    }
    if tx.shared() {
        tx.run("SELECT pg_notify('selvedge_change', '')", vec![]).await?;
    }
    Ok(())
}

/// SHA-256 over the hash before and the fields, each with its length, so that no two lines have the same bytes.
pub(crate) fn chain(previous: &str, fields: &[&str]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(previous.as_bytes());
    for field in fields {
        context.update(&(field.len() as u64).to_be_bytes());
        context.update(field.as_bytes());
    }
    hex(context.finish().as_ref())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// The word of an enumeration, as serde writes it.
pub(crate) fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(Json::String(word)) => word,
        _ => String::new(),
    }
}

/// A new id: UUID version 7, so that rows made together lie together.
pub(crate) fn new_id(now: Time) -> String {
    let mut random = [0_u8; 10];
    // Without randomness nothing here works; the certificate library says so before ids collide.
    let _ = aws_lc_rs::rand::fill(&mut random);
    let millis = u64::try_from(now.millis()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random)
        .into_uuid()
        .to_string()
}
