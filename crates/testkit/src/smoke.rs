//! The claims of the demo, each checked and printed with its time: `make smoke`.

mod faults;
mod main_job;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::Instant;

use crate::demo::seconds;
use crate::lab::Options;
use crate::site::{Site, Sources};
use crate::trace::Trace;
use crate::wait::wait_for;

/// What a claim's check found: words for the line, and the time that the claim is about when that is not the
/// whole check's.
#[derive(Clone, Debug, Default)]
pub struct Found {
    words: String,
    time: Option<Duration>,
}

impl Found {
    fn words(words: impl Into<String>) -> Self {
        Self {
            words: words.into(),
            time: None,
        }
    }

    fn timed(time: Duration) -> Self {
        Self {
            words: String::new(),
            time: Some(time),
        }
    }

    fn with_time(mut self, time: Duration) -> Self {
        self.time = Some(time);
        self
    }
}

/// A claim and its check.
struct Claim {
    text: &'static str,
    check: fn(&mut Site) -> Result<Found>,
    /// Without it, checking the others makes no sense.
    basic: bool,
}

const fn claim(text: &'static str, check: fn(&mut Site) -> Result<Found>) -> Claim {
    Claim {
        text,
        check,
        basic: false,
    }
}

const fn basic(text: &'static str, check: fn(&mut Site) -> Result<Found>) -> Claim {
    Claim {
        text,
        check,
        basic: true,
    }
}

/// The claims in their order: later ones use what earlier ones made.
const CLAIMS: [Claim; 20] = [
    basic("a host that is turned on serves its API", main_job::api),
    basic("a pushed repository is pulled and applied", main_job::applied),
    basic(
        "host configurations and virtual machines become ready",
        main_job::ready,
    ),
    basic(
        "the guest answers on its port group's network by the name that cloud-init gave it",
        main_job::guest,
    ),
    claim(
        "cloud-init wrote the file and ran the command that it was told to",
        main_job::cloud_init,
    ),
    claim("a pushed change arrives at once", main_job::change),
    claim(
        "a new port group and a virtual machine on it come with one commit, tagged with its VLAN",
        main_job::port_group,
    ),
    claim(
        "a guest sees its own network, and nothing of the host's",
        main_job::isolated,
    ),
    claim(
        "a person's write to what Git owns is refused, naming repository, path and commit",
        main_job::refused,
    ),
    claim(
        "with break-glass it is allowed, and put back by the next run",
        main_job::break_glass,
    ),
    claim(
        "what Git does not own can be written with kubectl",
        main_job::own_objects,
    ),
    claim(
        "a broken file is named with its line, and the last good state stays",
        faults::broken_file,
    ),
    claim(
        "a port deleted with ovs-vsctl comes back within a second, with an event",
        faults::deleted_port,
    ),
    claim(
        "a killed QEMU is started again, with an event",
        faults::killed_qemu,
    ),
    claim(
        "the daemon killed with -9 leaves QEMU alone, and adopts it when it starts again",
        faults::killed_daemon,
    ),
    claim(
        "an uplink that loses its link hands over to the standby",
        faults::lost_uplink,
    ),
    claim(
        "powered off and on again through Git, a virtual machine keeps its disk",
        main_job::power,
    ),
    claim(
        "a host that reboots with every link down comes up complete",
        faults::dark_reboot,
    ),
    claim("with the links back it follows Git again", faults::after_dark),
    claim(
        "a virtual machine removed from Git is removed, and nothing of it stays",
        main_job::removed,
    ),
];

/// Checks all claims in a lab of its own, and prints a line for each.
///
/// # Errors
/// When a claim does not hold.
pub fn run(options: &Options, sources: &Sources) -> Result<()> {
    // A lab of this name that is left over is none of our traces.
    crate::lab::down(&options.name)?;
    let before = Trace::take(&options.name)?;
    let start = Instant::now();
    let (mut failed, mut checked) = (0, 0);
    let mut site = Site::prepare(options, sources).context("cannot bring up the lab")?;
    println!(
        "{}  a lab is up: physical switch, DHCP, Git server, image server, one host",
        seconds(start.elapsed())
    );
    for claim in &CLAIMS {
        let begun = Instant::now();
        let result = (claim.check)(&mut site);
        checked += 1;
        match result {
            Ok(found) => {
                let words = if found.words.is_empty() {
                    String::new()
                } else {
                    format!(": {}", found.words)
                };
                println!(
                    "{}  ok    {}{words}",
                    seconds(found.time.unwrap_or_else(|| begun.elapsed())),
                    claim.text
                );
            }
            Err(error) => {
                failed += 1;
                println!("{}  FAIL  {}: {error:#}", seconds(begun.elapsed()), claim.text);
                if claim.basic {
                    println!("the daemon's last words:\n{}", site.last_words());
                    break;
                }
            }
        }
    }
    keep_logs(&site, failed > 0);
    let begun = Instant::now();
    let down = site.lab.down();
    checked += 1;
    match down.and_then(|()| nothing_left(&options.name, &before)) {
        Ok(()) => println!(
            "{}  ok    taken down, the lab leaves no trace",
            seconds(begun.elapsed())
        ),
        Err(error) => {
            failed += 1;
            println!(
                "{}  FAIL  taken down, the lab leaves no trace: {error:#}",
                seconds(begun.elapsed())
            );
        }
    }
    println!(
        "{checked} claims checked in {:.0} s, {failed} failed",
        start.elapsed().as_secs_f64()
    );
    if failed > 0 {
        bail!("{failed} claims do not hold");
    }
    Ok(())
}

/// Waits until the machine is as it was before: the kernel takes namespaces down in its own time.
///
/// # Errors
/// When something is left.
pub fn nothing_left(name: &str, before: &Trace) -> Result<()> {
    wait_for("a machine without traces", Duration::from_secs(10), || {
        let left = Trace::take(name)?.since(before);
        Ok(if left.is_empty() {
            Ok(())
        } else {
            Err(left.join(", "))
        })
    })
    .map(drop)
}

/// After a failure, the daemon's log is worth more than a clean machine's last directory.
fn keep_logs(site: &Site, wanted: bool) {
    let Some(directory) = std::env::var_os("SELVEDGE_KEEP_LOGS").filter(|_| wanted) else {
        return;
    };
    let directory = std::path::PathBuf::from(directory);
    let host = crate::layout::host_name(1);
    for name in ["selvedge-host", "ovs-vswitchd", "ovsdb-server"] {
        let from = site.lab.log(&host, name);
        let copied = std::fs::create_dir_all(&directory)
            .and_then(|()| std::fs::copy(&from, directory.join(format!("{name}.log"))));
        if let Err(error) = copied {
            println!("cannot keep {}: {error}", from.display());
        }
    }
}
