//! The `kubectl` that people use, against a host of the lab.

use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::lab::Lab;
use crate::layout::{Layout, host_name};
use crate::{netns, tool};

/// A kubectl with one host's kubeconfig.
#[derive(Clone, Debug)]
pub struct Kubectl {
    config: PathBuf,
    inside: Option<(Layout, String)>,
}

impl Kubectl {
    /// As the administrator of a host, from the developer's shell.
    #[must_use]
    pub fn admin(lab: &Lab, number: u8) -> Self {
        Self {
            config: lab.layout.kubeconfig(&host_name(number), "admin"),
            inside: None,
        }
    }

    /// As one who may write what Git owns.
    #[must_use]
    pub fn break_glass(lab: &Lab, number: u8) -> Self {
        Self {
            config: lab.layout.kubeconfig(&host_name(number), "break-glass"),
            inside: None,
        }
    }

    /// As the administrator, at the host itself: this works with every cable pulled.
    #[must_use]
    pub fn on_host(lab: &Lab, number: u8) -> Self {
        let host = host_name(number);
        Self {
            inside: Some((lab.layout.clone(), host)),
            ..Self::admin(lab, number)
        }
    }

    /// The command, for more than [`Kubectl::run`] does.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = match &self.inside {
            None => Command::new("kubectl"),
            Some((layout, node)) => netns::inside(layout, node, "kubectl"),
        };
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

/// Whether an object's `Ready` condition is true and about what is wanted now; else what it says.
///
/// # Errors
/// The condition's reason and message, or that there is none.
pub fn ready(object: &Value) -> Result<(), String> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let condition = condition(object, "Ready").ok_or_else(|| format!("{name} has no Ready condition yet"))?;
    let seen = condition
        .get("observedGeneration")
        .or_else(|| object["status"].get("observedGeneration"));
    if let (Some(seen), Some(wanted)) = (
        seen.and_then(Value::as_i64),
        object["metadata"]["generation"].as_i64(),
    ) && seen < wanted
    {
        return Err(format!(
            "{name}: generation {seen} is reported, {wanted} is wanted"
        ));
    }
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

/// A condition of an object.
#[must_use]
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == kind)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ready_is_about_the_generation_that_is_wanted() {
        let object = |generation: i64, status: &str| {
            json!({"metadata": {"name": "web", "generation": generation},
                   "status": {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": status, "reason": "Why"}]}})
        };
        assert_eq!(ready(&object(1, "True")), Ok(()));
        assert_eq!(
            ready(&object(1, "False")),
            Err("web is not ready: Why ".to_owned())
        );
        assert_eq!(
            ready(&object(2, "True")),
            Err("web: generation 1 is reported, 2 is wanted".to_owned())
        );
        assert!(ready(&json!({"metadata": {"name": "web"}})).is_err());
    }
}
