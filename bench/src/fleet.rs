//! A fleet of simulated hosts at a real orchestrator: the real enrolment, the real link, nothing behind the hosts.
//!
//! ```text
//!  loopback ┬ selvedge-orchestrator (release, its database SQLite or a PostgreSQL of its own)
//!           └ this process: N hosts, each with key, certificate and TLS connection; a person with a token
//! ```
//!
//! One site each, as in the field, where a site has one to three hosts. All expected by their serial numbers.

mod person;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{Resource, setrlimit};
use serde_json::{Value, json};
use testkit::{
    Programs,
    cli::Cli,
    loopback::Loopback,
    postgres::{Cluster, Durability},
    simulate::{Crowd, Enrolled, Hub, Identity, enrol, serial},
};
use tokio::{
    runtime::Runtime,
    time::{Instant, sleep},
};

use self::person::Person;
use crate::{
    Context,
    measured::{Measured, percentile},
    usage,
};

/// Hosts with SQLite.
const FEW: u32 = 10_000;
/// Hosts with PostgreSQL.
const MANY: u32 = 50_000;
/// Hosts that enrol at a time.
const AT_ONCE: usize = 64;
/// How many hosts there are when the cost of one is looked at.
const STEPS: [u32; 5] = [1_000, 5_000, 10_000, 25_000, 50_000];
/// How long they are looked at: two heartbeats.
const REST: Duration = Duration::from_secs(60);
/// Changes that a browser waits for.
const CHANGES: u32 = 200;
/// Questions of each kind.
const QUESTIONS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(600);
const KEPT_FILES: u64 = 200_000;

/// The names of the figures, as the database makes them.
struct Names {
    enrol: &'static str,
    memory: &'static str,
    processor: &'static str,
    told: &'static str,
    browser: &'static str,
    overview: &'static str,
    search: &'static str,
    back: &'static str,
}

pub(crate) fn sqlite(context: &Context, measured: &mut Vec<Measured>) -> Result<()> {
    let names = Names {
        enrol: "enrol-sqlite",
        memory: "host-memory-sqlite",
        processor: "host-cpu-sqlite",
        told: "told-sqlite",
        browser: "browser-sqlite",
        overview: "overview-sqlite",
        search: "search-sqlite",
        back: "back-sqlite",
    };
    measure(context, measured, &names, FEW, "")
}

pub(crate) fn postgres(context: &Context, measured: &mut Vec<Measured>) -> Result<()> {
    let names = Names {
        enrol: "enrol-postgres",
        memory: "host-memory-postgres",
        processor: "host-cpu-postgres",
        told: "told-postgres",
        browser: "browser-postgres",
        overview: "overview-postgres",
        search: "search-postgres",
        back: "back-postgres",
    };
    let cluster = Cluster::start(Durability::Synced)?;
    let more = format!("[database]\nurl = \"{}\"", cluster.database()?);
    measure(context, measured, &names, MANY, &more)
}

/// An orchestrator with a fleet.
struct Fleet<'a> {
    context: &'a Context,
    runtime: &'a Runtime,
    orchestrator: Loopback,
    cli: Cli,
    hub: Hub,
    person: Person,
    /// The orchestrator's memory before there was anything in it.
    empty: u64,
}

fn measure(
    context: &Context,
    measured: &mut Vec<Measured>,
    names: &Names,
    default: u32,
    more: &str,
) -> Result<()> {
    let count = context.hosts.unwrap_or(default);
    // Only the privileged may have more than the hard limit; then the connections say that they are too many.
    let _ = setrlimit(Resource::RLIMIT_NOFILE, KEPT_FILES, KEPT_FILES);
    let dir = tempfile::tempdir()?;
    let programs = Programs::find();
    let orchestrator = Loopback::start(&programs, dir.path(), more)?;
    let cli = orchestrator.found(&programs)?;
    let hub = orchestrator.hub()?;
    let person = Person::new(&hub, &cli)?;
    let empty = usage::memory(i32::try_from(orchestrator.pid())?)?.resident;
    let mut fleet = Fleet {
        context,
        runtime: &context.runtime,
        orchestrator,
        cli,
        hub,
        person,
        empty,
    };
    fleet.sites(count)?;
    let enrolled = fleet.enrol(names, count, measured)?;
    let mut crowds = fleet.connect(names, &enrolled.hosts, measured)?;
    fleet.questions(names, count, measured)?;
    fleet.browser(names, &crowds, measured)?;
    fleet.told(names, &crowds, count, dir.path(), measured)?;
    fleet.back(names, &mut crowds, measured)?;
    context.runtime.block_on(async {
        for crowd in crowds {
            crowd.stop().await;
        }
    });
    Ok(())
}

