//! Several processes on one PostgreSQL: a host is reached through any of them, and one that ends or is killed loses
//! nothing.

#[path = "../../../../crates/fleet/tests/fleet/support/postgres.rs"]
#[allow(dead_code, reason = "the fleet's tests use the rest")]
mod postgres;
use crate::support::{Server, create_token, free_port, host::Host, wait_for};
use link::host::State;
use reqwest::Method;
use serde_json::json;

fn config(port: u16, database: &str) -> String {
    format!("peer = \"127.0.0.1:{port}\"\n[database]\nurl = \"{database}\"\n[link]\nheartbeat = \"2s\"\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_reached_through_any_process_and_survives_the_end_of_its_own() {
    let database = postgres::shared().database().unwrap();
    let (one, two) = (free_port(), free_port());
    let mut first = Server::start_in(tempfile::tempdir().unwrap(), one, &config(one, &database)).await;
    let second = first.another(two, &config(two, &database)).await;

    let ada = first.sign_in("acme", "ada").await;
    ada.post("/repositories", json!({ "name": "shops", "hosted": true }))
        .await;
    ada.post(
        "/sites",
        json!({ "name": "berlin", "repository": "shops", "path": "." }),
    )
    .await;
    let key = ada
        .post("/enrollment/keys", json!({ "name": "k", "site": "berlin" }))
        .await;
    let token = create_token(first.dir.path(), "acme", "ci", "operator");

    // The host is on the first; the second reaches it by the hop between them.
    let host = Host::enrol(&first, "SN-1", key["key"].as_str().unwrap()).await;
    wait_for("the link", || async {
        (*host.state.borrow() == State::Connected).then_some(())
    })
    .await;
    wait_for("an assignment", || async { host.told.assignment() }).await;
    let through = |server: &Server| {
        let (client, url, token) = (server.client.clone(), server.url.clone(), token.clone());
        async move {
            let answer = client
                .get(format!("{url}/k8s/acme/berlin/version"))
                .bearer_auth(token)
                .send()
                .await
                .unwrap();
            let status = answer.status();
            let text = answer.text().await.unwrap();
            (status.is_success() && text == "GET /version as ci selvedge:operator").then_some(())
        }
    };
    wait_for("the host through its own process", || through(&first)).await;
    wait_for("the host through the other process", || through(&second)).await;
    // The session counts on both, and so does what was changed through either.
    let answer = second
        .client
        .post(format!("{}/api/v1/tenants/acme/sites/berlin/signal", second.url))
        .header("cookie", &ada.cookie)
        .header("x-csrf-token", &ada.csrf)
        .json(&json!({ "what": "reconcile" }))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.json::<serde_json::Value>().await.unwrap()["told"], 1);
    let before = host.told.assignment().unwrap().labels;
    assert!(before.is_empty());
    let answer = second
        .client
        .patch(format!("{}/api/v1/tenants/acme/sites/berlin", second.url))
        .header("cookie", &ada.cookie)
        .header("x-csrf-token", &ada.csrf)
        .json(&json!({ "labels": { "region": "eu" } }))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    wait_for("the change, made through the other process", || async {
        host.told
            .assignment()
            .filter(|assignment| assignment.labels.contains_key("region"))
    })
    .await;

    // Who does not know the master key is no process of ours.
    let stranger = second
        .client
        .request(Method::GET, format!("{}/peer/v1", second.url))
        .send()
        .await
        .unwrap();
    assert_eq!(stranger.status(), 404);

    // SIGTERM: the host is told to come back, and the process ends in order.
    first.signal("TERM");
    wait_for("the host told", || async {
        matches!(&*host.state.borrow(), State::Pausing { .. } | State::Connecting).then_some(())
    })
    .await;
    assert_eq!(first.ended().await, 0, "{}", first.log());
    // The same host elsewhere, with what it has: nothing was lost.
    let elsewhere = Host::connect(&second, host.key.clone(), host.granted.clone());
    wait_for("the host through its new process", || through(&second)).await;
    wait_for("its assignment", || async { elsewhere.told.assignment() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_killed_is_not_missed() {
    let database = postgres::shared().database().unwrap();
    let (one, two) = (free_port(), free_port());
    let mut first = Server::start_in(tempfile::tempdir().unwrap(), one, &config(one, &database)).await;
    let second = first.another(two, &config(two, &database)).await;
    let ada = second.sign_in("acme", "ada").await;
    ada.post("/sites", json!({ "name": "berlin" })).await;
    let key = ada
        .post("/enrollment/keys", json!({ "name": "k", "site": "berlin" }))
        .await;
    let host = Host::enrol(&first, "SN-1", key["key"].as_str().unwrap()).await;
    wait_for("the link", || async {
        (*host.state.borrow() == State::Connected).then_some(())
    })
    .await;
    first.signal("KILL");
    first.ended().await;
    // Nobody says goodbye for it: the heartbeats are missed, and the other process says so.
    wait_for("the host stale or offline", || async {
        let shown = ada.get(&format!("/hosts/{}", host.id)).await;
        (shown["connection"] == "stale" || shown["connection"] == "offline").then_some(())
    })
    .await;
    let elsewhere = Host::connect(&second, host.key.clone(), host.granted.clone());
    wait_for("the host online elsewhere", || async {
        let shown = ada.get(&format!("/hosts/{}", elsewhere.id)).await;
        (shown["connection"] == "online").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_comes_back() {
    let cluster = postgres::start();
    let port = free_port();
    let database = cluster.database().unwrap();
    let server = Server::start_in(tempfile::tempdir().unwrap(), port, &config(port, &database)).await;
    let ada = server.sign_in("acme", "ada").await;
    ada.post("/sites", json!({ "name": "berlin" })).await;
    let key = ada
        .post("/enrollment/keys", json!({ "name": "k", "site": "berlin" }))
        .await;
    let host = Host::enrol(&server, "SN-1", key["key"].as_str().unwrap()).await;
    wait_for("the host online", || async {
        let shown = ada.get(&format!("/hosts/{}", host.id)).await;
        (shown["connection"] == "online").then_some(())
    })
    .await;

    cluster.down().unwrap();
    let ready = || async {
        server
            .client
            .get(format!("{}/readyz", server.url))
            .send()
            .await
            .unwrap()
            .status()
    };
    wait_for("it says that it is not ready", || async {
        (ready().await == 503).then_some(())
    })
    .await;
    let refused = ada.request(Method::GET, "/sites").send().await.unwrap();
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    // What is reported meanwhile is not lost.
    host.status.set(
        "health",
        json!({ "state": "healthy", "reason": "", "ready": 1, "total": 1, "failing": [] }),
    );
    cluster.up().unwrap();
    wait_for("it is ready again", || async {
        (ready().await == 200).then_some(())
    })
    .await;
    wait_for("the report", || async {
        let answer = ada
            .request(Method::GET, &format!("/hosts/{}", host.id))
            .send()
            .await
            .unwrap();
        let shown: serde_json::Value = answer.json().await.ok()?;
        (shown["state"] == "healthy" && shown["connection"] == "online").then_some(())
    })
    .await;
}
