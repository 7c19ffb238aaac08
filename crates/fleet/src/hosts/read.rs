use std::collections::BTreeMap;

use serde_json::Value;

use super::Hosts;
use crate::db::{Row, Sql, Tx};
use crate::model::{CertificateRef, Host, HostEvent};
use crate::page::{Order, Page, Query, Sort};
use crate::{Caller, Error, Role, args};

pub(super) const COLUMNS: &str = "h.id,h.name,s.name,h.serial,h.uuid,h.macs,h.labels,h.phase,h.connection,\
     h.last_seen_at,h.connected_at,h.state,h.reason,\
     COALESCE(s.target,CASE WHEN s.policy IS NULL THEN d.id END),h.applied,h.attempted,h.quarantined,h.drift,\
     h.compliance,h.versions,h.certificate,h.not_after,h.address,h.status_generation,h.generation,h.rank,\
     h.updated_at,s.id,s.labels,h.skew";
pub(super) const JOINS: &str = " FROM host h LEFT JOIN site s ON s.tenant=h.tenant AND s.id=h.site \
     LEFT JOIN repository r ON r.tenant=s.tenant AND r.id=s.repository \
     LEFT JOIN head d ON d.tenant=s.tenant AND d.repository=s.repository AND d.branch=COALESCE(s.branch,r.branch)";

const SORTS: &[Sort] = &[
    Sort {
        name: "name",
        column: "h.name",
        number: false,
    },
    Sort {
        name: "state",
        column: "h.rank",
        number: true,
    },
    Sort {
        name: "updatedAt",
        column: "h.updated_at",
        number: true,
    },
];

pub(super) fn host(row: &Row) -> Host {
    Host {
        id: row.text(0),
        name: row.text(1),
        site: row.opt_text(2),
        serial: row.text(3),
        uuid: row.text(4),
        macs: row.json(5),
        labels: row.json(6),
        phase: row.word(7),
        connection: row.word(8),
        last_seen_at: row.opt_time(9),
        connected_at: row.opt_time(10),
        state: row.word(11),
        reason: row.text(12),
        desired: row.opt_text(13),
        applied: row.opt_text(14),
        attempted: row.opt_text(15),
        quarantined: row.json(16),
        drift: row.bool(17),
        compliance: row.word(18),
        versions: row.json(19),
        certificate: row.opt_text(20).map(|serial| CertificateRef {
            serial,
            not_after: row.time(21),
        }),
        address: row.text(22),
        status_generation: row.int(23),
        generation: row.int(24),
        clock_skew_seconds: row.int(29) / 1000,
        status: None,
    }
}

/// A host that is online was heard of within two heartbeats, which is not written each time.
fn heard_of(host: &mut Host, now: crate::model::Time) {
    if host.connection == crate::model::Connection::Online {
        host.last_seen_at = Some(now);
    }
}

pub(crate) fn event(row: &Row) -> HostEvent {
    HostEvent {
        host: row.text(0),
        time: row.time(1),
        kind: row.text(2),
        reason: row.text(3),
        message: row.text(4),
        object: row.text(5),
    }
}

/// A host with what decides who may touch it.
pub(crate) struct Locked {
    pub host: Host,
    /// Its site's id, name and labels.
    pub site: Option<(String, String, crate::model::Map)>,
}

impl Locked {
    /// Refuses who may not do it to this host. A host without a site is the tenant's.
    pub(crate) fn require(&self, caller: &Caller, need: Role, asked: &str) -> Result<(), Error> {
        match &self.site {
            Some((_, name, labels)) => caller
                .require_at(need, name, labels)
                .map_err(|error| match error {
                    Error::NotFound { .. } => Error::not_found("host", asked),
                    other => other,
                }),
            None if caller.role().is_none() => Err(Error::not_found("host", asked)),
            None => caller.require(need),
        }
    }
}

/// Reads one and holds its row.
pub(crate) async fn locked(tx: &mut Tx<'_>, tenant: &str, name: &str) -> Result<Locked, Error> {
    let row = tx
        .row(
            "SELECT id FROM host WHERE tenant=$1 AND (name=$2 OR id=$2) FOR UPDATE",
            args![tenant, name],
        )
        .await?
        .ok_or_else(|| Error::not_found("host", name))?;
    let mut sql = Sql::new(&format!("SELECT {COLUMNS}{JOINS} WHERE h.tenant="));
    sql.bind(tenant).push(" AND h.id=").bind(row.str(0));
    let rows = tx.query(sql).await?;
    let row = rows.first().ok_or_else(|| Error::not_found("host", name))?;
    Ok(Locked {
        host: host(row),
        site: row.opt_text(27).map(|id| (id, row.text(2), row.json(28))),
    })
}

