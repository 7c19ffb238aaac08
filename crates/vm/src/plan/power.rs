//! Running, off, suspended: which step brings the guest to the power state that is asked for.

use std::time::Duration;

use jiff::Timestamp;
use qmp::RunState;

use super::{Action, Guest, Observed, Plan, SILENCE, SOFT_LIMIT, condition};
use crate::{
    desired::{Desired, Mode, Power},
    record::{Launch, Record, Stop},
};

pub(super) fn power(
    plan: &mut Plan,
    desired: &Desired,
    observed: &Observed,
    record: &Record,
    now: Timestamp,
) {
    match (&observed.guest, desired.power) {
        (Guest::Unreachable, Power::PoweredOff) => {
            plan.step(Action::Kill, "it is to be powered off and QEMU does not answer");
        }
        (Guest::Unreachable, Power::PoweredOn | Power::Suspended) => {
            // A host whose disks stall makes QEMU deaf for a while; the guest may be well.
            let message = "QEMU runs and does not answer; power the virtual machine off to end it";
            plan.warn(condition::POWER, "NotAnswering", message);
            plan.again_in(SILENCE);
        }
        (Guest::Alive(state, launch), Power::PoweredOn) => {
            keep_running(plan, desired, observed, state, launch, now);
        }
        (Guest::Alive(state, launch), Power::PoweredOff) => {
            stop(
                plan,
                state,
                launch,
                desired.off_mode,
                now,
                "it is to be powered off",
            );
        }
        (Guest::Alive(RunState::Prelaunch, _), Power::Suspended) => {
            plan.step(Action::Quit, "it is to be suspended and has not run");
        }
        (Guest::Alive(..), Power::Suspended) => plan.step(Action::Suspend, "it is to be suspended"),
        (Guest::Gone | Guest::Dead(_), Power::PoweredOn) => start(plan, desired, observed, record, now),
        (Guest::Gone | Guest::Dead(_), Power::PoweredOff) if observed.saved => {
            plan.step(Action::DiscardSaved, "it is to be powered off, not suspended");
        }
        (Guest::Gone | Guest::Dead(_), Power::PoweredOff | Power::Suspended) => {}
    }
}

fn start(plan: &mut Plan, desired: &Desired, observed: &Observed, record: &Record, now: Timestamp) {
    // A step that is still to be done changes what is started; the next pass starts.
    let Some(hardware) = &desired.hardware else { return };
    if plan.holds.iter().any(|hold| hold.blocks) || !plan.steps.is_empty() || record.disks.is_empty() {
        return;
    }
    if let Some(wait) = observed.start_wait.filter(|wait| !wait.is_zero()) {
        plan.wait(
            condition::POWER,
            "BackOff",
            format!(
                "it ended by itself and is started again in {} s",
                wait.as_secs().max(1)
            ),
        );
        plan.again_in(wait);
        return;
    }
    // Whoever asked for a restart has it with this start.
    let restart = desired
        .restart_at
        .is_some_and(|at| at <= now && record.last_restart.is_none_or(|last| last < at));
    if let Some(at) = desired.restart_at {
        again_at(plan, at, now);
    }
    let firmware = hardware.firmware.unwrap_or(record.firmware);
    plan.step(
        Action::Start {
            firmware,
            restart,
            resume: observed.saved,
        },
        "it is to run",
    );
}

fn keep_running(
    plan: &mut Plan,
    desired: &Desired,
    observed: &Observed,
    state: &RunState,
    launch: &Launch,
    now: Timestamp,
) {
    let restart = desired.restart_at.filter(|at| launch.started_at < *at);
    match restart {
        Some(at) if at <= now => {
            stop(
                plan,
                state,
                launch,
                desired.restart_mode,
                now,
                "a restart is asked for",
            );
            return;
        }
        Some(at) => again_at(plan, at, now),
        None => {}
    }
    if launch.stop.is_some() {
        plan.step(Action::ForgetStop, "it is to run after all");
    }
    let loading = matches!(state, RunState::Prelaunch) || *state == RunState::Other("restore-vm".into());
    if observed.saved && loading {
        // Cut off before the saved state was loaded whole; the guest has not run.
        plan.step(Action::Quit, "the suspended guest is loaded anew");
        return;
    }
    if observed.saved {
        // From here on the guest's disks move away from it: it must never be loaded again.
        plan.step(Action::DiscardSaved, "the guest goes on from where it is");
    }
    match state {
        RunState::IoError => {
            plan.warn(condition::POWER, "DiskFailed", "writing to a disk failed and the guest stands still; is the host's disk full? It is tried again every minute");
            match observed.disk_wait.filter(|wait| !wait.is_zero()) {
                Some(wait) => plan.again_in(wait),
                None => plan.step(Action::Continue, "the disk may have room again"),
            }
        }
        RunState::Running | RunState::Suspended => {}
        RunState::Prelaunch | RunState::Paused => plan.step(Action::Continue, "it is to run"),
        RunState::Other(name) if name == "restore-vm" => plan.step(Action::Continue, "it is to run"),
        // A suspension is under way; its end tells.
        RunState::Other(name) if name == "finish-migrate" || name == "save-vm" => {}
        RunState::Shutdown | RunState::GuestPanicked | RunState::Other(_) => {
            plan.step(Action::Quit, format!("the guest can't go on ({state:?})"));
        }
    }
}

fn again_at(plan: &mut Plan, at: Timestamp, now: Timestamp) {
    if let Ok(wait) = Duration::try_from(at.duration_since(now)) {
        plan.again_in(wait + Duration::from_millis(1));
    }
}

pub(super) fn stop(
    plan: &mut Plan,
    state: &RunState,
    launch: &Launch,
    mode: Mode,
    now: Timestamp,
    reason: &str,
) {
    let runs = matches!(state, RunState::Running | RunState::Suspended);
    match (mode, launch.stop) {
        (Mode::Hard, _) => plan.step(Action::Quit, reason),
        // A guest that stands still hears no button.
        _ if !runs && *state != RunState::Paused => plan.step(Action::Quit, reason),
        (_, None) => {
            if !runs {
                plan.step(Action::Continue, "a paused guest can't switch off");
            }
            plan.step(Action::AskShutdown(Stop { at: now, mode }), reason);
        }
        (Mode::Soft, Some(_)) => {
            plan.wait(
                condition::POWER,
                "GuestShutdown",
                "the guest was asked to switch off and has not done so yet",
            );
        }
        (Mode::TrySoft, Some(asked)) => {
            let waited = now.duration_since(asked.at);
            if waited >= SOFT_LIMIT {
                plan.step(Action::Quit, "the guest did not switch off within 5 minutes");
            } else {
                plan.wait(
                    condition::POWER,
                    "GuestShutdown",
                    "the guest was asked to switch off; after 5 minutes it is switched off",
                );
                plan.again_in(Duration::try_from(SOFT_LIMIT - waited).unwrap_or_default());
            }
        }
    }
}
