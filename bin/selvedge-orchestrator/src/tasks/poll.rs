//! Looking at repositories: can they be reached, what is new, and who must hear of it.

use std::path::PathBuf;

use fleet::model::{Head, ReachState, Repository};
use futures::{StreamExt, stream};

use crate::{
    app::Shared,
    git::{self, GitError, remote::Remote},
    http::problem::Problem,
    links,
};

/// Repositories looked at at a time.
const AT_ONCE: usize = 8;

/// The folder with the commits of a repository: its own, or the copy of one elsewhere.
pub(crate) fn folder(app: &Shared, tenant: &str, repository: &Repository) -> PathBuf {
    if repository.hosted {
        app.git.hosted(tenant, &repository.id)
    } else {
        app.git.cache(tenant, &repository.id)
    }
}

/// Looks at all of them, if this process leads.
pub(crate) async fn all(app: &Shared) -> anyhow::Result<()> {
    if !super::leads(app).await? {
        return Ok(());
    }
    let repositories = app.fleet.repositories().all().await?;
    stream::iter(repositories)
        .for_each_concurrent(AT_ONCE, |(tenant, repository)| async move {
            if let Err(problem) = look(app, &tenant, &repository, false).await {
                tracing::warn!(
                    repository = repository.name,
                    problem = problem.detail(),
                    "a repository could not be looked at"
                );
            }
        })
        .await;
    Ok(())
}

/// Looks at one soon: it is new or was changed.
pub(crate) fn soon(app: &Shared, tenant: &str, repository: &Repository) {
    let (app, tenant, repository) = (app.clone(), tenant.to_owned(), repository.clone());
    tokio::spawn(async move {
        let _ = look(&app, &tenant, &repository, true).await;
    });
}

/// Something was pushed: look, and tell the hosts.
pub(crate) async fn pushed(app: &Shared, tenant: &str, repository: &str) {
    match app.fleet.repositories().find(tenant, repository).await {
        Ok(Some(found)) => {
            // The hosts first: they look for themselves, and this is what they wait for.
            links::tell::pushed(app, tenant, &found.id).await;
            let _ = look(app, tenant, &found, true).await;
        }
        Ok(None) => {}
        Err(error) => tracing::warn!(error = %telemetry::chain(&error), "a push could not be followed up"),
    }
}

/// Looks at one repository. With `fetch` the copy is brought up to date in any case.
pub(crate) async fn look(
    app: &Shared,
    tenant: &str,
    repository: &Repository,
    fetch: bool,
) -> Result<(), Problem> {
    let rooms = app.fleet.repositories();
    let found = news(app, tenant, repository, fetch).await?;
    match found {
        Ok(heads) => {
            rooms
                .set_reach(tenant, &repository.id, ReachState::Ok, "")
                .await?;
            // A head that moved goes into the change log, from which every process tells its hosts.
            for (branch, head) in heads {
                rooms.set_head(tenant, &repository.id, &branch, &head).await?;
            }
        }
        Err(error) => {
            rooms
                .set_reach(tenant, &repository.id, ReachState::Failed, &error.to_string())
                .await?;
        }
    }
    Ok(())
}

type Heads = Vec<(String, Head)>;

async fn news(
    app: &Shared,
    tenant: &str,
    repository: &Repository,
    fetch: bool,
) -> Result<Result<Heads, GitError>, Problem> {
    let branches = app.fleet.repositories().branches(tenant, &repository.id).await?;
    let folder = folder(app, tenant, repository);
    if repository.hosted {
        if let Err(error) = app.git.create(tenant, &repository.id, &repository.branch).await {
            return Ok(Err(error));
        }
        return Ok(heads(&folder, &branches).await);
    }
    let remote = remote(app, tenant, repository).await?;
    // What is there is compared by hash first: a fetch is for news only.
    let mut stale = fetch;
    if !stale {
        for branch in &branches {
            let theirs = match remote.head(&app.git, branch).await {
                Ok(theirs) => theirs,
                Err(error) => return Ok(Err(error)),
            };
            let ours = git::resolve(&folder, branch).await.unwrap_or_default();
            stale |= theirs != ours;
        }
    }
    if stale && let Err(error) = remote.fetch(&app.git, &folder).await {
        return Ok(Err(error));
    }
    Ok(heads(&folder, &branches).await)
}

