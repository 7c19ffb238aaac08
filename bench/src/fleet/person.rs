//! Somebody who uses the orchestrator: its API with a token, its stream as the page reads it, and git.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use reqwest::{Certificate, Client, Response};
use serde_json::Value;
use testkit::{cli::Cli, loopback::TENANT, simulate::Hub, tool};
use tokio::time::{Instant, sleep, timeout};

use super::counted;

/// Requests at a time, when there are many.
const AT_ONCE: usize = 64;
/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(50);

pub(super) struct Person {
    client: Client,
    base: String,
    token: String,
}

impl Person {
    pub(super) fn new(hub: &Hub, cli: &Cli) -> Result<Self> {
        let token = cli.json(["token", "create", "bench", "--role", "owner"])?;
        let token = token["secret"]
            .as_str()
            .context("a token has a secret")?
            .to_owned();
        let client = Client::builder()
            .tls_certs_only([Certificate::from_pem(hub.authority.as_bytes())?])
            .no_proxy()
            .build()?;
        Ok(Self {
            client,
            base: format!("{}/api/v1/tenants/{TENANT}", hub.url),
            token,
        })
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value> {
        let request = self.client.get(format!("{}{path}", self.base));
        let answer = request.bearer_auth(&self.token).send().await?;
        Ok(good(path, answer).await?.json().await?)
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<()> {
        let request = self.client.post(format!("{}{path}", self.base)).json(body);
        let answer = request.bearer_auth(&self.token).send().await?;
        good(path, answer).await?.bytes().await?;
        Ok(())
    }

    pub(super) async fn post_all(&self, path: &str, bodies: impl Iterator<Item = Value>) -> Result<()> {
        stream::iter(bodies)
            .map(|body| async move { self.post(path, &body).await })
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await
    }

    /// What the page listens to.
    pub(super) async fn stream(&self) -> Result<Events> {
        let request = self.client.get(format!("{}/stream", self.base));
        let response = request.bearer_auth(&self.token).send().await?;
        Ok(Events {
            response: good("/stream", response).await?,
            rest: String::new(),
        })
    }

    /// Waits until so many sites have a commit: how many there were, and when, each time that there were more.
    pub(super) async fn applied(
        &self,
        commit: &str,
        sites: usize,
        limit: Duration,
    ) -> Result<Vec<(Instant, usize)>> {
        let begun = Instant::now();
        let mut seen: Vec<(Instant, usize)> = Vec::new();
        loop {
            let overview = self.get("/overview").await?;
            let now = Instant::now();
            let commits = overview["commits"]
                .as_array()
                .context("an overview has commits")?;
            let count = counted(commits).get(commit).copied().unwrap_or_default();
            if seen.last().is_none_or(|(_, last)| *last < count) {
                seen.push((now, count));
            }
            if count >= sites {
                return Ok(seen);
            }
            ensure!(
                begun.elapsed() < limit,
                "{count} of {sites} sites have {commit}: {}",
                overview["rollouts"]
            );
            sleep(LOOK).await;
        }
    }
}

async fn good(path: &str, answer: Response) -> Result<Response> {
    let status = answer.status();
    if !status.is_success() {
        bail!("{path}: {status}: {}", answer.text().await.unwrap_or_default());
    }
    Ok(answer)
}

/// Server-sent events as they come.
pub(super) struct Events {
    response: Response,
    rest: String,
}

impl Events {
    /// Reads until an event has `words`.
    pub(super) async fn until(&mut self, words: &str, limit: Duration) -> Result<()> {
        let read = async {
            loop {
                while let Some((event, rest)) = self.rest.split_once("\n\n") {
                    let found = event.contains(words);
                    self.rest = rest.to_owned();
                    if found {
                        return Ok(());
                    }
                }
                let chunk = self.response.chunk().await?.context("the stream ended")?;
                self.rest.push_str(&String::from_utf8_lossy(&chunk));
            }
        };
        timeout(limit, read)
            .await
            .with_context(|| format!("no event has {words}"))?
    }
}

/// A clone of the hosted repository.
pub(super) struct Work {
    folder: PathBuf,
    authority: PathBuf,
}

impl Work {
    pub(super) fn new(cli: &Cli, hub: &Hub, dir: &Path) -> Result<Self> {
        let credential = cli.json(["repo", "credential", "shops", "--credential", "bench", "--write"])?;
        let password = credential["password"]
            .as_str()
            .context("a credential has a password")?;
        let username = credential["username"].as_str().unwrap_or("bench");
        let host = hub.url.strip_prefix("https://").context("an https URL")?;
        let work = Self {
            folder: dir.join("work"),
            authority: dir.join("data/ca.pem"),
        };
        fs::create_dir_all(&work.folder)?;
        work.git(&["init", "--quiet", "--initial-branch=main"])?;
        let url = format!("https://{username}:{password}@{host}/git/{TENANT}/shops.git");
        work.git(&["remote", "add", "origin", &url])?;
        Ok(work)
    }

    /// Changes something; the commit.
    pub(super) fn commit(&self, number: u32) -> Result<String> {
        let text = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: bench, namespace: default}}\ndata: {{number: \"{number}\"}}\n"
        );
        fs::write(self.folder.join("map.yaml"), text)?;
        self.git(&["add", "."])?;
        self.git(&["commit", "--quiet", "--message", "a change"])?;
        Ok(self.git(&["rev-parse", "HEAD"])?.trim().to_owned())
    }

    pub(super) fn push(&self) -> Result<()> {
        self.git(&["push", "--quiet", "origin", "main"]).map(drop)
    }

    fn git(&self, arguments: &[&str]) -> Result<String> {
        let mut git = Command::new("git");
        git.arg("-C")
            .arg(&self.folder)
            .env("GIT_SSL_CAINFO", &self.authority);
        git.args(["-c", "user.name=bench", "-c", "user.email=bench@example.com"]);
        for variable in ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
            git.env_remove(variable);
        }
        tool::run(git.args(arguments))
    }
}
