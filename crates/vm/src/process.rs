//! QEMU as a process: starting it so that it outlives us, finding it again, ending it for sure.
//!
//! The listening QMP socket is made by us and handed to QEMU as its standard input. From the moment of the
//! spawn it can be connected to for exactly as long as that process lives, whether or not it answers yet: so
//! "can it be connected to" is the question "is there a QEMU", and no moment exists in which a crash of ours
//! would lose one. What QEMU was started with is written down before it is spawned.

use std::{
    fs,
    io::{self, Read, Seek},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use qmp::{Client, Limits, client::Events};
use tokio::{io::unix::AsyncFd, net::UnixStream, process::Command, time::timeout};

use crate::{
    cgroup::Cgroups,
    desired::Limits as ResourceLimits,
    qemu::{self, Installation},
    record::{self, Launch, Paths},
    sys,
};

/// How long QEMU may take to greet; a start under load takes a second.
const GREETING: Duration = Duration::from_secs(20);
/// How long QEMU may take to end after `quit`, before it is killed.
const ENDING: Duration = Duration::from_secs(10);
/// Bytes of QEMU's own log that go into a message.
const LOG_TAIL: u64 = 600;
/// The console's log is cut to its last part when it grows beyond this.
const CONSOLE_LOG: u64 = 1024 * 1024;

/// Why QEMU could not be started or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{what} {path}")]
    File {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("can't run {program}")]
    Spawn { program: PathBuf, source: io::Error },
    #[error("QEMU did not start: {log}")]
    Start { log: String, source: qmp::Error },
    #[error("QEMU refused")]
    Qmp(#[from] qmp::Error),
    #[error("process {pid} can't be ended")]
    Kill { pid: i32, source: io::Error },
    #[error(
        "QEMU does not answer and its process is not known; look for the one with {run} in its arguments"
    )]
    Unknown { run: PathBuf },
}

fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::File { what, path, source }
}

/// A QEMU that answers.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) client: Client,
    process: Option<AsyncFd<OwnedFd>>,
}

/// What was found behind the QMP socket.
pub(crate) enum Found {
    Nothing,
    Silent,
    Running(Running, Events),
}

/// Looks for a QEMU that was started earlier, by this process or one before it.
pub(crate) async fn find(paths: &Paths) -> Found {
    let Ok(stream) = UnixStream::connect(paths.qmp()).await else {
        return Found::Nothing;
    };
    let limits = Limits {
        reply: GREETING,
        ..Limits::default()
    };
    match Client::over(stream, limits).await {
        Ok((client, events)) => Found::Running(
            Running {
                client,
                process: process(paths),
            },
            events,
        ),
        Err(qmp::Error::Closed) => Found::Nothing,
        Err(error) => {
            // A QEMU that is just ending closes the connection with an error.
            if UnixStream::connect(paths.qmp()).await.is_err() {
                return Found::Nothing;
            }
            tracing::warn!(run = %paths.run.display(), error = %telemetry::chain(&error), "QEMU does not answer");
            Found::Silent
        }
    }
}

/// The process of the QEMU of these paths, if it lives.
fn process(paths: &Paths) -> Option<AsyncFd<OwnedFd>> {
    let pid = pid(paths)?;
    let process = sys::process_open(pid).ok()?;
    // The number may have been given to another process before it was opened, not after.
    if !is_ours(pid, paths) {
        return None;
    }
    sys::waitable(process).ok()
}

/// The process number: QEMU writes it early; before that, and if the file is damaged, all processes are looked at.
fn pid(paths: &Paths) -> Option<i32> {
    let written = fs::read_to_string(paths.pid())
        .ok()
        .and_then(|text| text.trim().parse().ok());
    if let Some(pid) = written.filter(|pid| is_ours(*pid, paths)) {
        return Some(pid);
    }
    let all = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(|pid| is_ours(*pid, paths))
}

fn is_ours(pid: i32, paths: &Paths) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else {
        return false;
    };
    let file = paths.pid();
    let mut arguments = line.split(|b| *b == 0);
    arguments.any(|argument| argument == b"-pidfile")
        && arguments.next() == Some(file.as_os_str().as_encoded_bytes())
}

