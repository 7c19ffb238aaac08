//! Git, through the `git` program: repositories that are hosted here, and caches of those that are elsewhere.
//!
//! ```text
//! <data>/git/TENANT_ID/REPOSITORY_ID.git     hosted: people push, hosts pull      (backend: smart HTTP)
//! <data>/cache/TENANT_ID/REPOSITORY_ID.git   a copy of one elsewhere, for commits and plans   (remote: fetch)
//! ```
//! Folder names are ids that we gave: nothing that a person wrote is ever part of a path.
//!
//! | room | |
//! |---|---|
//! | `program` | how `git` is run: bounded, with nothing of the machine's configuration, its secrets kept out of what it says |
//! | `look` | branches and commits of a repository on our disk |
//! | `backend`, `serve`, `credential` | hosted repositories over smart HTTP, and who may |
//! | `remote` | repositories elsewhere |

pub(crate) mod backend;
pub(crate) mod credential;
mod look;
mod program;
pub(crate) mod remote;
pub(crate) mod serve;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::Semaphore;

pub(crate) use look::{Commit, good_reference, log, resolve};
pub(crate) use program::{Git, Group};

/// A look at what is on our own disk.
const LOCAL: Duration = Duration::from_secs(30);

/// A failed Git operation, in a sentence that names no secret.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct GitError(pub(crate) String);

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
