//! Rollouts in the database: one row each, and a row for each of their sites.
//!
//! A step reads without a transaction, thinks, and writes the differences in one short transaction, which begins by
//! making sure that nobody has written the rollouts meanwhile (their `generation`). So two drivers, or a driver and a
//! person, never undo each other's work; whoever comes second reads again.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    Caller, Error, Fleet, Kind, Op, args,
    db::{Sql, Tx, Value},
    log::new_id,
    model::{Connection, Map, ObjectRef, Quarantined, RolloutState, WaveProgress},
};

use super::{Action, Health, Lineage, Now, Phase, Rollout, Rules, Site, SiteView, Step, Turn, View};

/// Rows in one statement.
const ROWS: usize = 50;
/// Names in one line of the audit log.
const NAMES: usize = 50;

/// What rollouts follow each other on: a branch of a repository under a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line {
    /// The tenant's id.
    pub tenant: String,
    /// The repository's id.
    pub repository: String,
    /// The branch.
    pub branch: String,
    /// The policy's id.
    pub policy: String,
}

/// A rollout and its row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stored {
    pub(super) id: String,
    pub(super) number: i64,
    pub(super) generation: i64,
    pub(super) policy_name: String,
    pub(super) subject: String,
    pub(super) created_by: String,
}

/// A line as it was read.
#[derive(Clone, Debug, Default)]
pub(super) struct Loaded {
    pub(super) lineage: Lineage,
    pub(super) tail: Option<Stored>,
    pub(super) active: Option<Stored>,
    pub(super) steady: Duration,
}

/// The newest commit of a branch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HeadRow {
    pub(super) commit: String,
    pub(super) subject: String,
}

const COLUMNS: &str = "id,number,generation,policy_name,subject,created_by,phase,reason,machine,steady";

/// The rollouts of a line that are alive.
pub(super) async fn load(fleet: &Fleet, line: &Line) -> Result<Loaded, Error> {
    let mut sql = Sql::new(&format!("SELECT {COLUMNS},finished FROM rollout WHERE tenant="));
    sql.bind(line.tenant.as_str())
        .push(" AND repository=")
        .bind(line.repository.as_str());
    sql.push(" AND branch=").bind(line.branch.as_str());
    sql.push(" AND policy=").bind(line.policy.as_str());
    let newest_sql = {
        let mut sql = sql.clone();
        sql.push(" ORDER BY number DESC LIMIT 1");
        sql
    };
    let mut loaded = Loaded::default();
    let Some(newest) = fleet.db().query(newest_sql).await?.into_iter().next() else {
        return Ok(loaded);
    };
    // One that came through and was then superseded, halted or not, is still what late sites catch up with; one that
    // was taken back is not.
    sql.push(" AND finished=1 AND phase IN ('succeeded','halted','running') AND number<=");
    sql.bind(newest.int(1)).push(" ORDER BY number DESC LIMIT 1");
    let tail = fleet.db().query(sql).await?.into_iter().next();
    let mut both = [(tail.as_ref(), true), (Some(&newest), false)];
    if tail.as_ref().is_some_and(|tail| tail.str(0) == newest.str(0)) {
        both[1].0 = None;
    }
    for (row, is_tail) in both {
        let Some(row) = row else { continue };
        let mut rollout: Rollout = serde_json::from_str(row.str(8)).map_err(|_| Error::Damaged {
            what: format!("rollout {}", row.int(1)),
        })?;
        // The columns count: a restore halts rollouts there.
        rollout.phase = row.word(6);
        rollout.reason = row.text(7);
        rollout.sites = sites(fleet, &line.tenant, row.str(0)).await?;
        loaded.steady = loaded
            .steady
            .max(Duration::from_millis(u64::try_from(row.int(9)).unwrap_or(0)));
        let stored = Stored {
            id: row.text(0),
            number: row.int(1),
            generation: row.int(2),
            policy_name: row.text(3),
            subject: row.text(4),
            created_by: row.text(5),
        };
        if is_tail {
            (loaded.lineage.tail, loaded.tail) = (Some(rollout), Some(stored));
        } else {
            (loaded.lineage.active, loaded.active) = (Some(rollout), Some(stored));
        }
    }
    Ok(loaded)
}

