//! The rollouts of one repository and policy together: the one that is on its way, and the last one that came
//! through, which late sites still catch up with.

use std::collections::BTreeSet;

use super::{
    machine::{Action, Command, Now, Phase, Refused, Rollout, Step, Turn, View},
    policy::Rules,
};

/// What is alive of the rollouts of a repository under a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// The last one that came through. Sites that were away then get its commit when they are back, until the one
    /// that is on its way tells them a newer one.
    pub tail: Option<Rollout>,
    /// The newest one, if it is not the tail.
    pub active: Option<Rollout>,
}

/// What came of a step, for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// Of the tail.
    pub tail: Step,
    /// Of the active one. When it comes through it is the tail afterwards.
    pub active: Step,
}

impl Lineage {
    /// The commit that came through last.
    #[must_use]
    pub fn approved(&self) -> Option<&str> {
        self.tail.as_ref().map(|rollout| rollout.commit.as_str())
    }

    /// The newest rollout.
    #[must_use]
    pub fn newest(&self) -> Option<&Rollout> {
        self.active.as_ref().or(self.tail.as_ref())
    }

    /// A newer commit: the active rollout is superseded (and given back), a new one begins.
    ///
    /// `same` are sites for which the commit is the same as the one they are held at. They get no turn, unless
    /// something is open there: a rollout that never came through has told them theirs, or a host refuses it.
    pub fn push(
        &mut self,
        commit: &str,
        rules: Rules,
        why: &str,
        view: &View,
        same: &BTreeSet<String>,
    ) -> Option<Rollout> {
        let mut rollout = Rollout::new(commit, self.approved().map(Into::into), rules);
        let old = self.active.take().map(|mut old| {
            // Nothing refuses this.
            let _ = old.command(Command::Supersede(why.into()));
            old
        });
        rollout.members(view);
        for (id, site) in &mut rollout.sites {
            let before = old.as_ref().and_then(|old| old.sites.get(id));
            site.strayed = before.is_some_and(|b| b.is_told() || (b.strayed && b.batch.is_none()));
            let seen = &view[id];
            let refused =
                |(refused, _): &(String, String)| refused == commit || Some(refused) == seen.pin.as_ref();
            let refused = seen.quarantined.iter().any(refused);
            if same.contains(id) && seen.pin.is_some() && !site.strayed && !refused {
                site.turn = Turn::Unchanged;
                site.before.clone_from(&seen.pin);
            }
        }
        self.active = Some(rollout);
        old
    }

    /// Takes back the newest rollout.
    ///
    /// # Errors
    /// It makes no sense now.
    pub fn revert(&mut self, why: &str) -> Result<Vec<Action>, Refused> {
        let newest = self.active.as_mut().or(self.tail.as_mut());
        let Some(newest) = newest else {
            return Err(Refused::NoPrevious);
        };
        let actions = newest.command(Command::Revert(why.into()))?;
        if self.active.is_none() {
            self.active = self.tail.take();
        }
        Ok(actions)
    }

    /// One step of both.
    pub fn step(&mut self, view: &View, now: Now) -> Steps {
        let mut steps = Steps::default();
        if let Some(active) = &mut self.active {
            steps.active = active.step(view, now);
            if let Some(tail) = &mut self.tail {
                for (id, site) in &mut tail.sites {
                    let other = active.sites.get(id);
                    if other.is_some_and(|s| s.batch.is_some() || s.strayed || s.turn != Turn::Waiting) {
                        site.turn = Turn::Left;
                    }
                }
            }
        }
        if let Some(tail) = &mut self.tail {
            // Whoever is new and already with the active one has nothing to catch up with here.
            tail.members(view);
            if let Some(active) = &self.active {
                for (id, site) in &mut tail.sites {
                    if active
                        .sites
                        .get(id)
                        .is_some_and(|other| other.batch.is_some() || other.strayed)
                    {
                        site.turn = Turn::Left;
                    }
                }
            }
            steps.tail = tail.step(view, now);
        }
        if self
            .active
            .as_ref()
            .is_some_and(|active| active.phase == Phase::Succeeded)
        {
            self.tail = self.active.take();
        }
        steps
    }
}
