//! `selvedge-host`: the daemon of a host. It pulls the site's folder from Git, serves it as a Kubernetes API,
//! and makes the host as the folder says.
//!
//! The path of one change: Git → `gitops` → `apiserver` → `store` → watch → `hostconfig`, `vswitch`, `vm` →
//! status. `build` puts the parts together; nothing else here knows more than one of them.

mod build;
mod config;
mod orchestrator;
mod webhook;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use telemetry::{Format, LogRing};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;

/// So many bytes of the log are kept in memory, for those who ask through the orchestrator.
const LOG: usize = 256 << 10;

/// The host daemon of Selvedge: makes this host what its folder in Git says, and keeps it so.
#[derive(Parser)]
#[command(
    version,
    color = clap::ColorChoice::Never,
    after_help = "Exit codes: 0 stopped by a signal, 1 failed, 2 wrong usage or configuration.\n\n\
    Examples:\n  selvedge-host run\n  selvedge-host check --config ./host.toml\n  selvedge-host enroll"
)]
struct Args {
    /// The host's configuration.
    #[arg(
        long,
        global = true,
        env = "SELVEDGE_CONFIG",
        default_value = "/etc/selvedge/host.toml"
    )]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs until told to stop (SIGTERM, SIGINT). Virtual machines run on and are adopted at the next start.
    Run,
    /// Reads the configuration and the files that it names, says whether they are good, and changes nothing.
    Check,
    /// Asks the orchestrator to let this host in, says how it goes, and returns when it has. The daemon does the same by
    /// itself; this is for whoever stands before the machine.
    #[command(
        after_help = "Examples:\n  selvedge-host enroll\n  selvedge-host enroll --again   (after the host was revoked or removed there)"
    )]
    Enroll {
        /// Forgets who the host is and makes a new key first. Stop the daemon before.
        #[arg(long)]
        again: bool,
    },
}

fn main() -> ExitCode {
    heap::arenas(1);
    let args = Args::parse();
    let config = match Config::read(&args.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("selvedge-host: {error:#}");
            return ExitCode::from(2);
        }
    };
    match args.command {
        Command::Check => match config.check_files() {
            Ok(()) => {
                println!("{} is good", args.config.display());
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("selvedge-host: {}: {error:#}", args.config.display());
                ExitCode::from(2)
            }
        },
        Command::Run => ended(run(config)),
        Command::Enroll { again } => ended(enroll(&config, again)),
    }
}

fn ended(done: anyhow::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("selvedge-host: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn enroll(config: &Config, again: bool) -> anyhow::Result<()> {
    telemetry::init(Format::Text, "warn,selvedge_host=info");
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(orchestrator::enrolment::enroll(config, again))?;
    println!("{done}");
    Ok(())
}

fn run(config: Config) -> anyhow::Result<()> {
    let format = if config.log.json {
        Format::Json
    } else {
        Format::Text
    };
    let filter = if config.log.filter.is_empty() {
        "info"
    } else {
        &config.log.filter
    };
    let log = LogRing::new(LOG);
    telemetry::init_kept(format, filter, &log);
    // An error means that a provider is there already, which is what we want.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let host = build::build(config, log).await?;
        host.run(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await
    })
}
