//! Git, through the `git` program: repositories that are hosted here, and caches of those that are elsewhere.
//!
//! ```text
//! <data>/git/TENANT_ID/REPOSITORY_ID.git     hosted: people push, hosts pull      (backend: smart HTTP)
//! <data>/cache/TENANT_ID/REPOSITORY_ID.git   a copy of one elsewhere, for commits and plans   (remote: fetch)
//! ```
//! Folder names are ids that we gave: nothing that a person wrote is ever part of a path.

pub(crate) mod backend;
pub(crate) mod credential;
pub(crate) mod remote;
pub(crate) mod serve;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::Semaphore,
};

/// At most so much output of one command is kept.
const OUTPUT: usize = 32 << 20;
const ERRORS: usize = 64 << 10;
/// A look at what is on our own disk.
const LOCAL: Duration = Duration::from_secs(30);

/// What Git says when a server does not let us in.
const REFUSED: [&str; 6] = [
    "Authentication failed",
    "could not read Username",
    "could not read Password",
    "returned error: 401",
    "returned error: 403",
    "Permission denied (",
];

/// A failed Git operation, in a sentence that names no secret.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct GitError(pub(crate) String);

/// One commit, as lists show it.
#[derive(Clone, Debug, Serialize, PartialEq, Eq, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Commit {
    /// Its hash.
    pub(crate) commit: String,
    /// The first line of its message.
    pub(crate) subject: String,
    /// Who wrote it.
    pub(crate) author: String,
    /// When it was committed.
    pub(crate) time: String,
}

/// Where repositories are, and the bound on programs that run at a time.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    data: PathBuf,
    programs: Arc<Semaphore>,
    /// The largest push, bytes.
    pub(crate) push_limit: u64,
}

impl Store {
    /// Makes the folders.
    pub(crate) fn open(data: &Path, programs: usize, push_mib: u64) -> anyhow::Result<Self> {
        for folder in ["git", "cache", "git-run"] {
            crate::files::make_dir(&data.join(folder))?;
        }
        Ok(Self {
            data: data.into(),
            programs: Arc::new(Semaphore::new(programs.max(2))),
            push_limit: push_mib << 20,
        })
    }

    /// The folder of a hosted repository.
    pub(crate) fn hosted(&self, tenant: &str, repository: &str) -> PathBuf {
        self.data
            .join("git")
            .join(id(tenant))
            .join(format!("{}.git", id(repository)))
    }

    /// The folder of the copy of one that is elsewhere.
    pub(crate) fn cache(&self, tenant: &str, repository: &str) -> PathBuf {
        self.data
            .join("cache")
            .join(id(tenant))
            .join(format!("{}.git", id(repository)))
    }

    /// The folder above hosted repositories.
    pub(crate) fn hosted_root(&self) -> PathBuf {
        self.data.join("git")
    }

    /// A place for short-lived files of one call.
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.data.join("git-run")
    }

    /// Waits for a place for one more program.
    pub(crate) async fn permit(&self) -> Result<tokio::sync::OwnedSemaphorePermit, GitError> {
        self.programs
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| GitError("the orchestrator is stopping".into()))
    }

    /// Makes an empty hosted repository, unless it is there.
    pub(crate) async fn create(&self, tenant: &str, repository: &str, branch: &str) -> Result<(), GitError> {
        init(&self.hosted(tenant, repository), branch).await
    }

    /// Removes what is kept of a tenant.
    pub(crate) async fn remove_tenant(&self, tenant: &str) {
        for folder in ["git", "cache"] {
            let _ = tokio::fs::remove_dir_all(self.data.join(folder).join(id(tenant))).await;
        }
    }

    /// Removes what is kept of a repository.
    pub(crate) async fn remove(&self, tenant: &str, repository: &str) {
        for folder in [self.hosted(tenant, repository), self.cache(tenant, repository)] {
            match tokio::fs::remove_dir_all(&folder).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(folder = %folder.display(), %error, "can't remove a repository's folder");
                }
                _ => {}
            }
        }
    }
}

/// An id as a folder name; anything that is no id becomes one that is never there.
fn id(text: &str) -> &str {
    let good =
        !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if good { text } else { "none" }
}

/// Makes an empty bare repository, unless it is there.
pub(crate) async fn init(folder: &Path, branch: &str) -> Result<(), GitError> {
    if tokio::fs::try_exists(folder.join("HEAD")).await.unwrap_or(false) {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        crate::files::make_dir(parent).map_err(|error| GitError(format!("{error:#}")))?;
    }
    Git::new()
        .run(
            None,
            &[
                "init".as_ref(),
                "--quiet".as_ref(),
                "--bare".as_ref(),
                "--template=".as_ref(),
                format!("--initial-branch={branch}").as_ref(),
                folder.as_os_str(),
            ],
            LOCAL,
        )
        .await?;
    Ok(())
}

