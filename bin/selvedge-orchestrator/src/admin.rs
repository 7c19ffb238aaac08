//! Subcommands for whoever runs the orchestrator. All but `run` work on the files and the database, also while `run` runs.

mod backup;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::Subcommand;
use fleet::{Caller, Role, Scope, model::TokenSpec};
use telemetry::Clock;

use crate::{
    api, app,
    config::{Config, read_secret},
    run,
};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Runs until told to stop (SIGTERM, SIGINT).
    Run,
    /// Reads the configuration and the files that it names, says whether they are good, and changes nothing.
    Check,
    /// People, from the orchestrator's own command line.
    Admin {
        #[command(subcommand)]
        what: Admin,
    },
    /// Tokens for programs.
    Token {
        #[command(subcommand)]
        what: Token,
    },
    /// Writes what the database holds into one file, while `run` runs. The master key and hosted repositories
    /// (`<data>/master.key`, `<data>/git`) are not in it.
    Backup {
        /// The file; it must not be there.
        file: PathBuf,
    },
    /// Puts a backup in the place of what the database holds. Nothing else may run on it; a PostgreSQL database must be
    /// empty, a SQLite file is kept under another name.
    Restore {
        /// The file.
        file: PathBuf,
        /// Really: what is there now is lost.
        #[arg(long)]
        yes: bool,
    },
    /// Prints the OpenAPI document of the API.
    Openapi,
}

#[derive(Subcommand)]
pub(crate) enum Admin {
    /// Makes an owner (and the tenant, if it is not there), or gives an account of that name this password and role.
    Create {
        /// The tenant's name.
        #[arg(long)]
        tenant: String,
        /// The user's name.
        #[arg(long)]
        user: String,
        /// A file whose first line is the password.
        #[arg(long)]
        password_file: PathBuf,
        /// May make and delete tenants too. The first owner of all may in any case.
        #[arg(long)]
        platform: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum Token {
    /// Makes a token and prints it: the only time that it is shown.
    Create {
        /// The tenant's name.
        #[arg(long)]
        tenant: String,
        /// The token's name.
        #[arg(long)]
        name: String,
        /// `viewer`, `operator` or `owner`.
        #[arg(long, default_value = "viewer")]
        role: String,
        /// How long it is good, as `24h`; for ever if nothing is said.
        #[arg(long)]
        expires: Option<String>,
    },
}

/// Prints the OpenAPI document.
pub(crate) fn print_openapi() -> ExitCode {
    match api::document().to_pretty_json() {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("selvedge-orchestrator: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Does what was asked.
pub(crate) async fn carry_out(command: Command, config: Config, path: &Path) -> anyhow::Result<()> {
    let clock = Clock::system();
    match command {
        Command::Run => run::run(config).await,
        Command::Check => {
            config.check_files()?;
            println!("{} is good", path.display());
            Ok(())
        }
        Command::Openapi => Ok(()),
        Command::Admin {
            what:
                Admin::Create {
                    tenant,
                    user,
                    password_file,
                    platform,
                },
        } => create_owner(&config, &clock, &tenant, &user, &password_file, platform).await,
        Command::Token {
            what:
                Token::Create {
                    tenant,
                    name,
                    role,
                    expires,
                },
        } => create_token(&config, &clock, &tenant, name, &role, expires.as_deref()).await,
        Command::Backup { file } => backup::backup(&config, &clock, &file).await,
        Command::Restore { file, yes } => {
            if !yes {
                bail!("this replaces all that the database holds: say --yes");
            }
            backup::restore(&config, &clock, &file).await
        }
    }
}

async fn create_owner(
    config: &Config,
    clock: &Clock,
    tenant: &str,
    user: &str,
    password_file: &Path,
    platform: bool,
) -> anyhow::Result<()> {
    let password = read_secret(password_file)?;
    let fleet = app::open_fleet(config, clock).await?;
    let first = fleet.tenants().authorities().await?.is_empty();
    let found = match fleet.tenants().find(tenant).await? {
        Some(found) => found,
        None => {
            let spec = fleet::model::TenantSpec {
                name: tenant.to_owned(),
                ..fleet::model::TenantSpec::default()
            };
            fleet
                .tenants()
                .create(&Caller::system("", "command-line"), &spec)
                .await
                .with_context(|| format!("can't make the tenant {tenant}"))?
        }
    };
    fleet
        .people()
        .make_owner(&found.id, user, &password, platform || first)
        .await
        .with_context(|| format!("can't make {user} an owner of {tenant}"))?;
    println!("{user} is an owner of {tenant}; sign in at {}", config.url());
    Ok(())
}

async fn create_token(
    config: &Config,
    clock: &Clock,
    tenant: &str,
    name: String,
    role: &str,
    expires: Option<&str>,
) -> anyhow::Result<()> {
    let role = match role {
        "viewer" => Role::Viewer,
        "operator" => Role::Operator,
        "owner" => Role::Owner,
        other => bail!("--role: {other:?} is none of viewer, operator, owner"),
    };
    let expires_at = match expires {
        None => None,
        Some(text) => {
            let span = kinds::duration::parse(text).context("--expires")?;
            let at = clock.now().checked_add(span).context("--expires")?;
            Some(at.into())
        }
    };
    let fleet = app::open_fleet(config, clock).await?;
    let found = fleet
        .tenants()
        .find(tenant)
        .await?
        .with_context(|| format!("there is no tenant {tenant}"))?;
    let spec = TokenSpec {
        name,
        role,
        scope: Scope::All,
        expires_at,
    };
    let made = fleet
        .tokens()
        .create(&Caller::system(&found.id, "command-line"), &spec)
        .await?;
    println!("{}", made.secret.unwrap_or_default());
    Ok(())
}
