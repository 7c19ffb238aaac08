//! What a host must not lose by its own configuration: its Git servers.

use std::{collections::BTreeSet, time::Duration};

use apiserver::Client;
use async_trait::async_trait;
use kinds::flux::GitRepository;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

use crate::checkpoint::Connectivity;

/// How long a server has to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// At most so many servers are asked.
const MOST: usize = 16;

/// The servers of all GitRepositories: a server is reachable when it takes a TCP connection. As long as one of them
/// is, a mistake can be mended by a push.
#[derive(Clone)]
pub struct GitServers {
    client: Client,
}

impl GitServers {
    /// The servers of the GitRepositories that the API has when it is asked.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    async fn servers(&self) -> BTreeSet<(String, u16)> {
        let Ok(list) = self.client.list(&kinds::gvr::git_repositories(), None).await else {
            return BTreeSet::new();
        };
        let repositories = list
            .items
            .iter()
            .filter_map(|object| GitRepository::from_object(object).ok());
        repositories
            .filter(|r| !r.spec.suspend)
            .filter_map(|r| server(&r.spec.url))
            .take(MOST)
            .collect()
    }
}

#[async_trait]
impl Connectivity for GitServers {
    async fn reachable(&self) -> BTreeSet<String> {
        let mut asked = JoinSet::new();
        for (host, port) in self.servers().await {
            asked.spawn(async move {
                let connected = timeout(PATIENCE, TcpStream::connect((host.as_str(), port))).await;
                matches!(connected, Ok(Ok(_))).then(|| format!("Git server {host}:{port}"))
            });
        }
        asked.join_all().await.into_iter().flatten().collect()
    }
}

/// Host and port of a repository's address; `None` for one on the host's own disk.
#[must_use]
pub fn server(url: &str) -> Option<(String, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let port = match scheme {
        "https" => 443,
        "http" => 80,
        "ssh" => 22,
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next()?;
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let (host, explicit) = match place.strip_prefix('[') {
        Some(v6) => {
            let (host, after) = v6.split_once(']')?;
            (host, after.strip_prefix(':'))
        }
        None => place
            .split_once(':')
            .map_or((place, None), |(host, port)| (host, Some(port))),
    };
    let port = match explicit {
        Some(text) if !text.is_empty() => text.parse().ok()?,
        _ => port,
    };
    (!host.is_empty()).then(|| (host.to_owned(), port))
}
