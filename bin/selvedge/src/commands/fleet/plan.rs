//! `selvedge plan`: what a branch or commit would change, before it is merged.

use std::{process::ExitCode, time::Duration};

use anyhow::bail;
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep};

use super::{at, cell, commit, put};
use crate::{
    fleet::{Fleet, segment},
    output::{Output, table},
};

#[derive(clap::Args)]
#[command(
    after_help = "Exit codes: 0 nothing would change, 4 something would, 1 the plan failed or a site could not be planned.\n\nExamples:\n  selvedge plan --repo sites --ref next\n  selvedge plan --repo sites --commit 3f9c… --details\n  selvedge plan --repo sites --ref next -o json | jq .totals"
)]
pub(crate) struct Args {
    /// The repository.
    #[arg(long = "repo")]
    repository: String,
    /// A branch or tag.
    #[arg(long = "ref", required_unless_present = "commit", conflicts_with = "commit")]
    reference: Option<String>,
    /// A commit.
    #[arg(long)]
    commit: Option<String>,
    /// The sites that follow this branch; else the repository's own.
    #[arg(long)]
    branch: Option<String>,
    /// Every object, and which of its fields.
    #[arg(long)]
    details: bool,
    /// Give up waiting after so many seconds.
    #[arg(long, default_value_t = 300)]
    timeout: u64,
}

/// Something would change.
const CHANGES: u8 = 4;
/// How often it is looked whether the plan is made.
const LOOK: Duration = Duration::from_millis(500);

pub(crate) async fn run(fleet: &Fleet, args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    let mut body = Map::new();
    put(&mut body, "repository", Some(&args.repository));
    put(&mut body, "ref", args.reference.as_ref());
    put(&mut body, "commit", args.commit.as_ref());
    put(&mut body, "branch", args.branch.as_ref());
    let mut plan = fleet.post(&fleet.path("plans")?, &body.into()).await?;
    let path = fleet.path(&format!("plans/{}", segment(&at(&plan, "/id"))))?;
    let end = Instant::now() + Duration::from_secs(args.timeout);
    while plan["state"] == "running" {
        if Instant::now() >= end {
            bail!("the plan was not made within {} s", args.timeout);
        }
        sleep(LOOK).await;
        plan = fleet.get(&path).await?;
    }
    if plan["state"] == "failed" {
        bail!("no plan could be made: {}", at(&plan, "/message"));
    }
    output.print(&plan, || describe(&plan, args.details))?;
    Ok(code(&plan))
}

fn code(plan: &Value) -> ExitCode {
    let failed = plan["sites"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|site| site["errors"].as_array().is_some_and(|errors| !errors.is_empty()));
    if failed {
        ExitCode::FAILURE
    } else if plan["totals"]["changed"].as_u64().unwrap_or(0) > 0 {
        ExitCode::from(CHANGES)
    } else {
        ExitCode::SUCCESS
    }
}

fn describe(plan: &Value, details: bool) -> String {
    let mut text = format!("{} -> {}\n", commit(plan, "/from"), commit(plan, "/to"));
    let sites: Vec<&Value> = plan["sites"].as_array().into_iter().flatten().collect();
    let rows = sites.iter().map(|site| {
        let errors = at(site, "/errors");
        vec![
            at(site, "/site"),
            at(site, "/impact"),
            at(site, "/count/create"),
            at(site, "/count/update"),
            at(site, "/count/delete"),
            if errors.is_empty() {
                at(site, "/notes")
            } else {
                errors
            },
        ]
    });
    if sites.is_empty() {
        text.push_str("no site would change\n");
    } else {
        text.push_str(&table(
            &["SITE", "IMPACT", "CREATE", "UPDATE", "DELETE", "NOTES"],
            rows,
        ));
        text.push('\n');
    }
    if details {
        for site in &sites {
            for object in site["objects"].as_array().into_iter().flatten() {
                text.push_str(&format!(
                    "\n{}: {} {} {}/{} ({})",
                    at(site, "/site"),
                    at(object, "/action"),
                    at(object, "/kind"),
                    at(object, "/namespace"),
                    at(object, "/name"),
                    at(object, "/impact"),
                ));
                for field in object["fields"].as_array().into_iter().flatten() {
                    let (before, after) = (cell(&field["before"]), cell(&field["after"]));
                    text.push_str(&format!("\n  {}: {before:?} -> {after:?}", at(field, "/path")));
                }
            }
        }
        text.push('\n');
    }
    let totals = &plan["totals"];
    let count = |pointer: &str| totals.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    text.push_str(&format!(
        "\n{} of {} sites would change: {} without interruption, {} need maintenance, {} need a reboot; {} objects made, {} changed, {} deleted",
        count("/changed"),
        count("/sites"),
        count("/impact/none"),
        count("/impact/maintenance"),
        count("/impact/reboot"),
        count("/objects/create"),
        count("/objects/update"),
        count("/objects/delete"),
    ));
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plan_in_words_and_its_exit_code() {
        let mut plan = json!({
            "from": "a".repeat(40), "to": "b".repeat(40), "state": "done",
            "totals": {"sites": 3, "changed": 1, "impact": {"none": 0, "maintenance": 1, "reboot": 0},
                "objects": {"create": 1, "update": 2, "delete": 0}},
            "sites": [{"site": "shop-1", "impact": "maintenance", "count": {"create": 1, "update": 2, "delete": 0}, "errors": [],
                "notes": [], "objects": [{"action": "update", "kind": "VirtualMachine", "namespace": "shop", "name": "till",
                    "impact": "maintenance", "fields": [{"path": "spec.className", "before": "small", "after": "large"}]}]}],
        });
        let text = describe(&plan, true);
        assert!(
            text.contains("shop-1   maintenance   1        2        0"),
            "{text}"
        );
        assert!(text.contains("spec.className: \"small\" -> \"large\""), "{text}");
        assert!(text.ends_with("1 of 3 sites would change: 0 without interruption, 1 need maintenance, 0 need a reboot; 1 objects made, 2 changed, 0 deleted"), "{text}");
        assert_eq!(code(&plan), ExitCode::from(CHANGES));
        plan["sites"][0]["errors"] = json!(["can't be built"]);
        assert_eq!(code(&plan), ExitCode::FAILURE);
        assert_eq!(
            code(&json!({"totals": {"changed": 0}, "sites": []})),
            ExitCode::SUCCESS
        );
    }
}
