//! The `git` program: run with nothing of the machine's configuration, no credential where another process
//! could read it, and a bound on time and output.

pub(crate) mod credentials;
pub(crate) mod fetch;
pub(crate) mod tree;
pub(crate) mod url;

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// At most so much output of one command is kept: a list of 200,000 references fits.
const OUTPUT: usize = 32 << 20;
const ERRORS: usize = 64 << 10;

/// What went wrong, in the classes that people act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// User, password, token or key refused.
    Authentication,
    /// The server is not who it should be: certificate or host key.
    Identity,
    /// No connection.
    Unreachable,
    /// It took too long.
    Timeout,
    /// The repository is there but has nothing in it.
    Empty,
    /// The branch, tag or commit is not there.
    Reference,
    /// The GitRepository says something that can't be.
    Spec,
    /// What was fetched before can't be read any more.
    Damage,
    /// Anything else.
    Other,
}

/// A failed Git operation, in a sentence that names no secret.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct GitError {
    pub(crate) class: Class,
    pub(crate) message: String,
}

impl GitError {
    pub(crate) fn new(class: Class, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
        }
    }

    /// The condition's reason, as Flux has it.
    pub(crate) fn reason(&self) -> &'static str {
        match self.class {
            Class::Authentication | Class::Identity => "AuthenticationFailed",
            _ => "GitOperationFailed",
        }
    }
}

/// How `git` is called.
#[derive(Clone, Debug)]
pub(crate) struct Git {
    program: PathBuf,
    /// Where its home and configuration are; nobody else can read there.
    private: PathBuf,
    config: Vec<(String, String)>,
    env: Vec<(OsString, OsString)>,
    /// Texts that must not show up in messages.
    secrets: Vec<String>,
}

impl Git {
    /// Runs `program` with its home in `private`.
    pub(crate) fn new(program: &Path, private: &Path) -> Self {
        let config = [
            ("core.fsync", "all"),
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
            ("fetch.unpackLimit", "1"),
            ("protocol.allow", "never"),
            ("pack.threads", "1"),
            ("pack.windowMemory", "32m"),
            ("core.packedGitWindowSize", "1m"),
            ("core.packedGitLimit", "64m"),
            ("core.deltaBaseCacheLimit", "16m"),
            ("core.bigFileThreshold", "16m"),
            ("http.lowSpeedLimit", "100"),
            ("http.lowSpeedTime", "60"),
        ];
        Self {
            program: program.into(),
            private: private.into(),
            config: config.map(|(k, v)| (k.into(), v.into())).to_vec(),
            env: Vec::new(),
            secrets: Vec::new(),
        }
    }

    pub(crate) fn config(&mut self, key: &str, value: &str) {
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

    /// The environment of every call: nothing is inherited but the search path and how the network is left.
    fn environment(&self) -> Vec<(OsString, OsString)> {
        let mut env: Vec<(OsString, OsString)> = Vec::new();
        let mut set = |key: &str, value: &OsStr| env.push((key.into(), value.into()));
        set(
            "PATH",
            &std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()),
        );
        for name in ["HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"] {
            if let Some(proxy) = std::env::var_os(name) {
                set(name, &proxy);
            }
        }
        set("HOME", self.private.as_os_str());
        set("LC_ALL", "C".as_ref());
        set("GIT_CONFIG_NOSYSTEM", "1".as_ref());
        // Also read by the other side of a file:// fetch, which drops GIT_CONFIG_COUNT.
        set("GIT_CONFIG_GLOBAL", self.private.join("gitconfig").as_os_str());
        set("GIT_TERMINAL_PROMPT", "0".as_ref());
        set("GIT_ASKPASS", "true".as_ref());
        set("SSH_ASKPASS", "true".as_ref());
        set("GIT_OPTIONAL_LOCKS", "0".as_ref());
        set("GIT_NO_REPLACE_OBJECTS", "1".as_ref());
        set("GIT_CONFIG_COUNT", self.config.len().to_string().as_ref());
        for (n, (key, value)) in self.config.iter().enumerate() {
            set(&format!("GIT_CONFIG_KEY_{n}"), key.as_ref());
            set(&format!("GIT_CONFIG_VALUE_{n}"), value.as_ref());
        }
        env.extend(self.env.iter().cloned());
        env
    }

