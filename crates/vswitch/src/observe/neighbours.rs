//! What link discovery has found, from `lldpcli`.

use std::{path::Path, process::Stdio};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::process::Command;

/// What is at the other end of an uplink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Our device.
    pub device: String,
    /// `LLDP`, `CDPv2`, …
    pub protocol: String,
    /// The other system's name, or its identifier if it has none.
    pub system: String,
    /// The other system's port.
    pub port: String,
}

/// Why the neighbours are not known.
#[derive(Debug, thiserror::Error)]
pub enum NeighbourError {
    /// `lldpcli` can't be run.
    #[error("cannot run lldpcli")]
    Run(#[from] std::io::Error),
    /// It failed.
    #[error("lldpcli failed: {0}")]
    Failed(String),
    /// It did not answer with JSON.
    #[error("lldpcli gave no JSON")]
    Answer(#[from] serde_json::Error),
}

impl Neighbour {
    /// Asks the lldpd behind a socket.
    ///
    /// # Errors
    /// See [`NeighbourError`].
    pub async fn read(socket: &Path) -> Result<Vec<Self>, NeighbourError> {
        let output = Command::new("lldpcli")
            .arg("-u")
            .arg(socket)
            .args(["-f", "json0", "show", "neighbors"])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        if !output.status.success() {
            return Err(NeighbourError::Failed(
                String::from_utf8_lossy(&output.stderr).trim().into(),
            ));
        }
        Ok(parse(&serde_json::from_slice(&output.stdout)?))
    }
}

/// In `json0` every element is a list of objects, however many there are.
fn parse(answer: &Value) -> Vec<Neighbour> {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let first = |value: &Value, key: &str| value[key][0]["value"].as_str().map(ToOwned::to_owned);
    let interfaces = list(answer, "lldp")
        .iter()
        .flat_map(|l| list(l, "interface"))
        .collect::<Vec<_>>();
    let neighbour = |interface: &Value| {
        let (chassis, port) = (&interface["chassis"][0], &interface["port"][0]);
        Neighbour {
            device: interface["name"].as_str().unwrap_or_default().into(),
            protocol: interface["via"].as_str().unwrap_or_default().into(),
            system: first(chassis, "name")
                .or_else(|| first(chassis, "id"))
                .unwrap_or_default(),
            port: first(port, "descr")
                .or_else(|| first(port, "id"))
                .unwrap_or_default(),
        }
    };
    interfaces.iter().map(neighbour).collect()
}
