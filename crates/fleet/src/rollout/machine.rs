//! The state machine of one rollout. Pure: the same state, the same view of the fleet and the same time give the
//! same actions.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::policy::Rules;
use crate::model::Map;

/// What time it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The time of day. Only maintenance windows look at it.
    pub wall: Timestamp,
    /// How long somebody has been watching this rollout: goes on only while a driver runs, never jumps, never
    /// goes back. Gates, pace and time limits are counted by it, so that neither a clock that is set nor an
    /// orchestrator that was off can let anything through that was not seen.
    pub steady: Duration,
}

/// How a site is at what it has applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Everything that it has applied is ready.
    Healthy,
    /// It is on the way, or not known.
    #[default]
    Progressing,
    /// Something does not work.
    Failing,
}

/// A site as it was last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteView {
    /// Its name, for people.
    pub name: String,
    /// For the wave.
    pub labels: Map,
    /// IANA name of its time zone; empty is UTC.
    pub zone: String,
    /// Whether one of its hosts can be reached.
    pub online: bool,
    /// How it is.
    pub health: Health,
    /// What it has applied, if all its hosts that can be reached have the same.
    pub applied: Option<String>,
    /// Commits that a host of it has refused for good, each with why.
    pub quarantined: Vec<(String, String)>,
    /// The commit that it is held at now.
    pub pin: Option<String>,
}

/// The sites that follow the policy, by id.
pub type View = BTreeMap<String, SiteView>;

/// Where a rollout is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Nobody was told yet.
    #[default]
    Pending,
    /// The next wave waits for a person.
    AwaitingApproval,
    /// Sites are being told.
    Running,
    /// Nobody more is told until a person says so.
    Halted,
    /// The sites go back.
    Reverting,
    /// Every site that can be reached has had its turn. Those that come back later still get theirs.
    Succeeded,
    /// The sites went back.
    Reverted,
    /// A newer commit took its place.
    Superseded,
}

impl Phase {
    /// The word in the API and the database.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::AwaitingApproval => "awaitingApproval",
            Self::Running => "running",
            Self::Halted => "halted",
            Self::Reverting => "reverting",
            Self::Succeeded => "succeeded",
            Self::Reverted => "reverted",
            Self::Superseded => "superseded",
        }
    }

    /// Whether nothing is left to be done for sites that can be reached.
    #[must_use]
    pub const fn ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Reverted | Self::Superseded)
    }
}

/// Where a site is in a rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Turn {
    /// Not told yet.
    #[default]
    Waiting,
    /// Told, and not through the gate yet.
    Told,
    /// Through the gate.
    Succeeded,
    /// Not healthy in time, or it refused the commit.
    Failed,
    /// Told to go back.
    Reverting,
    /// It went back.
    Reverted,
    /// A later rollout has told it something else.
    Left,
    /// The commit changes nothing there: it is held at it without a turn.
    Unchanged,
}

impl Turn {
    /// The word in the database.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Told => "told",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Reverting => "reverting",
            Self::Reverted => "reverted",
            Self::Left => "left",
            Self::Unchanged => "unchanged",
        }
    }
}

/// A site in a rollout. Times are [`Now::steady`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Site {
    /// Its wave, from 0; decided when it joined.
    pub wave: usize,
    /// Where it is.
    pub turn: Turn,
    /// Why it failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Its failure has been looked at by the person who let the rollout go on.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub excused: bool,
    /// It has refused this commit.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub quarantined: bool,
    /// The batch that it was told in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<u32>,
    /// What it was held at before it was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Since when it has been healthy at the commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthy_since: Option<Duration>,
    /// Since when it has been failing at the commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Duration>,
    /// Since when it can be reached without a break, if it was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reached_since: Option<Duration>,
    /// How long it could be reached before that, since it was told.
    #[serde(skip_serializing_if = "Duration::is_zero")]
    pub reached: Duration,
    /// Since when it can't be reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_since: Option<Duration>,
    /// An earlier rollout that never came through has told it its commit.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub strayed: bool,
    /// It can't be reached and is not waited for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub away: bool,
}

