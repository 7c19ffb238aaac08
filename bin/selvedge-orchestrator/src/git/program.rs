//! How `git` is run.

use std::{ffi::OsString, path::Path, process::Stdio, time::Duration};

use tokio::io::{AsyncRead, AsyncReadExt};

use super::GitError;

/// At most so much output of one command is kept.
const OUTPUT: usize = 32 << 20;
const ERRORS: usize = 64 << 10;

/// What Git says when a server does not let us in.
const REFUSED: [&str; 6] = [
    "Authentication failed",
    "could not read Username",
    "could not read Password",
    "returned error: 401",
    "returned error: 403",
    "Permission denied (",
];

/// How `git` is called: with nothing of the machine's configuration.
#[derive(Clone, Debug)]
pub(crate) struct Git {
    config: Vec<(String, String)>,
    env: Vec<(OsString, OsString)>,
    secrets: Vec<String>,
}

impl Git {
    pub(crate) fn new() -> Self {
        let config = [
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
            ("protocol.allow", "never"),
            ("core.hooksPath", "/dev/null"),
            // The orchestrator's user may not be the one whom Git takes for the folder's owner.
            ("safe.directory", "*"),
            ("pack.threads", "1"),
            ("pack.windowMemory", "64m"),
            ("core.packedGitLimit", "128m"),
            ("core.bigFileThreshold", "16m"),
            ("http.lowSpeedLimit", "100"),
            ("http.lowSpeedTime", "60"),
        ];
        Self {
            config: config.map(|(k, v)| (k.into(), v.into())).to_vec(),
            env: Vec::new(),
            secrets: Vec::new(),
        }
    }

    pub(crate) fn config(&mut self, key: &str, value: impl Into<String>) {
        self.config.push((key.into(), value.into()));
    }

    pub(crate) fn env(&mut self, key: &str, value: impl Into<OsString>) {
        self.env.push((key.into(), value.into()));
    }

    pub(crate) fn hide(&mut self, secret: &str) {
        if secret.len() >= 3 {
            self.secrets.push(secret.into());
        }
    }

    /// The program with its environment: nothing is inherited but the search path.
    pub(crate) fn command(&self) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("git");
        command
            .env_clear()
            .env(
                "PATH",
                std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()),
            )
            .env("HOME", "/nonexistent")
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "true")
            .env("SSH_ASKPASS", "true")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_CONFIG_COUNT", self.config.len().to_string())
            .current_dir("/")
            .process_group(0)
            .kill_on_drop(true);
        for (n, (key, value)) in self.config.iter().enumerate() {
            command
                .env(format!("GIT_CONFIG_KEY_{n}"), key)
                .env(format!("GIT_CONFIG_VALUE_{n}"), value);
        }
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        command
    }

    /// Runs a command and gives its output.
    pub(crate) async fn run(
        &self,
        folder: Option<&Path>,
        args: &[&std::ffi::OsStr],
        limit: Duration,
    ) -> Result<Vec<u8>, GitError> {
        let what = args.first().map(|arg| arg.to_string_lossy()).unwrap_or_default();
        let mut command = self.command();
        if let Some(folder) = folder {
            command.arg("--git-dir").arg(folder);
        }
        let mut child = command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| GitError(format!("can't run git: {error}; install it")))?;
        let group = Group::of(&child);
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(GitError("git was started without pipes".into()));
        };
        let work = async { tokio::join!(bounded(stdout, OUTPUT), bounded(stderr, ERRORS), child.wait()) };
        let Ok((out, err, status)) = tokio::time::timeout(limit, work).await else {
            drop(group);
            return Err(GitError(format!(
                "git {what} took longer than {} s and was stopped",
                limit.as_secs()
            )));
        };
        group.over();
        let status = status.map_err(|error| GitError(format!("git could not be waited for: {error}")))?;
        if status.success() {
            return out.ok_or_else(|| GitError(format!("git {what} gave more than {OUTPUT} bytes")));
        }
        Err(self.explain(&String::from_utf8_lossy(&err.unwrap_or_default()), &what))
    }

    /// What git said, without secrets and noise.
    fn explain(&self, stderr: &str, what: &str) -> GitError {
        const NOISE: [&str; 5] = [
            "Please make sure you have the correct access rights",
            "and the repository exists.",
            "fatal: the remote end hung up unexpectedly",
            "hint:",
            "remote: ",
        ];
        let mut lines: Vec<&str> = stderr
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !NOISE.iter().any(|noise| line.starts_with(noise)))
            .collect();
        lines.dedup();
        let mut text: String = if lines.is_empty() {
            format!("git {what} failed")
        } else {
            lines.join("; ").chars().take(600).collect()
        };
        for secret in &self.secrets {
            text = text.replace(secret.as_str(), "***");
        }
        if REFUSED.iter().any(|said| text.contains(said)) {
            return GitError(format!(
                "the server refuses the credentials: they were revoked, have ended or may not read this repository; give the \
                 repository new ones. Sites go on with what they have. Git said: {text}"
            ));
        }
        GitError(text)
    }
}

/// Reads to the end; `None` if there was more than `most`.
async fn bounded(mut from: impl AsyncRead + Unpin, most: usize) -> Option<Vec<u8>> {
    let mut kept = Vec::new();
    let mut over = false;
    let mut chunk = vec![0; 16 << 10];
    // What is too much is read on and thrown away, so that the program is not stopped by a full pipe.
    while let Ok(n @ 1..) = from.read(&mut chunk).await {
        over |= kept.len() + n > most;
        if !over {
            kept.extend_from_slice(&chunk[..n]);
        }
    }
    (!over).then_some(kept)
}

/// The process group of a running git with its helpers; killed when dropped, unless it is over.
pub(crate) struct Group(Option<u32>);

impl Group {
    pub(crate) fn of(child: &tokio::process::Child) -> Self {
        Self(child.id())
    }

    pub(crate) fn over(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0.and_then(|id| i32::try_from(id).ok()) {
            // It may be gone already, which is what we want.
            let _ =
                nix::sys::signal::killpg(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGKILL);
        }
    }
}
