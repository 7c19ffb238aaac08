//! What is looked for.

use std::{collections::BTreeMap, time::Duration};

use super::Finding;
use crate::{
    Error, Fleet, args,
    db::Row,
    model::{Quarantined, Severity, Time},
};

/// Findings of one rule in one tenant that are alerts of their own; more are one alert together.
pub const MOST_OF_A_RULE: usize = 200;

/// When a rule finds something.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// A site is offline for longer.
    pub offline: Duration,
    /// A host's certificate ends sooner.
    pub certificate: Duration,
    /// A disk is fuller (0 to 1): a warning,
    pub disk: f64,
    /// and fuller than this: critical.
    pub disk_critical: f64,
    /// A host's clock is further off.
    pub skew: Duration,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            offline: Duration::from_mins(5),
            certificate: Duration::from_hours(24 * 5),
            disk: 0.85,
            disk_critical: 0.95,
            skew: Duration::from_mins(1),
        }
    }
}

fn earlier(now: Time, by: Duration) -> Time {
    now.plus_seconds(-i64::try_from(by.as_secs()).unwrap_or(i64::MAX))
}

/// Everything that is the matter in all tenants: (tenant's id, finding).
pub(super) async fn find(fleet: &Fleet, limits: &Thresholds) -> Result<Vec<(String, Finding)>, Error> {
    let now = fleet.db().now();
    let mut found = Vec::new();
    offline(fleet, limits, now, &mut found).await?;
    hosts(fleet, limits, now, &mut found).await?;
    disks(fleet, limits, now, &mut found).await?;
    rollouts(fleet, &mut found).await?;
    repositories(fleet, &mut found).await?;
    Ok(together(found))
}

async fn offline(
    fleet: &Fleet,
    limits: &Thresholds,
    now: Time,
    found: &mut Vec<(String, Finding)>,
) -> Result<(), Error> {
    let sql = "SELECT tenant,id,name,since FROM site WHERE state='offline' AND since<=$1";
    for row in fleet.db().rows(sql, args![earlier(now, limits.offline)]).await? {
        let (id, name) = (row.text(1), row.text(2));
        found.push((
            row.text(0),
            Finding {
                key: format!("offline/{id}"),
                rule: "offline",
                severity: Severity::Critical,
                title: format!("site {name} is offline"),
                message: format!(
                    "none of its hosts can be reached since {}; they go on with what they have",
                    row.time(3)
                ),
                site: Some((id, name)),
                host: None,
            },
        ));
    }
    Ok(())
}

/// Columns: tenant, host id, host name, site id, site name, and then the rule's own.
fn of_host(
    row: &Row,
    rule: &'static str,
    severity: Severity,
    title: String,
    message: String,
) -> (String, Finding) {
    let id = row.text(1);
    let finding = Finding {
        key: format!("{rule}/{id}"),
        rule,
        severity,
        title,
        message,
        site: row.opt_text(3).map(|site| (site, row.text(4))),
        host: Some((id, row.text(2))),
    };
    (row.text(0), finding)
}