async fn sites(fleet: &Fleet, tenant: &str, rollout: &str) -> Result<BTreeMap<String, Site>, Error> {
    let rows = fleet
        .db()
        .rows(
            "SELECT site,wave,turn,away,progress,reason FROM rollout_site WHERE tenant=$1 AND rollout=$2",
            args![tenant, rollout],
        )
        .await?;
    let site = |row: &crate::db::Row| {
        let mut site: Site = row.json(4);
        site.wave = usize::try_from(row.int(1)).unwrap_or(0);
        site.turn = row.word(2);
        site.away = row.bool(3);
        site.reason = row.text(5);
        (row.text(0), site)
    };
    Ok(rows.iter().map(site).collect())
}

/// The sites of a line as they were last seen.
pub(super) async fn view(fleet: &Fleet, line: &Line) -> Result<View, Error> {
    let args = || args![&line.tenant, &line.repository, &line.branch, &line.policy];
    let rows = fleet
        .db()
        .rows(
            "SELECT s.id,s.name,s.labels,s.timezone,s.target FROM site s
             JOIN repository r ON r.tenant=s.tenant AND r.id=s.repository
             WHERE s.tenant=$1 AND s.repository=$2 AND COALESCE(s.branch,r.branch)=$3 AND s.policy=$4",
            args(),
        )
        .await?;
    let mut view: View = rows
        .iter()
        .map(|row| {
            let seen = SiteView {
                name: row.text(1),
                labels: row.json::<Map>(2),
                zone: row.text(3),
                pin: row.opt_text(4).filter(|pin| !pin.is_empty()),
                ..SiteView::default()
            };
            (row.text(0), seen)
        })
        .collect();
    let rows = fleet
        .db()
        .rows(
            "SELECT h.site,h.connection,h.health,h.applied,h.quarantined,h.compliance FROM site s
             JOIN repository r ON r.tenant=s.tenant AND r.id=s.repository
             JOIN host h ON h.tenant=s.tenant AND h.site=s.id
             WHERE s.tenant=$1 AND s.repository=$2 AND COALESCE(s.branch,r.branch)=$3 AND s.policy=$4
             AND h.phase='enrolled'",
            args(),
        )
        .await?;
    for row in &rows {
        let Some(seen) = view.get_mut(row.str(0)) else {
            continue;
        };
        if row.str(4).len() > 2 {
            let refused: Vec<Quarantined> = row.json(4);
            seen.quarantined
                .extend(refused.into_iter().map(|q| (q.commit, q.reason)));
        }
        // Two missed heartbeats are no absence yet.
        if !matches!(row.word(1), Connection::Online | Connection::Stale) {
            continue;
        }
        let health = match row.str(2) {
            "healthy" if row.str(5) != "nonCompliant" => Health::Healthy,
            "failing" => Health::Failing,
            _ => Health::Progressing,
        };
        let applied = row.opt_text(3);
        if !seen.online {
            seen.online = true;
            (seen.health, seen.applied) = (health, applied);
            continue;
        }
        seen.health = match (seen.health, health) {
            (Health::Failing, _) | (_, Health::Failing) => Health::Failing,
            (Health::Healthy, Health::Healthy) => Health::Healthy,
            _ => Health::Progressing,
        };
        if seen.applied != applied {
            seen.applied = None;
        }
    }
    Ok(view)
}

/// The folders of a line's sites, by site.
pub(super) async fn folders(fleet: &Fleet, line: &Line) -> Result<BTreeMap<String, String>, Error> {
    let rows = fleet
        .db()
        .rows(
            "SELECT s.id,s.path FROM site s
             JOIN repository r ON r.tenant=s.tenant AND r.id=s.repository
             WHERE s.tenant=$1 AND s.repository=$2 AND COALESCE(s.branch,r.branch)=$3 AND s.policy=$4",
            args![&line.tenant, &line.repository, &line.branch, &line.policy],
        )
        .await?;
    Ok(rows.iter().map(|row| (row.text(0), row.text(1))).collect())
}

/// The newest commit of a line's branch.
pub(super) async fn head(fleet: &Fleet, line: &Line) -> Result<Option<HeadRow>, Error> {
    let row = fleet
        .db()
        .row(
            "SELECT id,subject FROM head WHERE tenant=$1 AND repository=$2 AND branch=$3",
            args![&line.tenant, &line.repository, &line.branch],
        )
        .await?;
    Ok(row.map(|row| HeadRow {
        commit: row.text(0),
        subject: row.text(1),
    }))
}

