//! A push that concerns one of two sites, from the push to what their hosts are told.

use crate::revoked::push;
use crate::support::{Server, host::Host, wait_for};
use link::message::Target;
use serde_json::json;

/// The host does at once what it is told.
fn obey(host: &Host) -> Option<String> {
    match host.told.assignment()?.target {
        Target::Pinned { commit } if !commit.is_empty() => {
            host.status.set("source", json!({ "applied": commit }));
            host.status.set("health", json!({ "state": "healthy" }));
            Some(commit)
        }
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_covers_the_sites_that_it_changes() {
    let server = Server::start("[repositories]\npoll = \"1s\"\n[link]\nheartbeat = \"2s\"\n").await;
    let ada = server.sign_in("acme", "ada").await;
    ada.post("/repositories", json!({ "name": "origin", "hosted": true }))
        .await;
    let writer = json!({ "name": "writer", "write": true });
    let writer = ada.post("/repositories/origin/credentials", writer).await;
    push(&server, &writer, "sites/berlin", "berlin one");
    push(&server, &writer, "sites/delft", "delft one");
    // The same repository once as its own and once as somebody else's: read from the hosted folder, and from a copy.
    let shops = json!({ "name": "shops", "url": format!("{}/git/acme/origin.git", server.url), "caPem": server.ca_pem(),
        "auth": "basic", "credentials": { "username": writer["username"], "password": writer["password"] } });
    ada.post("/repositories", shops).await;
    ada.post(
        "/policies",
        json!({ "name": "careful", "gate": { "healthyFor": "0s" } }),
    )
    .await;
    let mut hosts = Vec::new();
    for (number, repository) in ["origin", "shops"].into_iter().enumerate() {
        for folder in ["berlin", "delft"] {
            let site = format!("{folder}-{number}");
            let spec = json!({ "name": site, "repository": repository, "path": format!("sites/{folder}"), "policy": "careful" });
            ada.post("/sites", spec).await;
            let key = ada
                .post("/enrollment/keys", json!({ "name": site, "site": site }))
                .await;
            hosts.push(Host::enrol(&server, &site, key["key"].as_str().unwrap()).await);
        }
    }
    let through = async |count: usize| {
        wait_for("the rollouts", || async {
            hosts.iter().for_each(|host| drop(obey(host)));
            let rollouts = ada.get("/rollouts").await;
            let done = rollouts["items"]
                .as_array()?
                .iter()
                .filter(|one| one["state"] == "succeeded")
                .count();
            (done == count && rollouts["total"] == count).then_some(rollouts)
        })
        .await
    };
    through(2).await;
    wait_for("everybody told", || async {
        hosts.iter().all(|host| obey(host).is_some()).then_some(())
    })
    .await;
    push(&server, &writer, "sites/berlin", "berlin two");
    let rollouts = through(4).await;
    for newest in &rollouts["items"].as_array().unwrap()[..2] {
        let wave = &newest["waves"][0];
        assert_eq!(
            (&wave["total"], &wave["succeeded"], &wave["unchanged"]),
            (&json!(1), &json!(1), &json!(1)),
            "{newest}"
        );
        // All are told the commit, so that all are where the branch is.
        let commit = newest["commit"].as_str().unwrap();
        wait_for("all at the commit", || async {
            hosts
                .iter()
                .all(|host| obey(host).as_deref() == Some(commit))
                .then_some(())
        })
        .await;
    }
    for site in ["delft-0", "delft-1"] {
        wait_for("the site at the commit", || async {
            let site = ada.get(&format!("/sites/{site}")).await;
            (site["state"] == "healthy" && site["applied"] == rollouts["items"][0]["commit"]).then_some(())
        })
        .await;
    }
}
