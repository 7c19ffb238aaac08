//! What is seen of the sites, and what follows for the rollout: successes, failures, a halt.

use std::time::Duration;

use super::machine::{Action, Health, Now, Phase, Rollout, Site, SiteView, Step, Turn, View};

impl Rollout {
    /// Runs the timers of every site and settles those that are through.
    pub(super) fn observe(&mut self, view: &View, now: Now, step: &mut Step) {
        let gate = self.rules.gate.clone();
        // After its end a rollout is not blamed for what breaks later.
        let watched = !self.finished;
        for (id, site) in &mut self.sites {
            let seen = &view[id];
            if site.turn == Turn::Left {
                continue;
            }
            reach(site, seen, now.steady, gate.away_after.0, step);
            let refused = seen.quarantined.iter().find(|(commit, _)| *commit == self.commit);
            if let Some((_, why)) = refused
                && !site.quarantined
            {
                site.quarantined = true;
                if site.turn == Turn::Unchanged {
                    // It does change something there: from now on it is one of those that were told.
                    site.batch = Some(self.batch);
                }
                fail(
                    id,
                    site,
                    format!("it refused the commit: {why}"),
                    &mut step.actions,
                );
                continue;
            }
            if site.batch.is_none() {
                continue;
            }
            let there = seen.online && seen.applied.as_deref() == Some(&self.commit);
            let healthy = timer(
                &mut site.healthy_since,
                there && seen.health == Health::Healthy,
                now,
            );
            let failing = timer(
                &mut site.failing_since,
                there && seen.health == Health::Failing,
                now,
            );
            match site.turn {
                Turn::Told | Turn::Failed if healthy.is_some_and(|span| span >= gate.healthy_for.0) => {
                    site.turn = Turn::Succeeded;
                    site.reason.clear();
                    site.quarantined &= refused.is_some();
                    step.actions.push(Action::Succeed { site: id.clone() });
                }
                Turn::Told if failing.is_some_and(|span| span >= gate.failing_for.0) => {
                    let why = "it has been failing at the commit".into();
                    fail(id, site, why, &mut step.actions);
                }
                Turn::Succeeded if watched && failing.is_some_and(|span| span >= gate.failing_for.0) => {
                    let why = "it came through and then failed".into();
                    fail(id, site, why, &mut step.actions);
                }
                Turn::Told if healthy.is_none() && reached(site, now) >= gate.timeout.0 => {
                    let why = if there {
                        "it did not become healthy at the commit in time"
                    } else {
                        "it did not apply the commit in time"
                    };
                    fail(id, site, why.into(), &mut step.actions);
                }
                _ => {}
            }
            again(site, now, &gate, watched, step);
        }
    }

    /// Halts if more failed than may, or somebody refused the commit for good.
    pub(super) fn judge(&mut self, view: &View, actions: &mut Vec<Action>) {
        let failed = |site: &&Site| site.turn == Turn::Failed && !site.excused;
        let count = self.sites.values().filter(failed).count();
        if count == 0 || self.phase == Phase::Halted {
            return;
        }
        let refused = self
            .sites
            .iter()
            .find(|(_, site)| failed(site) && site.quarantined);
        if let Some((id, site)) = refused {
            let more = self.sites.values().filter(|s| failed(s) && s.quarantined).count() - 1;
            let others = match more {
                0 => String::new(),
                1 => " and another site".into(),
                more => format!(" and {more} other sites"),
            };
            let why = format!("site {}{others}: {}", called(id, view), site.reason);
            return self.enter(actions, Phase::Halted, why);
        }
        let settled = |site: &&Site| {
            matches!(site.turn, Turn::Succeeded | Turn::Failed)
                || (!site.away && !matches!(site.turn, Turn::Left | Turn::Unchanged))
        };
        let whole = self.sites.values().filter(settled).count();
        let budget = self.rules.failure_budget.of(whole);
        if count > budget {
            let of = format!("{count} of {whole} sites failed; the policy allows {budget}");
            let why = self.sites.iter().find(|(_, site)| failed(site));
            let first = why.map_or(String::new(), |(id, site)| {
                format!("; site {}: {}", called(id, view), site.reason)
            });
            self.enter(actions, Phase::Halted, format!("{of}{first}"));
        }
    }
}

/// What people call a site.
fn called<'v>(id: &'v str, view: &'v View) -> &'v str {
    view.get(id)
        .map(|seen| seen.name.as_str())
        .filter(|name| !name.is_empty())
        .unwrap_or(id)
}

/// Whether it can be reached, and for how long it has (not) been.
pub(super) fn reach(site: &mut Site, seen: &SiteView, now: Duration, patience: Duration, step: &mut Step) {
    let told = site.turn != Turn::Waiting;
    if seen.online {
        site.away = false;
        site.lost_since = None;
        if told {
            site.reached_since.get_or_insert(now);
        }
        return;
    }
    if let Some(since) = site.reached_since.take() {
        site.reached += now.saturating_sub(since);
    }
    if site.away {
        return;
    }
    // A host that restarts, or an orchestrator that did, is waited for: the site keeps its place meanwhile.
    let since = *site.lost_since.get_or_insert(now);
    site.away = now.saturating_sub(since) >= patience;
    if !site.away {
        step.again_at(since + patience);
    }
}

/// How long a told site could be reached in all.
pub(super) fn reached(site: &Site, now: Now) -> Duration {
    let current = site.reached_since.map(|since| now.steady.saturating_sub(since));
    site.reached + current.unwrap_or_default()
}

/// A timer that runs while something holds: how long it has been running.
fn timer(since: &mut Option<Duration>, holds: bool, now: Now) -> Option<Duration> {
    if !holds {
        *since = None;
        return None;
    }
    Some(now.steady.saturating_sub(*since.get_or_insert(now.steady)))
}

fn fail(id: &str, site: &mut Site, reason: String, actions: &mut Vec<Action>) {
    site.turn = Turn::Failed;
    site.excused = false;
    site.reason.clone_from(&reason);
    actions.push(Action::Fail {
        site: id.to_owned(),
        reason,
    });
}

/// When the next timer of this site ends.
fn again(site: &Site, now: Now, gate: &super::policy::Gate, watched: bool, step: &mut Step) {
    if matches!(site.turn, Turn::Told | Turn::Failed)
        && let Some(since) = site.healthy_since
    {
        step.again_at(since + gate.healthy_for.0);
    }
    if let Some(since) = site.failing_since
        && (site.turn == Turn::Told || (watched && site.turn == Turn::Succeeded))
    {
        step.again_at(since + gate.failing_for.0);
    }
    if site.turn == Turn::Told && site.reached_since.is_some() && site.healthy_since.is_none() {
        step.again_at(now.steady + gate.timeout.0.saturating_sub(reached(site, now)));
    }
}
