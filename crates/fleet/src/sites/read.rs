use super::Sites;
use crate::db::{Row, Sql, Tx};
use crate::model::{GeoRow, HostCount, HostEvent, Location, Site};
use crate::page::{Order, Page, Query, Sort};
use crate::{Caller, Error, Role, args};

pub(super) const COLUMNS: &str = "s.id,s.name,s.display_name,s.labels,s.lat,s.lon,s.address,s.timezone,s.variables,\
     s.secret_names,r.name,s.path,s.branch,p.name,s.hosts_total,s.hosts_online,s.state,s.reason,\
     COALESCE(s.target,CASE WHEN s.policy IS NULL THEN d.id END),s.applied,s.rollout,s.updated_at,s.generation,s.rank";
pub(super) const JOINS: &str = " FROM site s \
     LEFT JOIN repository r ON r.tenant=s.tenant AND r.id=s.repository \
     LEFT JOIN head d ON d.tenant=s.tenant AND d.repository=s.repository AND d.branch=COALESCE(s.branch,r.branch) \
     LEFT JOIN policy p ON p.tenant=s.tenant AND p.id=s.policy";

const SORTS: &[Sort] = &[
    Sort {
        name: "name",
        column: "s.name",
        number: false,
    },
    Sort {
        name: "state",
        column: "s.rank",
        number: true,
    },
    Sort {
        name: "updatedAt",
        column: "s.updated_at",
        number: true,
    },
];

pub(super) fn site(row: &Row) -> Site {
    Site {
        id: row.text(0),
        name: row.text(1),
        display_name: row.text(2),
        labels: row.json(3),
        location: Location {
            lat: row.opt_float(4),
            lon: row.opt_float(5),
            address: row.text(6),
            timezone: row.text(7),
        },
        variables: row.json(8),
        secret_variables: row.json(9),
        repository: row.opt_text(10),
        path: row.text(11),
        branch: row.opt_text(12),
        policy: row.opt_text(13),
        hosts: HostCount {
            total: row.int(14),
            online: row.int(15),
        },
        state: row.word(16),
        reason: row.text(17),
        desired: row.opt_text(18),
        applied: row.opt_text(19),
        rollout: row.opt_text(20),
        updated_at: row.time(21),
        generation: row.int(22),
    }
}

/// Reads one and holds its row.
pub(crate) async fn locked(tx: &mut Tx<'_>, tenant: &str, name: &str) -> Result<Site, Error> {
    let row = tx
        .row(
            "SELECT id FROM site WHERE tenant=$1 AND (name=$2 OR id=$2) FOR UPDATE",
            args![tenant, name],
        )
        .await?
        .ok_or_else(|| Error::not_found("site", name))?;
    let mut sql = Sql::new(&format!("SELECT {COLUMNS}{JOINS} WHERE s.tenant="));
    sql.bind(tenant).push(" AND s.id=").bind(row.str(0));
    let rows = tx.query(sql).await?;
    rows.first()
        .map(site)
        .ok_or_else(|| Error::not_found("site", name))
}

impl Sites<'_> {
    /// The condition of a list: tenant, scope, free text, labels, state.
    fn filter(caller: &Caller, query: &Query) -> Result<Sql, Error> {
        let mut filter = Sql::new(" WHERE s.tenant=");
        filter.bind(caller.tenant.as_str());
        caller.restrict(Role::Viewer, "s", &mut filter);
        query
            .selector()?
            .condition("site_label", "site", "s", &mut filter);
        query.search(crate::search::Target::Site, &mut filter)?;
        if let Some(state) = query.state.as_deref().filter(|s| !s.is_empty()) {
            filter.push(" AND s.state=").bind(state);
        }
        Ok(filter)
    }

    /// Lists those that the caller may see. Sorts: `name`, `state` (worst first), `updatedAt`.
    pub async fn list(&self, caller: &Caller, query: &Query) -> Result<Page<Site>, Error> {
        let order = Order::new(query, SORTS, "s.id")?;
        let key = match query.sort.as_deref().unwrap_or("").trim_start_matches('-') {
            "state" => 23,
            "updatedAt" => 21,
            _ => 1,
        };
        let filter = Self::filter(caller, query)?;
        let db = self.0.db();
        let total = db.query(filter.select("COUNT(*) FROM site s")).await?;
        let total = total.first().map_or(0, |row| row.int(0));
        let mut sql = filter.select(&format!("{COLUMNS}{JOINS}"));
        order.finish(&mut sql);
        Ok(order.page(db.query(sql).await?, total, (key, 0), site))
    }

    /// Reads one.
    pub async fn get(&self, caller: &Caller, name: &str) -> Result<Site, Error> {
        let mut sql = Sql::new(&format!("SELECT {COLUMNS}{JOINS} WHERE s.tenant="));
        sql.bind(caller.tenant.as_str()).push(" AND (s.name=").bind(name);
        sql.push(" OR s.id=").bind(name).push(")");
        caller.restrict(Role::Viewer, "s", &mut sql);
        let rows = self.0.db().query(sql).await?;
        rows.first()
            .map(site)
            .ok_or_else(|| Error::not_found("site", name))
    }

    /// Reads some by id, those that the caller may see; for streams.
    pub async fn some(&self, caller: &Caller, ids: &[String]) -> Result<Vec<Site>, Error> {
        let mut sql = Sql::new(&format!("SELECT {COLUMNS}{JOINS} WHERE s.tenant="));
        sql.bind(caller.tenant.as_str()).push(" AND s.id IN ").list(ids);
        caller.restrict(Role::Viewer, "s", &mut sql);
        Ok(self.0.db().query(sql).await?.iter().map(site).collect())
    }

    /// All sites with a place, compact, for the map.
    pub async fn geo(&self, caller: &Caller, query: &Query) -> Result<Vec<GeoRow>, Error> {
        let mut sql = Self::filter(caller, query)?.select("s.id,s.name,s.lat,s.lon,s.state FROM site s");
        sql.push(" AND s.lat IS NOT NULL AND s.lon IS NOT NULL ORDER BY s.name");
        let rows = self.0.db().query(sql).await?;
        let geo = |row: &Row| {
            (
                row.text(0),
                row.text(1),
                row.opt_float(2).unwrap_or(0.0),
                row.opt_float(3).unwrap_or(0.0),
                row.word(4),
            )
        };
        Ok(rows.iter().map(geo).collect())
    }

    /// The newest events of the site's hosts, newest first.
    pub async fn events(&self, caller: &Caller, name: &str, limit: usize) -> Result<Vec<HostEvent>, Error> {
        let site = self.get(caller, name).await?;
        let rows = self
            .0
            .db()
            .rows(
                "SELECT h.name,e.time,e.kind,e.reason,e.message,e.object FROM host h \
                 JOIN host_event e ON e.tenant=h.tenant AND e.host=h.id \
                 WHERE h.tenant=$1 AND h.site=$2 ORDER BY e.time DESC, e.seq DESC LIMIT $3",
                args![&caller.tenant, &site.id, limit.min(1000)],
            )
            .await?;
        Ok(rows.iter().map(crate::hosts::event).collect())
    }
}
