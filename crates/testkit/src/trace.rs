//! What a lab may leave behind: a picture of the machine before and after.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::layout::{RUN, STATE};
use crate::process;
use crate::tool::tool;

/// Everything on the machine that a lab could have made, each thing as a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace(BTreeSet<String>);

impl Trace {
    /// The machine now, as far as it concerns the lab of this name: things of other labs, which come and go meanwhile,
    /// are left out.
    ///
    /// # Errors
    /// When the machine cannot be asked.
    pub fn take(lab: &str) -> Result<Self> {
        let mut lines = BTreeSet::new();
        let others: Vec<String> = crate::lab::list()
            .into_iter()
            .filter(|name| name != lab)
            .collect();
        let foreign = |text: &str| {
            others.iter().any(|name| {
                text.contains(&crate::layout::namespace_prefix(name))
                    || text.contains(&format!("/selvedge-lab/{name}"))
            })
        };
        for line in tool("ip", ["netns", "list"])?.lines() {
            lines.insert(format!(
                "namespace {}",
                line.split(' ').next().unwrap_or_default()
            ));
        }
        for link in tool("ip", ["-brief", "link"])?.lines() {
            let name = link
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .split('@')
                .next()
                .unwrap_or_default();
            if !others
                .iter()
                .any(|other| interface_of(other).as_deref() == Some(name))
            {
                lines.insert(format!("interface {name}"));
            }
        }
        for mount in fs::read_to_string("/proc/self/mounts")?.lines() {
            let at = mount.split(' ').nth(1).unwrap_or_default();
            // The directory of namespaces is iproute2's own, and stays.
            if at != "/run/netns" && at != "/var/run/netns" {
                lines.insert(format!("mount {at}"));
            }
        }
        for process in process::of_lab(lab, &[] as &[&Path]) {
            lines.insert(format!("process {} {}", process.pid, process.command()));
        }
        for directory in [PathBuf::from(RUN).join(lab), PathBuf::from(STATE).join(lab)] {
            if directory.exists() {
                lines.insert(format!("directory {}", directory.display()));
            }
        }
        for group in control_groups(lab) {
            lines.insert(format!("control group {}", group.display()));
        }
        lines.retain(|line| !foreign(line));
        Ok(Self(lines))
    }

    /// Only what has the lab's name in it, for when nobody looked before.
    #[must_use]
    pub fn of_lab_only(mut self, lab: &str) -> Self {
        let (namespace, directory) = (
            crate::layout::namespace_prefix(lab),
            format!("/selvedge-lab/{lab}"),
        );
        self.0.retain(|line| {
            line.contains(&namespace)
                || line.contains(&directory)
                || line.starts_with("process ")
                || line.starts_with("control group ")
        });
        self
    }

    /// What is here that was not there before.
    #[must_use]
    pub fn since(&self, before: &Self) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }
}

fn interface_of(lab: &str) -> Option<String> {
    crate::lab::Lab::open(lab)
        .ok()
        .map(|lab| lab.layout.shell_interface())
}

/// The control groups whose name has the lab's mark.
fn control_groups(lab: &str) -> Vec<PathBuf> {
    let mark = format!("selvedge-lab-{lab}-");
    let mut found = Vec::new();
    let mut left = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    while let Some((directory, depth)) = left.pop() {
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        {
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with(&mark) {
                found.push(path.clone());
            }
            if depth < 4 {
                left.push((path, depth + 1));
            }
        }
    }
    found
}

/// Removes the control groups of a lab, children first; their processes are gone already.
///
/// # Errors
/// When one cannot be removed.
pub(crate) fn remove_control_groups(lab: &str) -> Result<()> {
    fn remove(directory: &Path) -> std::io::Result<()> {
        for entry in fs::read_dir(directory)?
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        {
            remove(&entry.path())?;
        }
        fs::remove_dir(directory)
    }
    for group in control_groups(lab) {
        if group.exists() {
            remove(&group)?;
        }
    }
    Ok(())
}
