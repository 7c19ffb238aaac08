//! `selvedge login`, `logout`, `context`.

use std::{
    io::{BufRead, IsTerminal, Write},
    os::fd::AsFd,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use nix::sys::termios::{self, LocalFlags, SetArg};
use serde_json::{Value, json};

use super::{at, done};
use crate::{
    fleet::{
        Fleet, Refused,
        contexts::{Context, Contexts, Credential},
        value_or_file,
    },
    output::{Output, table},
};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  selvedge login https://orchestrator.example:8443 --user ada --ca-file ca.pem\n  selvedge login https://orchestrator.example:8443 --user ada --password @password.txt\n  selvedge login https://orchestrator.example:8443 --tenant acme --token @token.txt\n  selvedge login https://orchestrator.example:8443 --token @- < token.txt"
)]
pub(crate) struct Login {
    /// The orchestrator's address.
    url: String,
    /// A person's name; the password is asked for, and the code of the second factor if there is one.
    #[arg(long)]
    user: Option<String>,
    /// The password, as `@FILE` or, from standard input, `@-`; else it is asked for.
    #[arg(long, requires = "user")]
    password: Option<String>,
    /// An API token; `@FILE` reads it from a file, `@-` from standard input.
    #[arg(long, conflicts_with = "user")]
    token: Option<String>,
    /// The CA of the orchestrator's certificate, if the system does not know it.
    #[arg(long)]
    ca_file: Option<PathBuf>,
    /// What to call it; else the host's name.
    #[arg(long)]
    name: Option<String>,
}

#[derive(clap::Subcommand)]
pub(crate) enum Known {
    /// Lists what was logged in to.
    List,
    /// Makes another the one that counts.
    Use {
        /// Its name.
        name: String,
    },
    /// Forgets one.
    Delete {
        /// Its name.
        name: String,
    },
}

pub(crate) async fn login(args: &Login, tenant: Option<&str>) -> anyhow::Result<ExitCode> {
    let url = args.url.trim_end_matches('/').to_owned();
    if !url.starts_with("https://") {
        bail!("{url:?} is not like https://orchestrator.example:8443");
    }
    let ca = match &args.ca_file {
        Some(file) => {
            Some(std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?)
        }
        None => None,
    };
    let mut fleet = Fleet::with(Context {
        url: url.clone(),
        ca,
        tenant: tenant.map(str::to_owned),
        credential: None,
    })?;
    let me = match &args.token {
        Some(token) => {
            let token = secret(token)?;
            fleet.context.credential = Some(Credential::Token { token });
            fleet.get("/api/v1/me").await?
        }
        None => {
            let user = match &args.user {
                Some(user) => user.clone(),
                None => line("User: ")?,
            };
            sign_in(&mut fleet, user, args.password.as_deref()).await?
        }
    };
    let tenants: Vec<String> = me["tenants"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|t| at(t, "/name"))
        .collect();
    if fleet.context.tenant.is_none() && tenants.len() == 1 {
        fleet.context.tenant = tenants.first().cloned();
    }
    let host = url
        .trim_start_matches("https://")
        .split(':')
        .next()
        .unwrap_or("orchestrator")
        .to_owned();
    let name = args.name.clone().unwrap_or(host);
    let tenant = fleet.context.tenant.clone();
    let mut contexts = Contexts::read()?;
    contexts.context.insert(name.clone(), fleet.context);
    contexts.current = Some(name.clone());
    contexts.write()?;
    let which = match tenant {
        Some(tenant) => format!("tenant {tenant}"),
        None => format!("name a tenant with --tenant: {}", tenants.join(", ")),
    };
    Ok(done(&format!("logged in to {url} as context {name} ({which})")))
}

/// A secret that is given as an argument, in a file, or on standard input.
fn secret(given: &str) -> anyhow::Result<String> {
    if given == "@-" {
        line("")
    } else {
        value_or_file(given)
    }
}

