//! `selvedge enroll`: who may come in.

use std::process::ExitCode;

use anyhow::bail;
use serde_json::{Map, Value, json};

use super::{Column, Filter, at, done, pairs, print_one, print_rows, put};
use crate::{
    fleet::{Fleet, pair, segment},
    output::Output,
};

#[derive(clap::Subcommand)]
#[command(
    after_help = "Examples:\n  selvedge enroll key create --site shop-17\n  selvedge enroll expect --serial 4CE1234 --site shop-17 --name till-4\n  selvedge enroll pending\n  selvedge enroll approve till-4 --site shop-17"
)]
pub(crate) enum Command {
    /// Activation keys: whoever has one is let in at once.
    #[command(subcommand)]
    Key(Key),
    /// Announces a host: it is let in when it comes.
    Expect {
        /// The machine's serial number.
        #[arg(long)]
        serial: Option<String>,
        /// The machine's UUID.
        #[arg(long)]
        uuid: Option<String>,
        /// A MAC address of the machine, again for more.
        #[arg(long = "mac")]
        macs: Vec<String>,
        /// The site that it will be in.
        #[arg(long)]
        site: String,
        /// What it will be called.
        #[arg(long)]
        name: Option<String>,
        /// KEY=VALUE, again for more.
        #[arg(long = "label", value_parser = pair)]
        labels: Vec<(String, String)>,
    },
    /// Lists hosts that are expected and have not come.
    Expected(Filter),
    /// Lists hosts that wait to be let in.
    Pending(Filter),
    /// Lets one in that waits, into a site.
    Approve {
        /// Its name or id.
        name: String,
        /// The site.
        #[arg(long)]
        site: String,
    },
}

#[derive(clap::Subcommand)]
pub(crate) enum Key {
    /// Lists keys, without what lets in.
    List(Filter),
    /// Makes one. It is shown once.
    Create {
        /// What to call it.
        #[arg(long)]
        name: Option<String>,
        /// The site that its hosts will be in.
        #[arg(long)]
        site: Option<String>,
        /// How many hosts it lets in.
        #[arg(long, default_value_t = 1)]
        max_uses: u32,
        /// Until when, as 2027-01-31T12:00:00Z.
        #[arg(long)]
        expires_at: Option<String>,
    },
    /// Removes one: it lets nobody in any more.
    Delete {
        /// Its id, as `enroll key list` shows it.
        key: String,
    },
}

const KEYS: &[Column] = &[
    ("NAME", |k| at(k, "/name")),
    ("SITE", |k| at(k, "/site")),
    ("USED", |k| format!("{}/{}", at(k, "/uses"), at(k, "/maxUses"))),
    ("EXPIRES", |k| at(k, "/expiresAt")),
    ("MADE BY", |k| at(k, "/createdBy")),
    ("ID", |k| at(k, "/id")),
];

const HOSTS: &[Column] = &[
    ("NAME", |h| at(h, "/name")),
    ("SITE", |h| at(h, "/site")),
    ("SERIAL", |h| at(h, "/serial")),
    ("UUID", |h| at(h, "/uuid")),
    ("MACS", |h| at(h, "/macs")),
    ("ADDRESS", |h| at(h, "/address")),
    ("ID", |h| at(h, "/id")),
];

pub(crate) async fn run(fleet: &Fleet, command: &Command, output: Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::Key(Key::List(filter)) => {
            let rows = fleet
                .list(&fleet.path("enrollment/keys")?, &filter.pairs(), filter.limit)
                .await?;
            print_rows(output, &rows, KEYS)
        }
        Command::Key(Key::Create {
            name,
            site,
            max_uses,
            expires_at,
        }) => {
            let mut body = Map::new();
            put(&mut body, "name", name.as_ref().or(site.as_ref()));
            put(&mut body, "site", site.as_ref());
            put(&mut body, "maxUses", Some(max_uses));
            put(&mut body, "expiresAt", expires_at.as_ref());
            let key = fleet
                .post(&fleet.path("enrollment/keys")?, &Value::Object(body))
                .await?;
            // The key alone, so that a script can take it.
            output.print(&key, || at(&key, "/key"))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Key(Key::Delete { key }) => {
            fleet
                .delete(&fleet.path(&format!("enrollment/keys/{}", segment(key)))?)
                .await?;
            Ok(done(&format!("key {key} lets nobody in any more")))
        }
        Command::Expect {
            serial,
            uuid,
            macs,
            site,
            name,
            labels,
        } => {
            if serial.is_none() && uuid.is_none() && macs.is_empty() {
                bail!("how will the host be known? give --serial, --uuid or --mac");
            }
            let mut body = Map::new();
            put(&mut body, "serial", serial.as_ref());
            put(&mut body, "uuid", uuid.as_ref());
            put(&mut body, "site", Some(site));
            put(&mut body, "name", name.as_ref());
            put(&mut body, "labels", pairs(labels));
            if !macs.is_empty() {
                put(&mut body, "macs", Some(macs));
            }
            print_one(
                output,
                &fleet
                    .post(&fleet.path("enrollment/expected")?, &Value::Object(body))
                    .await?,
            )
        }
        Command::Expected(filter) => {
            let rows = fleet
                .list(&fleet.path("enrollment/expected")?, &filter.pairs(), filter.limit)
                .await?;
            print_rows(output, &rows, HOSTS)
        }
        Command::Pending(filter) => {
            let rows = fleet
                .list(&fleet.path("enrollment/pending")?, &filter.pairs(), filter.limit)
                .await?;
            print_rows(output, &rows, HOSTS)
        }
        Command::Approve { name, site } => {
            let path = fleet.path(&format!("hosts/{}/approve", segment(name)))?;
            fleet.post(&path, &json!({"site": site})).await?;
            Ok(done(&format!("host {name} is let into {site}")))
        }
    }
}
