//! The labs of the machine: which there are, the number of the next, the end of one.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use nix::fcntl::{Flock, FlockArg};

use super::{Description, Lab, Options};
use crate::layout::{Layout, MGMT, RUN, STATE, check_name};
use crate::netns;
use crate::process::{kill_all, of_lab};
use crate::tool::tool;

/// Removes everything that belongs to the lab of this name, whoever made it and however far it came. Goes on after
/// a failure.
///
/// # Errors
/// When something is left.
pub fn down(name: &str) -> Result<()> {
    check_name(name)?;
    let index = Lab::open(name).ok().map(|lab| lab.layout.index);
    let mut problems = Vec::new();
    let mut note = |result: Result<()>| {
        if let Err(error) = result {
            problems.push(format!("{error:#}"));
        }
    };
    let namespaces = netns::of_lab(name);
    let paths: Vec<PathBuf> = namespaces
        .iter()
        .map(|name| Path::new("/run/netns").join(name))
        .collect();
    note(kill_all(|| of_lab(name, &paths)));
    if let Some(index) = index {
        let interface = Layout::new(name, index)?.shell_interface();
        if Path::new("/sys/class/net").join(&interface).exists() {
            note(tool("ip", ["link", "delete", &interface]).map(drop));
        }
    }
    for namespace in &namespaces {
        note(tool("ip", ["netns", "delete", namespace]).map(drop));
    }
    note(crate::trace::remove_control_groups(
        &crate::layout::control_group_prefix(name),
    ));
    for root in [STATE, RUN] {
        match fs::remove_dir_all(Path::new(root).join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                note(Err(anyhow!(error).context(format!("cannot remove {root}/{name}"))));
            }
            _ => {}
        }
    }
    note(remove_roots());
    if problems.is_empty() {
        Ok(())
    } else {
        bail!("lab {name} is not wholly removed: {}", problems.join("; "))
    }
}

/// The names of the labs that there are.
#[must_use]
pub fn list() -> Vec<String> {
    let Ok(entries) = fs::read_dir(RUN) else {
        return Vec::new();
    };
    let names = entries
        .flatten()
        .filter(|entry| entry.path().join("lab.json").exists());
    let names: BTreeSet<String> = names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.into_iter().collect()
}

/// Gives a lab its number and its directory.
pub(super) fn reserve(options: &Options) -> Result<Layout> {
    if !nix::unistd::Uid::effective().is_root() {
        bail!("a lab needs root: it makes network namespaces");
    }
    if options.hosts > 80 || options.nics > 9 {
        bail!("a lab has at most 80 hosts with 9 NICs");
    }
    let _lock = lock()?;
    let taken: BTreeSet<u8> = list()
        .iter()
        .filter_map(|name| Lab::open(name).ok())
        .map(|lab| lab.layout.index)
        .collect();
    for index in (0..200).filter(|index| !taken.contains(index)) {
        let layout = Layout::new(&options.name, index)?;
        // Neither may the machine itself have routes there.
        let network = format!("{}/24", layout.address(MGMT, 0));
        if !tool("ip", ["route", "show", "root", &network])?.trim().is_empty() {
            continue;
        }
        fs::create_dir_all(layout.run())?;
        fs::create_dir_all(layout.state())?;
        // A number is taken when it is written down.
        let known = Description {
            index,
            hosts: options.hosts,
            nics: options.nics,
            site_path: options.site_path.clone(),
            orchestrator: options.orchestrator,
            programs: options.programs.clone(),
            processes: Vec::new(),
        };
        fs::write(layout.run().join("lab.json"), serde_json::to_vec(&known)?)?;
        return Ok(layout);
    }
    bail!("there is no number left for another lab")
}

/// One at a time may choose a number, or remove the common directories.
fn lock() -> Result<Flock<File>> {
    let path = Path::new(RUN).join(".lock");
    loop {
        fs::create_dir_all(RUN)?;
        let file = match OpenOptions::new().create(true).append(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            other => other.with_context(|| format!("cannot open {}", path.display()))?,
        };
        let locked = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, error)| error)
            .context("cannot lock the labs' directory")?;
        // The one who held it may have removed it.
        match (locked.metadata(), fs::metadata(&path)) {
            (Ok(mine), Ok(there)) if mine.ino() == there.ino() => return Ok(locked),
            _ => {}
        }
    }
}

/// Removes the directories of all labs when the last one is gone.
fn remove_roots() -> Result<()> {
    let _lock = lock()?;
    let others = fs::read_dir(RUN)?
        .flatten()
        .any(|entry| entry.file_name() != ".lock");
    if !others {
        fs::remove_file(Path::new(RUN).join(".lock"))?;
        fs::remove_dir(RUN)?;
        // Not ours to complain about if somebody put something there.
        let _ = fs::remove_dir(STATE);
    }
    Ok(())
}
