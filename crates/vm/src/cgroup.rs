//! CPU and memory bounds of a virtual machine, through control groups: version 2, or version 1's `cpu` and
//! `memory` where only those are. What a host's kernel does not offer is left out and said once in a note.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::desired::Limits;

/// Memory that QEMU needs besides the guest's: screen, buffers, tables.
const OVERHEAD: u64 = 512 * 1024 * 1024;
const PERIOD_US: u64 = 100_000;
const MIB: u64 = 1024 * 1024;

/// The control groups of one daemon.
#[derive(Debug)]
pub(crate) struct Cgroups {
    layout: Layout,
    /// What could not be done, for conditions.
    note: Mutex<Option<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Layout {
    /// One tree: the directory for our groups.
    Unified(PathBuf),
    /// A tree for each controller.
    Split {
        cpu: PathBuf,
        memory: PathBuf,
    },
    None,
}

impl Cgroups {
    /// Looks at what the host offers. Groups are made below `name` in each tree; an empty name uses none.
    pub(crate) fn new(root: &Path, name: &str) -> Self {
        let layout = if name.is_empty() {
            Layout::None
        } else if root.join("cgroup.controllers").exists() {
            Layout::Unified(root.join(name))
        } else if root.join("cpu/cgroup.procs").exists() && root.join("memory/cgroup.procs").exists() {
            Layout::Split {
                cpu: root.join("cpu").join(name),
                memory: root.join("memory").join(name),
            }
        } else {
            Layout::None
        };
        Self {
            layout,
            note: Mutex::new(None),
        }
    }

    fn directories(&self, id: &str) -> Vec<PathBuf> {
        match &self.layout {
            Layout::Unified(base) => vec![base.join(id)],
            Layout::Split { cpu, memory } => vec![cpu.join(id), memory.join(id)],
            Layout::None => Vec::new(),
        }
    }

    /// Sets the bounds of a group, making it if absent.
    pub(crate) fn set(&self, id: &str, limits: &Limits, memory_mib: u64) {
        let wanted = *limits != Limits::default();
        let result = match &self.layout {
            Layout::None if wanted => Err(io::Error::other("the kernel offers no control groups here")),
            Layout::None => Ok(()),
            Layout::Unified(base) => unified(base, id, limits, memory_mib),
            Layout::Split { cpu, memory } => split(cpu, memory, id, limits, memory_mib),
        };
        let note = result
            .err()
            .map(|error| format!("CPU and memory bounds of its class are not enforced: {error}"));
        let mut kept = self.note.lock().unwrap_or_else(PoisonError::into_inner);
        if *kept != note {
            if let Some(note) = &note {
                tracing::warn!(note, "control groups");
            }
            *kept = note;
        }
    }

    /// Why bounds are not enforced, if so.
    pub(crate) fn note(&self) -> Option<String> {
        self.note.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts a process into a group.
    pub(crate) fn add(&self, id: &str, pid: i32) {
        for directory in self.directories(id) {
            if let Err(error) = fs::write(directory.join("cgroup.procs"), pid.to_string()) {
                tracing::warn!(pid, directory = %directory.display(), %error, "can't put QEMU into its control group");
            }
        }
    }

    /// Removes a group whose process has ended.
    pub(crate) fn remove(&self, id: &str) {
        for directory in self.directories(id) {
            match fs::remove_dir(&directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(directory = %directory.display(), %error, "can't remove a control group");
                }
                _ => {}
            }
            // The parent goes with the last of its children, and stays otherwise.
            let _ = directory.parent().map(fs::remove_dir);
        }
    }
}

fn set(directory: &Path, file: &str, value: &str) -> io::Result<()> {
    fs::write(directory.join(file), value).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("{}: {error}", directory.join(file).display()),
        )
    })
}

/// What the memory bound becomes: one below the guest's own size must not kill it, so it is soft then.
fn memory_bounds(limits: &Limits, memory_mib: u64) -> (Option<u64>, Option<u64>) {
    match limits.memory_limit {
        0 => (None, None),
        limit if limit < memory_mib.saturating_mul(MIB) => (Some(limit.saturating_add(OVERHEAD)), None),
        limit => (None, Some(limit.saturating_add(OVERHEAD))),
    }
}

fn unified(base: &Path, id: &str, limits: &Limits, memory_mib: u64) -> io::Result<()> {
    let directory = base.join(id);
    fs::create_dir_all(&directory)?;
    // Each level hands the controllers on to the one below; a level that can't is met when a bound is set.
    let levels: Vec<_> = base
        .ancestors()
        .take_while(|l| l.join("cgroup.subtree_control").exists())
        .collect();
    for level in levels.into_iter().rev() {
        if let Err(error) = fs::write(level.join("cgroup.subtree_control"), "+cpu +memory") {
            tracing::debug!(level = %level.display(), %error, "controllers are not handed on");
        }
    }
    if *limits == Limits::default() && !directory.join("cpu.max").exists() {
        return Ok(());
    }
    let or_max = |bound: Option<u64>| bound.map_or_else(|| "max".into(), |bytes| bytes.to_string());
    let (high, max) = memory_bounds(limits, memory_mib);
    let quota = (limits.cpu_limit > 0).then(|| limits.cpu_limit.saturating_mul(PERIOD_US) / 1000);
    set(&directory, "cpu.max", &format!("{} {PERIOD_US}", or_max(quota)))?;
    // 100 is the kernel's default for a group: as much as one whole CPU asked for.
    let weight = if limits.cpu_request == 0 {
        100
    } else {
        (limits.cpu_request / 10).clamp(1, 10_000)
    };
    set(&directory, "cpu.weight", &weight.to_string())?;
    set(&directory, "memory.high", &or_max(high))?;
    set(&directory, "memory.max", &or_max(max))?;
    set(&directory, "memory.low", &limits.memory_request.to_string())
}

fn split(cpu: &Path, memory: &Path, id: &str, limits: &Limits, memory_mib: u64) -> io::Result<()> {
    let (cpu, memory) = (cpu.join(id), memory.join(id));
    fs::create_dir_all(&cpu)?;
    fs::create_dir_all(&memory)?;
    let or_none = |bound: Option<u64>| bound.map_or_else(|| "-1".into(), |bytes: u64| bytes.to_string());
    let (soft, hard) = memory_bounds(limits, memory_mib);
    let quota = (limits.cpu_limit > 0).then(|| limits.cpu_limit.saturating_mul(PERIOD_US) / 1000);
    if quota.is_some() || cpu.join("cpu.cfs_quota_us").exists() {
        set(&cpu, "cpu.cfs_period_us", &PERIOD_US.to_string())?;
        set(&cpu, "cpu.cfs_quota_us", &or_none(quota))?;
    }
    let shares = if limits.cpu_request == 0 {
        1024
    } else {
        (limits.cpu_request.saturating_mul(1024) / 1000).max(2)
    };
    set(&cpu, "cpu.shares", &shares.to_string())?;
    set(&memory, "memory.limit_in_bytes", &or_none(hard))?;
    set(&memory, "memory.soft_limit_in_bytes", &or_none(soft))
}