/// The commit that a branch, tag or hash names in a repository on our disk.
pub(crate) async fn resolve(folder: &Path, reference: &str) -> Result<Option<String>, GitError> {
    if !good_reference(reference) {
        return Err(GitError(format!("{reference:?} is no branch, tag or commit")));
    }
    let git = Git::new();
    for name in [
        format!("refs/heads/{reference}"),
        format!("refs/tags/{reference}"),
        reference.to_owned(),
    ] {
        let found = git
            .run(
                Some(folder),
                &[
                    "rev-parse".as_ref(),
                    "--verify".as_ref(),
                    "--quiet".as_ref(),
                    "--end-of-options".as_ref(),
                    format!("{name}^{{commit}}").as_ref(),
                ],
                LOCAL,
            )
            .await;
        if let Ok(out) = found {
            let commit = String::from_utf8_lossy(&out).trim().to_owned();
            if commit.len() >= 40 {
                return Ok(Some(commit));
            }
        }
    }
    Ok(None)
}

/// The newest commits of a branch, tag or hash; none for an empty repository.
pub(crate) async fn log(folder: &Path, reference: &str, limit: usize) -> Result<Vec<Commit>, GitError> {
    let Some(commit) = resolve(folder, reference).await? else {
        return Ok(Vec::new());
    };
    let out = Git::new()
        .run(
            Some(folder),
            &[
                "log".as_ref(),
                format!("--max-count={limit}").as_ref(),
                "--format=%H%x1f%s%x1f%an%x1f%cI%x1e".as_ref(),
                commit.as_ref(),
            ],
            LOCAL,
        )
        .await?;
    Ok(parse_log(&String::from_utf8_lossy(&out)))
}

fn parse_log(text: &str) -> Vec<Commit> {
    text.split('\x1e')
        .filter_map(|record| {
            let mut fields = record.trim_start().split('\x1f').map(str::to_owned);
            Some(Commit {
                commit: fields.next().filter(|hash| hash.len() >= 40)?,
                subject: fields.next()?,
                author: fields.next()?,
                time: fields.next().map(|time| utc(&time).unwrap_or(time))?,
            })
        })
        .collect()
}

/// A time with an offset, in UTC.
fn utc(time: &str) -> Option<String> {
    let at: jiff::Timestamp = time.parse().ok()?;
    Some(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// What can be a branch, tag or hash, and nothing that git would take for an option or a range.
pub(crate) fn good_reference(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && !text.starts_with(['-', '/', '.'])
        && !text.contains("..")
        && !text.contains("@{")
        && !text.ends_with(".lock")
        && !text
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_no_options_and_no_ranges() {
        for good in ["main", "release/1.2", "v1.0", "0123abcd"] {
            assert!(good_reference(good), "{good}");
        }
        for bad in [
            "",
            "-x",
            "--upload-pack=sh",
            "a..b",
            "a b",
            "a^",
            "HEAD~1",
            "x:y",
            "../x",
            "a\nb",
            "@{u}",
        ] {
            assert!(!good_reference(bad), "{bad}");
        }
    }

    #[test]
    fn folders_come_from_ids_only() {
        let store = Store {
            data: "/d".into(),
            programs: Arc::new(Semaphore::new(1)),
            push_limit: 0,
        };
        assert_eq!(
            store.hosted("0190-a", "0190-b"),
            Path::new("/d/git/0190-a/0190-b.git")
        );
        assert_eq!(store.hosted("../x", "b"), Path::new("/d/git/none/b.git"));
        assert_eq!(store.cache("a", "b/../../c"), Path::new("/d/cache/a/none.git"));
    }

    #[tokio::test]
    async fn a_new_repository_is_empty_and_then_has_commits() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("r.git");
        init(&folder, "main").await.unwrap();
        init(&folder, "main").await.unwrap();
        assert_eq!(log(&folder, "main", 10).await.unwrap(), []);
        let tree = Git::new()
            .run(
                Some(&folder),
                &[
                    "hash-object".as_ref(),
                    "-w".as_ref(),
                    "-t".as_ref(),
                    "tree".as_ref(),
                    "/dev/null".as_ref(),
                ],
                LOCAL,
            )
            .await
            .unwrap();
        let tree = String::from_utf8(tree).unwrap();
        let mut git = Git::new();
        for who in ["AUTHOR", "COMMITTER"] {
            git.env(&format!("GIT_{who}_NAME"), "Ada");
            git.env(&format!("GIT_{who}_EMAIL"), "ada@example.com");
            git.env(&format!("GIT_{who}_DATE"), "2026-01-02T05:04:05+02:00");
        }
        let commit = git
            .run(
                Some(&folder),
                &[
                    "commit-tree".as_ref(),
                    "-m".as_ref(),
                    "Begin".as_ref(),
                    tree.trim().as_ref(),
                ],
                LOCAL,
            )
            .await
            .unwrap();
        let commit = String::from_utf8(commit).unwrap().trim().to_owned();
        git.run(
            Some(&folder),
            &["update-ref".as_ref(), "refs/heads/main".as_ref(), commit.as_ref()],
            LOCAL,
        )
        .await
        .unwrap();
        assert_eq!(
            log(&folder, "main", 10).await.unwrap(),
            [Commit {
                commit,
                subject: "Begin".into(),
                author: "Ada".into(),
                time: "2026-01-02T03:04:05Z".into()
            }]
        );
        assert_eq!(resolve(&folder, "other").await.unwrap(), None);
    }
}
