//! The task that looks for what is the matter. One process at a time has the lease for it.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;

use super::{
    book::{Finding, Known, Move, fold},
    rules::{self, Thresholds},
};
use crate::{
    Error, Fleet, Kind, Op, args,
    db::Tx,
    log::{new_id, word},
    model::{Severity, Time},
};

/// Messages that may wait for a channel.
pub const MOST_WAITING: i64 = 1000;
/// Resolved alerts that a tenant keeps.
const KEPT: i64 = 5000;
const LEASE: &str = "alerts";
const TERM: Duration = Duration::from_secs(60);
/// How often it looks.
const EVERY: Duration = Duration::from_secs(15);

/// Looks for what is the matter.
#[derive(Debug)]
pub struct Watch {
    fleet: Fleet,
    node: String,
    limits: Thresholds,
}

impl Watch {
    /// For the process `node`.
    #[must_use]
    pub fn new(fleet: Fleet, node: &str, limits: Thresholds) -> Self {
        Self {
            fleet,
            node: node.into(),
            limits,
        }
    }

    /// Runs for ever; to end it, drop it.
    pub async fn run(self) {
        loop {
            match self.fleet.nodes().lead(LEASE, &self.node, TERM).await {
                Ok(true) => {
                    if let Err(error) = self.look().await {
                        tracing::warn!(error = %telemetry::chain(&error), "alerts can't be looked for now");
                    }
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(error = %telemetry::chain(&error), "the lease for alerts can't be had");
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// One look.
    ///
    /// # Errors
    /// The database.
    pub async fn look(&self) -> Result<(), Error> {
        let mut findings: BTreeMap<String, Vec<Finding>> = BTreeMap::new();
        for (tenant, finding) in rules::find(&self.fleet, &self.limits).await? {
            findings.entry(tenant).or_default().push(finding);
        }
        let mut open: BTreeMap<String, BTreeMap<String, Known>> = BTreeMap::new();
        let sql = "SELECT tenant,name,id,severity,title,message,count,quiet_at FROM alert WHERE open_name IS NOT NULL";
        for row in self.fleet.db().rows(sql, vec![]).await? {
            let known = Known {
                id: row.text(2),
                severity: row.word(3),
                title: row.text(4),
                message: row.text(5),
                count: row.int(6),
                quiet_at: row.opt_time(7),
            };
            open.entry(row.text(0)).or_default().insert(row.text(1), known);
        }
        let mut tenants: Vec<String> = open.keys().chain(findings.keys()).cloned().collect();
        tenants.sort();
        tenants.dedup();
        let now = self.fleet.db().now();
        for tenant in &tenants {
            let known = open.remove(tenant).unwrap_or_default();
            let moves = fold(&known, findings.remove(tenant).unwrap_or_default(), now);
            // In portions: a transaction is short whatever happens.
            for some in moves.chunks(100) {
                self.fleet
                    .db()
                    .write(|tx| {
                        Box::pin(async move {
                            for step in some {
                                carry_out(tx, tenant, step).await?;
                            }
                            Ok(())
                        })
                    })
                    .await?;
            }
            if !moves.is_empty() {
                self.sweep(tenant).await?;
            }
        }
        Ok(())
    }

    async fn sweep(&self, tenant: &str) -> Result<(), Error> {
        self.fleet
            .db()
            .write(|tx| {
                Box::pin(async move {
                    tx.run(
                        "DELETE FROM alert WHERE tenant=$1 AND open_name IS NULL AND id NOT IN
                         (SELECT id FROM alert WHERE tenant=$1 AND open_name IS NULL ORDER BY last_at DESC LIMIT $2)",
                        args![tenant, KEPT],
                    )
                    .await
                    .map(drop)
                })
            })
            .await
    }
}

async fn carry_out(tx: &mut Tx<'_>, tenant: &str, step: &Move) -> Result<(), Error> {
    let now = tx.now;
    match step {
        Move::Raise(finding) => {
            let id = new_id(now);
            let Finding { site, host, .. } = finding;
            // Another process may have been first; then it has told, too.
            let made = tx
                .run(
                    "INSERT INTO alert (tenant,id,name,open_name,rule,severity,site,host,site_name,host_name,title,message,
                     count,first_at,last_at,generation) VALUES ($1,$2,$3,$3,$4,$5,$6,$7,$8,$9,$10,$11,1,$12,$12,1)
                     ON CONFLICT DO NOTHING",
                    args![
                        tenant,
                        &id,
                        &finding.key,
                        finding.rule,
                        word(&finding.severity),
                        site.as_ref().map(|(id, _)| id.as_str()),
                        host.as_ref().map(|(id, _)| id.as_str()),
                        site.as_ref().map(|(_, name)| name.as_str()),
                        host.as_ref().map(|(_, name)| name.as_str()),
                        &finding.title,
                        &finding.message,
                        now
                    ],
                )
                .await?;
            if made > 0 {
                tell(tx, tenant, &id, "open").await?;
            }
        }
        Move::Again {
            id,
            finding,
            count,
            tell: worse,
        } => {
            tx.run(
                "UPDATE alert SET severity=$3,title=$4,message=$5,count=$6,last_at=$7,quiet_at=NULL,
                 acknowledged_by=CASE WHEN $8=1 THEN NULL ELSE acknowledged_by END,generation=generation+1
                 WHERE tenant=$1 AND id=$2",
                args![
                    tenant,
                    id,
                    word(&finding.severity),
                    &finding.title,
                    &finding.message,
                    *count,
                    now,
                    *worse
                ],
            )
            .await?;
            if *worse {
                tell(tx, tenant, id, "worse").await?;
            } else {
                shown(tx, tenant, id).await?;
            }
        }
        Move::Quiet { id } => {
            tx.run(
                "UPDATE alert SET quiet_at=$3 WHERE tenant=$1 AND id=$2",
                args![tenant, id, now],
            )
            .await?;
        }
        Move::Resolve { id } => {
            let done = tx
                .run(
                    "UPDATE alert SET open_name=NULL,resolved_at=$3,generation=generation+1
                     WHERE tenant=$1 AND id=$2 AND open_name IS NOT NULL",
                    args![tenant, id, now],
                )
                .await?;
            if done > 0 {
                tell(tx, tenant, id, "resolved").await?;
            }
        }
    }
    Ok(())
}

async fn shown(tx: &mut Tx<'_>, tenant: &str, id: &str) -> Result<(), Error> {
    let sql = "SELECT title,site FROM alert WHERE tenant=$1 AND id=$2";
    if let Some(row) = tx.row(sql, args![tenant, id]).await? {
        tx.changed(
            tenant,
            Kind::Alert,
            Op::Upsert,
            id,
            row.str(0),
            row.opt_text(1).as_deref(),
        );
    }
    Ok(())
}

/// Tells watchers and, by way of the queue, channels.
async fn tell(tx: &mut Tx<'_>, tenant: &str, id: &str, event: &str) -> Result<(), Error> {
    shown(tx, tenant, id).await?;
    let row = tx
        .row(
            "SELECT severity,site_name,host_name,title,message,count,first_at,resolved_at,rule,
             (SELECT name FROM tenant WHERE id=$1) FROM alert WHERE tenant=$1 AND id=$2",
            args![tenant, id],
        )
        .await?;
    let Some(row) = row else { return Ok(()) };
    let severity: Severity = serde_json::from_value(row.str(0).into()).unwrap_or(Severity::Warning);
    let body = json!({
        "event": event,
        "tenant": row.str(9),
        "alert": {
            "id": id,
            "rule": row.str(8),
            "severity": row.str(0),
            "site": row.opt_text(1),
            "host": row.opt_text(2),
            "title": row.str(3),
            "message": row.str(4),
            "count": row.int(5),
            "firstAt": row.time(6),
            "resolvedAt": row.opt_time(7),
        },
    })
    .to_string();
    let now: Time = tx.now;
    let channels = tx
        .rows(
            "SELECT id,severity FROM channel WHERE tenant=$1 AND disabled=0",
            args![tenant],
        )
        .await?;
    for channel in channels {
        let least: Severity = serde_json::from_value(channel.str(1).into()).unwrap_or(Severity::Info);
        if severity < least {
            continue;
        }
        tx.run(
            "INSERT INTO delivery (tenant,id,channel,body,tries,next_at,created_at) VALUES ($1,$2,$3,$4,0,$5,$5)",
            args![tenant, new_id(now), channel.str(0), &body, now],
        )
        .await?;
        let dropped = tx
            .run(
                "DELETE FROM delivery WHERE tenant=$1 AND channel=$2 AND id NOT IN
                 (SELECT id FROM delivery WHERE tenant=$1 AND channel=$2 ORDER BY created_at DESC,id DESC LIMIT $3)",
                args![tenant, channel.str(0), MOST_WAITING],
            )
            .await?;
        if dropped > 0 {
            let failure = format!("more than {MOST_WAITING} messages waited: the oldest were given up");
            tx.run(
                "UPDATE channel SET failure=$3,failed_at=$4 WHERE tenant=$1 AND id=$2",
                args![tenant, channel.str(0), failure, now],
            )
            .await?;
        }
    }
    Ok(())
}
