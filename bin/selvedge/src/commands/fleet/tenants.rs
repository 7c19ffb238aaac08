//! `selvedge tenant`, `selvedge token`, `selvedge audit`.

use std::{io::Write, process::ExitCode};

use serde_json::{Map, Value};

use super::{Column, Filter, at, done, print_one, print_rows, put};
use crate::{
    fleet::{Fleet, segment},
    output::Output,
};

#[derive(clap::Subcommand)]
#[command(
    after_help = "Examples:\n  selvedge tenant list\n  selvedge tenant create acme --display-name \"Acme Retail\""
)]
pub(crate) enum Tenant {
    /// Lists the tenants that you may see.
    List,
    /// Shows one.
    Get {
        /// Its name.
        name: String,
    },
    /// Makes one. For administrators of the platform.
    Create {
        /// Its name, a DNS label.
        name: String,
        /// A name for people.
        #[arg(long)]
        display_name: Option<String>,
    },
    /// Removes one with all that is in it. For administrators of the platform.
    Delete {
        /// Its name.
        name: String,
        /// Its name once more.
        #[arg(long)]
        confirm: String,
    },
}

#[derive(clap::Subcommand)]
#[command(
    after_help = "Examples:\n  selvedge token create pipeline --role operator --site shop-17 --expires-at 2027-01-31T00:00:00Z\n  selvedge token list"
)]
pub(crate) enum Token {
    /// Lists API tokens, without their secrets.
    List(Filter),
    /// Makes one. Its secret is shown once.
    Create {
        /// What to call it.
        name: String,
        /// viewer, operator or owner.
        #[arg(long, value_parser = ["viewer", "operator", "owner"])]
        role: String,
        /// Only for this site.
        #[arg(long, conflicts_with = "selector")]
        site: Option<String>,
        /// Only for sites with these labels.
        #[arg(short = 'l', long)]
        selector: Option<String>,
        /// Until when, as 2027-01-31T12:00:00Z.
        #[arg(long)]
        expires_at: Option<String>,
    },
    /// Removes one at once.
    Delete {
        /// Its name or id.
        token: String,
    },
}

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  selvedge audit\n  selvedge audit -q site.update --limit 20\n  selvedge audit --export > audit.ndjson"
)]
pub(crate) struct Audit {
    /// Free text.
    #[arg(short, long)]
    query: Option<String>,
    /// At most so many, the newest.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// All of it, one JSON object a line, oldest first.
    #[arg(long)]
    export: bool,
}

const TENANTS: &[Column] = &[
    ("NAME", |t| at(t, "/name")),
    ("DISPLAY NAME", |t| at(t, "/displayName")),
    ("SINCE", |t| at(t, "/createdAt")),
];

const TOKENS: &[Column] = &[
    ("NAME", |t| at(t, "/name")),
    ("ROLE", |t| at(t, "/role")),
    ("SCOPE", |t| at(t, "/scope")),
    ("EXPIRES", |t| at(t, "/expiresAt")),
    ("LAST USED", |t| at(t, "/lastUsedAt")),
    ("MADE BY", |t| at(t, "/createdBy")),
];

const AUDIT: &[Column] = &[
    ("TIME", |a| at(a, "/time")),
    ("WHO", |a| at(a, "/actor")),
    ("FROM", |a| at(a, "/from")),
    ("WHAT", |a| at(a, "/action")),
    ("OBJECT", |a| {
        format!("{} {}", at(a, "/object/kind"), at(a, "/object/name"))
    }),
];

pub(crate) async fn tenant(fleet: &Fleet, command: &Tenant, output: Output) -> anyhow::Result<ExitCode> {
    let one = |name: &str| format!("/api/v1/tenants/{}", segment(name));
    match command {
        Tenant::List => print_rows(
            output,
            &fleet.list("/api/v1/tenants", &[], 10_000).await?,
            TENANTS,
        ),
        Tenant::Get { name } => print_one(output, &fleet.get(&one(name)).await?),
        Tenant::Create { name, display_name } => {
            let mut body = Map::new();
            put(&mut body, "name", Some(name));
            put(&mut body, "displayName", display_name.as_ref());
            print_one(
                output,
                &fleet.post("/api/v1/tenants", &Value::Object(body)).await?,
            )
        }
        Tenant::Delete { name, confirm } => {
            if name != confirm {
                anyhow::bail!("--confirm names another tenant: nothing is deleted");
            }
            fleet.delete(&one(name)).await?;
            Ok(done(&format!("tenant {name} is gone")))
        }
    }
}

pub(crate) async fn token(fleet: &Fleet, command: &Token, output: Output) -> anyhow::Result<ExitCode> {
    match command {
        Token::List(filter) => {
            let rows = fleet
                .list(&fleet.path("tokens")?, &filter.pairs(), filter.limit)
                .await?;
            print_rows(output, &rows, TOKENS)
        }
        Token::Create {
            name,
            role,
            site,
            selector,
            expires_at,
        } => {
            let mut body = Map::new();
            put(&mut body, "name", Some(name));
            put(&mut body, "role", Some(role));
            put(&mut body, "expiresAt", expires_at.as_ref());
            let scope = match (site, selector) {
                (Some(site), _) => serde_json::json!({"site": site}),
                (None, Some(selector)) => serde_json::json!({"selector": selector}),
                (None, None) => serde_json::json!({"all": true}),
            };
            put(&mut body, "scope", Some(scope));
            let made = fleet.post(&fleet.path("tokens")?, &Value::Object(body)).await?;
            // The secret alone, so that a script can take it.
            output.print(&made, || at(&made, "/secret"))?;
            Ok(ExitCode::SUCCESS)
        }
        Token::Delete { token } => {
            fleet
                .delete(&fleet.path(&format!("tokens/{}", segment(token)))?)
                .await?;
            Ok(done(&format!("token {token} is gone")))
        }
    }
}

pub(crate) async fn audit(fleet: &Fleet, args: &Audit, output: Output) -> anyhow::Result<ExitCode> {
    if args.export {
        let mut response = fleet.stream(&fleet.path("audit/export")?).await?;
        let mut out = std::io::stdout().lock();
        while let Some(chunk) = response.chunk().await? {
            if out.write_all(&chunk).is_err() {
                break;
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let query: Vec<(&str, &str)> = args.query.as_deref().map(|q| ("q", q)).into_iter().collect();
    let mut rows = fleet.list(&fleet.path("audit")?, &query, args.limit).await?;
    rows.reverse();
    print_rows(output, &rows, AUDIT)
}