/// Starts QEMU. When this returns, QEMU answers and the guest does not run yet.
pub(crate) async fn start(
    launch: &Launch,
    paths: &Paths,
    installation: &Installation,
    cgroups: &Cgroups,
    limits: &ResourceLimits,
) -> Result<(Running, Events), Error> {
    clear(paths)?;
    make_private(&paths.run)?;
    let socket = paths.qmp();
    let listener =
        std::os::unix::net::UnixListener::bind(&socket).map_err(file("can't listen on", &socket))?;
    record::write_json(&paths.launch(), launch).map_err(file("can't write", paths.launch()))?;
    let log = paths.qemu_log();
    let output = fs::File::create(&log).map_err(file("can't write", &log))?;
    let again = output.try_clone().map_err(file("can't write", &log))?;
    let mut command = Command::new(&installation.program);
    command
        .args(qemu::arguments(launch, paths, installation))
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(output)
        .stderr(again)
        .kill_on_drop(false);
    sys::own_session(&mut command);
    let mut child = command.spawn().map_err(|source| Error::Spawn {
        program: installation.program.clone(),
        source,
    })?;
    // The command holds the listener; without it only QEMU does.
    drop(command);
    let process = child.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = process {
        cgroups.set(&paths.id, limits, launch.hardware.memory_mib);
        cgroups.add(&paths.id, pid);
    }
    let process = process
        .and_then(|pid| sys::process_open(pid).ok())
        .and_then(|fd| sys::waitable(fd).ok());
    // Whoever started a process must take its end; our own end hands it to init.
    let reaper = tokio::spawn(async move { child.wait().await });
    let connect = Client::connect(
        &socket,
        Limits {
            reply: GREETING,
            ..Limits::default()
        },
    );
    match connect.await {
        Ok((client, events)) => Ok((Running { client, process }, events)),
        Err(source) => {
            if let Some(process) = &process
                && let Err(error) = sys::process_kill(process.get_ref())
            {
                tracing::warn!(%error, "can't end a QEMU that did not come up");
            }
            let _ = timeout(ENDING, reaper).await;
            Err(Error::Start {
                log: tail(&log),
                source,
            })
        }
    }
}

/// The last lines that QEMU wrote, as one line.
fn tail(log: &Path) -> String {
    let read = || {
        let mut file = fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(io::SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL).read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(bytes)
    };
    let text = read()
        .map(|bytes| String::from_utf8_lossy(&bytes).trim().replace('\n', " | "))
        .unwrap_or_default();
    if text.is_empty() {
        "it said nothing".into()
    } else {
        text
    }
}

/// Takes away the sockets and notes of a QEMU that has ended.
pub(crate) fn clear(paths: &Paths) -> Result<(), Error> {
    match fs::remove_dir_all(&paths.run) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file("can't remove", &paths.run)(error)),
        _ => Ok(()),
    }
}

/// Makes a directory that only root can enter: its sockets give power over a guest.
pub(crate) fn make_private(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(file("can't make", path))
}

impl Running {
    /// Ends QEMU at once and waits until it is gone.
    pub(crate) async fn quit(&self, paths: &Paths) -> Result<(), Error> {
        let ended = async {
            // A connection that is closed already means the same.
            if let Err(error) = self.client.quit().await {
                tracing::debug!(error = %telemetry::chain(&error), "quit");
            }
            self.client.closed().await;
            self.ended().await;
        };
        if timeout(ENDING, ended).await.is_err() {
            return kill(paths).await;
        }
        Ok(())
    }

    /// Resolves when the process is gone, which is a little after its connection has closed.
    pub(crate) async fn ended(&self) {
        if let Some(process) = &self.process {
            let _ = timeout(ENDING, process.readable()).await;
        }
    }
}

/// Ends a QEMU that does not answer and waits until it is gone.
pub(crate) async fn kill(paths: &Paths) -> Result<(), Error> {
    let Some(process) = process(paths) else {
        // Either it is gone, or it is there and can't be told.
        return match UnixStream::connect(paths.qmp()).await {
            Err(_) => Ok(()),
            Ok(_) => Err(Error::Unknown {
                run: paths.run.clone(),
            }),
        };
    };
    let pid = pid(paths).unwrap_or_default();
    let failed = |source| Error::Kill { pid, source };
    sys::process_kill(process.get_ref()).map_err(failed)?;
    match timeout(ENDING, process.readable()).await {
        Ok(ready) => ready.map(drop).map_err(failed),
        Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
    }
}

/// Keeps the console's log from filling the disk: its last part goes to `console.log.1`, the rest away. QEMU
/// appends, so it goes on at the new end.
pub(crate) fn trim_console_log(paths: &Paths) -> io::Result<()> {
    let path = paths.console_log();
    match fs::metadata(&path) {
        Ok(metadata) if metadata.len() > CONSOLE_LOG => {
            let mut file = fs::File::options().read(true).write(true).open(&path)?;
            file.seek(io::SeekFrom::End(-i64::try_from(CONSOLE_LOG).unwrap_or(0)))?;
            let mut last = Vec::new();
            (&mut file).take(CONSOLE_LOG).read_to_end(&mut last)?;
            fs::write(path.with_extension("log.1"), last)?;
            file.set_len(0)
        }
        _ => Ok(()),
    }
}
