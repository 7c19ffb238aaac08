//! Strangers: slow, forged, curious. And an orderly end.

use std::time::Duration;

use crate::support::{Server, create_token, host, wait_for};
use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

async fn closed(mut stream: impl AsyncReadExt + Unpin, within: u64) -> Duration {
    let begun = Instant::now();
    let mut rest = Vec::new();
    timeout(Duration::from_secs(within), stream.read_to_end(&mut rest))
        .await
        .unwrap_or_else(|_| panic!("still open after {within} s"))
        .ok();
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slow_are_shown_out_and_others_are_served_meanwhile() {
    let server = Server::start("[limits]\nconnections_per_address = 40\n").await;
    let open = || TcpStream::connect(("127.0.0.1", server.port));
    // One says nothing, one says half a handshake, one half a request.
    let silent = open().await.unwrap();
    let mut half = open().await.unwrap();
    half.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01])
        .await
        .unwrap();
    let trust = identity::trust::ServerTrust::new(Some(&server.ca_pem())).unwrap();
    let tls = trust
        .client_config(None, &[b"http/1.1"], &telemetry::Clock::system())
        .unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(tls));
    let mut dribble = connector
        .connect("localhost".try_into().unwrap(), open().await.unwrap())
        .await
        .unwrap();
    dribble
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        .await
        .unwrap();

    // Two finish TLS, and then say nothing.
    let mute = connector
        .connect("localhost".try_into().unwrap(), open().await.unwrap())
        .await
        .unwrap();
    let two = trust
        .client_config(None, &[b"h2"], &telemetry::Clock::system())
        .unwrap();
    let mut mute2 = tokio_rustls::TlsConnector::from(std::sync::Arc::new(two))
        .connect("localhost".try_into().unwrap(), open().await.unwrap())
        .await
        .unwrap();
    mute2.write_all(b"PRI * HT").await.unwrap();

    // Many from one address are too many; what is left is closed at once.
    let mut crowd = Vec::new();
    for _ in 0..60 {
        crowd.push(open().await.unwrap());
    }
    let refused = wait_for("a connection too many", || async {
        let mut extra = open().await.ok()?;
        let mut one = [0];
        let read = timeout(Duration::from_millis(300), extra.read(&mut one)).await;
        matches!(read, Ok(Ok(0) | Err(_))).then_some(())
    });
    refused.await;
    drop(crowd);
    let served = server.client.get(format!("{}/healthz", server.url));
    wait_for("service for others", || async {
        let answer = served.try_clone().unwrap().send().await.ok()?;
        answer.status().is_success().then_some(())
    })
    .await;
    let (silent, half, dribble, mute, mute2) = tokio::join!(
        closed(silent, 20),
        closed(half, 20),
        closed(dribble, 45),
        closed(mute, 45),
        closed(mute2, 45)
    );
    assert!(silent < Duration::from_secs(15) && half < Duration::from_secs(15));
    for slow in [dribble, mute, mute2] {
        assert!(slow < Duration::from_secs(40));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_keeps_nobody_waiting() {
    let server = Server::start("[limits]\nhandshakes = 4\n").await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(("127.0.0.1", server.port)).await.unwrap());
    }
    // A new connection: others of this address wait for their first byte, ten seconds each.
    let answer = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(server.ca_pem().as_bytes()).unwrap()])
        .build()
        .unwrap()
        .get(format!("{}/healthz", server.url))
        .send();
    let answer = timeout(Duration::from_secs(5), answer).await.unwrap().unwrap();
    assert!(answer.status().is_success());
    drop(silent);

    // Strangers get no room for more than they have to say.
    for path in ["/api/v1/session", "/enroll/v1/requests"] {
        let answer = server
            .client
            .post(format!("{}{path}", server.url))
            .json(&json!({ "username": "x".repeat(200_000), "password": "x", "csr": "" }))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 413, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_are_verified_and_git_gives_nothing_away() {
    let server = Server::start("").await;
    let ada = server.sign_in("acme", "ada").await;
    let repository = ada
        .post("/repositories", json!({ "name": "shops", "hosted": true }))
        .await;
    let hook = repository["webhookUrl"].as_str().unwrap().to_owned();
    let secret = hook.rsplit('/').next().unwrap().to_owned();
    let post = |url: String, headers: Vec<(&'static str, String)>| {
        let mut request = server.client.post(url).body("{}");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        async move { request.send().await.unwrap().status().as_u16() }
    };
    assert_eq!(post(hook.clone(), vec![]).await, 202);
    assert_eq!(post(hook.replace(&secret, "guess"), vec![]).await, 404);
    let signed = |mac: &str| {
        vec![
            ("x-github-event", "push".to_owned()),
            ("x-hub-signature-256", format!("sha256={mac}")),
        ]
    };
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
    let mac: String = aws_lc_rs::hmac::sign(&key, b"{}")
        .as_ref()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(post(hook.clone(), signed(&mac)).await, 202);
    assert_eq!(
        post(hook.clone(), signed(&mac.replace(['1', '2'], "3"))).await,
        403
    );
    let token = |token: &str| {
        vec![
            ("x-gitlab-event", "Push Hook".into()),
            ("x-gitlab-token", token.into()),
        ]
    };
    assert_eq!(post(hook.clone(), token(&secret)).await, 202);
    assert_eq!(post(hook.clone(), token("guess")).await, 403);
    let rotated = ada.post("/repositories/shops/webhook/rotate", json!({})).await;
    assert_ne!(rotated["webhookUrl"], hook);
    assert_eq!(post(hook, vec![]).await, 404);

    // Its folder was lost, or could not be made on a full disk: it is an empty repository again.
    let folder = std::fs::read_dir(server.data().join("git")).unwrap();
    let folder = folder.map(|entry| entry.unwrap().path()).next().unwrap();
    std::fs::remove_dir_all(folder).unwrap();

    // A credential opens its repository for Git, and nothing else.
    ada.post("/repositories", json!({ "name": "other", "hosted": true }))
        .await;
    let reader = ada
        .post("/repositories/shops/credentials", json!({ "name": "laptop" }))
        .await;
    let password = reader["password"].as_str().unwrap();
    let git = |path: &str, password: &str| {
        let request = server
            .client
            .get(format!("{}/git/{path}", server.url))
            .basic_auth("x", Some(password));
        async move { request.send().await.unwrap().status().as_u16() }
    };
    let pull = "info/refs?service=git-upload-pack";
    assert_eq!(git(&format!("acme/shops.git/{pull}"), password).await, 200);
    assert_eq!(git(&format!("acme/other.git/{pull}"), password).await, 401);
    assert_eq!(
        git("acme/shops.git/info/refs?service=git-receive-pack", password).await,
        403
    );
    assert_eq!(
        server
            .with_token(password, Method::GET, "/api/v1/me")
            .await
            .status(),
        403
    );
    let strong = create_token(server.dir.path(), "acme", "ci", "owner");
    for (path, want) in [
        ("acme/nothing.git/info/refs?service=git-upload-pack", 401),
        ("other/shops.git/info/refs?service=git-upload-pack", 401),
        ("acme/shops.git/HEAD", 404),
        ("acme/shops.git/objects/info/packs", 404),
        ("acme/..%2f..%2fmaster.key/info/refs?service=git-upload-pack", 404),
        ("acme/..%2Fshops.git/info/refs?service=git-upload-pack", 401),
        ("acme/shops.git/%2e%2e/%2e%2e/master.key", 404),
    ] {
        assert_eq!(git(path, &strong).await, want, "{path}");
    }
    let listed = ada.get("/repositories/shops/credentials").await;
    assert_eq!(listed["total"], 1);
    assert!(listed["items"][0].get("password").is_none());
    let id = reader["id"].as_str().unwrap();
    let gone = ada
        .request(Method::DELETE, &format!("/repositories/shops/credentials/{id}"))
        .send()
        .await
        .unwrap();
    assert_eq!(gone.status(), 204);
    assert_eq!(git(&format!("acme/shops.git/{pull}"), password).await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_waits_is_let_in_and_a_key_counts_once() {
    use identity::enrol::Answer;

    let server = Server::start("").await;
    let ada = server.sign_in("acme", "ada").await;
    ada.post("/sites", json!({ "name": "berlin" })).await;
    let client = host::enrolment_client(&server);

    let (key, request) = host::enrolment("SN-9", None);
    let Answer::Waiting(waiting) = client.request(&request).await.unwrap() else {
        panic!("let in without approval");
    };
    let pending = ada.get("/enrollment/pending").await;
    let id = pending["items"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(pending["items"][0]["serial"], "sn-9");
    // Whoever knows the request's id but not the key learns nothing.
    let (stranger, _) = host::enrolment("SN-8", None);
    assert!(client.poll(&*stranger, &waiting.request).await.is_err());
    ada.post(&format!("/hosts/{id}/approve"), json!({ "site": "berlin" }))
        .await;
    let Answer::Granted(granted) = client.poll(&*key, &waiting.request).await.unwrap() else {
        panic!("approved, but not let in");
    };
    assert_eq!(granted.site.as_deref(), Some("berlin"));

    let made = ada
        .post("/enrollment/keys", json!({ "name": "k", "site": "berlin" }))
        .await;
    let once = made["key"].as_str().unwrap();
    let (_, first) = host::enrolment("SN-10", Some(once));
    let Answer::Granted(again) = client.request(&first).await.unwrap() else {
        panic!("a good key");
    };
    // The same host may ask again (its answer was lost); another may not use the key.
    let Answer::Granted(same) = client.request(&first).await.unwrap() else {
        panic!("the same host");
    };
    assert_eq!(again.host_id, same.host_id);
    let (_, thief) = host::enrolment("SN-11", Some(once));
    assert!(client.request(&thief).await.is_err());

    // The data outlives a kill.
    let mut server = server;
    server.restart().await;
    let ada = server.sign_in("acme", "ada").await;
    assert_eq!(ada.get("/hosts?state=enrolled").await["total"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_in_order_and_shows_its_numbers() {
    let mut server = Server::start("").await;
    let ada = server.sign_in("acme", "ada").await;
    ada.post("/sites", json!({ "name": "berlin" })).await;
    let answer = server
        .client
        .get(format!("{}/metrics", server.url))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 401);
    let token = create_token(server.dir.path(), "acme", "prom", "owner");
    let answer = server.with_token(&token, Method::GET, "/metrics").await;
    assert_eq!(answer.status(), 403, "a tenant's owner is not the platform's");
    // A stream that is open does not keep it from ending.
    let stream = ada.request(Method::GET, "/stream").send().await.unwrap();
    assert_eq!(stream.status(), 200);
    let begun = Instant::now();
    server.signal("TERM");
    assert_eq!(server.ended().await, 0);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_made_meanwhile_brings_everything_back() {
    let mut server = Server::start("").await;
    let file = server.dir.path().join("backup");
    let path = file.to_str().unwrap().to_owned();
    let token = {
        let ada = server.sign_in("acme", "ada").await;
        ada.post(
            "/sites",
            json!({ "name": "berlin", "secretVariables": { "PIN": "pin-4711-secret" } }),
        )
        .await;
        let made = ada
            .post("/tokens", json!({ "name": "ci", "role": "viewer" }))
            .await;
        crate::support::run(server.dir.path(), &["backup", &path]);
        ada.post("/sites", json!({ "name": "paris" })).await;
        made["secret"].as_str().unwrap().to_owned()
    };
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("berlin") && !text.contains("pin-4711-secret") && !text.contains(&token));
    // Not under the feet of one that runs: what it kept from now on would be lost.
    let early = std::process::Command::new(env!("CARGO_BIN_EXE_selvedge-orchestrator"))
        .arg("--config")
        .arg(server.dir.path().join("orchestrator.toml"))
        .args(["restore", "--yes", &path])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&early.stderr);
    assert!(
        !early.status.success() && said.contains("stop the orchestrator first"),
        "{said}"
    );
    server.signal("TERM");
    assert_eq!(server.ended().await, 0);
    crate::support::run(server.dir.path(), &["restore", "--yes", &path]);
    server.restart().await;
    let sites = server
        .with_token(&token, Method::GET, "/api/v1/tenants/acme/sites")
        .await;
    let sites: serde_json::Value = sites.json().await.unwrap();
    assert_eq!(sites["total"], 1);
    assert_eq!(sites["items"][0]["secretVariables"][0], "PIN");
}