/// A policy's rules and name.
pub(super) async fn policy(fleet: &Fleet, line: &Line) -> Result<Option<(Rules, String)>, Error> {
    let row = fleet
        .db()
        .row(
            "SELECT rules,name FROM policy WHERE tenant=$1 AND id=$2",
            args![&line.tenant, &line.policy],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let rules = serde_json::from_str(row.str(0)).map_err(|_| Error::Damaged {
        what: format!("policy {}", row.str(1)),
    })?;
    Ok(Some((rules, row.text(1))))
}

/// One rollout to write: as it was and as it is now.
#[derive(Clone, Debug)]
pub(super) struct Write<'w> {
    pub(super) stored: &'w Stored,
    /// Whether it has a row already.
    pub(super) is_new: bool,
    pub(super) before: Option<&'w Rollout>,
    pub(super) after: &'w Rollout,
    pub(super) step: &'w Step,
}

impl Write<'_> {
    /// Whether anything is to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.step.actions.is_empty() && self.before == Some(self.after)
    }
}

/// A new row for a rollout.
pub(super) fn stored(fleet: &Fleet, head: &HeadRow, policy_name: &str, by: &str) -> Stored {
    Stored {
        id: new_id(fleet.db().now()),
        number: 0,
        generation: 0,
        policy_name: policy_name.into(),
        subject: head.subject.clone(),
        created_by: by.into(),
    }
}

