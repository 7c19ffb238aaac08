//! Flows, through `ovs-ofctl`.

use std::{path::PathBuf, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout, Command},
    time::timeout,
};

use crate::plan::flows::LEARNED;

/// The first version with bundles of packets and flows.
const VERSION: &str = "OpenFlow14";
const PATIENCE: Duration = Duration::from_secs(20);

/// Why `ovs-ofctl` failed.
#[derive(Debug, thiserror::Error)]
pub enum OfctlError {
    /// It could not be run.
    #[error("cannot run ovs-ofctl")]
    Run(#[source] std::io::Error),
    /// It did not end.
    #[error("ovs-ofctl {0} did not end within {1:?}")]
    Slow(String, Duration),
    /// It said no.
    #[error("ovs-ofctl {command} failed: {message}")]
    Failed {
        /// What it was to do.
        command: String,
        /// What it said.
        message: String,
    },
}

/// Changes of a bridge's flows, ours and others'.
pub struct FlowEvents {
    _child: Child,
    /// What it says once, when it begins to watch.
    start: Option<Lines<BufReader<ChildStdout>>>,
    events: Option<Lines<BufReader<ChildStderr>>>,
}

impl FlowEvents {
    /// Waits for a change that is not something the switch learned; false when the bridge or its daemon is gone.
    /// The beginning of the watch counts as one: what happened before must be looked for.
    pub async fn changed(&mut self) -> bool {
        if let Some(mut start) = self.start.take() {
            return matches!(start.next_line().await, Ok(Some(_)));
        }
        let Some(lines) = &mut self.events else {
            return false;
        };
        while let Ok(Some(line)) = lines.next_line().await {
            if line.contains("event=") && !learned(&line) {
                return true;
            }
        }
        false
    }
}

fn learned(line: &str) -> bool {
    line.split([',', ' '])
        .any(|word| word.strip_prefix("cookie=") == Some(LEARNED))
}

/// Runs `ovs-ofctl` against the vswitchd of one run directory.
#[derive(Clone, Debug)]
pub struct OpenFlow {
    rundir: PathBuf,
}

impl OpenFlow {
    /// For the vswitchd whose sockets are in `rundir`.
    pub fn new(rundir: impl Into<PathBuf>) -> Self {
        Self {
            rundir: rundir.into(),
        }
    }

    /// Makes the flows of a bridge exactly these (a file as `plan::flows::file` makes). Flows that stay are not
    /// touched.
    ///
    /// # Errors
    /// See [`OfctlError`].
    pub async fn replace(&self, bridge: &str, file: &str) -> Result<(), OfctlError> {
        self.run(&["--bundle", "replace-flows", bridge, "-"], file, &[0])
            .await
            .map(drop)
    }

    /// Whether the flows of a bridge are other than these; what it learned by itself does not count.
    ///
    /// # Errors
    /// See [`OfctlError`].
    pub async fn differs(&self, bridge: &str, file: &str) -> Result<bool, OfctlError> {
        // 2 says that there are differences.
        let (_, text) = self
            .run(&["--no-names", "diff-flows", bridge, "/dev/stdin"], file, &[0, 2])
            .await?;
        Ok(text
            .lines()
            .any(|line| line.starts_with(['+', '-']) && !learned(line)))
    }

    /// Starts to tell about changes of a bridge's flows, a line for each.
    ///
    /// # Errors
    /// See [`OfctlError`].
    pub fn monitor(&self, bridge: &str) -> Result<FlowEvents, OfctlError> {
        // It prints its first answer on standard output, and what it sees from then on on standard error.
        // It would not notice that nobody listens any more, so the kernel ends it when we are killed.
        let mut child = Command::new("setpriv")
            .env("OVS_RUNDIR", &self.rundir)
            .args([
                "--pdeathsig",
                "KILL",
                "ovs-ofctl",
                "monitor",
                bridge,
                "watch:!initial",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(OfctlError::Run)?;
        let start = child.stdout.take().map(|out| BufReader::new(out).lines());
        let events = child.stderr.take().map(|out| BufReader::new(out).lines());
        Ok(FlowEvents {
            _child: child,
            start,
            events,
        })
    }

    /// Carries out a bundle: flows and packets, all or nothing.
    ///
    /// # Errors
    /// See [`OfctlError`].
    pub async fn bundle(&self, bridge: &str, lines: &[String]) -> Result<(), OfctlError> {
        self.run(&["bundle", bridge, "-"], &lines.join("\n"), &[0])
            .await
            .map(drop)
    }

    /// The flows of one table as text.
    ///
    /// # Errors
    /// See [`OfctlError`].
    pub async fn dump(&self, bridge: &str, table: u8) -> Result<String, OfctlError> {
        let table = format!("table={table}");
        Ok(self
            .run(&["--no-names", "dump-flows", bridge, &table], "", &[0])
            .await?
            .1)
    }

    async fn run(&self, arguments: &[&str], input: &str, good: &[i32]) -> Result<(i32, String), OfctlError> {
        let mut child = Command::new("ovs-ofctl")
            .env("OVS_RUNDIR", &self.rundir)
            .args(["-O", VERSION])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(OfctlError::Run)?;
        let mut stdin = child.stdin.take();
        let talk = async {
            if let Some(stdin) = &mut stdin {
                // One that fails early closes its input; its words are on standard error.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
            drop(stdin.take());
            child.wait_with_output().await
        };
        let command = arguments.join(" ");
        let output = match timeout(PATIENCE, talk).await {
            Ok(output) => output.map_err(OfctlError::Run)?,
            Err(_) => return Err(OfctlError::Slow(command, PATIENCE)),
        };
        let code = output.status.code().unwrap_or(-1);
        if !good.contains(&code) {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(OfctlError::Failed { command, message });
        }
        Ok((code, String::from_utf8_lossy(&output.stdout).into_owned()))
    }
}