impl Site {
    /// Whether this rollout holds it at its commit.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.batch.is_some() && matches!(self.turn, Turn::Told | Turn::Succeeded | Turn::Failed)
    }
}

/// A rollout: one commit, on its way to the sites that follow one policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rollout {
    /// The commit.
    pub commit: String,
    /// The last commit before it that came through: what a revert goes back to. If there was none, each site
    /// goes back to what it had.
    pub previous: Option<String>,
    /// The policy as it was when the rollout began.
    pub rules: Rules,
    /// Where it is.
    pub phase: Phase,
    /// Why it stands still; empty if it does not.
    pub reason: String,
    /// How many waves are open, from the first.
    pub opened: usize,
    /// How many waves are approved, from the first.
    pub approved: usize,
    /// How many batches there were.
    pub batch: u32,
    /// When the last one was told.
    pub batch_at: Option<Duration>,
    /// Whether it has succeeded once.
    pub finished: bool,
    /// The sites by id. Not written with the rest: each is a row of its own.
    #[serde(skip)]
    pub sites: BTreeMap<String, Site>,
}

/// What is to be done, or was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "action")]
pub enum Action {
    /// Hold a site at a commit from now on.
    Pin {
        /// The site.
        site: String,
        /// The commit.
        commit: String,
    },
    /// A wave was opened.
    Open {
        /// Which, from 0.
        wave: usize,
    },
    /// A batch was told; a [`Action::Pin`] for each of its sites goes before.
    Batch {
        /// Its number, from 1.
        number: u32,
        /// The sites.
        sites: Vec<String>,
    },
    /// A site came through the gate.
    Succeed {
        /// The site.
        site: String,
    },
    /// A site failed.
    Fail {
        /// The site.
        site: String,
        /// Why.
        reason: String,
    },
    /// A site went back.
    WentBack {
        /// The site.
        site: String,
    },
    /// The rollout is somewhere else.
    Enter {
        /// Where.
        phase: Phase,
        /// Why.
        reason: String,
    },
}

/// What came of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// In order.
    pub actions: Vec<Action>,
    /// When to step again at the latest, by [`Now::steady`], though nothing changes.
    pub due: Option<Duration>,
    /// When to step again at the latest, by the time of day: a maintenance window opens.
    pub due_at: Option<Timestamp>,
}

impl Step {
    pub(super) fn again_at(&mut self, steady: Duration) {
        self.due = Some(self.due.map_or(steady, |due| due.min(steady)));
    }

    pub(super) fn again_when(&mut self, wall: Timestamp) {
        self.due_at = Some(self.due_at.map_or(wall, |due| due.min(wall)));
    }
}

/// What a person wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Open the wave that waits.
    Approve,
    /// Tell nobody more.
    Halt(String),
    /// Go on; failures so far are excused.
    Resume,
    /// Send everybody back.
    Revert(String),
    /// A newer commit takes its place.
    Supersede(String),
}

/// Why a command is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The rollout is somewhere where this makes no sense.
    #[error("a rollout that is {phase} can't be {verb}")]
    Phase {
        /// Where it is.
        phase: &'static str,
        /// What was asked.
        verb: &'static str,
    },
    /// There is nothing to go back to.
    #[error("there is no commit to go back to: this is the first one of every site it has told")]
    NoPrevious,
}

impl Rollout {
    /// A new rollout. Sites join it with the first step.
    #[must_use]
    pub fn new(commit: &str, previous: Option<String>, rules: Rules) -> Self {
        Self {
            commit: commit.into(),
            previous,
            rules,
            ..Self::default()
        }
    }