/// Writes what a step has changed. `false`: somebody else was there first; read again.
pub(super) async fn save(
    fleet: &Fleet,
    caller: &Caller,
    line: &Line,
    writes: &[Write<'_>],
    view: &View,
    now: Now,
) -> Result<bool, Error> {
    fleet
        .db()
        .write(|tx| {
            Box::pin(async move {
                for write in writes {
                    if !claim(tx, line, write).await? {
                        return Ok(false);
                    }
                }
                for write in writes {
                    one(fleet, tx, caller, line, write, view, now).await?;
                }
                Ok(true)
            })
        })
        .await
}

/// Makes sure that a rollout is as it was read, and that nobody else changes it now.
async fn claim(tx: &mut Tx<'_>, line: &Line, write: &Write<'_>) -> Result<bool, Error> {
    if write.is_new {
        // The newest rollout of the line must still be the one that was read; the policy's row is the lock.
        tx.rows(
            "SELECT id FROM policy WHERE tenant=$1 AND id=$2 FOR UPDATE",
            args![&line.tenant, &line.policy],
        )
        .await?;
        let there = tx
            .row(
                "SELECT commit_id,phase FROM rollout WHERE tenant=$1 AND repository=$2 AND branch=$3 AND policy=$4
                 ORDER BY number DESC LIMIT 1",
                args![&line.tenant, &line.repository, &line.branch, &line.policy],
            )
            .await?;
        return Ok(there.is_none_or(|row| row.str(0) != write.after.commit));
    }
    let row = tx
        .row(
            "SELECT generation FROM rollout WHERE tenant=$1 AND id=$2 FOR UPDATE",
            args![&line.tenant, &write.stored.id],
        )
        .await?;
    Ok(row.is_some_and(|row| row.int(0) == write.stored.generation))
}

async fn one(
    fleet: &Fleet,
    tx: &mut Tx<'_>,
    caller: &Caller,
    line: &Line,
    write: &Write<'_>,
    view: &View,
    now: Now,
) -> Result<(), Error> {
    let Write {
        stored, after, step, ..
    } = write;
    let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    let waves = serde_json::to_string(&progress(after)).unwrap_or_default();
    let machine = serde_json::to_string(after).unwrap_or_default();
    let (due, due_at) = (step.due.map(millis), step.due_at.map(|at| at.as_millisecond()));
    let mut number = stored.number;
    if write.is_new {
        number = tx
            .row(
                "SELECT COALESCE(MAX(number),0)+1 FROM rollout WHERE tenant=$1",
                args![&line.tenant],
            )
            .await?
            .map_or(1, |row| row.int(0));
        tx.run(
            "INSERT INTO rollout (tenant,id,number,repository,branch,policy,policy_name,commit_id,subject,previous,
             phase,reason,finished,machine,waves,steady,due_steady,due_wall,created_at,created_by,generation)
             VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19,$20,1)",
            args![
                &line.tenant,
                &stored.id,
                number,
                &line.repository,
                &line.branch,
                &line.policy,
                &stored.policy_name,
                &after.commit,
                &stored.subject,
                &after.previous,
                after.phase.word(),
                &after.reason,
                after.finished,
                machine,
                waves,
                millis(now.steady),
                due,
                due_at,
                tx.now,
                &stored.created_by,
            ],
        )
        .await?;
        tx.run(
            "UPDATE site SET rollout=$5 WHERE tenant=$1 AND repository=$2 AND policy=$3
             AND COALESCE(branch,(SELECT r.branch FROM repository r WHERE r.tenant=site.tenant AND r.id=site.repository))=$4",
            args![&line.tenant, &line.repository, &line.policy, &line.branch, &stored.id],
        )
        .await?;
    } else {
        tx.run(
            "UPDATE rollout SET phase=$3,reason=$4,finished=$5,machine=$6,waves=$7,steady=$8,due_steady=$9,due_wall=$10,
             generation=generation+1 WHERE tenant=$1 AND id=$2",
            args![
                &line.tenant,
                &stored.id,
                after.phase.word(),
                &after.reason,
                after.finished,
                machine,
                waves,
                millis(now.steady),
                due,
                due_at,
            ],
        )
        .await?;
    }
    save_sites(tx, &line.tenant, &stored.id, write.before, after).await?;
    let object = || ObjectRef {
        kind: "rollout".into(),
        id: stored.id.clone(),
        name: number.to_string(),
    };
    if write.is_new {
        let what = serde_json::json!({"commit": after.commit, "previous": after.previous, "policy": stored.policy_name});
        tx.audit(caller, "rollout.create", object(), None::<&()>, Some(&what));
    }
    let mut pins: Vec<(String, Option<String>)> = Vec::new();
    for action in &step.actions {
        match action {
            Action::Pin { site, commit } => pins.push((site.clone(), Some(commit.clone()))),
            Action::Succeed { .. } | Action::WentBack { .. } => {}
            other => {
                let (action, what) = transition(other, after, view);
                tx.audit(caller, action, object(), None::<&()>, Some(&what));
            }
        }
    }
    for some in pins.chunks(ROWS) {
        let mut sql = Sql::new("UPDATE site SET rollout=");
        sql.bind(stored.id.as_str())
            .push(" WHERE tenant=")
            .bind(line.tenant.as_str())
            .push(" AND id IN ");
        sql.list(some.iter().map(|(site, _)| site.as_str()));
        tx.execute(sql).await?;
    }
    if !pins.is_empty() {
        fleet.assignments().set_targets(tx, &line.tenant, &pins).await?;
    }
    tx.changed(
        &line.tenant,
        Kind::Rollout,
        Op::Upsert,
        &stored.id,
        &number.to_string(),
        None,
    );
    Ok(())
}

/// A line of the audit log for an action.
fn transition(action: &Action, rollout: &Rollout, view: &View) -> (&'static str, serde_json::Value) {
    let name = |id: &String| view.get(id).map_or_else(|| id.clone(), |seen| seen.name.clone());
    match action {
        Action::Open { wave } => {
            let what = serde_json::json!({"wave": rollout.rules.wave(*wave).name, "commit": rollout.commit});
            ("rollout.wave", what)
        }
        Action::Batch { number, sites } => {
            let names: Vec<String> = sites.iter().take(NAMES).map(name).collect();
            let what = serde_json::json!({"batch": number, "commit": rollout.commit, "count": sites.len(), "sites": names});
            ("rollout.batch", what)
        }
        Action::Fail { site, reason } => {
            let what = serde_json::json!({"site": name(site), "commit": rollout.commit, "reason": reason});
            ("rollout.fail", what)
        }
        Action::Enter { phase, reason } => (
            "rollout.phase",
            serde_json::json!({"state": phase.word(), "reason": reason}),
        ),
        other => ("rollout.site", serde_json::to_value(other).unwrap_or_default()),
    }
}

