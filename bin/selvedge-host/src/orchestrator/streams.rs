//! What the orchestrator may open on this host: its API, consoles and screens of virtual machines, logs. Every one is
//! a stream inside the host's own connection; nothing listens for it.

use std::{path::PathBuf, process::Stdio};

use apiserver::{Api, Caller, http::Tunnel};
use link::message::Open;
use telemetry::LogRing;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy},
    net::UnixStream,
    process::Command,
};

/// The unit that is this daemon.
const OWN: &str = "selvedge-host";

/// So many past lines at most.
const LINES: u32 = 10_000;

/// Serves streams.
pub(super) struct Services {
    pub(super) tunnel: Tunnel,
    pub(super) api: Api,
    pub(super) state: PathBuf,
    pub(super) run: PathBuf,
    pub(super) log: LogRing,
}

impl Services {
    /// Serves one stream until either side ends it. One that can't be served is given to `reset`, with a sentence for
    /// the person at the other end.
    pub(super) async fn serve<S>(&self, open: Open, mut stream: S, reset: impl FnOnce(S, &str))
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if let Open::Api { user, groups, from } = open {
            tracing::debug!(user, from, "the API is asked through the orchestrator");
            self.tunnel.serve(stream, &user, &groups, &from).await;
        } else if let Err(why) = self.serve_bytes(open, &mut stream).await {
            reset(stream, &why);
        }
    }

    async fn serve_bytes<S>(&self, open: Open, stream: S) -> Result<(), String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match open {
            Open::Serial {
                namespace,
                name,
                user,
            } => {
                let path = vm::console_socket(&self.run, &namespace, &name);
                self.machine("serial", path, &namespace, &name, &user, stream)
                    .await
            }
            Open::Vnc {
                namespace,
                name,
                user,
            } => {
                let path = vm::vnc_socket(&self.run, &namespace, &name);
                self.machine("vnc", path, &namespace, &name, &user, stream).await
            }
            Open::Logs {
                unit,
                follow,
                lines,
                user,
            } => {
                self.opened("logs", "", &unit, &user).await;
                self.logs(&unit, follow, lines.min(LINES), stream).await
            }
            Open::Api { .. } | Open::Unknown => {
                Err("this host does not know that service; it may be older than its orchestrator".into())
            }
        }
    }

    /// Writes down who opened what.
    async fn opened(&self, what: &str, namespace: &str, name: &str, user: &str) {
        let caller = Caller {
            user: user.into(),
            groups: Vec::new(),
            from: "orchestrator".into(),
        };
        self.api.record_access(&caller, what, namespace, name).await;
    }

    async fn machine<S>(
        &self,
        what: &str,
        path: Option<PathBuf>,
        namespace: &str,
        name: &str,
        user: &str,
        stream: S,
    ) -> Result<(), String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let path = path.ok_or_else(|| format!("{namespace}/{name} is no virtual machine"))?;
        let socket = UnixStream::connect(&path)
            .await
            .map_err(|_| format!("{namespace}/{name} is not powered on at this host"))?;
        self.opened(what, namespace, name, user).await;
        let (mut from_machine, mut to_machine) = socket.into_split();
        let (mut from_person, mut to_person) = tokio::io::split(stream);
        // A console has no half ends: when either side goes, both go.
        tokio::select! {
            _ = copy(&mut from_machine, &mut to_person) => {}
            _ = copy(&mut from_person, &mut to_machine) => {}
        }
        let _ = to_person.shutdown().await;
        Ok(())
    }

    async fn logs<S>(&self, unit: &str, follow: bool, lines: u32, stream: S) -> Result<(), String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut from_person, mut to_person) = tokio::io::split(stream);
        // Nobody says anything here: the end of what comes is that the person has gone.
        let mut nothing = [0; 16];
        let gone = async {
            if follow {
                while from_person.read(&mut nothing).await.is_ok_and(|count| count > 0) {}
                return;
            }
            std::future::pending::<()>().await;
        };
        let written = async {
            if unit.is_empty() || unit == OWN {
                self.own(follow, lines, &mut to_person).await
            } else {
                let command = self.command(unit, follow, lines)?;
                print(command, &mut to_person).await
            }
        };
        let done = tokio::select! {
            done = written => done,
            () = gone => Ok(()),
        };
        let _ = to_person.shutdown().await;
        done
    }

    /// This daemon's own log.
    async fn own(&self, follow: bool, lines: u32, to: &mut (impl AsyncWrite + Unpin)) -> Result<(), String> {
        let mut tail = self.log.tail(usize::try_from(lines).unwrap_or(usize::MAX));
        loop {
            let mut text = String::new();
            for line in tail.read() {
                text.push_str(&line);
                text.push('\n');
            }
            // A person who has gone is no error.
            if to.write_all(text.as_bytes()).await.is_err() || to.flush().await.is_err() || !follow {
                return Ok(());
            }
            tail.changed().await;
        }
    }

    /// The program that prints the log of a unit of systemd, of the kernel, or of a virtual machine's console
    /// (`vm/NAMESPACE/NAME`).
    fn command(&self, unit: &str, follow: bool, lines: u32) -> Result<Command, String> {
        let lines = lines.to_string();
        if let Some(machine) = unit.strip_prefix("vm/") {
            let named = machine.split_once('/');
            let logs = named.and_then(|(namespace, name)| vm::console_logs(&self.state, namespace, name));
            let [_, log] = logs.ok_or_else(|| format!("{machine:?} is not NAMESPACE/NAME"))?;
            if !log.exists() {
                return Err(format!("{machine} has never run on this host"));
            }
            let mut command = Command::new("tail");
            command.args(["-n", &lines]);
            if follow {
                command.arg("-F");
            }
            command.arg("--").arg(log);
            return Ok(command);
        }
        let mut command = Command::new("journalctl");
        command.args(["--no-pager", "--quiet", "-o", "short-iso", "-n", &lines]);
        if unit == "kernel" {
            command.arg("-k");
        } else if is_unit(unit) {
            command.args(["-u", unit]);
        } else {
            return Err(format!("{unit:?} is no unit"));
        }
        if follow {
            command.arg("-f");
        }
        Ok(command)
    }
}

/// A name that can be no option and no pattern.
fn is_unit(unit: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b"@._:-".contains(&b);
    unit.len() <= 200 && !unit.starts_with('-') && unit.bytes().all(word)
}

/// Prints what a program prints, until it ends.
async fn print(mut command: Command, to: &mut (impl AsyncWrite + Unpin)) -> Result<(), String> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("this host has no log of that: can't run {program}: {error}"))?;
    if let Some(mut output) = child.stdout.take() {
        let _ = copy(&mut output, to).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