async fn hosts(
    fleet: &Fleet,
    limits: &Thresholds,
    now: Time,
    found: &mut Vec<(String, Finding)>,
) -> Result<(), Error> {
    let seconds = i64::try_from(limits.certificate.as_secs()).unwrap_or(i64::MAX);
    let skew = i64::try_from(limits.skew.as_millis()).unwrap_or(i64::MAX);
    let rows = fleet
        .db()
        .rows(
            "SELECT h.tenant,h.id,h.name,s.id,s.name,h.not_after,h.drift,h.quarantined,h.skew,s.target,
             (SELECT d.id FROM head d JOIN repository r ON r.tenant=d.tenant AND r.id=d.repository
              WHERE d.tenant=s.tenant AND d.repository=s.repository AND d.branch=COALESCE(s.branch,r.branch))
             FROM host h LEFT JOIN site s ON s.tenant=h.tenant AND s.id=h.site
             WHERE h.phase='enrolled' AND (h.not_after<=$1 OR h.drift=1 OR h.quarantined<>'[]' OR h.skew>$2 OR h.skew<$3)",
            args![now.plus_seconds(seconds), skew, -skew],
        )
        .await?;
    for row in &rows {
        let name = row.str(2);
        if let Some(end) = row.opt_time(5).filter(|end| *end <= now.plus_seconds(seconds)) {
            let (severity, title) = if end <= now {
                (
                    Severity::Critical,
                    format!("the certificate of host {name} has ended"),
                )
            } else {
                (
                    Severity::Warning,
                    format!("the certificate of host {name} ends soon"),
                )
            };
            let message =
                format!("it ends at {end}; the host renews it by itself when it reaches the orchestrator");
            found.push(of_host(row, "certificate", severity, title, message));
        }
        if row.bool(6) {
            let title = format!("host {name} was changed by somebody else");
            let message = "something on it was changed behind the configuration's back, and put right".into();
            found.push(of_host(row, "drift", Severity::Warning, title, message));
        }
        let wanted = row
            .opt_text(9)
            .filter(|target| !target.is_empty())
            .or_else(|| row.opt_text(10));
        let refused: Vec<Quarantined> = row.json(7);
        if let Some(refused) = refused
            .iter()
            .find(|refused| Some(&refused.commit) == wanted.as_ref())
        {
            let title = format!(
                "host {name} refuses commit {}",
                crate::rollout::short(&refused.commit)
            );
            let message = format!("it went back by itself: {}", refused.reason);
            found.push(of_host(row, "quarantine", Severity::Critical, title, message));
        }
        let skew_here = row.int(8);
        if skew_here.abs() > skew {
            let way = if skew_here > 0 { "ahead" } else { "behind" };
            let title = format!("the clock of host {name} is wrong");
            // Whole minutes, so that the text does not change at each report.
            let far = match skew_here.abs() / 60_000 {
                0 | 1 => "about a minute".to_owned(),
                minutes @ 2..120 => format!("about {minutes} minutes"),
                minutes @ 120..2880 => format!("about {} hours", minutes / 60),
                minutes => format!("about {} days", minutes / 1440),
            };
            let message = format!("it is {far} {way}; is its NTP server reachable?");
            found.push(of_host(row, "clock", Severity::Warning, title, message));
        }
    }
    Ok(())
}

async fn disks(
    fleet: &Fleet,
    limits: &Thresholds,
    now: Time,
    found: &mut Vec<(String, Finding)>,
) -> Result<(), Error> {
    // The newest points only: reports come every five minutes.
    let rows = fleet
        .db()
        .rows(
            "SELECT u.tenant,u.host,h.name,s.id,s.name,u.disk,u.time FROM usage u
             JOIN host h ON h.tenant=u.tenant AND h.id=u.host
             LEFT JOIN site s ON s.tenant=h.tenant AND s.id=h.site
             WHERE u.span=300 AND u.time>=$1 AND u.disk>=$2 AND h.phase='enrolled' ORDER BY u.time",
            args![now.plus_seconds(-900), limits.disk],
        )
        .await?;
    let mut newest: BTreeMap<(String, String), (String, Finding)> = BTreeMap::new();
    for row in &rows {
        let disk = row.opt_float(5).unwrap_or_default();
        let severity = if disk >= limits.disk_critical {
            Severity::Critical
        } else {
            Severity::Warning
        };
        let title = format!("the disk of host {} is filling up", row.str(2));
        let message = format!("it is more than {:.0} % full", (disk * 20.0).floor() * 5.0);
        newest.insert(
            (row.text(0), row.text(1)),
            of_host(row, "disk", severity, title, message),
        );
    }
    found.extend(newest.into_values());
    Ok(())
}

