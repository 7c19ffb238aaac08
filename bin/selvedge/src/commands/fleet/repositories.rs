//! `selvedge repo`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::{Column, Filter, at, commit, done, print_one, print_rows, put};
use crate::{
    fleet::{Fleet, segment, value_or_file},
    output::Output,
};

#[derive(clap::Subcommand)]
#[command(
    after_help = "Examples:\n  selvedge repo create sites --hosted\n  selvedge repo create sites --url https://git.example/sites.git --username bot --password @password.txt\n  selvedge repo check sites\n  selvedge repo commits sites"
)]
pub(crate) enum Command {
    /// Lists repositories.
    List(Filter),
    /// Shows one.
    Get {
        /// Its name.
        name: String,
    },
    /// Registers one.
    Create {
        /// Its name, a DNS label.
        name: String,
        #[command(flatten)]
        spec: Spec,
    },
    /// Changes what is given of one.
    Edit {
        /// Its name.
        name: String,
        #[command(flatten)]
        spec: Spec,
    },
    /// Forgets one. No site may name it.
    Delete {
        /// Its name.
        name: String,
    },
    /// Looks whether it can be reached, and says what is there.
    Check {
        /// Its name.
        name: String,
    },
    /// Lists commits, newest first.
    Commits {
        /// Its name.
        name: String,
        /// The branch, if not its own.
        #[arg(long)]
        branch: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Makes a password for Git clients of a hosted repository; it is shown once.
    Credential {
        /// The repository's name.
        name: String,
        /// What to call it.
        #[arg(long)]
        credential: String,
        /// It may push too.
        #[arg(long)]
        write: bool,
    },
}

/// What a repository is.
#[derive(clap::Args)]
pub(crate) struct Spec {
    /// The orchestrator serves it itself.
    #[arg(long, conflicts_with = "url")]
    hosted: bool,
    /// Its address.
    #[arg(long)]
    url: Option<String>,
    /// Its branch.
    #[arg(long)]
    branch: Option<String>,
    /// For basic authentication.
    #[arg(long)]
    username: Option<String>,
    /// For basic authentication; `@FILE` reads it from a file.
    #[arg(long, requires = "username")]
    password: Option<String>,
    /// For token authentication; `@FILE` reads it from a file.
    #[arg(long, conflicts_with = "username")]
    bearer: Option<String>,
    /// The private key for ssh.
    #[arg(long, conflicts_with_all = ["username", "bearer"], requires = "known_hosts_file")]
    identity_file: Option<PathBuf>,
    /// The server's public keys for ssh.
    #[arg(long)]
    known_hosts_file: Option<PathBuf>,
    /// The CA of its certificate.
    #[arg(long)]
    ca_file: Option<PathBuf>,
}

impl Spec {
    fn body(&self) -> anyhow::Result<Value> {
        let read = |file: &PathBuf| {
            std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))
        };
        let mut body = Map::new();
        if self.hosted {
            body.insert("hosted".into(), true.into());
        }
        put(&mut body, "url", self.url.as_ref());
        put(&mut body, "branch", self.branch.as_ref());
        put(&mut body, "caPem", self.ca_file.as_ref().map(read).transpose()?);
        put(
            &mut body,
            "knownHosts",
            self.known_hosts_file.as_ref().map(read).transpose()?,
        );
        let mut sign_in = Map::new();
        let mut auth = None;
        if let Some(username) = &self.username {
            auth = Some("basic");
            put(&mut sign_in, "username", Some(username));
            put(
                &mut sign_in,
                "password",
                self.password.as_deref().map(value_or_file).transpose()?,
            );
        }
        if let Some(bearer) = &self.bearer {
            auth = Some("bearer");
            put(&mut sign_in, "bearer", Some(value_or_file(bearer)?));
        }
        if let Some(file) = &self.identity_file {
            auth = Some("ssh");
            put(&mut sign_in, "identity", Some(read(file)?));
        }
        put(&mut body, "auth", auth);
        if !sign_in.is_empty() {
            body.insert("credentials".into(), sign_in.into());
        }
        Ok(body.into())
    }
}

const COLUMNS: &[Column] = &[
    ("NAME", |r| at(r, "/name")),
    ("URL", |r| at(r, "/url")),
    ("BRANCH", |r| at(r, "/branch")),
    ("REACHABLE", |r| at(r, "/reach/state")),
    ("HEAD", |r| commit(r, "/head/commit")),
    ("SUBJECT", |r| at(r, "/head/subject")),
    ("WHY NOT", |r| at(r, "/reach/message")),
];

const COMMITS: &[Column] = &[
    ("COMMIT", |c| commit(c, "/commit")),
    ("TIME", |c| at(c, "/time")),
    ("AUTHOR", |c| at(c, "/author")),
    ("SUBJECT", |c| at(c, "/subject")),
];

pub(crate) async fn run(fleet: &Fleet, command: &Command, output: Output) -> anyhow::Result<ExitCode> {
    let one = |name: &str| fleet.path(&format!("repositories/{}", segment(name)));
    match command {
        Command::List(filter) => {
            let rows = fleet
                .list(&fleet.path("repositories")?, &filter.pairs(), filter.limit)
                .await?;
            print_rows(output, &rows, COLUMNS)
        }
        Command::Get { name } => print_one(output, &fleet.get(&one(name)?).await?),
        Command::Create { name, spec } => {
            let mut body = spec.body()?;
            body["name"] = name.as_str().into();
            print_one(output, &fleet.post(&fleet.path("repositories")?, &body).await?)
        }
        Command::Edit { name, spec } => print_one(output, &fleet.patch(&one(name)?, &spec.body()?).await?),
        Command::Delete { name } => {
            fleet.delete(&one(name)?).await?;
            Ok(done(&format!("repository {name} is forgotten")))
        }
        Command::Check { name } => {
            let found = fleet.post(&format!("{}/check", one(name)?), &json!({})).await?;
            let failed = at(&found, "/reach/state") == "failed";
            print_one(output, &found)?;
            Ok(if failed {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            })
        }
        Command::Commits { name, branch, limit } => {
            let branch = branch.as_deref().map(|branch| ("branch", branch));
            let query: Vec<(&str, &str)> = branch.into_iter().collect();
            let rows = fleet
                .list(&format!("{}/commits", one(name)?), &query, *limit)
                .await?;
            print_rows(output, &rows, COMMITS)
        }
        Command::Credential {
            name,
            credential,
            write,
        } => {
            let body = json!({"name": credential, "write": write});
            print_one(
                output,
                &fleet.post(&format!("{}/credentials", one(name)?), &body).await?,
            )
        }
    }
}
