//! One turn of a line: read, think, write. And what persons ask of a rollout.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{
    Action, Command, Lineage, Now, Phase, Rollout, Step, Turn, View,
    concerned::{self, Same},
    store::{self, Line, Loaded, Stored, Write},
};
use crate::{Caller, Error, Fleet, plan::Source};

/// How often a turn begins anew when somebody else wrote first.
const TRIES: usize = 5;

/// When to look at a line again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Next {
    /// By watched time.
    pub(super) due: Option<Duration>,
    /// By the time of day.
    pub(super) due_at: Option<Timestamp>,
    /// Whether timers may be running: the watched time is to be kept.
    pub(super) alive: bool,
}

impl Next {
    fn of(steps: &[&Step], lineage: &Lineage) -> Self {
        let open = |rollout: &Rollout| {
            !rollout.phase.ended()
                || rollout
                    .sites
                    .values()
                    .any(|s| !s.away && matches!(s.turn, Turn::Waiting | Turn::Told))
        };
        Self {
            due: steps.iter().filter_map(|step| step.due).min(),
            due_at: steps.iter().filter_map(|step| step.due_at).min(),
            alive: lineage.active.iter().chain(&lineage.tail).any(open),
        }
    }
}

/// One turn. `steady` is how long the line has been watched; what is stored counts if it is more.
pub(super) async fn turn(
    fleet: &Fleet,
    line: &Line,
    steady: Duration,
    source: Option<&Arc<dyn Source>>,
) -> Result<(Next, Duration), Error> {
    let caller = Caller::system(&line.tenant, "rollouts");
    let mut known: Option<(String, Same)> = None;
    for _ in 0..TRIES {
        let loaded = store::load(fleet, line).await?;
        let view = store::view(fleet, line).await?;
        let now = Now {
            wall: fleet.db().now().timestamp(),
            steady: steady.max(loaded.steady),
        };
        let mut lineage = loaded.lineage.clone();
        let mut begun: Option<Stored> = None;
        let mut ended: Option<(Rollout, Step)> = None;
        if let Some(head) = store::head(fleet, line).await?
            && !view.is_empty()
            && lineage.newest().is_none_or(|newest| newest.commit != head.commit)
            && let Some((rules, policy)) = store::policy(fleet, line).await?
        {
            let why = format!("commit {} is newer", short(&head.commit));
            if let Some(source) = source
                && known.as_ref().is_none_or(|(commit, _)| *commit != head.commit)
            {
                let same = concerned::same(fleet, line, &head.commit, &view, source).await?;
                known = Some((head.commit.clone(), same));
            }
            let same = known.as_ref().map(|(_, same)| concerned::still(same, &view));
            let old = lineage.push(&head.commit, rules, &why, &view, &same.unwrap_or_default());
            ended = old.map(|old| {
                let actions = vec![Action::Enter {
                    phase: Phase::Superseded,
                    reason: old.reason.clone(),
                }];
                (
                    old,
                    Step {
                        actions,
                        ..Step::default()
                    },
                )
            });
            begun = Some(store::stored(fleet, &head, &policy, &caller.actor));
        }
        let tail_before = lineage.tail.clone();
        let had_active = lineage.active.is_some();
        let steps = lineage.step(&view, now);
        let came_through = had_active && lineage.active.is_none();
        let mut writes = Vec::new();
        if let (Some((old, step)), Some(stored)) = (&ended, &loaded.active) {
            writes.push(Write {
                stored,
                is_new: false,
                before: loaded.lineage.active.as_ref(),
                after: old,
                step,
            });
        }
        let newest = if came_through {
            &lineage.tail
        } else {
            &lineage.active
        };
        if let (true, Some(after), Some(stored)) =
            (had_active, newest, begun.as_ref().or(loaded.active.as_ref()))
        {
            writes.push(Write {
                stored,
                is_new: begun.is_some(),
                before: if begun.is_some() {
                    None
                } else {
                    loaded.lineage.active.as_ref()
                },
                after,
                step: &steps.active,
            });
        }
        // A tail that another took the place of in this very step has nothing more to say.
        if let (false, Some(after), Some(stored)) = (came_through, &lineage.tail, &loaded.tail) {
            writes.push(Write {
                stored,
                is_new: false,
                before: tail_before.as_ref(),
                after,
                step: &steps.tail,
            });
        }
        writes.retain(|write| !write.is_empty());
        let next = Next::of(&[&steps.active, &steps.tail], &lineage);
        if writes.is_empty() || store::save(fleet, &caller, line, &writes, &view, now).await? {
            return Ok((next, now.steady));
        }
    }
    // Somebody writes all the time; the next wake is the retry.
    Ok((
        Next {
            alive: true,
            ..Next::default()
        },
        steady,
    ))
}

/// Carries out what a person wants of a rollout.
pub(super) async fn command(
    fleet: &Fleet,
    caller: &Caller,
    line: &Line,
    id: &str,
    command: &Command,
) -> Result<(), Error> {
    for _ in 0..TRIES {
        let Loaded {
            mut lineage,
            tail,
            active,
            steady,
        } = store::load(fleet, line).await?;
        let is = |stored: &Option<Stored>| stored.as_ref().is_some_and(|stored| stored.id == id);
        let (before, stored) = match (is(&active), is(&tail)) {
            (true, _) => (lineage.active.clone(), active),
            (_, true) if active.is_none() || !matches!(command, Command::Revert(_)) => {
                (lineage.tail.clone(), tail)
            }
            (_, true) => {
                return Err(Error::conflict(
                    "there is a newer rollout: take that one back first",
                ));
            }
            _ => return Err(Error::conflict("a newer commit took the place of this rollout")),
        };
        let (Some(mut after), Some(stored)) = (before.clone(), stored) else {
            return Err(Error::not_found("rollout", id));
        };
        let actions = after
            .command(command.clone())
            .map_err(|e| Error::conflict(e.to_string()))?;
        lineage.tail = None;
        let step = Step {
            actions,
            due: Some(steady),
            ..Step::default()
        };
        let write = Write {
            stored: &stored,
            is_new: false,
            before: before.as_ref(),
            after: &after,
            step: &step,
        };
        let now = Now {
            wall: fleet.db().now().timestamp(),
            steady,
        };
        if store::save(fleet, caller, line, &[write], &View::new(), now).await? {
            return Ok(());
        }
    }
    Err(Error::conflict("the rollout is changing all the time: try again"))
}

/// A commit as people read it.
pub(crate) fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}