impl Fleet<'_> {
    fn pid(&self) -> Result<i32> {
        Ok(i32::try_from(self.orchestrator.pid())?)
    }

    /// A repository, a policy that tells all sites at once, a site for each host, and the hosts that are expected.
    fn sites(&self, count: u32) -> Result<()> {
        self.context.say(&format!("  {count} sites"));
        self.cli.run(["repo", "create", "shops", "--hosted"])?;
        let policy =
            json!({"name": "all", "waves": [{"name": "all", "batch": "all"}], "failureBudget": "100%"});
        let site = |number: u32| {
            json!({"name": format!("site-{number:06}"), "repository": "shops", "path": ".", "policy": "all",
                   "labels": {"region": if number.is_multiple_of(3) { "eu" } else { "asia" }}})
        };
        let expected = |number: u32| json!({"serial": serial(number), "site": format!("site-{number:06}")});
        let start = Instant::now();
        self.runtime.block_on(async {
            self.person.post("/policies", &policy).await?;
            self.person.post_all("/sites", (0..count).map(site)).await?;
            let took = start.elapsed();
            for from in (0..count).step_by(500) {
                let some: Vec<Value> = (from..count.min(from + 500)).map(expected).collect();
                self.person.post("/enrollment/expected", &json!(some)).await?;
            }
            self.context.say(&format!(
                "  sites made in {:.1} s, their hosts expected in {:.1} s more",
                took.as_secs_f64(),
                (start.elapsed() - took).as_secs_f64()
            ));
            Ok(())
        })
    }

    fn enrol(&self, names: &Names, count: u32, measured: &mut Vec<Measured>) -> Result<Enrolled> {
        self.context
            .say(&format!("  {count} hosts enrol, {AT_ONCE} at a time"));
        let enrolled = self.runtime.block_on(enrol(&self.hub, 0..count, AT_ONCE, None))?;
        ensure!(
            enrolled.hosts.len() == usize::try_from(count)?,
            "some were not enrolled"
        );
        let each = |percent| percentile(&enrolled.each, percent).as_secs_f64() * 1000.0;
        let note = format!(
            "{count} hosts, none refused; each {:.0} ms (median), {:.0} ms (p99); told to come later {} times; the simulator makes the keys",
            each(50),
            each(99),
            enrolled.turned_away
        );
        let rate = f64::from(count) / enrolled.took.as_secs_f64();
        measured.push(Measured::new(names.enrol, vec![rate], note));
        Ok(enrolled)
    }

    /// Connects them step by step, and looks at the cost of one.
    fn connect(&self, names: &Names, hosts: &[Identity], measured: &mut Vec<Measured>) -> Result<Vec<Crowd>> {
        let pid = self.pid()?;
        let (mut crowds, mut done) = (Vec::new(), 0);
        let (mut curve, mut last) = (Vec::new(), (0.0, 0.0, 0.0));
        let total = u32::try_from(hosts.len())?;
        let steps = STEPS.into_iter().filter(|step| *step < total).chain([total]);
        for step in steps {
            let next = usize::try_from(step)?;
            let some = hosts.get(done..next).context("steps go up")?;
            let begun = Instant::now();
            let crowd = self.runtime.block_on(async {
                let mut crowd = Crowd::start(&self.hub, some)?;
                crowd.wait_connected(PATIENCE).await?;
                anyhow::Ok(crowd)
            })?;
            let took = begun.elapsed();
            crowds.push(crowd);
            self.context.say(&format!(
                "  {} connected in {:.1} s; {step} at rest for {} s",
                some.len(),
                took.as_secs_f64(),
                REST.as_secs()
            ));
            done = next;
            // What they reported is written.
            self.runtime
                .block_on(async { sleep(Duration::from_secs(10)).await });
            let (processor, traffic) = (usage::processor(pid)?, usage::loopback()?);
            self.runtime.block_on(async { sleep(REST).await });
            let used = usage::processor(pid)?.0.saturating_sub(processor.0);
            let sent = usage::loopback()?.saturating_sub(traffic);
            let memory = usage::memory(pid)?.resident.saturating_sub(self.empty);
            let minutes = REST.as_secs_f64() / 60.0;
            let (memory, used, sent) = (
                kilobytes(memory) / f64::from(step),
                used.as_secs_f64() * 1000.0 / f64::from(step) / minutes,
                kilobytes(sent) * 1000.0 / f64::from(step) / minutes,
            );
            curve.push(format!(
                "{step}: {memory:.1} kB, {used:.2} ms, {sent:.0} B (connected at {:.0}/s)",
                f64::from(u32::try_from(some.len())?) / took.as_secs_f64()
            ));
            last = (memory, used, sent);
        }
        let curve = format!(
            "hosts: memory, processor time and traffic each minute, of one: {}",
            curve.join("; ")
        );
        let (memory, processor, traffic) = last;
        measured.push(Measured::new(names.memory, vec![memory], curve));
        measured.push(Measured::new(
            names.processor,
            vec![processor],
            format!("{traffic:.0} bytes a minute on the wire for each, both ways, with IP headers"),
        ));
        Ok(crowds)
    }

    /// What the page asks when it is opened, and when somebody searches.
    fn questions(&self, names: &Names, count: u32, measured: &mut Vec<Measured>) -> Result<()> {
        self.context.say("  the page's questions");
        let ask = |path: &str| -> Result<Vec<Duration>> {
            let mut times = Vec::new();
            for _ in 0..QUESTIONS {
                let start = Instant::now();
                self.runtime.block_on(self.person.get(path))?;
                times.push(start.elapsed());
            }
            times.sort_unstable();
            Ok(times)
        };
        let overview = ask("/overview")?;
        let list = ask("/sites?limit=100&sort=state")?;
        let middle = |times: &[Duration]| percentile(times, 50).as_secs_f64() * 1000.0;
        measured.push(Measured::times(
            names.overview,
            &overview,
            format!(
                "{count} sites and hosts; the first 100 sites, worst first, {:.1} ms",
                middle(&list)
            ),
        ));
        let words = [
            "site-000777",
            "label:region=eu",
            "state:offline",
            "kind:vm web",
            "SIM-000123",
            "commit:0123",
        ];
        let (mut worst, mut notes) = (Vec::new(), Vec::new());
        for word in words {
            let times = ask(&format!(
                "/search?q={}",
                word.replace(' ', "%20").replace('=', "%3D")
            ))?;
            notes.push(format!("`{word}` {:.1} ms", middle(&times)));
            if middle(&worst) < middle(&times) {
                worst = times;
            }
        }
        measured.push(Measured::times(names.search, &worst, notes.join(", ")));
        Ok(())
    }

    /// From a host's report until a browser's stream has it.
    fn browser(&self, names: &Names, crowds: &[Crowd], measured: &mut Vec<Measured>) -> Result<()> {
        self.context
            .say(&format!("  {CHANGES} changes until a browser has them"));
        let crowd = crowds.first().context("nobody is connected")?;
        let mut times = self.runtime.block_on(async {
            let mut stream = self.person.stream().await?;
            let mut times = Vec::new();
            for number in 0..CHANGES {
                let reason = format!("bench-{number:06}-bench");
                let index = usize::try_from(number)?;
                let health =
                    json!({"state": "degraded", "reason": reason, "ready": 5, "total": 6, "failing": []});
                let start = Instant::now();
                crowd.report(index, "health", health);
                stream.until(&reason, PATIENCE).await?;
                times.push(start.elapsed());
            }
            anyhow::Ok(times)
        })?;
        times.sort_unstable();
        measured.push(p99(
            names.browser,
            &times,
            format!("{CHANGES} changes, one after the other"),
        ));
        Ok(())
    }

    /// A push to a hosted repository, until each host was told, and until the orchestrator knows that each obeyed.
    fn told(
        &self,
        names: &Names,
        crowds: &[Crowd],
        count: u32,
        dir: &std::path::Path,
        measured: &mut Vec<Measured>,
    ) -> Result<()> {
        self.context.say("  one commit, told to all");
        let work = person::Work::new(&self.cli, &self.hub, dir)?;
        let first = work.commit(0)?;
        work.push()?;
        let all = usize::try_from(count)?;
        // The first commit has nothing before it: each site is told at once. It is not what is measured.
        self.runtime
            .block_on(self.person.applied(&first, all, PATIENCE))?;
        let commit = work.commit(1)?;
        for crowd in crowds {
            crowd.told.expect(&commit);
        }
        let start = Instant::now();
        work.push()?;
        let pushed = start.elapsed();
        let acknowledged = self
            .runtime
            .block_on(self.person.applied(&commit, all, PATIENCE))?;
        let mut times: Vec<Duration> = crowds
            .iter()
            .flat_map(|crowd| crowd.told.times())
            .map(|time| time.saturating_duration_since(start))
            .collect();
        times.sort_unstable();
        ensure!(times.len() >= all, "only {} hosts were told", times.len());
        let at = |count: usize| {
            let found = acknowledged.iter().find(|(_, sites)| *sites >= count);
            found.map_or(Duration::ZERO, |(time, _)| time.saturating_duration_since(start))
        };
        let (most, every) = (at(all * 99 / 100), at(all));
        let note = format!(
            "until 99 % of {count} hosts have obeyed and the orchestrator shows it; all {:.2} s; they were told after {:.2} s (p99); with the git push, {:.2} s",
            every.as_secs_f64(),
            percentile(&times, 99).as_secs_f64(),
            pushed.as_secs_f64()
        );
        measured.push(Measured::times(names.told, &[most], note));
        Ok(())
    }

    /// The orchestrator is killed with all hosts connected, and started again.
    fn back(&mut self, names: &Names, crowds: &mut [Crowd], measured: &mut Vec<Measured>) -> Result<()> {
        self.context.say("  kill -9 of the orchestrator");
        self.orchestrator.kill()?;
        self.runtime.block_on(async {
            while crowds.iter().any(|crowd| crowd.connected() > 0) {
                sleep(Duration::from_millis(20)).await;
            }
        });
        let start = Instant::now();
        self.orchestrator.start_again()?;
        let up = start.elapsed();
        self.runtime.block_on(async {
            for crowd in crowds {
                crowd.wait_connected(PATIENCE).await?;
            }
            anyhow::Ok(())
        })?;
        let note = format!("it served again after {:.2} s", up.as_secs_f64());
        measured.push(Measured::times(names.back, &[start.elapsed()], note));
        Ok(())
    }
}

/// The 99th percentile as the only value, the rest in the note.
fn p99(name: &'static str, sorted: &[Duration], note: String) -> Measured {
    let middle = percentile(sorted, 50).as_secs_f64() * 1000.0;
    let worst = percentile(sorted, 100).as_secs_f64() * 1000.0;
    Measured::times(
        name,
        &[percentile(sorted, 99)],
        format!("{note}; median {middle:.0} ms, worst {worst:.0} ms"),
    )
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn kilobytes(bytes: u64) -> f64 {
    bytes as f64 / 1000.0
}

/// How many of each there are.
fn counted(commits: &[Value]) -> BTreeMap<String, usize> {
    let one = |commit: &Value| {
        let sites = commit["sites"]
            .as_u64()
            .and_then(|sites| usize::try_from(sites).ok());
        Some((commit["commit"].as_str()?.to_owned(), sites?))
    };
    commits.iter().filter_map(one).collect()
}
