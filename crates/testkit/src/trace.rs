//! What a lab may leave behind: a picture of the machine before and after.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::layout::{RUN, STATE};
use crate::process;
use crate::tool::tool;
use crate::wait::wait_for;

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
        for group in control_groups(&crate::layout::control_group_prefix(lab)) {
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

/// The control groups whose name begins so.
fn control_groups(prefix: &str) -> Vec<PathBuf> {
    // One tree, or one for each controller.
    let root = Path::new("/sys/fs/cgroup");
    let mut found = Vec::new();
    for tree in std::iter::once(root.to_owned()).chain(directories(root)) {
        let is_ours = |path: &PathBuf| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        };
        found.extend(directories(&tree).into_iter().filter(is_ours));
    }
    found
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else {
        return Vec::new();
    };
    let directories = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.path()).collect()
}

/// Removes the control groups whose name begins so, children first; their processes are gone already.
///
/// # Errors
/// When one cannot be removed.
pub(crate) fn remove_control_groups(prefix: &str) -> Result<()> {
    fn remove(directory: &Path) -> Result<()> {
        directories(directory)
            .iter()
            .try_for_each(|child| remove(child))?;
        // A process that was killed leaves its group a little later.
        wait_for(
            "the end of a control group",
            Duration::from_secs(5),
            || match fs::remove_dir(directory) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    Ok(Err(format!("{}: {error}", directory.display())))
                }
                _ => Ok(Ok(())),
            },
        )
        .map(drop)
    }
    control_groups(prefix).iter().try_for_each(|group| remove(group))
}
