//! `selvedge-orchestrator`: enrols, sees and steers a fleet of sites. It is never in a site's data path: hosts pull
//! from Git themselves, and go on without it.
//!
//! ```text
//! browser, CLI, kubectl ─┐            ┌─ http ── api ─────────┐
//! Git clients, webhooks ─┤ one port   ├─ git, hooks, enrol ───┤
//! hosts (link) ──────────┤ serve, tls ├─ links (sessions) ────┼── fleet (rules and database)
//! other processes ───────┘            └─ links::peer          │
//!                                        tasks (background) ──┘
//! ```
//! `fleet` decides and remembers; what is here speaks protocols.

mod admin;
mod api;
mod app;
mod config;
mod enrol;
mod files;
mod git;
mod hooks;
mod http;
mod links;
mod metrics;
mod oidc;
mod run;
mod serve;
mod tasks;
mod tls;
mod tunnel;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use telemetry::Format;

use crate::{admin::Command, config::Config};

/// Heaps that all threads share.
const HEAPS: u8 = 2;

/// The orchestrator of Selvedge: enrols, sees and steers a fleet of sites from one place.
#[derive(Parser)]
#[command(
    version,
    color = clap::ColorChoice::Never,
    after_help = "Exit codes: 0 done or stopped by a signal, 1 failed, 2 wrong usage or configuration.\n\n\
    Examples:\n  selvedge-orchestrator run\n  selvedge-orchestrator check --config ./orchestrator.toml\n  \
    selvedge-orchestrator admin create --tenant acme --user ada --password-file ./password"
)]
struct Args {
    /// The orchestrator's configuration.
    #[arg(
        long,
        global = true,
        env = "SELVEDGE_ORCHESTRATOR_CONFIG",
        default_value = "/etc/selvedge/orchestrator.toml"
    )]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    heap::arenas(HEAPS);
    let args = Args::parse();
    if matches!(args.command, Command::Openapi) {
        return admin::print_openapi();
    }
    let config = match Config::read(&args.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("selvedge-orchestrator: {error:#}");
            return ExitCode::from(2);
        }
    };
    let format = if config.log.json {
        Format::Json
    } else {
        Format::Text
    };
    let filter = match config.log.filter.as_str() {
        "" => "info",
        filter => filter,
    };
    telemetry::init(format, filter);
    // An error means that a provider is there already, which is what we want.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(admin::carry_out(args.command, config, &args.config)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("selvedge-orchestrator: {error:#}");
            ExitCode::FAILURE
        }
    }
}
