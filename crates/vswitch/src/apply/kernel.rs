//! Links, addresses and routes, through `ip -batch`: one process, milliseconds from the first to the last.

use std::{fmt::Write as _, net::Ipv4Addr, process::Stdio};

use tokio::{io::AsyncWriteExt, process::Command};

use crate::{
    observe::{Kernel, Nic, Route, SILENCE, setting},
    plan::KernelStep,
};

/// Why the kernel was not changed.
#[derive(Debug, thiserror::Error)]
pub enum KernelApplyError {
    /// `ip` could not be run.
    #[error("cannot run ip")]
    Run(#[source] std::io::Error),
    /// `ip` said no.
    #[error("ip failed: {0}")]
    Failed(String),
    /// A setting could not be written.
    #[error("cannot write {file}")]
    Setting {
        /// The file.
        file: String,
        /// Why not.
        source: std::io::Error,
    },
}

/// Carries out steps in their order.
///
/// # Errors
/// The first thing that went wrong; all others have been tried.
pub async fn apply(steps: &[KernelStep]) -> Result<(), KernelApplyError> {
    let mut batch = String::new();
    for step in steps {
        // Writing to a String can't fail.
        let _ = match step {
            KernelStep::LinkUp { device } => writeln!(batch, "link set dev {device} up"),
            KernelStep::RemoveAddress(a) => {
                writeln!(batch, "address del {}/{} dev {}", a.address, a.prefix, a.device)
            }
            KernelStep::AddAddress(a) => {
                writeln!(
                    batch,
                    "address replace {}/{} broadcast + dev {}",
                    a.address, a.prefix, a.device
                )
            }
            KernelStep::SetRoute(route) => writeln!(batch, "route replace {}", RouteWords(route)),
            KernelStep::RemoveRoute(route) => writeln!(batch, "route del {}", RouteWords(route)),
            KernelStep::Silence { .. } | KernelStep::Unsilence { .. } => Ok(()),
        };
    }
    let mut result = if batch.is_empty() {
        Ok(())
    } else {
        run(&batch).await
    };
    for step in steps {
        match step {
            KernelStep::Silence { device } => result = result.and(set(device, true)),
            KernelStep::Unsilence { device } => result = result.and(set(device, false)),
            _ => {}
        }
    }
    result
}

/// Gives the kernel's devices the names that the NICs have in profiles. A name that another device has is left
/// for a later start, when that one has been renamed.
///
/// # Errors
/// The kernel refused; an old one does while a device is up.
pub async fn rename(nics: &[Nic], kernel: &Kernel) -> Result<(), KernelApplyError> {
    let mut batch = String::new();
    for nic in nics
        .iter()
        .filter(|n| n.device != n.name && !kernel.links.contains_key(&n.name))
    {
        tracing::info!(device = nic.device, name = nic.name, "renaming a NIC");
        let _ = writeln!(batch, "link set dev {} name {}", nic.device, nic.name);
    }
    if batch.is_empty() {
        Ok(())
    } else {
        run(&batch).await
    }
}

struct RouteWords<'a>(&'a Route);

impl std::fmt::Display for RouteWords<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Route {
            destination,
            gateway,
            device,
            metric,
        } = self.0;
        write!(f, "{}/{}", destination.0, destination.1)?;
        if let Some(gateway) = gateway {
            write!(f, " via {gateway}")?;
        }
        write!(f, " dev {device}")?;
        if *metric != 0 {
            write!(f, " metric {metric}")?;
        }
        Ok(())
    }
}

async fn run(batch: &str) -> Result<(), KernelApplyError> {
    // -force: a route that went away with its address must not keep the rest from being done.
    let mut child = Command::new("ip")
        .args(["-force", "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(KernelApplyError::Run)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(batch.as_bytes())
            .await
            .map_err(KernelApplyError::Run)?;
    }
    let output = child.wait_with_output().await.map_err(KernelApplyError::Run)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(KernelApplyError::Failed(
        said.lines().collect::<Vec<_>>().join("; "),
    ))
}

fn set(device: &str, silent: bool) -> Result<(), KernelApplyError> {
    for (family, pair) in SILENCE {
        let (name, value) = pair.split_once('=').unwrap_or_default();
        let value = if silent { value } else { "0" };
        let file = setting(device, family, name);
        match std::fs::write(&file, value) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(KernelApplyError::Setting { file, source });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a neighbour answers now: one echo request over a device, or any, waited for one second.
pub async fn reaches(address: Ipv4Addr, device: Option<&str>) -> bool {
    let mut command = Command::new("ping");
    command.args(["-n", "-q", "-c", "1", "-W", "1"]);
    if let Some(device) = device {
        command.args(["-I", device]);
    }
    command
        .arg(address.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
        .kill_on_drop(true)
        .status()
        .await
        .is_ok_and(|status| status.success())
}
