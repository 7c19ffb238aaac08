//! Processes of a lab: who they are, and their end.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::layout::MARK;
use crate::wait::wait_until;

/// A process, not confused with a later one that got the same number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// When it started, in ticks since the machine did.
    pub start: u64,
}

impl Process {
    /// The process that has number `pid` now; `None` when there is none, or only its corpse.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may contain anything; what follows its end are plain fields, from the 3rd on.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        // A first thread that is dead already may have others that still hold files and locks.
        let threads = || fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        if state == "X" || (state == "Z" && threads() < 2) {
            return None;
        }
        Some(Self {
            pid,
            start: fields.nth(18)?.parse().ok()?,
        })
    }

    /// Whether it still runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Sends a signal; a process that is gone is no error.
    ///
    /// # Errors
    /// When the signal may not be sent.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if !self.runs() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot send {signal} to process {}", self.pid)),
        }
    }

    /// Its command line, words separated by spaces.
    #[must_use]
    pub fn command(&self) -> String {
        let bytes = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        String::from_utf8_lossy(&bytes)
            .replace('\0', " ")
            .trim()
            .to_owned()
    }
}

/// All processes of the machine.
#[must_use]
pub fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| Process::of(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

/// The processes of a lab: those in one of its network namespaces, and those that carry its mark.
#[must_use]
pub fn of_lab(lab: &str, namespaces: &[impl AsRef<Path>]) -> Vec<Process> {
    let mark = format!("{MARK}={lab}");
    let me = std::process::id().cast_signed();
    let mut found: BTreeSet<Process> = of_namespaces(namespaces).into_iter().collect();
    found.extend(
        all()
            .into_iter()
            .filter(|process| process.pid != me && has_mark(process.pid, &mark)),
    );
    found.into_iter().collect()
}

/// The processes in network namespaces, given by the files that hold these.
#[must_use]
pub fn of_namespaces(namespaces: &[impl AsRef<Path>]) -> Vec<Process> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let wanted: BTreeSet<(u64, u64)> = namespaces
        .iter()
        .filter_map(|path| identity(path.as_ref()))
        .collect();
    let inside = |process: &Process| {
        identity(Path::new(&format!("/proc/{}/ns/net", process.pid)))
            .is_some_and(|found| wanted.contains(&found))
    };
    let me = std::process::id().cast_signed();
    all()
        .into_iter()
        .filter(|process| process.pid != me && inside(process))
        .collect()
}

fn has_mark(pid: i32, mark: &str) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else {
        return false;
    };
    environment
        .split(|byte| *byte == 0)
        .any(|variable| variable == mark.as_bytes())
}

/// Kills them all, those too that they start meanwhile, and waits until none is left.
///
/// # Errors
/// When some outlive it.
pub fn kill_all(mut find: impl FnMut() -> Vec<Process>) -> Result<()> {
    let mut left = Vec::new();
    let ended = wait_until("the end of the lab's processes", Duration::from_secs(10), || {
        left = find();
        for process in &left {
            let _ = process.signal(Signal::SIGKILL);
        }
        left.is_empty()
    });
    if ended.is_err() {
        let names: Vec<String> = left
            .iter()
            .map(|process| format!("{} ({})", process.pid, process.command()))
            .collect();
        bail!("processes do not end: {}", names.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_found_by_its_mark_and_ends() {
        let lab = format!("t{}", std::process::id());
        let mut child = Command::new("sleep").arg("60").env(MARK, &lab).spawn().unwrap();
        let found = || of_lab(&lab, &[] as &[&Path]);
        // The mark is there when the program runs, not yet when it is forked.
        wait_until("the mark", Duration::from_secs(5), || found().len() == 1).unwrap();
        let process = Process::of(child.id().cast_signed()).unwrap();
        assert_eq!(found(), vec![process.clone()]);
        kill_all(found).unwrap();
        assert!(!process.runs(), "a corpse does not run");
        child.wait().unwrap();
    }
}
