//! The `kubectl` that people use, against a host of the lab.

use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::lab::Lab;
use crate::layout::host_name;
use crate::tool;

/// A kubectl with one host's kubeconfig.
#[derive(Clone, Debug)]
pub struct Kubectl {
    config: PathBuf,
}

impl Kubectl {
    /// As the administrator of a host.
    #[must_use]
    pub fn admin(lab: &Lab, number: u8) -> Self {
        Self {
            config: lab.layout.kubeconfig(&host_name(number), "admin"),
        }
    }

    /// As one who may write what Git owns.
    #[must_use]
    pub fn break_glass(lab: &Lab, number: u8) -> Self {
        Self {
            config: lab.layout.kubeconfig(&host_name(number), "break-glass"),
        }
    }

    /// The command, for more than [`Kubectl::run`] does.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new("kubectl");
        command
            .arg("--kubeconfig")
            .arg(&self.config)
            .arg("--request-timeout=10s");
        for variable in [
            "http_proxy",
            "https_proxy",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "all_proxy",
            "ALL_PROXY",
            "KUBECONFIG",
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
    /// When there is no kubectl.
    pub fn output<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<Output> {
        tool::output(self.command().args(arguments))
    }

    /// An object or a list as JSON.
    ///
    /// # Errors
    /// When it fails, as when there is no such object.
    pub fn get<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<Value> {
        let text = tool::run(self.command().arg("get").args(["-o", "json"]).args(arguments))?;
        serde_json::from_str(&text).context("kubectl did not print JSON")
    }
}

/// Whether an object's `Ready` condition is true; else what it says.
///
/// # Errors
/// The condition's reason and message, or that there is none.
pub fn ready(object: &Value) -> Result<(), String> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let Some(condition) = object["status"]["conditions"]
        .as_array()
        .and_then(|conditions| conditions.iter().find(|condition| condition["type"] == "Ready"))
    else {
        return Err(format!("{name} has no Ready condition yet"));
    };
    if condition["status"] == "True" {
        return Ok(());
    }
    let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    Err(format!(
        "{name} is not ready: {} {}",
        text("reason"),
        text("message")
    ))
}
