//! `selvedge reconcile`.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::api::{Api, is_gone};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  selvedge reconcile\n  selvedge reconcile --no-wait\n  selvedge reconcile --timeout 300"
)]
pub(crate) struct Args {
    /// Return at once.
    #[arg(long)]
    no_wait: bool,
    /// Give up waiting after so many seconds.
    #[arg(long, default_value_t = 120)]
    timeout: u64,
}

const ASKED: &str = "reconcile.fluxcd.io/requestedAt";

/// How often to look whether the host has acted. The API's watch would do too; the few requests cost nothing.
const LOOK: Duration = Duration::from_millis(200);

pub(crate) async fn run(api: &Api, args: &Args) -> anyhow::Result<ExitCode> {
    let token = api.get("/version").await.map(|_| request_token())?;
    let mut waiting = Vec::new();
    let mut failures = 0;
    // Sources first, so that the Kustomizations see what they fetch.
    for kind in [
        "gitrepositories.source.toolkit.fluxcd.io",
        "kustomizations.kustomize.toolkit.fluxcd.io",
    ] {
        let resource = api.resource(kind).await?;
        for object in items(&api.get(&resource.path(None, None)).await?) {
            let (namespace, name) = (text(&object, "namespace"), text(&object, "name"));
            if object["spec"]["suspend"] == true {
                println!("{} {namespace}/{name}: suspended, left alone", kind_of(&object));
                continue;
            }
            let path = resource.path(Some(&namespace), Some(&name));
            api.merge_patch(&path, &json!({"metadata": {"annotations": {ASKED: token}}}))
                .await?;
            waiting.push((path, format!("{} {namespace}/{name}", kind_of(&object))));
        }
        if args.no_wait {
            continue;
        }
        for (path, what) in waiting.drain(..) {
            // One that fails keeps nobody from asking the others.
            let end = wait(api, &path, &token, args.timeout).await;
            // Git may just have taken it away.
            if end.as_ref().is_err_and(is_gone) {
                println!("{what}: it is gone");
                continue;
            }
            match end? {
                Ok(message) => println!("{what}: {message}"),
                Err(why) => {
                    eprintln!("selvedge: {what} {why}");
                    failures += 1;
                }
            }
        }
    }
    Ok(if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Waits until a request was acted on: what the object says then, or why it failed.
async fn wait(api: &Api, path: &str, token: &str, timeout: u64) -> anyhow::Result<Result<String, String>> {
    let end = Instant::now() + Duration::from_secs(timeout);
    loop {
        let object = api.get(path).await?;
        let status = &object["status"];
        let ready = condition(status, "Ready");
        if status["lastHandledReconcileAt"] == token {
            let message = ready
                .map(|c| c["message"].as_str().unwrap_or_default())
                .unwrap_or_default();
            match ready.and_then(|c| c["status"].as_str()) {
                Some("True") => return Ok(Ok(message.into())),
                Some("False") => return Ok(Err(format!("failed: {message}"))),
                _ => {}
            }
        }
        if Instant::now() >= end {
            return Ok(Err(format!(
                "was not done within {timeout} s; see `selvedge status`"
            )));
        }
        sleep(LOOK).await;
    }
}

/// A value that no request had before.
fn request_token() -> String {
    let clock = telemetry::Clock::system();
    clock.now().to_string()
}

fn items(list: &Value) -> Vec<Value> {
    list["items"].as_array().cloned().unwrap_or_default()
}

fn kind_of(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or("object")
}

fn text(object: &Value, field: &str) -> String {
    object["metadata"][field].as_str().unwrap_or_default().into()
}

/// The condition of a type in a status.
pub(crate) fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    status["conditions"]
        .as_array()?
        .iter()
        .find(|c| c["type"] == kind)
}

/// The items of a list that must be there.
pub(crate) async fn list(api: &Api, kind: &str) -> anyhow::Result<Vec<Value>> {
    let resource = api.resource(kind).await?;
    let list = api
        .get(&resource.path(None, None))
        .await
        .with_context(|| format!("can't list {kind}"))?;
    Ok(items(&list).into_iter().collect())
}