/// The newest commit of each branch that is there.
async fn heads(folder: &std::path::Path, branches: &[String]) -> Result<Heads, GitError> {
    let mut heads = Vec::new();
    for branch in branches {
        if let Some(commit) = git::log(folder, branch, 1).await?.into_iter().next() {
            let head = Head {
                commit: commit.commit,
                subject: commit.subject,
                author: commit.author,
                time: commit.time.parse::<jiff::Timestamp>().ok().map(Into::into),
            };
            heads.push((branch.clone(), head));
        }
    }
    Ok(heads)
}

/// How to sign in at a repository elsewhere.
async fn remote(app: &Shared, tenant: &str, repository: &Repository) -> Result<Remote, Problem> {
    let credentials = app
        .fleet
        .repositories()
        .credentials(tenant, &repository.id)
        .await?
        .unwrap_or_default();
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Ok(Remote {
        url: repository.url.clone(),
        username: some(&credentials.username),
        password: some(&credentials.password),
        bearer: some(&credentials.bearer),
        identity: some(&credentials.identity),
        known_hosts: some(&repository.known_hosts),
        ca: some(&repository.ca_pem),
    })
}

/// Commits for plans.
pub(crate) struct Source(pub(crate) Shared);

impl fleet::plan::Source for Source {
    fn fetch<'s>(
        &'s self,
        wanted: &'s fleet::plan::Wanted,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<fleet::plan::Fetched, String>> + Send + 's>> {
        Box::pin(async move {
            let app = &self.0;
            let repository = found(app, wanted).await?;
            let folder = folder(app, &wanted.tenant, &repository);
            fetched(app, &wanted.tenant, &repository, &folder).await?;
            let commit = async |reference: &str| {
                git::resolve(&folder, reference)
                    .await
                    .map_err(|error| error.to_string())?
                    .ok_or_else(|| format!("{} has no {reference}", repository.name))
            };
            Ok(fleet::plan::Fetched {
                from: commit(&wanted.branch).await?,
                to: commit(&wanted.to).await?,
                folder: folder.clone(),
            })
        })
    }

    fn holding<'s>(
        &'s self,
        wanted: &'s fleet::plan::Wanted,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<PathBuf, String>> + Send + 's>> {
        Box::pin(async move {
            let app = &self.0;
            let repository = found(app, wanted).await?;
            let folder = folder(app, &wanted.tenant, &repository);
            let here = git::resolve(&folder, &wanted.to).await;
            // Another process may have looked at the repository: then its copy has the commit and ours not.
            if !matches!(here, Ok(Some(_))) {
                fetched(app, &wanted.tenant, &repository, &folder).await?;
            }
            Ok(folder)
        })
    }
}

async fn found(app: &Shared, wanted: &fleet::plan::Wanted) -> Result<Repository, String> {
    app.fleet
        .repositories()
        .find(&wanted.tenant, &wanted.repository)
        .await
        .map_err(|error| error.to_string())?
        .ok_or_else(|| "the repository is gone".into())
}

/// Brings the copy of a repository elsewhere up to date.
async fn fetched(
    app: &Shared,
    tenant: &str,
    repository: &Repository,
    folder: &std::path::Path,
) -> Result<(), String> {
    if repository.hosted {
        return Ok(());
    }
    let remote = remote(app, tenant, repository)
        .await
        .map_err(|problem| problem.detail().to_owned())?;
    remote
        .fetch(&app.git, folder)
        .await
        .map_err(|error| error.to_string())
}
