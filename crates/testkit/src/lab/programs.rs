//! Our own programs, which a lab runs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Where our own programs are.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Programs {
    host: Option<PathBuf>,
    #[serde(default)]
    orchestrator: Option<PathBuf>,
    #[serde(default)]
    cli: Option<PathBuf>,
    lab: Option<PathBuf>,
}

impl Programs {
    /// `SELVEDGE_HOST_BIN`, `SELVEDGE_ORCHESTRATOR_BIN`, `SELVEDGE_BIN` and `SELVEDGE_LAB_BIN`, else what lies beside
    /// the program that runs now.
    #[must_use]
    pub fn find() -> Self {
        let named = |variable: &str, name: &str| {
            std::env::var_os(variable).map(PathBuf::from).or_else(|| {
                let me = std::env::current_exe().ok()?;
                // A test is one directory deeper than the programs.
                me.ancestors()
                    .skip(1)
                    .take(2)
                    .map(|directory| directory.join(name))
                    .find(|path| path.is_file())
            })
        };
        Self {
            host: named("SELVEDGE_HOST_BIN", "selvedge-host"),
            orchestrator: named("SELVEDGE_ORCHESTRATOR_BIN", "selvedge-orchestrator"),
            cli: named("SELVEDGE_BIN", "selvedge"),
            lab: named("SELVEDGE_LAB_BIN", "selvedge-lab"),
        }
    }

    /// The daemon.
    pub(crate) fn host(&self) -> Result<&str> {
        path(self.host.as_deref(), "selvedge-host", "SELVEDGE_HOST_BIN")
    }

    /// The orchestrator.
    ///
    /// # Errors
    /// When it was not built.
    pub fn orchestrator(&self) -> Result<&str> {
        path(
            self.orchestrator.as_deref(),
            "selvedge-orchestrator",
            "SELVEDGE_ORCHESTRATOR_BIN",
        )
    }

    /// The command line.
    ///
    /// # Errors
    /// When it was not built.
    pub fn cli(&self) -> Result<&str> {
        path(self.cli.as_deref(), "selvedge", "SELVEDGE_BIN")
    }

    /// The lab's own program, which is its servers.
    pub(crate) fn lab(&self) -> Result<&str> {
        path(self.lab.as_deref(), "selvedge-lab", "SELVEDGE_LAB_BIN")
    }
}

fn path<'a>(found: Option<&'a Path>, name: &str, variable: &str) -> Result<&'a str> {
    let found =
        found.with_context(|| format!("no {name} beside this program: build it, or set {variable}"))?;
    found.to_str().context("a program's path is not UTF-8")
}