async fn sign_in(fleet: &mut Fleet, user: String, password: Option<&str>) -> anyhow::Result<Value> {
    let password = password.map_or_else(|| hidden("Password: "), secret)?;
    let mut body = json!({"username": user, "password": password});
    if let Some(tenant) = &fleet.context.tenant {
        body["tenant"] = tenant.as_str().into();
    }
    let signed = fleet.sign_in(&body).await;
    let (session, me) = match signed {
        Err(error) if wants_code(&error) && std::io::stdin().is_terminal() => {
            body["totp"] = line("Code of the second factor: ")?.into();
            fleet.sign_in(&body).await?
        }
        done => done?,
    };
    fleet.context.credential = Some(Credential::Session { session, user });
    Ok(me)
}

fn wants_code(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<Refused>();
    refused.is_some_and(|refused| {
        let text = refused.to_string().to_ascii_lowercase();
        text.contains("totp") || text.contains("second factor") || text.contains("code")
    })
}

/// A line of standard input.
fn line(prompt: &str) -> anyhow::Result<String> {
    if std::io::stdin().is_terminal() {
        eprint!("{prompt}");
        let _ = std::io::stderr().flush();
    }
    let mut text = String::new();
    if std::io::stdin().lock().read_line(&mut text)? == 0 {
        bail!("nothing was typed");
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The same without showing what is typed.
fn hidden(prompt: &str) -> anyhow::Result<String> {
    let stdin = std::io::stdin();
    let Ok(before) = termios::tcgetattr(stdin.as_fd()) else {
        return line(prompt);
    };
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    termios::tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &silent)?;
    let typed = line(prompt);
    let _ = termios::tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &before);
    eprintln!();
    typed
}

/// Ends the session at the orchestrator, and forgets it here.
pub(crate) async fn logout(context: Option<&str>) -> anyhow::Result<ExitCode> {
    let mut contexts = Contexts::read()?;
    let name = context
        .map(str::to_owned)
        .or(contexts.current.clone())
        .unwrap_or_default();
    let fleet = Fleet::with(contexts.find(Some(&name))?)?;
    if let Some(Credential::Session { .. }) = fleet.context.credential
        && let Err(error) = fleet.delete("/api/v1/session").await
    {
        eprintln!("selvedge: the session could not be ended there: {error:#}");
    }
    contexts.context.remove(&name);
    if contexts.current.as_deref() == Some(&*name) {
        contexts.current = contexts.context.keys().next().cloned();
    }
    contexts.write()?;
    Ok(done(&format!("logged out of {name}")))
}

pub(crate) fn contexts(command: &Known, output: Output) -> anyhow::Result<ExitCode> {
    let mut contexts = Contexts::read()?;
    match command {
        Known::List => {
            let rows: Vec<Value> = contexts
                .context
                .iter()
                .map(|(name, context)| {
                    let user = match &context.credential {
                        Some(Credential::Session { user, .. }) => user.as_str(),
                        Some(Credential::Token { .. }) => "(token)",
                        None => "",
                    };
                    json!({"name": name, "current": contexts.current.as_ref() == Some(name), "url": context.url,
                        "tenant": context.tenant, "user": user})
                })
                .collect();
            output.print(&rows, || {
                let cells = rows.iter().map(|row| {
                    let mark = if row["current"] == true { "*" } else { "" };
                    vec![
                        mark.to_owned(),
                        at(row, "/name"),
                        at(row, "/url"),
                        at(row, "/tenant"),
                        at(row, "/user"),
                    ]
                });
                table(&["", "NAME", "URL", "TENANT", "USER"], cells)
            })?;
            Ok(ExitCode::SUCCESS)
        }
        Known::Use { name } => {
            contexts.find(Some(name))?;
            contexts.current = Some(name.clone());
            contexts.write()?;
            Ok(done(&format!("{name} counts now")))
        }
        Known::Delete { name } => {
            contexts.find(Some(name))?;
            contexts.context.remove(name);
            if contexts.current.as_ref() == Some(name) {
                contexts.current = None;
            }
            contexts.write()?;
            Ok(done(&format!("{name} is forgotten")))
        }
    }
}
