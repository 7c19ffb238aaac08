//! `selvedge`: the command line of a host, of those who write its site repository, and of a fleet.
//!
//! `validate` works offline on a folder; `vm console` and `logs vm` work on the host itself; the rest asks the
//! host's API through a kubeconfig, as kubectl does. The commands of the fleet ask an orchestrator that `login` stored.

mod api;
mod commands;
mod fleet;
mod kubeconfig;
mod output;

use std::{io::Write, path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};

use crate::{
    api::Api,
    commands::{fleet as of_fleet, get, logs, nic, reconcile, status, validate, version, vm},
    fleet::Fleet,
    kubeconfig::Kubeconfig,
    output::Output,
};

/// See and steer a Selvedge host, and check a site repository before it is pushed.
#[derive(Parser)]
#[command(
    version,
    color = clap::ColorChoice::Never,
    after_help = "Exit codes: 0 done and all well, 1 something is wrong (errors found, not ready, refused), \
    2 wrong usage, 3 the host's API or the orchestrator can't be reached, 4 (plan) something would change.\n\n\
    Examples:\n  selvedge validate ./site\n  selvedge status\n  selvedge get vm -A\n  selvedge reconcile\n  selvedge vm console shop/till\n  selvedge login https://orchestrator.example:8443 --user ada\n  selvedge site list --state failing\n  selvedge plan --repo sites --ref next"
)]
struct Args {
    /// Whom to ask. Default: $KUBECONFIG, else /etc/selvedge/admin.kubeconfig.
    #[arg(long, global = true)]
    kubeconfig: Option<PathBuf>,
    /// The host's configuration, for the commands that work on the host itself.
    #[arg(
        long,
        global = true,
        env = "SELVEDGE_CONFIG",
        default_value = "/etc/selvedge/host.toml"
    )]
    config: PathBuf,
    /// Which orchestrator, of those that were logged in to; else the current one.
    #[arg(long, global = true, env = "SELVEDGE_CONTEXT")]
    context: Option<String>,
    /// Which tenant of the orchestrator; else that of the login.
    #[arg(long, global = true, env = "SELVEDGE_TENANT")]
    tenant: Option<String>,
    /// How to print.
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Checks a site folder offline: every error with file, line, column and field.
    Validate(validate::Args),
    /// Shows objects of a kind.
    Get(get::Args),
    /// Shows what is wanted, what is true, what failed, and from which commit.
    #[command(
        after_help = "The exit code is 1 when something is not ready.\n\nExamples:\n  selvedge status\n  selvedge status -o json"
    )]
    Status,
    /// Makes the host look at its repositories now, and waits until it has acted.
    Reconcile(reconcile::Args),
    /// Physical network cards.
    #[command(subcommand)]
    Nic(nic::Command),
    /// Virtual machines on this host.
    #[command(subcommand)]
    Vm(vm::Command),
    /// Shows the host's events, or a virtual machine's console log.
    Logs(logs::Args),
    /// Logs in to an orchestrator.
    Login(of_fleet::login::Login),
    /// Logs out of an orchestrator, and forgets it.
    Logout,
    /// Orchestrators that were logged in to.
    #[command(subcommand)]
    Context(of_fleet::login::Known),
    /// Tenants of an orchestrator.
    #[command(subcommand)]
    Tenant(of_fleet::tenants::Tenant),
    /// Sites of the fleet.
    #[command(subcommand)]
    Site(of_fleet::sites::Command),
    /// Hosts of the fleet.
    #[command(subcommand)]
    Host(of_fleet::hosts::Command),
    /// Repositories of the fleet.
    #[command(subcommand)]
    Repo(of_fleet::repositories::Command),
    /// Who may come into the fleet.
    #[command(subcommand)]
    Enroll(of_fleet::enroll::Command),
    /// Commits on their way to the sites.
    #[command(subcommand)]
    Rollout(of_fleet::rollouts::Command),
    /// How commits make their way to the sites.
    #[command(subcommand)]
    Policy(of_fleet::rollouts::Policy),
    /// Shows what a branch or commit would change at each site, before it is merged.
    Plan(of_fleet::plan::Args),
    /// API tokens of a tenant.
    #[command(subcommand)]
    Token(of_fleet::tenants::Token),
    /// Who did what in a tenant.
    Audit(of_fleet::tenants::Audit),
    /// Prints a kubeconfig for a site, through the orchestrator.
    Kubeconfig(of_fleet::kubeconfig::Args),
    /// What kubectl calls to sign in.
    #[command(hide = true)]
    KubeCredential,
    /// Shows the version of this program and of the host.
    #[command(after_help = "Examples:\n  selvedge version\n  selvedge version -o json")]
    Version,
    /// Prints a completion script for a shell.
    #[command(
        after_help = "Examples:\n  selvedge completions bash > /etc/bash_completion.d/selvedge\n  source <(selvedge completions zsh)"
    )]
    Completions {
        /// bash, zsh, fish, elvish or powershell.
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    // An error means that a provider is there already, which is what we want.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    runtime.block_on(run(args)).unwrap_or_else(|error| fail(&error))
}

