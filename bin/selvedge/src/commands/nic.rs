//! `selvedge nic`.

use std::{path::Path, process::ExitCode};

use crate::output::Output;

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Lists the physical network cards and the names that site repositories use for them.
    #[command(after_help = "Examples:\n  selvedge nic list\n  selvedge nic list -o json")]
    List,
}

pub(crate) fn run(command: &Command, _config: &Path, _output: Output) -> anyhow::Result<ExitCode> {
    let Command::List = command;
    anyhow::bail!("not built yet")
}
