//! Who is told next: waves, batches, windows, pace. And the way back.

use std::{collections::HashMap, time::Duration};

use jiff::tz::TimeZone;

use super::{
    machine::{Action, Now, Phase, Rollout, Site, Step, Turn, View},
    observe::{reach, reached},
    policy::Wave,
    window::{self, Hours, Opening},
};

impl Rollout {
    /// Opens waves that are due and tells the next batch.
    pub(super) fn advance(&mut self, view: &View, now: Now, step: &mut Step) {
        self.open(&mut step.actions);
        if self.opened == 0 {
            return;
        }
        let in_flight = |site: &Site| site.turn == Turn::Told && !site.away;
        if self.sites.values().any(in_flight) {
            self.stands(String::new());
            return;
        }
        let last = self.rules.wave(self.opened - 1);
        if let Some(due) = self.batch_at.map(|at| at + last.pace.0)
            && now.steady < due
        {
            if self.waiting().next().is_some() {
                step.again_at(due);
                self.stands("the next batch waits for the policy's pace".into());
            }
            return;
        }
        let told = self.pick(view, now, step);
        if told.is_empty() {
            return;
        }
        self.batch += 1;
        self.batch_at = Some(now.steady);
        for id in &told {
            let Some(site) = self.sites.get_mut(id) else {
                continue;
            };
            site.turn = Turn::Told;
            site.batch = Some(self.batch);
            site.before.clone_from(&view[id].pin);
            site.reached_since = Some(now.steady);
            step.actions.push(Action::Pin {
                site: id.clone(),
                commit: self.commit.clone(),
            });
        }
        step.actions.push(Action::Batch {
            number: self.batch,
            sites: told,
        });
        // A site that has the commit already will say nothing new.
        let at_it = |id: &&String| view[*id].applied.as_deref() == Some(&self.commit);
        if self
            .sites
            .iter()
            .any(|(id, site)| site.batch == Some(self.batch) && at_it(&id))
        {
            step.again_at(now.steady);
        }
        step.again_at(now.steady + self.rules.gate.timeout.0);
        if self.phase == Phase::Pending {
            self.enter(&mut step.actions, Phase::Running, String::new());
        }
    }

    /// Opens every wave whose turn it is. A wave is through when nobody that can be reached waits or is in flight
    /// in it; who can't be reached never holds it up.
    fn open(&mut self, actions: &mut Vec<Action>) {
        let busy = |wave: usize| {
            let holds = |site: &&Site| {
                site.wave == wave && !site.away && matches!(site.turn, Turn::Waiting | Turn::Told)
            };
            self.sites.values().find(holds).is_some()
        };
        let mut opened = self.opened;
        let mut news = Vec::new();
        let mut waits = None;
        while opened < self.rules.count() && (opened == 0 || !busy(opened - 1)) {
            let wave = self.rules.wave(opened);
            let concerned = |site: &Site| site.wave == opened && site.turn != Turn::Unchanged;
            let empty = !self.sites.values().any(concerned);
            if wave.approval && self.approved <= opened && !empty {
                waits = Some(wave.name);
                break;
            }
            news.push(Action::Open { wave: opened });
            opened += 1;
        }
        let through = opened == self.rules.count() && !(0..opened).any(busy);
        self.opened = opened;
        actions.extend(news);
        match waits {
            Some(name) => {
                let why = format!("wave {name} waits to be approved");
                self.enter(actions, Phase::AwaitingApproval, why);
            }
            None if through => self.enter(actions, Phase::Succeeded, String::new()),
            // A late one that is told again does not undo the success.
            None if self.phase == Phase::Succeeded => {}
            None => {
                let phase = if self.batch > 0 {
                    Phase::Running
                } else {
                    Phase::Pending
                };
                if self.phase != phase {
                    self.enter(actions, phase, String::new());
                }
            }
        }
    }

    /// Says why it stands still, where no person is waited for.
    fn stands(&mut self, why: String) {
        if matches!(self.phase, Phase::Running | Phase::Pending) {
            self.reason = why;
        }
    }

    /// Those who wait in an open wave and can be reached.
    fn waiting(&self) -> impl Iterator<Item = (&String, &Site)> {
        self.sites
            .iter()
            .filter(|(_, site)| site.turn == Turn::Waiting && !site.away && site.wave < self.opened)
    }

