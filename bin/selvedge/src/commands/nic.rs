//! `selvedge nic`.

use std::process::ExitCode;

use serde_json::Value;

use crate::{
    api::Api,
    output::{Output, table},
};

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Lists the physical network cards and the names that site repositories use for them.
    #[command(after_help = "Examples:\n  selvedge nic list\n  selvedge nic list -o json")]
    List,
}

pub(crate) async fn run(api: &Api, command: &Command, output: Output) -> anyhow::Result<ExitCode> {
    let Command::List = command;
    let nics = api.get("/selvedge/v1/nics").await?;
    output.print(&nics, || {
        let rows = nics.as_array().into_iter().flatten().map(row);
        table(
            &[
                "NAME", "DEVICE", "PCI", "MAC", "DRIVER", "LINK", "SPEED", "VSWITCH",
            ],
            rows,
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

fn row(nic: &Value) -> Vec<String> {
    let text = |field: &str| nic[field].as_str().unwrap_or("-").to_owned();
    let speed = nic["speed_mbps"]
        .as_u64()
        .map_or("-".into(), |speed| format!("{speed} Mb/s"));
    let link = if nic["link"] == true { "up" } else { "down" };
    vec![
        text("name"),
        text("device"),
        text("pci"),
        text("mac"),
        text("driver"),
        link.into(),
        speed,
        text("switch"),
    ]
}