async fn save_sites(
    tx: &mut Tx<'_>,
    tenant: &str,
    rollout: &str,
    before: Option<&Rollout>,
    after: &Rollout,
) -> Result<(), Error> {
    let before = before.map(|rollout| &rollout.sites);
    let changed: Vec<(&String, &Site)> = after
        .sites
        .iter()
        .filter(|(id, site)| before.and_then(|sites| sites.get(*id)) != Some(site))
        .collect();
    let now = tx.now;
    for rows in changed.chunks(ROWS) {
        let mut sql = Sql::new(
            "INSERT INTO rollout_site (tenant,rollout,site,wave,turn,away,progress,reason,at) VALUES ",
        );
        for (n, (id, site)) in rows.iter().enumerate() {
            let progress = serde_json::to_string(site).unwrap_or_default();
            let values: [Value; 9] = [
                tenant.into(),
                rollout.into(),
                (*id).into(),
                site.wave.into(),
                site.turn.word().into(),
                site.away.into(),
                progress.into(),
                (&site.reason).into(),
                now.into(),
            ];
            sql.push(if n == 0 { "" } else { "," }).list(values);
        }
        sql.push(
            " ON CONFLICT (tenant,rollout,site) DO UPDATE SET wave=excluded.wave,
             at=CASE WHEN rollout_site.turn=excluded.turn AND rollout_site.away=excluded.away THEN rollout_site.at ELSE excluded.at END,
             turn=excluded.turn,away=excluded.away,progress=excluded.progress,reason=excluded.reason",
        );
        tx.execute(sql).await?;
    }
    let gone: Vec<&str> = before
        .into_iter()
        .flat_map(BTreeMap::keys)
        .filter(|id| !after.sites.contains_key(*id))
        .map(String::as_str)
        .collect();
    for ids in gone.chunks(ROWS) {
        let mut sql = Sql::new("DELETE FROM rollout_site WHERE tenant=");
        sql.bind(tenant)
            .push(" AND rollout=")
            .bind(rollout)
            .push(" AND site IN ");
        sql.list(ids.iter().copied());
        tx.execute(sql).await?;
    }
    Ok(())
}

/// How far each wave is.
pub(super) fn progress(rollout: &Rollout) -> Vec<WaveProgress> {
    let mut waves: Vec<WaveProgress> = (0..rollout.rules.count())
        .map(|at| WaveProgress {
            name: rollout.rules.wave(at).name,
            ..WaveProgress::default()
        })
        .collect();
    let mut busy = vec![false; waves.len()];
    for site in rollout.sites.values().filter(|site| site.turn != Turn::Left) {
        let Some(wave) = waves.get_mut(site.wave) else {
            continue;
        };
        if site.turn == Turn::Unchanged {
            wave.unchanged += 1;
            continue;
        }
        wave.total += 1;
        wave.told += i64::from(site.batch.is_some());
        wave.succeeded += i64::from(site.turn == Turn::Succeeded);
        wave.failed += i64::from(site.turn == Turn::Failed);
        let open = matches!(site.turn, Turn::Waiting | Turn::Told | Turn::Reverting);
        wave.pending += i64::from(open && site.away);
        busy[site.wave] |= open && !site.away;
    }
    for (at, wave) in waves.iter_mut().enumerate() {
        wave.state = match rollout.phase {
            Phase::Reverting | Phase::Reverted if wave.told == 0 => RolloutState::Pending,
            Phase::Reverting if !busy[at] => RolloutState::Reverted,
            Phase::Reverting => RolloutState::Reverting,
            Phase::Reverted => RolloutState::Reverted,
            _ if at < rollout.opened && !busy[at] => RolloutState::Succeeded,
            Phase::Superseded => RolloutState::Superseded,
            Phase::Halted if at < rollout.opened => RolloutState::Halted,
            _ if at < rollout.opened => RolloutState::Running,
            Phase::AwaitingApproval if at == rollout.opened => RolloutState::AwaitingApproval,
            _ => RolloutState::Pending,
        };
    }
    // A last wave that nobody is in is of no interest.
    if waves.len() > 1 && waves.last().is_some_and(|wave| wave.total + wave.unchanged == 0) {
        waves.pop();
    }
    waves
}
