//! A repository elsewhere whose credentials are revoked: said clearly, once, and nothing else happens.

use crate::support::{Server, host::Host, wait_for};
use reqwest::Method;
use serde_json::{Value, json};

/// Runs git; it must succeed.
fn git(server: &Server, args: &[&str]) {
    let output = std::process::Command::new("git")
        .args([
            "-c",
            "user.name=Ada",
            "-c",
            "user.email=ada@example.com",
            "-c",
            "init.defaultBranch=main",
        ])
        .args(args)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_SSL_CAINFO", server.data().join("ca.pem"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Writes a site's file anew and pushes it to the repository `origin`.
pub(crate) fn push(server: &Server, credential: &Value, folder: &str, text: &str) {
    let work = server.dir.path().join("work");
    let path = work.to_str().unwrap();
    if !work.exists() {
        git(server, &["init", "--quiet", path]);
    }
    std::fs::create_dir_all(work.join(folder)).unwrap();
    std::fs::write(
        work.join(folder).join("settings.yaml"),
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\n  namespace: default\ndata:\n  greeting: {text}\n"),
    )
    .unwrap();
    git(server, &["-C", path, "add", "."]);
    git(server, &["-C", path, "commit", "--quiet", "-m", text]);
    let url = format!(
        "https://{}:{}@localhost:{}/git/acme/origin.git",
        credential["username"].as_str().unwrap(),
        credential["password"].as_str().unwrap(),
        server.port
    );
    git(server, &["-C", path, "push", "--quiet", &url, "main"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_were_revoked_stop_nothing() {
    let server = Server::start("[repositories]\npoll = \"1s\"\n[link]\nheartbeat = \"2s\"\n").await;
    let ada = server.sign_in("acme", "ada").await;
    // The other server is this one: real smart HTTP with credentials that can be taken away.
    ada.post("/repositories", json!({ "name": "origin", "hosted": true }))
        .await;
    let credential = async |name: &str, write: bool| {
        ada.post(
            "/repositories/origin/credentials",
            json!({ "name": name, "write": write }),
        )
        .await
    };
    let writer = credential("writer", true).await;
    let reader = credential("reader", false).await;
    push(&server, &writer, "", "one");
    let with = |credential: &Value| {
        json!({ "auth": "basic", "credentials": {
            "username": credential["username"], "password": credential["password"] } })
    };
    let mut shops = with(&reader);
    shops["name"] = "shops".into();
    shops["url"] = format!("{}/git/acme/origin.git", server.url).into();
    shops["caPem"] = server.ca_pem().into();
    ada.post("/repositories", shops).await;
    ada.post(
        "/policies",
        json!({ "name": "careful", "gate": { "healthyFor": "0s" } }),
    )
    .await;
    ada.post(
        "/sites",
        json!({ "name": "berlin", "repository": "shops", "path": "", "policy": "careful" }),
    )
    .await;
    let key = ada
        .post("/enrollment/keys", json!({ "name": "k", "site": "berlin" }))
        .await;
    let host = Host::enrol(&server, "SN-1", key["key"].as_str().unwrap()).await;
    host.status.set("health", json!({ "state": "healthy" }));
    // The host does what it is told, as long as it is asked to.
    let through = async |number: i64| {
        wait_for("the rollout", || async {
            if let Some(link::message::Target::Pinned { commit }) = host.told.assignment().map(|a| a.target) {
                host.status.set("source", json!({ "applied": commit }));
            }
            let rollouts = ada.get("/rollouts").await;
            let newest = &rollouts["items"][0];
            (newest["number"] == number && newest["state"] == "succeeded").then_some(())
        })
        .await;
    };
    through(1).await;
    let healthy = wait_for("the site healthy", || async {
        let site = ada.get("/sites/berlin").await;
        (site["state"] == "healthy" && site["applied"] == site["desired"]).then_some(site)
    })
    .await;

    let path = format!(
        "/repositories/origin/credentials/{}",
        reader["id"].as_str().unwrap()
    );
    let gone = ada.request(Method::DELETE, &path).send().await.unwrap();
    assert_eq!(gone.status(), 204);
    push(&server, &writer, "", "two");
    let failed = wait_for("the refusal", || async {
        let repository = ada.get("/repositories/shops").await;
        (repository["reach"]["state"] == "failed").then_some(repository)
    })
    .await;
    let message = failed["reach"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("the server refuses the credentials"),
        "{message}"
    );
    assert!(message.contains("give the repository new ones"), "{message}");
    let open = async || {
        let alerts = ada.get("/alerts").await;
        let mut open = alerts["items"].as_array().unwrap().clone();
        open.retain(|alert| alert["title"] == "repository shops can't be reached");
        open
    };
    wait_for("the alert", || async { (!open().await.is_empty()).then_some(()) }).await;
    // Looked at again and again: one alert, said once; the site and its rollout are as they were.
    for _ in 0..3 {
        ada.post("/repositories/shops/check", json!({})).await;
    }
    let alerts = open().await;
    assert_eq!((alerts.len(), &alerts[0]["count"]), (1, &json!(1)), "{alerts:?}");
    assert_eq!(alerts[0]["message"], message);
    let site = ada.get("/sites/berlin").await;
    for field in ["state", "reason", "desired", "applied", "rollout"] {
        assert_eq!(site[field], healthy[field], "{field}");
    }
    let rollouts = ada.get("/rollouts").await;
    assert_eq!(
        (&rollouts["total"], &rollouts["items"][0]["state"]),
        (&json!(1), &json!("succeeded"))
    );

    // New ones: all goes on.
    let again = credential("again", false).await;
    ada.send(Method::PATCH, "/repositories/shops", with(&again)).await;
    wait_for("the repository", || async {
        let repository = ada.get("/repositories/shops").await;
        (repository["reach"]["state"] == "ok" && repository["head"]["subject"] == "two").then_some(())
    })
    .await;
    through(2).await;
    let log = server.log();
    for credential in [&reader, &again] {
        assert!(
            !log.contains(credential["password"].as_str().unwrap()),
            "a password is in the log"
        );
    }
}
