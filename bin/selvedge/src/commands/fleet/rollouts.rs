//! `selvedge rollout` and `selvedge policy`.

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::{Column, Filter, at, cell, commit, done, print_one, print_rows};
use crate::{
    fleet::{Fleet, segment},
    output::{Output, table},
};

#[derive(clap::Subcommand)]
#[command(
    after_help = "Exit codes of watch: 0 the rollout succeeded, 1 it was halted, reverted or superseded.\n\nExamples:\n  selvedge rollout list --state active\n  selvedge rollout watch 12\n  selvedge rollout approve 12\n  selvedge rollout halt 12 --reason \"tills print twice\"\n  selvedge rollout revert 12"
)]
pub(crate) enum Command {
    /// Lists rollouts, newest first.
    List(Filter),
    /// Shows one with its waves.
    Get {
        /// Its number.
        rollout: String,
    },
    /// Lists its sites and how far each is.
    Sites {
        /// Its number.
        rollout: String,
        #[command(flatten)]
        filter: Filter,
    },
    /// Shows how it goes, live, until it has ended or needs a person.
    Watch {
        /// Its number; else the newest that has not ended.
        rollout: Option<String>,
    },
    /// Lets a wave begin that waits for a person.
    Approve {
        /// Its number.
        rollout: String,
    },
    /// Stops it where it is: no more sites are told.
    Halt {
        /// Its number.
        rollout: String,
        /// Why, for others.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Goes on with one that was halted.
    Resume {
        /// Its number.
        rollout: String,
    },
    /// Takes every site that was told back to the commit before.
    Revert {
        /// Its number.
        rollout: String,
    },
}

#[derive(clap::Subcommand)]
#[command(
    after_help = "Examples:\n  selvedge policy list\n  selvedge policy create careful careful.yaml\n\ncareful.yaml:\n  waves:\n    - {name: canary, selector: \"tier=lab\", batch: all, pace: 1m, approval: false}\n    - {name: rest, selector: \"\", batch: 10%, pace: 10m, approval: true}\n  gate: {healthyFor: 10m}\n  failureBudget: 2%"
)]
pub(crate) enum Policy {
    /// Lists rollout policies.
    List(Filter),
    /// Shows one.
    Get {
        /// Its name.
        name: String,
    },
    /// Makes one from a file of YAML or JSON.
    Create {
        /// Its name.
        name: String,
        /// The file.
        file: PathBuf,
    },
    /// Changes one; the file says what is new.
    Edit {
        /// Its name.
        name: String,
        /// The file.
        file: PathBuf,
    },
    /// Removes one. No site may name it.
    Delete {
        /// Its name.
        name: String,
    },
}

const COLUMNS: &[Column] = &[
    ("NUMBER", |r| at(r, "/number")),
    ("STATE", |r| at(r, "/state")),
    ("REPOSITORY", |r| at(r, "/repository")),
    ("COMMIT", |r| commit(r, "/commit")),
    ("SUBJECT", |r| at(r, "/subject")),
    ("SITES", |r| {
        let (done, all) = (sum(r, "succeeded"), sum(r, "total"));
        format!("{done}/{all}")
    }),
    ("FAILED", |r| sum(r, "failed").to_string()),
    ("WHY", |r| at(r, "/reason")),
];

const SITES: &[Column] = &[
    ("SITE", |s| at(s, "/site")),
    ("WAVE", |s| at(s, "/wave")),
    ("STATE", |s| at(s, "/state")),
    ("SINCE", |s| at(s, "/at")),
    ("WHY", |s| at(s, "/reason")),
];

fn sum(rollout: &Value, field: &str) -> u64 {
    let waves = rollout["waves"].as_array().into_iter().flatten();
    waves.filter_map(|wave| wave[field].as_u64()).sum()
}

