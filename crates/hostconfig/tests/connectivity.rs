//! Which servers a host must not lose, and whether they answer.

use std::sync::Arc;

use apiserver::{Api, Client};
use hostconfig::{Connectivity, GitServers, git_server};
use kinds::registry::Registry;
use serde_json::json;
use store::SqliteStore;
use telemetry::Clock;

#[test]
fn the_server_of_an_address() {
    let known = |url: &str| git_server(url).map(|(host, port)| format!("{host} {port}"));
    for (url, server) in [
        ("https://git.example.org/site.git", Some("git.example.org 443")),
        ("http://user:p%40ss@10.0.0.1:3000/a@b/site", Some("10.0.0.1 3000")),
        ("ssh://git@[fd00::1]:2222/site", Some("fd00::1 2222")),
        ("ssh://git@[fd00::1]/site", Some("fd00::1 22")),
        ("https://h:/x", Some("h 443")),
        ("https://h?x", Some("h 443")),
        ("file:///srv/site", None),
        ("https:///x", None),
        ("https://h:port/", None),
        ("https://[fd00::1/", None),
        ("git@host:x", None),
    ] {
        assert_eq!(known(url).as_deref(), server, "{url}");
    }
}

#[tokio::test]
async fn servers_that_answer_are_reachable() -> Result<(), Box<dyn std::error::Error>> {
    let api = Api::new(
        Arc::new(Registry::builtin()),
        Arc::new(SqliteStore::in_memory()?),
        Clock::system(),
    );
    let client = Client::new(api, "test");
    let open = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "flux-system"}});
    client.create(&namespace).await?;
    for (name, url) in [
        ("open", format!("http://{}/site", open.local_addr()?)),
        ("same", format!("http://{}/other", open.local_addr()?)),
        ("closed", format!("http://{closed}/site")),
        ("disk", "file:///srv/site".to_owned()),
    ] {
        let repository = json!({
            "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository",
            "metadata": {"name": name, "namespace": "flux-system"}, "spec": {"url": url, "interval": "1m"},
        });
        client.create(&repository).await?;
    }
    let reachable: Vec<String> = GitServers::new(client).reachable().await.into_iter().collect();
    assert_eq!(reachable, [format!("Git server {}", open.local_addr()?)]);
    Ok(())
}
