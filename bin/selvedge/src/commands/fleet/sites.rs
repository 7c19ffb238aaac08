//! `selvedge site`.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::{Column, Filter, at, commits, done, pairs, print_one, print_rows, put};
use crate::{
    fleet::{Fleet, pair, segment, value_or_file},
    output::Output,
};

#[derive(clap::Subcommand)]
#[command(
    after_help = "Examples:\n  selvedge site list -l region=eu --state failing\n  selvedge site create shop-17 --repo sites --path shops/17 --label region=eu --variable CITY=Bonn\n  selvedge site edit shop-17 --policy careful\n  selvedge site fetch shop-17"
)]
pub(crate) enum Command {
    /// Lists sites.
    List(Filter),
    /// Shows one.
    Get {
        /// Its name.
        name: String,
    },
    /// Makes one.
    Create {
        /// Its name, a DNS label.
        name: String,
        #[command(flatten)]
        spec: Spec,
    },
    /// Changes what is given of one, and leaves the rest.
    Edit {
        /// Its name.
        name: String,
        #[command(flatten)]
        spec: Spec,
    },
    /// Removes one. Its hosts must be elsewhere first.
    Delete {
        /// Its name.
        name: String,
    },
    /// Tells its hosts to look at their repository now.
    Fetch {
        /// Its name.
        name: String,
    },
    /// Tells its hosts to compare everything now.
    Reconcile {
        /// Its name.
        name: String,
    },
    /// Shows what happened there, newest last.
    Events {
        /// Its name.
        name: String,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
}

/// What a site is made of.
#[derive(clap::Args)]
pub(crate) struct Spec {
    /// A name for people.
    #[arg(long)]
    display_name: Option<String>,
    /// The repository.
    #[arg(long = "repo")]
    repository: Option<String>,
    /// The site's folder in it.
    #[arg(long)]
    path: Option<String>,
    /// The branch, if not the repository's own.
    #[arg(long)]
    branch: Option<String>,
    /// The rollout policy; empty for none.
    #[arg(long)]
    policy: Option<String>,
    /// KEY=VALUE, again for more; an empty value takes it away.
    #[arg(long = "label", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// NAME=VALUE for the substitutions of its folder; an empty value takes it away.
    #[arg(long = "variable", value_parser = pair)]
    variables: Vec<(String, String)>,
    /// The same for what nobody may read again; NAME=@FILE reads it from a file.
    #[arg(long = "secret-variable", value_parser = pair)]
    secrets: Vec<(String, String)>,
    /// Where it is, in degrees north.
    #[arg(long, allow_hyphen_values = true)]
    lat: Option<f64>,
    /// Where it is, in degrees east.
    #[arg(long, allow_hyphen_values = true)]
    lon: Option<f64>,
    /// Where it is, for people.
    #[arg(long)]
    address: Option<String>,
    /// Its time zone, as Europe/Berlin: maintenance windows are in it.
    #[arg(long)]
    timezone: Option<String>,
}

impl Spec {
    fn body(&self) -> anyhow::Result<Value> {
        let mut body = Map::new();
        put(&mut body, "displayName", self.display_name.as_ref());
        put(&mut body, "repository", self.repository.as_ref());
        put(&mut body, "path", self.path.as_ref());
        put(&mut body, "branch", self.branch.as_ref());
        let policy = self
            .policy
            .as_ref()
            .map(|policy| if policy.is_empty() { None } else { Some(policy) });
        put(&mut body, "policy", policy);
        put(&mut body, "labels", pairs(&self.labels));
        put(&mut body, "variables", pairs(&self.variables));
        let mut secrets = Vec::new();
        for (name, value) in &self.secrets {
            secrets.push((name.clone(), value_or_file(value)?));
        }
        put(&mut body, "secretVariables", pairs(&secrets));
        let mut location = Map::new();
        put(&mut location, "lat", self.lat);
        put(&mut location, "lon", self.lon);
        put(&mut location, "address", self.address.as_ref());
        put(&mut location, "timezone", self.timezone.as_ref());
        if !location.is_empty() {
            body.insert("location".into(), location.into());
        }
        Ok(body.into())
    }
}

const COLUMNS: &[Column] = &[
    ("NAME", |s| at(s, "/name")),
    ("STATE", |s| at(s, "/state")),
    ("HOSTS", |s| {
        format!("{}/{}", at(s, "/hosts/online"), at(s, "/hosts/total"))
    }),
    ("COMMIT", commits),
    ("REPOSITORY", |s| {
        format!("{}:{}", at(s, "/repository"), at(s, "/path"))
    }),
    ("POLICY", |s| at(s, "/policy")),
    ("WHY", |s| at(s, "/reason")),
];

pub(super) const EVENTS: &[Column] = &[
    ("TIME", |e| at(e, "/time")),
    ("HOST", |e| at(e, "/host")),
    ("TYPE", |e| at(e, "/type")),
    ("REASON", |e| at(e, "/reason")),
    ("OBJECT", |e| at(e, "/object")),
    ("MESSAGE", |e| at(e, "/message")),
];

pub(crate) async fn run(fleet: &Fleet, command: &Command, output: Output) -> anyhow::Result<ExitCode> {
    let one = |name: &str| fleet.path(&format!("sites/{}", segment(name)));
    let signal = async |name: &str, what: &str| {
        let path = format!("{}/signal", one(name)?);
        fleet.post(&path, &json!({"what": what})).await?;
        anyhow::Ok(done(&format!("the hosts of {name} that are connected were told")))
    };
    match command {
        Command::List(filter) => {
            let rows = fleet
                .list(&fleet.path("sites")?, &filter.pairs(), filter.limit)
                .await?;
            print_rows(output, &rows, COLUMNS)
        }
        Command::Get { name } => print_one(output, &fleet.get(&one(name)?).await?),
        Command::Create { name, spec } => {
            let mut body = spec.body()?;
            body["name"] = name.as_str().into();
            print_one(output, &fleet.post(&fleet.path("sites")?, &body).await?)
        }
        Command::Edit { name, spec } => print_one(output, &fleet.patch(&one(name)?, &spec.body()?).await?),
        Command::Delete { name } => {
            fleet.delete(&one(name)?).await?;
            Ok(done(&format!("site {name} is gone")))
        }
        Command::Fetch { name } => signal(name, "fetch").await,
        Command::Reconcile { name } => signal(name, "reconcile").await,
        Command::Events { name, limit } => {
            let mut rows = fleet.list(&format!("{}/events", one(name)?), &[], *limit).await?;
            rows.reverse();
            print_rows(output, &rows, EVENTS)
        }
    }
}