fn waves(rollout: &Value) -> String {
    let rows = rollout["waves"].as_array().into_iter().flatten().map(|wave| {
        let fields = ["name", "state", "total", "told", "succeeded", "failed", "pending"];
        fields.iter().map(|field| cell(&wave[*field])).collect()
    });
    let head = format!(
        "rollout {} of {} ({}): {}{}",
        at(rollout, "/number"),
        commit(rollout, "/commit"),
        at(rollout, "/subject"),
        at(rollout, "/state"),
        match at(rollout, "/reason") {
            reason if reason.is_empty() => reason,
            reason => format!(": {reason}"),
        },
    );
    let table = table(
        &["WAVE", "STATE", "SITES", "TOLD", "SUCCEEDED", "FAILED", "OFFLINE"],
        rows,
    );
    format!("{head}\n{table}")
}

pub(crate) async fn run(fleet: &Fleet, command: &Command, output: Output) -> anyhow::Result<ExitCode> {
    let one = |name: &str| fleet.path(&format!("rollouts/{}", segment(name)));
    let act = async |name: &str, what: &str, body: Value| {
        let path = format!("{}/{what}", one(name)?);
        let rollout = fleet.post(&path, &body).await?;
        output.print(&rollout, || waves(&rollout))?;
        anyhow::Ok(ExitCode::SUCCESS)
    };
    match command {
        Command::List(filter) => {
            let rows = fleet
                .list(&fleet.path("rollouts")?, &filter.pairs(), filter.limit)
                .await?;
            print_rows(output, &rows, COLUMNS)
        }
        Command::Get { rollout } => {
            let rollout = fleet.get(&one(rollout)?).await?;
            output.print(&rollout, || waves(&rollout))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Sites { rollout, filter } => {
            let path = format!("{}/sites", one(rollout)?);
            let rows = fleet.list(&path, &filter.pairs(), filter.limit).await?;
            print_rows(output, &rows, SITES)
        }
        Command::Watch { rollout } => watch(fleet, rollout.as_deref(), output).await,
        Command::Approve { rollout } => act(rollout, "approve", json!({})).await,
        Command::Halt { rollout, reason } => {
            let body = if reason.is_empty() {
                json!({})
            } else {
                json!({"reason": reason})
            };
            act(rollout, "halt", body).await
        }
        Command::Resume { rollout } => act(rollout, "resume", json!({})).await,
        Command::Revert { rollout } => act(rollout, "revert", json!({})).await,
    }
}

/// How a rollout that is in a state has ended, if it has.
fn end(state: &str) -> Option<ExitCode> {
    match state {
        "succeeded" => Some(ExitCode::SUCCESS),
        "halted" | "reverted" | "superseded" => Some(ExitCode::FAILURE),
        _ => None,
    }
}

/// Follows the changes that the orchestrator sends; prints the rollout when it is another than before.
async fn watch(fleet: &Fleet, rollout: Option<&str>, output: Output) -> anyhow::Result<ExitCode> {
    let name = match rollout {
        Some(rollout) => rollout.to_owned(),
        None => {
            let active = fleet
                .list(&fleet.path("rollouts")?, &[("state", "active")], 1)
                .await?;
            match active.first() {
                Some(rollout) => at(rollout, "/number"),
                None => bail!("no rollout is under way"),
            }
        }
    };
    let path = fleet.path(&format!("rollouts/{}", segment(&name)))?;
    let mut shown = String::new();
    let mut show = |rollout: &Value| -> anyhow::Result<Option<ExitCode>> {
        let text = waves(rollout);
        if text != shown {
            output.print(rollout, || text.clone())?;
            let _ = std::io::stdout().flush();
            shown = text;
        }
        Ok(end(rollout["state"].as_str().unwrap_or_default()))
    };
    // The stream first, so that nothing is missed between.
    let mut stream = fleet.stream(&fleet.path("stream")?).await?;
    if let Some(code) = show(&fleet.get(&path).await?)? {
        return Ok(code);
    }
    let mut lines = Lines::default();
    loop {
        let Some(chunk) = stream.chunk().await.context("the stream of changes broke off")? else {
            // The orchestrator was started again, or another took over.
            stream = fleet.stream(&fleet.path("stream")?).await?;
            if let Some(code) = show(&fleet.get(&path).await?)? {
                return Ok(code);
            }
            continue;
        };
        let mut about = false;
        for line in lines.push(&chunk) {
            about |= line.starts_with("event: reset");
            if let Some(data) = line.strip_prefix("data:")
                && let Ok(change) = serde_json::from_str::<Value>(data.trim())
            {
                about |= change["kind"] == "rollout";
            }
        }
        if about && let Some(code) = show(&fleet.get(&path).await?)? {
            return Ok(code);
        }
    }
}

/// Lines of what comes in pieces.
#[derive(Default)]
struct Lines(Vec<u8>);

/// The longest line of a stream that is kept.
const LONGEST: usize = 4 << 20;

impl Lines {
    fn push(&mut self, chunk: &[u8]) -> Vec<String> {
        self.0.extend_from_slice(chunk);
        let mut lines = Vec::new();
        while let Some(end) = self.0.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.0.drain(..=end).collect();
            lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
        if self.0.len() > LONGEST {
            self.0.clear();
        }
        lines
    }
}

const POLICIES: &[Column] = &[
    ("NAME", |p| at(p, "/name")),
    ("WAVES", |p| {
        let waves = p["waves"].as_array().into_iter().flatten();
        let names: Vec<String> = waves.map(|w| cell(&w["name"])).collect();
        names.join(", ")
    }),
    ("GATE", |p| at(p, "/gate/healthyFor")),
    ("FAILURE BUDGET", |p| at(p, "/failureBudget")),
    ("WINDOW", |p| at(p, "/window")),
];

pub(crate) async fn policy(fleet: &Fleet, command: &Policy, output: Output) -> anyhow::Result<ExitCode> {
    let one = |name: &str| fleet.path(&format!("policies/{}", segment(name)));
    let read = |file: &PathBuf| -> anyhow::Result<Value> {
        let text = std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
        serde_saphyr::from_str(&text).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))
    };
    match command {
        Policy::List(filter) => {
            let rows = fleet
                .list(&fleet.path("policies")?, &filter.pairs(), filter.limit)
                .await?;
            print_rows(output, &rows, POLICIES)
        }
        Policy::Get { name } => print_one(output, &fleet.get(&one(name)?).await?),
        Policy::Create { name, file } => {
            let mut body = read(file)?;
            if !body.is_object() {
                bail!("{} holds no policy", file.display());
            }
            body["name"] = name.as_str().into();
            print_one(output, &fleet.post(&fleet.path("policies")?, &body).await?)
        }
        Policy::Edit { name, file } => print_one(output, &fleet.patch(&one(name)?, &read(file)?).await?),
        Policy::Delete { name } => {
            fleet.delete(&one(name)?).await?;
            Ok(done(&format!("policy {name} is gone")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_in_pieces() {
        let mut lines = Lines::default();
        assert!(lines.push(b"event: ch").is_empty());
        assert_eq!(
            lines.push(b"ange\r\ndata: {}\n\nid"),
            ["event: change", "data: {}", ""]
        );
        assert_eq!(lines.push(b": 1\n"), ["id: 1"]);
    }

    #[test]
    fn a_rollout_in_words() {
        let rollout = json!({"number": 3, "commit": "a".repeat(40), "subject": "more tills", "state": "running", "reason": "",
            "waves": [{"name": "canary", "state": "succeeded", "total": 2, "told": 2, "succeeded": 2, "failed": 0, "pending": 0}]});
        let text = waves(&rollout);
        assert!(
            text.starts_with("rollout 3 of aaaaaaaa (more tills): running\nWAVE"),
            "{text}"
        );
        assert_eq!(end("running"), None);
        assert!(end("halted").is_some());
    }
}
