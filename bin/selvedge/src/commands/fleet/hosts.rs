//! `selvedge host`.

use std::{io::Write, process::ExitCode};

use serde_json::{Map, Value, json};

use super::{Column, Filter, at, commits, done, pairs, print_one, print_rows, put, sites::EVENTS};
use crate::{
    fleet::{Fleet, pair, segment, with_query},
    output::Output,
};

#[derive(clap::Subcommand)]
#[command(
    after_help = "Examples:\n  selvedge host list --site shop-17\n  selvedge host approve till-4 --site shop-17\n  selvedge host logs till-4 --unit vm/shop/till -f\n  selvedge host revoke till-4"
)]
pub(crate) enum Command {
    /// Lists hosts.
    List {
        #[command(flatten)]
        filter: Filter,
        /// Only those of this site.
        #[arg(long)]
        site: Option<String>,
    },
    /// Shows one, with all that it reports.
    Get {
        /// Its name.
        name: String,
    },
    /// Changes what is given of one.
    Edit {
        /// Its name.
        name: String,
        /// A new name.
        #[arg(long)]
        rename: Option<String>,
        /// Another site.
        #[arg(long)]
        site: Option<String>,
        /// KEY=VALUE, again for more; an empty value takes it away.
        #[arg(long = "label", value_parser = pair)]
        labels: Vec<(String, String)>,
    },
    /// Lets one in that waits, into a site.
    Approve {
        /// Its name or id.
        name: String,
        /// The site.
        #[arg(long)]
        site: String,
    },
    /// Takes its certificate away at once. It goes on running its site.
    Revoke {
        /// Its name.
        name: String,
    },
    /// Removes one.
    Delete {
        /// Its name.
        name: String,
    },
    /// Tells it to look at its repository now (`fetch`), to compare everything (`reconcile`), or to renew its certificate
    /// (`renew`).
    Signal {
        /// Its name.
        name: String,
        /// fetch, reconcile or renew.
        #[arg(value_parser = ["fetch", "reconcile", "renew"])]
        what: String,
    },
    /// Shows what happened there, newest last.
    Events {
        /// Its name.
        name: String,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Shows its log: of the daemon, of `kernel`, of a unit of systemd, or of a virtual machine's console (`vm/NS/NAME`).
    Logs {
        /// Its name.
        name: String,
        /// Which log.
        #[arg(long, default_value = "")]
        unit: String,
        /// Go on with what comes.
        #[arg(short, long)]
        follow: bool,
        /// The last so many lines.
        #[arg(long, default_value_t = 200)]
        lines: u32,
    },
}

const COLUMNS: &[Column] = &[
    ("NAME", |h| at(h, "/name")),
    ("SITE", |h| at(h, "/site")),
    ("PHASE", |h| at(h, "/phase")),
    ("CONNECTION", |h| at(h, "/connection")),
    ("STATE", |h| at(h, "/state")),
    ("COMMIT", commits),
    ("COMPLIANCE", |h| at(h, "/compliance")),
    ("VERSION", |h| at(h, "/versions/selvedge")),
    ("WHY", |h| at(h, "/reason")),
];

pub(crate) async fn run(fleet: &Fleet, command: &Command, output: Output) -> anyhow::Result<ExitCode> {
    let one = |name: &str| fleet.path(&format!("hosts/{}", segment(name)));
    match command {
        Command::List { filter, site } => {
            let mut query = filter.pairs();
            query.extend(site.as_deref().map(|site| ("site", site)));
            let rows = fleet.list(&fleet.path("hosts")?, &query, filter.limit).await?;
            print_rows(output, &rows, COLUMNS)
        }
        Command::Get { name } => print_one(output, &fleet.get(&one(name)?).await?),
        Command::Edit {
            name,
            rename,
            site,
            labels,
        } => {
            let mut body = Map::new();
            put(&mut body, "name", rename.as_ref());
            put(&mut body, "site", site.as_ref());
            put(&mut body, "labels", pairs(labels));
            print_one(output, &fleet.patch(&one(name)?, &Value::Object(body)).await?)
        }
        Command::Approve { name, site } => {
            let path = format!("{}/approve", one(name)?);
            fleet.post(&path, &json!({"site": site})).await?;
            Ok(done(&format!("host {name} is let into {site}")))
        }
        Command::Revoke { name } => {
            fleet.post(&format!("{}/revoke", one(name)?), &json!({})).await?;
            Ok(done(&format!(
                "host {name} is revoked; it goes on running its site"
            )))
        }
        Command::Delete { name } => {
            fleet.delete(&one(name)?).await?;
            Ok(done(&format!("host {name} is gone")))
        }
        Command::Signal { name, what } => {
            fleet
                .post(&format!("{}/signal", one(name)?), &json!({"what": what}))
                .await?;
            Ok(done(&format!("host {name} was told")))
        }
        Command::Events { name, limit } => {
            let mut rows = fleet.list(&format!("{}/events", one(name)?), &[], *limit).await?;
            rows.reverse();
            print_rows(output, &rows, EVENTS)
        }
        Command::Logs {
            name,
            unit,
            follow,
            lines,
        } => {
            let lines = lines.to_string();
            let follow = follow.to_string();
            let query = [("unit", unit.as_str()), ("follow", &follow), ("lines", &lines)];
            let mut response = fleet
                .stream(&with_query(&format!("{}/logs", one(name)?), &query))
                .await?;
            let mut out = std::io::stdout().lock();
            while let Some(chunk) = response.chunk().await? {
                // A reader that has gone (`| head`) is no error.
                if out.write_all(&chunk).and_then(|()| out.flush()).is_err() {
                    break;
                }
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}