async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let output = args.output;
    let api = || Kubeconfig::find(args.kubeconfig.as_deref()).and_then(|kubeconfig| Api::new(&kubeconfig));
    let fleet = || Fleet::open(args.context.as_deref(), args.tenant.as_deref());
    match args.command {
        Command::Validate(command) => validate::run(&command, output),
        Command::Get(command) => get::run(&api()?, &command, output).await,
        Command::Status => status::run(&api()?, output).await,
        Command::Reconcile(command) => reconcile::run(&api()?, &command).await,
        Command::Nic(command) => nic::run(&api()?, &command, output).await,
        Command::Vm(vm::Command::Console {
            machine,
            site: Some(site),
        }) => of_fleet::kubeconfig::console(&fleet()?, &site, &machine).await,
        Command::Vm(command) => vm::run(&command, &args.config).await,
        Command::Login(command) => of_fleet::login::login(&command, args.tenant.as_deref()).await,
        Command::Logout => of_fleet::login::logout(args.context.as_deref()).await,
        Command::Context(command) => of_fleet::login::contexts(&command, output),
        Command::Tenant(command) => of_fleet::tenants::tenant(&fleet()?, &command, output).await,
        Command::Site(command) => of_fleet::sites::run(&fleet()?, &command, output).await,
        Command::Host(command) => of_fleet::hosts::run(&fleet()?, &command, output).await,
        Command::Repo(command) => of_fleet::repositories::run(&fleet()?, &command, output).await,
        Command::Enroll(command) => of_fleet::enroll::run(&fleet()?, &command, output).await,
        Command::Rollout(command) => of_fleet::rollouts::run(&fleet()?, &command, output).await,
        Command::Policy(command) => of_fleet::rollouts::policy(&fleet()?, &command, output).await,
        Command::Plan(command) => of_fleet::plan::run(&fleet()?, &command, output).await,
        Command::Token(command) => of_fleet::tenants::token(&fleet()?, &command, output).await,
        Command::Audit(command) => of_fleet::tenants::audit(&fleet()?, &command, output).await,
        Command::Kubeconfig(command) => {
            of_fleet::kubeconfig::run(&fleet()?, &command, args.context.as_deref()).await
        }
        Command::KubeCredential => of_fleet::kubeconfig::credential(&fleet()?),
        Command::Logs(command) => logs::run(api, &command, &args.config, output).await,
        Command::Version => version::run(api().ok().as_ref(), output).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "selvedge", &mut script);
            // A reader that has gone (`| head`) is no error.
            let _ = std::io::stdout().write_all(&script);
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("selvedge: {}", output::harmless(&format!("{error:#}")));
    if error.is::<api::Unreachable>() {
        ExitCode::from(3)
    } else {
        ExitCode::FAILURE
    }
}