    /// Runs a command in a repository and gives its output.
    pub(crate) async fn run(
        &self,
        repository: &Path,
        args: &[&str],
        limit: Duration,
    ) -> Result<Vec<u8>, GitError> {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .arg("--git-dir")
            .arg(repository)
            .args(args)
            .current_dir("/")
            .env_clear()
            .envs(self.environment())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its helpers (https, ssh) are in the same group and end with it.
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|e| {
            GitError::new(
                Class::Other,
                format!("can't run `{}`: {e}; install git", self.program.display()),
            )
        })?;
        let group = Group(child.id());
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(GitError::new(Class::Other, "git was started without pipes"));
        };
        let work = async {
            let (out, err, status) =
                tokio::join!(bounded(stdout, OUTPUT), bounded(stderr, ERRORS), child.wait());
            (out, err, status)
        };
        let Ok((out, err, status)) = tokio::time::timeout(limit, work).await else {
            drop(group);
            let what = args.first().copied().unwrap_or_default();
            return Err(GitError::new(
                Class::Timeout,
                format!(
                    "git {what} took longer than {} s and was stopped",
                    limit.as_secs_f32()
                ),
            ));
        };
        group.over();
        let status =
            status.map_err(|e| GitError::new(Class::Other, format!("git could not be waited for: {e}")))?;
        if status.success() {
            let Some(out) = out else {
                return Err(GitError::new(
                    Class::Other,
                    format!("git gave more than {OUTPUT} bytes"),
                ));
            };
            return Ok(out);
        }
        let text = String::from_utf8_lossy(&err.unwrap_or_default()).into_owned();
        Err(self.explain(&text, args.first().copied().unwrap_or_default()))
    }

    /// A command for reading objects, run without tokio by the thread that builds.
    pub(crate) fn reader(&self, repository: &Path) -> std::process::Command {
        let mut command = std::process::Command::new(&self.program);
        command
            .arg("--git-dir")
            .arg(repository)
            .args(["cat-file", "--batch"])
            .current_dir("/")
            .env_clear()
            .envs(self.environment())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        command
    }

    /// What git said, as an error without secrets.
    fn explain(&self, stderr: &str, what: &str) -> GitError {
        let class = classify(stderr);
        let mut lines: Vec<&str> = stderr.lines().map(str::trim).filter(|l| is_telling(l)).collect();
        lines.dedup();
        let text = if lines.is_empty() {
            format!("git {what} failed")
        } else {
            lines.join("; ")
        };
        let mut text: String = text.chars().take(1_000).collect();
        for secret in &self.secrets {
            text = text.replace(secret.as_str(), "***");
        }
        let hint = match class {
            Class::Authentication => "sign-in was refused; check the Secret: ",
            Class::Identity => {
                "the server is not trusted; check the certificate authority or known_hosts in the Secret: "
            }
            Class::Unreachable => "the server can't be reached: ",
            _ => "",
        };
        GitError {
            class,
            message: format!("{hint}{text}"),
        }
    }
}

/// Lines of git's errors that say something.
fn is_telling(line: &str) -> bool {
    let noise = [
        "Please make sure you have the correct access rights",
        "and the repository exists.",
        "fatal: the remote end hung up unexpectedly",
        "hint:",
        "@@@@",
        "Add correct host key",
        "Warning: Permanently added",
    ];
    !line.is_empty() && !noise.iter().any(|n| line.starts_with(n)) && !line.starts_with("remote: ")
}

fn classify(stderr: &str) -> Class {
    let has = |texts: &[&str]| texts.iter().any(|t| stderr.contains(t));
    if has(&[
        "Host key verification failed",
        "SSL certificate problem",
        "server certificate verification failed",
        "certificate verify failed",
        "no alternative certificate subject name",
        "unable to get local issuer certificate",
        "SSL: no alternative",
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
    ]) {
        Class::Identity
    } else if has(&[
        "Authentication failed",
        "could not read Username",
        "could not read Password",
        "Permission denied (",
        "error: 401",
        "error: 403",
        "invalid format",
        "error in libcrypto",
    ]) {
        Class::Authentication
    } else if has(&[
        "Could not resolve host",
        "Failed to connect",
        "Couldn't connect",
        "Connection refused",
        "Connection timed out",
        "No route to host",
        "Network is unreachable",
        "Connection reset",
        "Could not resolve hostname",
        "Operation timed out",
        "Operation too slow",
        "Empty reply from server",
        "Connection closed by",
    ]) {
        Class::Unreachable
    } else if has(&[
        "couldn't find remote ref",
        "not our ref",
        "Server does not allow request for unadvertised object",
        "upload-pack: not our ref",
    ]) {
        Class::Reference
    } else if has(&[
        "is corrupt",
        "bad object",
        "unable to read",
        "is empty",
        "did not send all necessary objects",
        "not a git repository",
        "missing blob",
        "missing tree",
        "unable to find",
        "cannot be accessed",
        "does not match index",
        "index-pack failed",
        "fatal: pack",
        "bad pack",
        "packfile",
    ]) {
        Class::Damage
    } else {
        Class::Other
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

/// The process group of a running git; killed when dropped, unless it is over.
struct Group(Option<u32>);

impl Group {
    fn over(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0.and_then(|id| i32::try_from(id).ok()) {
            // It may be gone already, which is what we want.
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}
