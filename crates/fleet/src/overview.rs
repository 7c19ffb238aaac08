//! What needs a person now: counts, open alerts, rollouts, and the worst.

use crate::db::Sql;
use crate::model::{Attention, CommitCount, ConnectionCount, Overview, State, StateCount};
use crate::{Caller, Error, Fleet, Role, args};

/// Things that need a look, at most.
const ATTENTION: usize = 50;
/// Commits counted, at most.
const COMMITS: usize = 50;

impl Fleet {
    /// Counts of what the caller may see, and what needs a look. `rollouts` and `alerts` are left empty: their rooms
    /// know them.
    pub async fn overview(&self, caller: &Caller) -> Result<Overview, Error> {
        caller.require_anywhere(Role::Viewer)?;
        let db = self.db();
        let mut sites = Sql::new(" WHERE s.tenant=");
        sites.bind(caller.tenant.as_str());
        let plain = sites.len();
        caller.restrict(Role::Viewer, "s", &mut sites);
        let all = sites.len() == plain && caller.role().is_some();

        let mut overview = Overview::default();
        let mut sql = sites.select("s.state,COUNT(*) FROM site s");
        sql.push(" GROUP BY s.state");
        let mut states = StateCount::default();
        for state in State::ALL {
            states.by_state.insert(crate::log::word(&state), 0);
        }
        for row in db.query(sql).await? {
            states.total += row.int(1);
            states.by_state.insert(row.text(0), row.int(1));
        }
        overview.sites = states;

        // A caller for the whole tenant also counts hosts that have no site yet.
        let hosts = if all {
            let mut hosts = Sql::new(" WHERE h.tenant=");
            hosts.bind(caller.tenant.as_str());
            hosts.select("h.connection,COUNT(*) FROM host h")
        } else {
            sites.select("h.connection,COUNT(*) FROM site s JOIN host h ON h.tenant=s.tenant AND h.site=s.id")
        };
        let mut sql = hosts;
        sql.push(" AND h.phase='enrolled' GROUP BY h.connection");
        let mut connections = ConnectionCount::default();
        for word in ["never", "online", "stale", "offline"] {
            connections.by_connection.insert(word.to_owned(), 0);
        }
        for row in db.query(sql).await? {
            connections.total += row.int(1);
            connections.by_connection.insert(row.text(0), row.int(1));
        }
        overview.hosts = connections;

        let mut sql = sites.select("s.name,s.reason,s.since FROM site s");
        // Ranks below progressing: failing, degraded, offline, stale.
        sql.push(" AND s.rank<4 ORDER BY s.rank,s.name LIMIT ")
            .bind(ATTENTION);
        for row in db.query(sql).await? {
            overview.attention.push(Attention {
                kind: "site".to_owned(),
                name: row.text(0),
                reason: row.text(1),
                since: row.time(2),
            });
        }

        if all {
            self.attention_of_the_tenant(caller, &mut overview).await?;
        }

        let mut sql = sites.select(
            "r.name,c.applied,c.sites FROM (SELECT s.repository AS repository,s.applied AS applied,\
             COUNT(*) AS sites FROM site s",
        );
        sql.push(" AND s.applied IS NOT NULL GROUP BY s.repository,s.applied) c JOIN repository r ON r.id=c.repository \
             AND r.tenant=");
        sql.bind(caller.tenant.as_str());
        sql.push(" ORDER BY c.sites DESC,r.name,c.applied LIMIT ")
            .bind(COMMITS);
        for row in db.query(sql).await? {
            overview.commits.push(CommitCount {
                repository: row.text(0),
                commit: row.text(1),
                sites: row.int(2),
            });
        }
        Ok(overview)
    }

    /// What waits for somebody who may decide for the whole tenant.
    async fn attention_of_the_tenant(&self, caller: &Caller, overview: &mut Overview) -> Result<(), Error> {
        let waiting = self
            .db()
            .row(
                "SELECT COUNT(*),MIN(since) FROM host WHERE tenant=$1 AND phase='pending'",
                args![&caller.tenant],
            )
            .await?;
        if let Some(row) = waiting.filter(|row| row.int(0) > 0) {
            let count = row.int(0);
            overview.attention.push(Attention {
                kind: "enrollment".to_owned(),
                name: "pending".to_owned(),
                reason: match count {
                    1 => "a host waits to be approved".to_owned(),
                    _ => format!("{count} hosts wait to be approved"),
                },
                since: row.time(1),
            });
        }
        let rollouts = self
            .db()
            .rows(
                "SELECT number,phase,reason,created_at FROM rollout WHERE tenant=$1 \
                 AND phase IN ('halted','awaitingApproval') ORDER BY number DESC LIMIT 20",
                args![&caller.tenant],
            )
            .await?;
        for row in rollouts {
            let reason = match (row.str(1), row.str(2)) {
                ("awaitingApproval", "") => "it waits to be approved".to_owned(),
                (_, "") => "it was halted".to_owned(),
                (_, reason) => reason.to_owned(),
            };
            overview.attention.push(Attention {
                kind: "rollout".to_owned(),
                name: format!("#{}", row.int(0)),
                reason,
                since: row.time(3),
            });
        }
        // What waits for a person's decision comes before what only needs a look.
        overview.attention.sort_by_key(|one| one.kind == "site");
        overview.attention.truncate(ATTENTION);
        Ok(())
    }
}
