//! The claims of the demo, each checked and printed with its time: `make smoke`.

mod faults;
mod fleet;
mod main_job;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::Instant;

use crate::HUB;
use crate::demo::seconds;
use crate::fleet::Fleet;
use crate::lab::{Lab, Options};
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
struct Claim<S> {
    text: &'static str,
    check: fn(&mut S) -> Result<Found>,
    /// Without it, checking the others makes no sense.
    basic: bool,
}

const fn claim<S>(text: &'static str, check: fn(&mut S) -> Result<Found>) -> Claim<S> {
    Claim {
        text,
        check,
        basic: false,
    }
}

const fn basic<S>(text: &'static str, check: fn(&mut S) -> Result<Found>) -> Claim<S> {
    Claim {
        text,
        check,
        basic: true,
    }
}

/// The claims about one host in their order: later ones use what earlier ones made.
const HOST: [Claim<Site>; 20] = [
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

/// Checks the claims about one host in a lab of its own, and prints a line for each.
///
/// # Errors
/// When a claim does not hold.
pub fn run(options: &Options, sources: &Sources) -> Result<()> {
    let mut report = Report::begin(options)?;
    let mut site = Site::prepare(options, sources).context("cannot bring up the lab")?;
    report.say("a lab is up: physical switch, DHCP, Git server, image server, one host");
    if !report.check(&HOST, &mut site) {
        println!("the daemon's last words:\n{}", site.last_words());
    }
    report.keep_logs(&site.lab);
    report.end(site.lab)
}

/// Checks the claims about a fleet and its orchestrator in a lab of its own, and prints a line for each.
///
/// # Errors
/// When a claim does not hold.
pub fn run_fleet(options: &Options, repository: &Path, image: &Path) -> Result<()> {
    let mut report = Report::begin(options)?;
    let mut fleet = Fleet::prepare(options, image).context("cannot bring up the lab")?;
    fleet.lab.copy_site(repository)?;
    report.say("a lab is up: physical switch, DHCP, image server, three hosts, an orchestrator");
    if !report.check(&fleet::CLAIMS, &mut fleet) {
        println!(
            "the orchestrator's last words:\n{}",
            fleet.lab.last_words(HUB, "selvedge-orchestrator")
        );
    }
    report.keep_logs(&fleet.lab);
    report.end(fleet.lab)
}

/// What came of the claims so far.
struct Report {
    name: String,
    before: Trace,
    start: Instant,
    checked: usize,
    failed: usize,
}

impl Report {
    fn begin(options: &Options) -> Result<Self> {
        // A lab of this name that is left over is none of our traces.
        crate::lab::down(&options.name)?;
        Ok(Self {
            name: options.name.clone(),
            before: Trace::take(&options.name)?,
            start: Instant::now(),
            checked: 0,
            failed: 0,
        })
    }

    fn say(&self, words: &str) {
        println!("{}  {words}", seconds(self.start.elapsed()));
    }

    /// Checks claims in their order; false when a basic one does not hold.
    fn check<S>(&mut self, claims: &[Claim<S>], subject: &mut S) -> bool {
        for claim in claims {
            let begun = Instant::now();
            let result = (claim.check)(subject);
            if !self.line(claim.text, begun.elapsed(), result) && claim.basic {
                return false;
            }
        }
        true
    }

    /// Prints one claim's line and counts it.
    fn line(&mut self, text: &str, took: Duration, result: Result<Found>) -> bool {
        self.checked += 1;
        match result {
            Ok(found) => {
                let words = if found.words.is_empty() {
                    String::new()
                } else {
                    format!(": {}", found.words)
                };
                println!("{}  ok    {text}{words}", seconds(found.time.unwrap_or(took)));
                true
            }
            Err(error) => {
                self.failed += 1;
                println!("{}  FAIL  {text}: {error:#}", seconds(took));
                false
            }
        }
    }

    /// After a failure, the logs are worth more than a clean machine's last directory.
    fn keep_logs(&self, lab: &Lab) {
        let Some(directory) = std::env::var_os("SELVEDGE_KEEP_LOGS").filter(|_| self.failed > 0) else {
            return;
        };
        let directory = PathBuf::from(directory);
        for record in lab.processes() {
            let from = lab.log(&record.node, &record.name);
            let to = directory.join(format!("{}-{}.log", record.node, record.name));
            let copied = std::fs::create_dir_all(&directory).and_then(|()| std::fs::copy(&from, to));
            if let Err(error) = copied {
                println!("cannot keep {}: {error}", from.display());
            }
        }
    }

    /// Takes the lab down, looks for traces, and sums up.
    fn end(mut self, lab: Lab) -> Result<()> {
        let begun = Instant::now();
        let down = lab.down().and_then(|()| nothing_left(&self.name, &self.before));
        self.line(
            "taken down, the lab leaves no trace",
            begun.elapsed(),
            down.map(|()| Found::default()),
        );
        println!(
            "{} claims checked in {:.0} s, {} failed",
            self.checked,
            self.start.elapsed().as_secs_f64(),
            self.failed
        );
        if self.failed > 0 {
            bail!("{} claims do not hold", self.failed);
        }
        Ok(())
    }
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
