//! The `selvedge` that people use, logged in at a lab's orchestrator.

use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::tool;

/// A command line with a login of its own.
#[derive(Clone, Debug)]
pub struct Cli {
    program: String,
    config: PathBuf,
}

impl Cli {
    /// `program` with its login kept in the file `config`.
    #[must_use]
    pub fn new(program: &str, config: PathBuf) -> Self {
        Self {
            program: program.to_owned(),
            config,
        }
    }

    /// The file with the login.
    #[must_use]
    pub fn config(&self) -> &PathBuf {
        &self.config
    }

    /// The command, for more than [`Cli::run`] does.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("SELVEDGE_CLIENT_CONFIG", &self.config);
        for variable in [
            "http_proxy",
            "https_proxy",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "all_proxy",
            "ALL_PROXY",
        ] {
            command.env_remove(variable);
        }
        command
    }

    /// Runs it and returns what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<String> {
        tool::run(self.command().args(arguments))
    }

    /// Runs it to whatever end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn output<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<Output> {
        tool::output(self.command().args(arguments))
    }

    /// What it prints as JSON.
    ///
    /// # Errors
    /// When it fails.
    pub fn json<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<Value> {
        let text = tool::run(self.command().args(arguments).args(["-o", "json"]))?;
        serde_json::from_str(&text).with_context(|| format!("selvedge did not print JSON: {text}"))
    }
}
