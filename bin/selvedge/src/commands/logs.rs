//! `selvedge logs`.

use std::{
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use serde_json::Value;

use super::{reconcile::list, vm::Machine};
use crate::{
    api::Api,
    output::{Output, table},
};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  selvedge logs\n  selvedge logs -o json\n  selvedge logs vm shop/till --lines 50"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(clap::Subcommand)]
enum What {
    /// What a virtual machine wrote to its serial console; on the host itself.
    #[command(
        after_help = "Examples:\n  selvedge logs vm shop/till\n  selvedge logs vm shop/till --lines 50"
    )]
    Vm {
        /// namespace/name
        machine: Machine,
        /// The last so many lines.
        #[arg(long, default_value_t = 100)]
        lines: usize,
    },
}

/// Of a console log, at most so much is read.
const TAIL: u64 = 1 << 20;

pub(crate) async fn run(
    api: impl Fn() -> anyhow::Result<Api>,
    args: &Args,
    config: &Path,
    output: Output,
) -> anyhow::Result<ExitCode> {
    match &args.what {
        Some(What::Vm { machine, lines }) => console_log(&machine.console_logs(config)?, *lines)?,
        None => events(&api()?, output).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn events(api: &Api, output: Output) -> anyhow::Result<()> {
    let mut events = list(api, "events").await?;
    let last = |event: &Value| {
        let at = [
            &event["lastTimestamp"],
            &event["eventTime"],
            &event["metadata"]["creationTimestamp"],
        ];
        at.iter()
            .find_map(|at| at.as_str())
            .unwrap_or_default()
            .to_owned()
    };
    // Times are whole seconds; within one, revisions tell what came first.
    let revision = |event: &Value| {
        let text = event["metadata"]["resourceVersion"].as_str();
        text.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
    };
    events.sort_by_key(|event| (last(event), revision(event)));
    output.print(&events, || {
        let rows = events.iter().map(|event| {
            let about = &event["involvedObject"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let about = format!(
                "{} {}/{}",
                text(&about["kind"]),
                text(&about["namespace"]),
                text(&about["name"])
            );
            vec![
                last(event),
                text(&event["type"]),
                text(&event["reason"]),
                about,
                text(&event["message"]),
            ]
        });
        table(&["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"], rows)
    })
}

fn console_log(files: &[PathBuf; 2], lines: usize) -> anyhow::Result<()> {
    let [before, now] = files;
    let bytes = tail(now).with_context(|| {
        format!(
            "can't read {}; has the virtual machine ever run on this host?",
            now.display()
        )
    })?;
    // The part before is there only once the log has grown large.
    let bytes = [tail(before).unwrap_or_default(), bytes].concat();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    let mut out = std::io::stdout().lock();
    for line in &all[all.len().saturating_sub(lines)..] {
        // A reader that has gone (`| head`) is no error.
        if writeln!(out, "{line}").is_err() {
            break;
        }
    }
    Ok(())
}

fn tail(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(bytes)
}