impl Hosts<'_> {
    fn filter(caller: &Caller, query: &Query) -> Result<(Sql, bool), Error> {
        let mut filter = Sql::new(" WHERE h.tenant=");
        filter.bind(caller.tenant.as_str());
        let before = filter.len();
        caller.restrict(Role::Viewer, "s", &mut filter);
        let mut joined = filter.len() > before || caller.role().is_none();
        query
            .selector()?
            .condition("host_label", "host", "h", &mut filter);
        if query.q.as_deref().is_some_and(|q| !q.trim().is_empty()) {
            joined = true;
            query.search(crate::search::Target::Host, &mut filter)?;
        }
        if let Some(state) = query.state.as_deref().filter(|s| !s.is_empty()) {
            // One word is enough to say which of the three is meant, but for those that two of them share.
            match state {
                "expected" | "enrolled" | "revoked" => filter.push(" AND h.phase=").bind(state),
                "pending" => filter.push(" AND h.phase='pending'"),
                "online" | "never" => filter.push(" AND h.connection=").bind(state),
                _ => filter.push(" AND h.state=").bind(state),
            };
        }
        if let Some(site) = query.site.as_deref().filter(|s| !s.is_empty()) {
            joined = true;
            filter.push(" AND (s.name=").bind(site);
            filter.push(" OR s.id=").bind(site).push(")");
        }
        Ok((filter, joined))
    }

    /// Lists those that the caller may see. Sorts: `name`, `state` (worst first), `updatedAt`. `state` may be a state, a
    /// phase or a connection.
    pub async fn list(&self, caller: &Caller, query: &Query) -> Result<Page<Host>, Error> {
        let order = Order::new(query, SORTS, "h.id")?;
        let key = match query.sort.as_deref().unwrap_or("").trim_start_matches('-') {
            "state" => 25,
            "updatedAt" => 26,
            _ => 1,
        };
        let (filter, joined) = Self::filter(caller, query)?;
        let db = self.0.db();
        let total = filter.select(if joined {
            "COUNT(*) FROM host h LEFT JOIN site s ON s.tenant=h.tenant AND s.id=h.site"
        } else {
            "COUNT(*) FROM host h"
        });
        let total = db.query(total).await?.first().map_or(0, |row| row.int(0));
        let mut sql = filter.select(&format!("{COLUMNS}{JOINS}"));
        order.finish(&mut sql);
        let mut page = order.page(db.query(sql).await?, total, (key, 0), host);
        for host in &mut page.items {
            heard_of(host, db.now());
        }
        Ok(page)
    }

    /// Reads one, with its status sections.
    pub async fn get(&self, caller: &Caller, name: &str) -> Result<Host, Error> {
        let mut found = self.find(caller, name).await?;
        found.status = Some(self.status(&caller.tenant, &found.id).await?);
        Ok(found)
    }

    /// Reads one without its status.
    pub async fn find(&self, caller: &Caller, name: &str) -> Result<Host, Error> {
        let mut sql = Sql::new(&format!("SELECT {COLUMNS}{JOINS} WHERE h.tenant="));
        sql.bind(caller.tenant.as_str()).push(" AND (h.name=").bind(name);
        sql.push(" OR h.id=").bind(name).push(")");
        caller.restrict(Role::Viewer, "s", &mut sql);
        let rows = self.0.db().query(sql).await?;
        let mut found = rows
            .first()
            .map(host)
            .ok_or_else(|| Error::not_found("host", name))?;
        heard_of(&mut found, self.0.db().now());
        Ok(found)
    }

    /// Refuses who may not do something to a host (open a console, send a signal); else the host.
    pub async fn require(&self, caller: &Caller, need: Role, name: &str) -> Result<Host, Error> {
        let found = self.find(caller, name).await?;
        match &found.site {
            Some(site) => {
                let site = self.0.sites().get(caller, site).await?;
                caller.require_at(need, &site.name, &site.labels)?;
            }
            None => caller.require(need)?,
        }
        Ok(found)
    }

    /// Reads some by id, those that the caller may see; for streams.
    pub async fn some(&self, caller: &Caller, ids: &[String]) -> Result<Vec<Host>, Error> {
        let mut sql = Sql::new(&format!("SELECT {COLUMNS}{JOINS} WHERE h.tenant="));
        sql.bind(caller.tenant.as_str()).push(" AND h.id IN ").list(ids);
        caller.restrict(Role::Viewer, "s", &mut sql);
        Ok(self.0.db().query(sql).await?.iter().map(host).collect())
    }

    /// The status sections of a host.
    pub async fn status(&self, tenant: &str, host: &str) -> Result<BTreeMap<String, Value>, Error> {
        let rows = self
            .0
            .db()
            .rows(
                "SELECT name,value FROM section WHERE tenant=$1 AND host=$2",
                args![tenant, host],
            )
            .await?;
        Ok(rows.iter().map(|row| (row.text(0), row.json(1))).collect())
    }

    /// The newest events of a host, newest first.
    pub async fn events(&self, caller: &Caller, name: &str, limit: usize) -> Result<Vec<HostEvent>, Error> {
        let found = self.find(caller, name).await?;
        let rows = self
            .0
            .db()
            .rows(
                "SELECT h.name,e.time,e.kind,e.reason,e.message,e.object FROM host_event e \
                 JOIN host h ON h.tenant=e.tenant AND h.id=e.host \
                 WHERE e.tenant=$1 AND e.host=$2 ORDER BY e.seq DESC LIMIT $3",
                args![&caller.tenant, &found.id, limit.min(1000)],
            )
            .await?;
        Ok(rows.iter().map(event).collect())
    }
}