    /// Carries out what a person wants. The next step does the rest.
    ///
    /// # Errors
    /// It makes no sense now.
    pub fn command(&mut self, command: Command) -> Result<Vec<Action>, Refused> {
        let refused = |verb| {
            Err(Refused::Phase {
                phase: self.phase.word(),
                verb,
            })
        };
        let active = matches!(
            self.phase,
            Phase::Pending | Phase::AwaitingApproval | Phase::Running
        );
        let mut actions = Vec::new();
        match command {
            Command::Approve if self.phase != Phase::AwaitingApproval => return refused("approved"),
            Command::Approve => {
                self.approved = self.opened + 1;
                self.enter(&mut actions, Phase::Running, String::new());
            }
            Command::Halt(_) if !active && self.phase != Phase::Succeeded => return refused("halted"),
            Command::Halt(why) => self.enter(&mut actions, Phase::Halted, why),
            Command::Resume if self.phase != Phase::Halted => return refused("resumed"),
            Command::Resume => {
                for site in self.sites.values_mut() {
                    site.excused |= site.turn == Turn::Failed;
                }
                self.enter(&mut actions, Phase::Running, String::new());
            }
            Command::Revert(_) if !active && !matches!(self.phase, Phase::Halted | Phase::Succeeded) => {
                return refused("reverted");
            }
            Command::Revert(why) => {
                let stuck = |site: &Site| self.previous.is_none() && site.before.is_none();
                let mut told = self.sites.values().filter(|site| site.is_told()).peekable();
                if told.peek().is_some() && told.all(stuck) {
                    return Err(Refused::NoPrevious);
                }
                self.enter(&mut actions, Phase::Reverting, why);
            }
            Command::Supersede(_) if self.phase == Phase::Superseded => {}
            Command::Supersede(why) => self.enter(&mut actions, Phase::Superseded, why),
        }
        Ok(actions)
    }

    /// One step: takes in what is seen of the fleet and says what is to be done. Doing it twice does nothing more.
    pub fn step(&mut self, view: &View, now: Now) -> Step {
        let mut step = Step::default();
        if self.phase == Phase::Superseded {
            return step;
        }
        self.members(view);
        if matches!(self.phase, Phase::Reverting | Phase::Reverted) {
            self.go_back(view, now, &mut step);
            return step;
        }
        self.observe(view, now, &mut step);
        self.judge(view, &mut step.actions);
        self.retarget(view, &mut step.actions);
        let before = step.actions.len();
        if self.phase != Phase::Halted {
            self.advance(view, now, &mut step);
        }
        if step.actions.len() == before {
            self.repair(view, &mut step.actions);
        }
        step
    }

    pub(super) fn enter(&mut self, actions: &mut Vec<Action>, phase: Phase, reason: String) {
        if self.phase == phase && self.reason == reason {
            return;
        }
        let moved = self.phase != phase;
        self.phase = phase;
        self.reason.clone_from(&reason);
        self.finished |= phase == Phase::Succeeded;
        if moved {
            actions.push(Action::Enter { phase, reason });
        }
    }

    /// Sites come and go; a wave is decided once.
    pub(super) fn members(&mut self, view: &View) {
        self.sites.retain(|id, _| view.contains_key(id));
        if self.sites.len() == view.len() {
            return;
        }
        let selectors = self.rules.selectors();
        for (id, seen) in view {
            self.sites.entry(id.clone()).or_insert_with(|| Site {
                wave: super::policy::wave_of(&selectors, &seen.labels),
                away: !seen.online,
                ..Site::default()
            });
        }
    }

    /// Sites for which the commit changes nothing are held at it from the beginning. Nothing moves there, so that
    /// neither waves nor windows nor a halt are in the way.
    fn retarget(&self, view: &View, actions: &mut Vec<Action>) {
        for (id, _) in self.sites.iter().filter(|(_, site)| site.turn == Turn::Unchanged) {
            if view[id].pin.as_deref() != Some(&self.commit) {
                actions.push(Action::Pin {
                    site: id.clone(),
                    commit: self.commit.clone(),
                });
            }
        }
    }

    /// The sites that were told are held at the commit, whatever somebody made of the pin.
    fn repair(&self, view: &View, actions: &mut Vec<Action>) {
        for (id, _) in self.sites.iter().filter(|(_, site)| site.is_told()) {
            if view[id].pin.as_deref() != Some(&self.commit) {
                actions.push(Action::Pin {
                    site: id.clone(),
                    commit: self.commit.clone(),
                });
            }
        }
    }
}