async fn rollouts(fleet: &Fleet, found: &mut Vec<(String, Finding)>) -> Result<(), Error> {
    let sql = "SELECT tenant,id,number,commit_id,reason,phase FROM rollout WHERE phase IN ('halted','awaitingApproval')";
    for row in fleet.db().rows(sql, vec![]).await? {
        let (id, number, commit) = (row.text(1), row.int(2), row.text(3));
        let commit = crate::rollout::short(&commit).to_owned();
        let (severity, title) = if row.str(5) == "halted" {
            (
                Severity::Critical,
                format!("rollout {number} of commit {commit} has halted"),
            )
        } else {
            (
                Severity::Info,
                format!("rollout {number} of commit {commit} waits to be approved"),
            )
        };
        found.push((
            row.text(0),
            Finding {
                key: format!("rollout/{id}"),
                rule: "rollout",
                severity,
                title,
                message: row.text(4),
                site: None,
                host: None,
            },
        ));
    }
    Ok(())
}

async fn repositories(fleet: &Fleet, found: &mut Vec<(String, Finding)>) -> Result<(), Error> {
    let sql = "SELECT tenant,id,name,reach_message FROM repository WHERE reach='failed'";
    for row in fleet.db().rows(sql, vec![]).await? {
        let finding = Finding {
            key: format!("repository/{}", row.str(1)),
            rule: "repository",
            severity: Severity::Warning,
            title: format!("repository {} can't be reached", row.str(2)),
            message: row.text(3),
            site: None,
            host: None,
        };
        found.push((row.text(0), finding));
    }
    Ok(())
}

/// Makes one of what would be too many.
fn together(found: Vec<(String, Finding)>) -> Vec<(String, Finding)> {
    let mut counts: BTreeMap<(String, &'static str), (usize, Severity)> = BTreeMap::new();
    for (tenant, finding) in &found {
        let (count, worst) = counts
            .entry((tenant.clone(), finding.rule))
            .or_insert((0, Severity::Info));
        *count += 1;
        *worst = (*worst).max(finding.severity);
    }
    counts.retain(|_, (count, _)| *count > MOST_OF_A_RULE);
    let mut out: Vec<(String, Finding)> = found
        .into_iter()
        .filter(|(tenant, finding)| !counts.contains_key(&(tenant.clone(), finding.rule)))
        .collect();
    for ((tenant, rule), (count, severity)) in counts {
        // Two digits that count, so that the text does not change all the time.
        let scale = 10_usize.pow(
            u32::try_from(count.to_string().len())
                .unwrap_or(2)
                .saturating_sub(2),
        );
        let about = count / scale * scale;
        let what = match rule {
            "offline" => "sites are offline",
            "certificate" => "hosts have certificates that end soon",
            "drift" => "hosts were changed by somebody else",
            "quarantine" => "hosts refuse a commit",
            "clock" => "hosts have wrong clocks",
            "disk" => "hosts have disks that are filling up",
            "repository" => "repositories can't be reached",
            _ => "rollouts stand still",
        };
        let finding = Finding {
            key: format!("many/{rule}"),
            rule,
            severity,
            site: None,
            host: None,
            title: format!("more than {about} {what}"),
            message: "they are too many to be told one by one; the lists have them".into(),
        };
        out.push((tenant, finding));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_are_one() {
        let each = |n: usize, rule| {
            let finding = Finding {
                key: format!("{rule}/{n}"),
                rule,
                severity: if n == 7 {
                    Severity::Critical
                } else {
                    Severity::Warning
                },
                site: None,
                host: None,
                title: String::new(),
                message: String::new(),
            };
            ("t".to_owned(), finding)
        };
        let found: Vec<_> = (0..1234)
            .map(|n| each(n, "offline"))
            .chain((0..3).map(|n| each(n, "disk")))
            .collect();
        let out = together(found);
        assert_eq!(out.len(), 4);
        let many = &out[3].1;
        assert_eq!(
            (many.key.as_str(), many.severity),
            ("many/offline", Severity::Critical)
        );
        assert_eq!(many.title, "more than 1200 sites are offline");
    }
}
