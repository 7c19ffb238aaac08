//! `bench`: the figures of a host, measured on the real daemon in a lab, beside their bounds. `make bench` runs it.
//!
//! ```text
//!  figures (the list: name, bound, peer) ─ group by group ─▶ host (a lab of its own) ─▶ measured ─▶ table or JSON
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `figures` | which figures there are, in groups that share a lab |
//! | `applying`, `kustomizations`, `network`, `uplink`, `machines`, `serving` | a group each |
//! | `fleet` | the two groups of an orchestrator with simulated hosts |
//! | `host`, `api`, `usage` | a host in its lab; its API over the local socket; what its daemon uses |
//! | `measured`, `print` | values, their median and verdict; the table |
//!
//! It is no test: a bound that is missed is printed, and the exit code is still 0. It is 1 when something could not be
//! measured. Every lab is taken down, also when this program is killed.

mod api;
mod applying;
mod figures;
mod fleet;
mod host;
mod kustomizations;
mod machines;
mod measured;
mod network;
mod print;
mod serving;
mod uplink;
mod usage;

use std::{path::PathBuf, process::ExitCode, thread::available_parallelism};

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use tokio::runtime::Runtime;

use crate::{
    figures::GROUPS,
    measured::{Machine, Measured, Outcome},
};

#[derive(Parser)]
#[command(
    version,
    about = "Measures a host in a lab (root) and prints the figures beside their bounds",
    after_help = "Exit codes: 0 measured, whether bounds are met or not; 1 something could not be measured; 2 wrong \
    usage.\n\nExamples:\n  bench --image target/images/demo-guest.ova\n  bench --only first-apply --only unchanged\n  \
    bench --only network -o json\n  bench --list"
)]
struct Arguments {
    /// A figure or a group of figures (see --list); may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// How to print
    #[arg(short, long, default_value = "table")]
    output: Format,
    /// The demo guest, for the figures of virtual machines
    #[arg(long, default_value = "target/images/demo-guest.ova")]
    image: PathBuf,
    /// So many simulated hosts instead of 10,000 and 50,000
    #[arg(long, value_name = "COUNT")]
    hosts: Option<u32>,
    /// Name the figures and their groups, and measure nothing
    #[arg(long)]
    list: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// What every group is given.
pub(crate) struct Context {
    runtime: Runtime,
    image: PathBuf,
    only: Vec<String>,
    hosts: Option<u32>,
}

impl Context {
    /// Whether a figure of a group is to be measured.
    fn wants(&self, group: &str, figure: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == group || name == figure)
    }

    /// Says what happens now.
    fn say(&self, words: &str) {
        eprintln!("bench: {words}");
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        print!("{}", print::list());
        return ExitCode::SUCCESS;
    }
    let known = |name: &String| {
        GROUPS
            .iter()
            .any(|group| group.name == name || group.figures.iter().any(|f| f.name == name))
    };
    if let Some(name) = arguments.only.iter().find(|name| !known(name)) {
        eprintln!("bench: there is no figure {name}; --list names them");
        return ExitCode::from(2);
    }
    match run(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures and prints; whether everything could be measured.
fn run(arguments: Arguments) -> anyhow::Result<bool> {
    // An error means that a provider is there already, which is what we want.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let format = arguments.output;
    let context = Context {
        runtime: tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("can't start a runtime")?,
        image: arguments.image,
        only: arguments.only,
        hosts: arguments.hosts,
    };
    let machine = Machine {
        cores: available_parallelism().map_or(0, usize::from),
        load: usage::load()?,
    };
    let mut outcomes = Vec::new();
    for group in GROUPS {
        let wanted: Vec<_> = group
            .figures
            .iter()
            .filter(|figure| context.wants(group.name, figure.name))
            .collect();
        if wanted.is_empty() {
            continue;
        }
        context.say(&format!("{}: {}", group.name, group.about));
        let mut measured: Vec<Measured> = Vec::new();
        let result = (group.measure)(&context, &mut measured);
        let because = match &result {
            Ok(()) => "it was not measured".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if result.is_err() {
            eprintln!("bench: {}: {because}", group.name);
        }
        for figure in wanted {
            let found = measured
                .iter()
                .position(|one| one.name == figure.name)
                .map(|at| measured.swap_remove(at));
            outcomes.push((
                figure,
                found.map_or(Outcome::Failed(because.clone()), Outcome::Measured),
            ));
        }
    }
    match format {
        Format::Table => print!("{}", print::table(&machine, &outcomes)),
        Format::Json => println!("{:#}", print::json(&machine, &outcomes)),
    }
    Ok(outcomes
        .iter()
        .all(|(_, outcome)| matches!(outcome, Outcome::Measured(_))))
}
