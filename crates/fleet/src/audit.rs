//! The audit log: who did what, when, from where. Lines are only ever added, each with the hash of all before it.
//!
//! Secrets can't be in it: what is logged are the types that the API shows, which have none.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::db::{Row, Sql};
use crate::log::chain;
use crate::model::{ActorKind, AuditEntry, ObjectRef};
use crate::page::{Order, Page, Query, Sort};
use crate::{Caller, Error, Fleet, Role, args};

const COLUMNS: &str =
    "seq,time,actor,actor_kind,source,action,object_kind,object_id,object_name,before,after,hash";
const SORTS: &[Sort] = &[Sort {
    name: "seq",
    column: "seq",
    number: true,
}];

/// See [`Fleet::audit`].
#[derive(Clone, Copy, Debug)]
pub struct Audit<'a>(&'a Fleet);

impl Fleet {
    /// The audit log.
    #[must_use]
    pub fn audit(&self) -> Audit<'_> {
        Audit(self)
    }
}

/// Whether an audit log is as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// Lines that are right.
    pub lines: i64,
    /// The first line that is not: changed, missing or added.
    pub broken_at: Option<i64>,
    /// Hash of the last line: keep it elsewhere, and a log cut short shows too.
    pub hash: String,
}

fn read(row: &Row) -> AuditEntry {
    let json = |n| row.opt_text(n).and_then(|text| serde_json::from_str(&text).ok());
    AuditEntry {
        seq: row.int(0),
        time: row.time(1),
        actor: row.text(2),
        actor_kind: match row.str(3) {
            "user" => ActorKind::User,
            "token" => ActorKind::Token,
            "host" => ActorKind::Host,
            _ => ActorKind::System,
        },
        from: row.text(4),
        action: row.text(5),
        object: ObjectRef {
            kind: row.text(6),
            id: row.text(7),
            name: row.text(8),
        },
        before: json(9),
        after: json(10),
        hash: row.text(11),
    }
}

impl Audit<'_> {
    /// Lists lines, the newest first. `q` looks at actor, action and object's name.
    pub async fn list(&self, caller: &Caller, query: &Query) -> Result<Page<AuditEntry>, Error> {
        caller.require(Role::Viewer)?;
        let mut query = query.clone();
        query.sort.get_or_insert_with(|| "-seq".to_owned());
        let order = Order::new(&query, SORTS, "hash")?;
        let mut filter = Sql::new(" FROM audit WHERE tenant=");
        filter.bind(caller.tenant.as_str());
        for pattern in query.patterns()? {
            filter.push(" AND LOWER(actor||' '||action||' '||object_name) LIKE ");
            filter.bind(pattern).push(" ESCAPE '\\'");
        }
        let total = crate::page::count(self.0.db(), &filter).await?;
        let mut sql = filter.select(COLUMNS);
        order.finish(&mut sql);
        let rows = self.0.db().query(sql).await?;
        Ok(order.page(rows, total, (0, 11), read))
    }

    /// Lines after `seq`, oldest first, at most `limit`: for exports, which go on until none come.
    pub async fn export(&self, caller: &Caller, seq: i64, limit: usize) -> Result<Vec<AuditEntry>, Error> {
        caller.require(Role::Owner)?;
        Ok(self
            .rows(&caller.tenant, seq, limit)
            .await?
            .iter()
            .map(read)
            .collect())
    }

    async fn rows(&self, tenant: &str, seq: i64, limit: usize) -> Result<Vec<Row>, Error> {
        self.0
            .db()
            .rows(
                "SELECT seq,time,actor,actor_kind,source,action,object_kind,object_id,object_name,before,after,hash \
                 FROM audit WHERE tenant=$1 AND seq>$2 ORDER BY seq LIMIT $3",
                args![tenant, seq, limit],
            )
            .await
    }

    /// Computes every hash again.
    pub async fn verify(&self, caller: &Caller) -> Result<Verified, Error> {
        caller.require(Role::Viewer)?;
        let tenant = &caller.tenant;
        let (mut seq, mut hash) = (0, String::new());
        loop {
            let rows = self.rows(tenant, seq, 1000).await?;
            for row in &rows {
                let expected = chain(
                    &hash,
                    &[
                        tenant,
                        &(seq + 1).to_string(),
                        &row.int(1).to_string(),
                        row.str(2),
                        row.str(3),
                        row.str(4),
                        row.str(5),
                        row.str(6),
                        row.str(7),
                        row.str(8),
                        row.str(9),
                        row.str(10),
                    ],
                );
                if row.int(0) != seq + 1 || expected != row.str(11) {
                    return Ok(Verified {
                        lines: seq,
                        broken_at: Some(seq + 1),
                        hash,
                    });
                }
                seq += 1;
                hash = expected;
            }
            if rows.len() < 1000 {
                break;
            }
        }
        let head = self
            .0
            .db()
            .row("SELECT seq,hash FROM audit_head WHERE tenant=$1", args![tenant])
            .await?;
        // A line may have come since; one that is gone makes the head longer than the log.
        let (end, end_hash) = head.map_or((0, String::new()), |row| (row.int(0), row.text(1)));
        let cut = end > seq && self.rows(tenant, seq, 1).await?.is_empty() || end == seq && end_hash != hash;
        Ok(Verified {
            lines: seq,
            broken_at: cut.then_some(seq + 1),
            hash,
        })
    }

    /// Notes something that changed no row: a console opened, a kubectl write passed on, a signal sent.
    pub async fn note(
        &self,
        caller: &Caller,
        action: &'static str,
        object: &ObjectRef,
        after: Option<&serde_json::Value>,
    ) -> Result<(), Error> {
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    tx.audit(caller, action, object.clone(), None::<&()>, after);
                    Ok(())
                })
            })
            .await
    }
}
