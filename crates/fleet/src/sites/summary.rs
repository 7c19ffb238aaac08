//! What a site's row says of its hosts.

use crate::db::Tx;
use crate::model::State;
use crate::{Error, Kind, Op, args};

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
    let rows = tx
        .rows(
            "SELECT name,state,reason,connection,applied,updated_at FROM host \
             WHERE tenant=$1 AND site=$2 AND phase='enrolled' ORDER BY name",
            args![tenant, site],
        )
        .await?;
    let hosts: Vec<One> = rows
        .iter()
        .map(|row| One {
            name: row.text(0),
            state: row.word(1),
            reason: row.text(2),
            online: row.str(3) == "online",
            applied: row.opt_text(4),
            updated: row.int(5),
        })
        .collect();
    let new = sum(&hosts);
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