    /// The sites of the next batch. Who comes late to an earlier wave is told before the wave that is open now, with
    /// no more of them at once than that wave's batch; and alone, as long as nobody of that wave has come through.
    fn pick(&mut self, view: &View, now: Now, step: &mut Step) -> Vec<String> {
        let mut doors = Doors::new(self, now);
        let mut by_wave: Vec<Vec<&String>> = vec![Vec::new(); self.opened];
        let mut shut = 0_usize;
        let mut opens = None;
        for (id, site) in self.waiting().filter(|(id, _)| view[*id].online) {
            match doors.of(&view[id].zone) {
                Opening::Open(_) => by_wave[site.wave].push(id),
                Opening::Closed(until) => {
                    shut += 1;
                    opens = Some(opens.map_or(until, |known: jiff::Timestamp| known.min(until)));
                    step.again_when(until);
                }
                Opening::Never => shut += 1,
            }
        }
        let most = self.batch_size(self.opened - 1, &self.rules.wave(self.opened - 1));
        let mut told: Vec<String> = Vec::new();
        for (wave, mut candidates) in by_wave.into_iter().enumerate().filter(|(_, c)| !c.is_empty()) {
            // In the order that people see.
            candidates.sort_by_key(|id| &view[*id].name);
            let proven = |site: &Site| site.wave == wave && site.turn == Turn::Succeeded;
            let proven = self.sites.values().any(proven);
            let room = most.saturating_sub(told.len());
            let most_here = self.batch_size(wave, &self.rules.wave(wave));
            if room == 0 {
                break;
            }
            // Those who come late do not take every place of those who are in time.
            let share = if wave + 1 < self.opened && proven {
                room.div_ceil(2)
            } else {
                room
            };
            told.extend(candidates.into_iter().take(share.min(most_here)).cloned());
            if !proven {
                break;
            }
        }
        let why = match (told.is_empty(), shut, opens) {
            (true, 0, _) | (false, ..) => String::new(),
            (true, 1, _) => "a site waits for its maintenance window".into(),
            (true, shut, Some(at)) => {
                format!("{shut} sites wait for their maintenance windows; the next opens at {at}")
            }
            (true, shut, None) => format!("{shut} sites wait for their maintenance windows"),
        };
        self.stands(why);
        told
    }

    /// How many sites of a wave are told at once.
    fn batch_size(&self, wave: usize, rules: &Wave) -> usize {
        let counts = |site: &&Site| site.wave == wave && !site.away && site.turn != Turn::Unchanged;
        rules.batch.of(self.sites.values().filter(counts).count()).max(1)
    }

    /// Everybody who was told, and whoever an earlier, unfinished rollout left elsewhere, goes back: all at once,
    /// the last told first, whatever the windows say. What they go back to has come through its gates before, and
    /// the person who asks for it has a reason not to wait.
    pub(super) fn go_back(&mut self, view: &View, now: Now, step: &mut Step) {
        let limit = self.rules.gate.timeout.0;
        let mut pins: Vec<(Option<u32>, Action)> = Vec::new();
        let (mut open, mut failed) = (0_usize, 0_usize);
        for (id, site) in &mut self.sites {
            let seen = &view[id];
            if site.turn == Turn::Unchanged {
                // Back to its own commit, which is the same for it; nobody waits for that.
                if let Some(commit) = site
                    .before
                    .clone()
                    .filter(|before| seen.pin.as_ref() != Some(before))
                {
                    let site = id.clone();
                    pins.push((None, Action::Pin { site, commit }));
                }
                continue;
            }
            let Some(back) = self.previous.clone().or_else(|| site.before.clone()) else {
                continue;
            };
            if site.is_told() || (site.strayed && site.turn == Turn::Waiting && self.previous.is_some()) {
                site.turn = Turn::Reverting;
                site.reason.clear();
                (site.reached, site.reached_since) = (Duration::ZERO, None);
            }
            if !matches!(site.turn, Turn::Reverting | Turn::Reverted) {
                continue;
            }
            if seen.pin.as_ref() != Some(&back) {
                let (site_id, commit) = (id.clone(), back.clone());
                pins.push((
                    site.batch,
                    Action::Pin {
                        site: site_id,
                        commit,
                    },
                ));
            }
            reach(site, seen, now.steady, self.rules.gate.away_after.0, step);
            if site.turn == Turn::Reverting && seen.online && seen.applied.as_ref() == Some(&back) {
                site.turn = Turn::Reverted;
                site.reason.clear();
                step.actions.push(Action::WentBack { site: id.clone() });
            }
            if site.turn == Turn::Reverting && !site.away {
                if reached(site, now) >= limit {
                    site.reason = "it did not go back in time".into();
                    failed += 1;
                } else {
                    open += 1;
                    step.again_at(now.steady + limit.saturating_sub(reached(site, now)));
                }
            }
        }
        pins.sort_by_key(|(batch, _)| std::cmp::Reverse(*batch));
        let moved = !pins.is_empty();
        step.actions
            .splice(0..0, pins.into_iter().map(|(_, action)| action));
        if open == 0 && !moved {
            let reason = match failed {
                0 => String::new(),
                1 => "a site did not go back in time".into(),
                failed => format!("{failed} sites did not go back in time"),
            };
            self.enter(&mut step.actions, Phase::Reverted, reason);
        }
    }
}

/// Maintenance windows, worked out once for each time zone.
struct Doors {
    hours: Option<Hours>,
    /// There is a window and it can't be read: nobody is told by mistake.
    broken: bool,
    now: Now,
    known: HashMap<String, Opening>,
}

impl Doors {
    fn new(rollout: &Rollout, now: Now) -> Self {
        let window = rollout.rules.window.as_ref();
        let hours = window.and_then(window::Window::hours);
        Self {
            broken: window.is_some() && hours.is_none(),
            hours,
            now,
            known: HashMap::new(),
        }
    }

    fn of(&mut self, zone: &str) -> Opening {
        let Some(hours) = self.hours else {
            return if self.broken {
                Opening::Never
            } else {
                Opening::Open(jiff::Timestamp::MAX)
            };
        };
        if let Some(known) = self.known.get(zone) {
            return *known;
        }
        let zone_data: TimeZone = window::zone(zone);
        let opening = hours.at(self.now.wall, &zone_data);
        self.known.insert(zone.into(), opening);
        opening
    }
}
