//! What a site's row says of its hosts.

use std::collections::{BTreeMap, BTreeSet};

use crate::db::{Sql, Tx};
use crate::model::State;
use crate::{Error, Kind, Op, args};

/// Sites of one question.
const ROWS: usize = 500;

/// For sorting: what needs a person comes first.
pub(crate) fn rank(state: State) -> i64 {
    match state {
        State::Failing => 0,
        State::Degraded => 1,
        State::Offline => 2,
        State::Stale => 3,
        State::Progressing => 4,
        State::Pending => 5,
        State::Healthy => 6,
    }
}

/// What of one host counts for its site.
struct One {
    name: String,
    state: State,
    reason: String,
    online: bool,
    applied: Option<String>,
    updated: i64,
}

/// What the hosts make of the site.
#[derive(Debug, PartialEq, Eq)]
struct Sum {
    total: i64,
    online: i64,
    state: State,
    reason: String,
    applied: Option<String>,
}

fn sum(hosts: &[One]) -> Sum {
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let online = hosts.iter().filter(|host| host.online).count();
    let worst = hosts.iter().min_by_key(|host| rank(host.state));
    let (state, reason) = match worst {
        None => (State::Pending, "it has no host yet".to_owned()),
        Some(host) if hosts.len() == 1 || host.reason.is_empty() => (host.state, host.reason.clone()),
        // Some are away and others not: the site works in part.
        Some(host) if matches!(host.state, State::Offline | State::Stale) && online > 0 => {
            (State::Degraded, format!("host {} {}", host.name, host.reason))
        }
        Some(host) => (host.state, format!("host {}: {}", host.name, host.reason)),
    };
    let oldest = hosts.iter().min_by_key(|host| host.updated);
    let applied = oldest.and_then(|host| host.applied.clone());
    Sum {
        total: count(hosts.len()),
        online: count(online),
        state,
        reason,
        applied,
    }
}

/// Writes the site's row anew from its hosts; nothing if it stays the same.
pub(crate) async fn refresh(tx: &mut Tx<'_>, tenant: &str, site: &str) -> Result<(), Error> {
    let hosts = hosts(tx, tenant, &[site]).await?;
    write(tx, tenant, site, hosts.get(site).map_or(&[], Vec::as_slice)).await
}

/// The same for many: pairs of tenant and site.
pub(crate) async fn refresh_all(tx: &mut Tx<'_>, sites: &BTreeSet<(String, String)>) -> Result<(), Error> {
    let mut by_tenant: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (tenant, site) in sites {
        by_tenant.entry(tenant).or_default().push(site);
    }
    for (tenant, sites) in by_tenant {
        for some in sites.chunks(ROWS) {
            let hosts = hosts(tx, tenant, some).await?;
            for site in some {
                write(tx, tenant, site, hosts.get(*site).map_or(&[], Vec::as_slice)).await?;
            }
        }
    }
    Ok(())
}

/// The hosts of sites, by name.
async fn hosts(tx: &mut Tx<'_>, tenant: &str, sites: &[&str]) -> Result<BTreeMap<String, Vec<One>>, Error> {
    let mut sql = Sql::new(
        "SELECT site,name,state,reason,connection,applied,updated_at FROM host WHERE phase='enrolled' AND tenant=",
    );
    sql.bind(tenant).push(" AND site IN ").list(sites.iter().copied());
    sql.push(" ORDER BY site,name");
    let mut all: BTreeMap<String, Vec<One>> = BTreeMap::new();
    for row in tx.query(sql).await? {
        all.entry(row.text(0)).or_default().push(One {
            name: row.text(1),
            state: row.word(2),
            reason: row.text(3),
            online: row.str(4) == "online",
            applied: row.opt_text(5),
            updated: row.int(6),
        });
    }
    Ok(all)
}

async fn write(tx: &mut Tx<'_>, tenant: &str, site: &str, hosts: &[One]) -> Result<(), Error> {
    let new = sum(hosts);
    let now = tx.now;
    let row = tx
        .row(
            "UPDATE site SET hosts_total=$3,hosts_online=$4,state=$5,rank=$6,reason=$7,applied=$8,updated_at=$9,\
             since=CASE WHEN state=$5 THEN since ELSE $9 END \
             WHERE tenant=$1 AND id=$2 AND (hosts_total<>$3 OR hosts_online<>$4 OR state<>$5 OR reason<>$7 \
             OR COALESCE(applied,'')<>COALESCE($8,'')) RETURNING name",
            args![
                tenant,
                site,
                new.total,
                new.online,
                crate::log::word(&new.state),
                rank(new.state),
                &new.reason,
                new.applied,
                now
            ],
        )
        .await?;
    if let Some(row) = row {
        tx.changed(tenant, Kind::Site, Op::Upsert, site, row.str(0), Some(site));
    }
    Ok(())
}
