//! The whole way: an owner signs in, makes a hosted repository, a site and a key; a host enrols, is online, reports,
//! is told of a push, and is reached.

use crate::support::{Server, create_token, host::Host, wait_for};
use futures::{SinkExt, StreamExt};
use link::message::Signal;
use reqwest::Method;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_host_comes_in_reports_and_is_reached() {
    let server = Server::start("[link]\nheartbeat = \"2s\"\n").await;
    let ada = server.sign_in("acme", "ada").await;

    let repository = ada
        .post("/repositories", json!({ "name": "shops", "hosted": true }))
        .await;
    assert_eq!(
        repository["url"].as_str().unwrap(),
        format!("{}/git/acme/shops.git", server.url)
    );
    ada.post(
        "/sites",
        json!({ "name": "berlin", "repository": "shops", "path": "sites/berlin", "labels": { "region": "eu" },
            "variables": { "TILLS": "3" }, "secretVariables": { "PIN": "pin-4711-secret" } }),
    )
    .await;
    let key = ada
        .post("/enrollment/keys", json!({ "name": "k", "site": "berlin" }))
        .await;

    let host = Host::enrol(&server, "SN-1", key["key"].as_str().unwrap()).await;
    let shown = wait_for("the host online", || async {
        let shown = ada.get(&format!("/hosts/{}", host.id)).await;
        (shown["connection"] == "online").then_some(shown)
    })
    .await;
    assert_eq!(shown["site"], "berlin");
    assert_eq!(shown["phase"], "enrolled");

    let assignment = wait_for("an assignment", || async { host.told.assignment() }).await;
    assert_eq!(assignment.site, "berlin");
    assert_eq!(assignment.variables["TILLS"], "3");
    assert_eq!(assignment.secret_variables["PIN"], "pin-4711-secret");
    let source = assignment.source.unwrap();
    assert_eq!(source.path, "sites/berlin");
    assert!(source.ca.unwrap().contains("BEGIN CERTIFICATE"));

    // It reports; the page hears of it.
    let mut events = ada
        .request(Method::GET, "/stream")
        .send()
        .await
        .unwrap()
        .bytes_stream();
    host.status.set(
        "health",
        json!({ "state": "healthy", "reason": "", "ready": 3, "total": 3, "failing": [] }),
    );
    let mut heard = String::new();
    while !(heard.contains("event: change") && heard.contains(&host.id)) {
        let chunk = tokio::time::timeout(std::time::Duration::from_secs(10), events.next())
            .await
            .expect("an event within 10 s")
            .unwrap()
            .unwrap();
        heard.push_str(&String::from_utf8_lossy(&chunk));
    }
    wait_for("the host healthy", || async {
        let shown = ada.get(&format!("/hosts/{}", host.id)).await;
        (shown["state"] == "healthy" && shown["status"]["health"]["ready"] == 3).then_some(())
    })
    .await;

    // A push with an API token, seen by everybody, told to the host; the host pulls with its own credential.
    let token = create_token(server.dir.path(), "acme", "ci", "operator");
    let work = server.dir.path().join("work");
    let git = |args: &[&str]| {
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
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let work_path = work.to_str().unwrap();
    assert!(git(&["init", "--quiet", work_path]).0);
    std::fs::create_dir_all(work.join("sites/berlin")).unwrap();
    std::fs::write(work.join("sites/berlin/a.yaml"), "kind: ConfigMap\n").unwrap();
    assert!(git(&["-C", work_path, "add", "."]).0);
    assert!(git(&["-C", work_path, "commit", "--quiet", "-m", "Open Berlin"]).0);
    let with = |user: &str, password: &str| {
        format!(
            "https://{user}:{password}@localhost:{}/git/acme/shops.git",
            server.port
        )
    };
    let (pushed, said) = git(&["-C", work_path, "push", "--quiet", &with("ci", &token), "main"]);
    assert!(pushed, "{said}");
    wait_for("the push told to the host", || async {
        host.told
            .signals
            .lock()
            .unwrap()
            .contains(&Signal::Fetch)
            .then_some(())
    })
    .await;
    wait_for("the head", || async {
        let repository = ada.get("/repositories/shops").await;
        (repository["head"]["subject"] == "Open Berlin").then_some(())
    })
    .await;
    let commits = ada.get("/repositories/shops/commits").await;
    assert_eq!(commits["items"][0]["subject"], "Open Berlin");
    // What another commit would change, before it is merged.
    std::fs::write(
        work.join("sites/berlin/a.yaml"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  namespace: default\n",
    )
    .unwrap();
    assert!(git(&["-C", work_path, "commit", "--quiet", "-am", "Give it a name"]).0);
    let (pushed, said) = git(&[
        "-C",
        work_path,
        "push",
        "--quiet",
        &with("ci", &token),
        "main:next",
    ]);
    assert!(pushed, "{said}");
    let plan = ada
        .post("/plans", json!({ "repository": "shops", "ref": "next" }))
        .await;
    let id = plan["id"].as_str().unwrap().to_owned();
    let plan = wait_for("the plan", || async {
        let plan = ada.get(&format!("/plans/{id}")).await;
        (plan["state"] != "running").then_some(plan)
    })
    .await;
    assert_eq!(plan["state"], "done", "{plan}");
    assert_eq!(plan["totals"]["changed"], 1, "{plan}");
    assert_eq!(plan["sites"][0]["site"], "berlin");
    let diff = ada.get("/sites/berlin/diff").await;
    assert_eq!(diff["hosts"].as_array().unwrap().len(), 1, "{diff}");

    let (user, password) = (source.username.unwrap(), source.password.unwrap());
    let copy = server.dir.path().join("copy");
    let (cloned, said) = git(&[
        "clone",
        "--quiet",
        &with(&user, &password),
        copy.to_str().unwrap(),
    ]);
    assert!(cloned, "{said}");
    assert!(copy.join("sites/berlin/a.yaml").exists());
    let (pushed, said) = git(&["-C", work_path, "push", &with(&user, &password), "main:evil"]);
    assert!(!pushed, "a host may only pull: {said}");
    let (cloned, _) = git(&["clone", "--quiet", &with(&user, "guess"), "/nonexistent/x"]);
    assert!(!cloned);

    // Into its API, as kubectl would, with the caller's name and role.
    let answer = server
        .with_token(&token, Method::GET, "/k8s/acme/berlin/api/v1/pods?limit=1")
        .await;
    assert_eq!(
        answer.text().await.unwrap(),
        "GET /api/v1/pods?limit=1 as ci selvedge:operator"
    );
    // A person's own tool may send the session itself, without a CSRF token.
    let session = ada.cookie.split_once('=').unwrap().1;
    let answer = server
        .with_token(session, Method::GET, "/k8s/acme/berlin/version")
        .await;
    assert_eq!(answer.text().await.unwrap(), "GET /version as ada selvedge:owner");
    assert_eq!(
        server
            .with_token(session, Method::GET, "/api/v1/me")
            .await
            .status(),
        200
    );
    let viewer = create_token(server.dir.path(), "acme", "eyes", "viewer");
    for (method, path, want) in [
        (Method::GET, "/k8s/acme/berlin/version", 200),
        (Method::GET, "/k8s/acme/berlin/api/v1/secrets", 403),
        (Method::DELETE, "/k8s/acme/berlin/api/v1/namespaces/x", 403),
        (Method::GET, "/k8s/acme/paris/version", 404),
        (Method::GET, "/k8s/other/berlin/version", 404),
    ] {
        let answer = server.with_token(&viewer, method.clone(), path).await;
        assert_eq!(answer.status(), want, "{method} {path}");
    }

    // Its logs and a console, with the page's cookie.
    let logs = ada
        .request(Method::GET, &format!("/hosts/{}/logs?lines=2", host.id))
        .send()
        .await
        .unwrap();
    assert_eq!(logs.text().await.unwrap(), "line 0\nline 1\n");
    console(&server, &ada, &host.id).await;
    let audit = ada.get("/audit").await;
    let actions: Vec<&str> = audit["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|line| line["action"].as_str())
        .collect();
    for action in ["vm.serial", "host.logs", "site.create", "repository.create"] {
        assert!(actions.contains(&action), "{action} in {actions:?}");
    }

    // Revoked: out at once, and not in again.
    ada.post(&format!("/hosts/{}/revoke", host.id), json!({})).await;
    wait_for("the host told that it is revoked", || async {
        host.told
            .signals
            .lock()
            .unwrap()
            .contains(&Signal::Revoked)
            .then_some(())
    })
    .await;

    // Nothing secret is in the log, though it says everything else.
    let log = server.log();
    for secret in [
        crate::support::PASSWORD,
        token.as_str(),
        viewer.as_str(),
        password.as_str(),
        "pin-4711-secret",
        key["key"].as_str().unwrap(),
        ada.csrf.as_str(),
        ada.cookie.split_once('=').unwrap().1,
    ] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
    assert!(log.contains("TRACE"), "the log says everything");
}

async fn console(server: &Server, ada: &crate::support::Session<'_>, host: &str) {
    use tokio_tungstenite::tungstenite::{self, client::IntoClientRequest};

    let ca = server.ca_pem();
    let trust = identity::trust::ServerTrust::new(Some(&ca)).unwrap();
    let config = trust
        .client_config(None, &[b"http/1.1"], &telemetry::Clock::system())
        .unwrap();
    let connect = async |origin: &str| {
        let tcp = tokio::net::TcpStream::connect(("127.0.0.1", server.port))
            .await
            .unwrap();
        let name = "localhost".try_into().unwrap();
        let tls = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config.clone()))
            .connect(name, tcp)
            .await
            .unwrap();
        let mut request = format!(
            "wss://localhost:{}/api/v1/tenants/acme/hosts/{host}/vms/default/web/serial",
            server.port
        )
        .into_client_request()
        .unwrap();
        request
            .headers_mut()
            .insert("cookie", ada.cookie.parse().unwrap());
        request.headers_mut().insert("origin", origin.parse().unwrap());
        tokio_tungstenite::client_async(request, tls).await
    };
    assert!(
        connect("https://evil.example").await.is_err(),
        "another site's page"
    );
    let (mut socket, _) = connect(&server.url).await.unwrap();
    let mut seen = String::new();
    while !seen.contains("login at web: ") {
        let message = socket.next().await.unwrap().unwrap();
        seen.push_str(&String::from_utf8_lossy(&message.into_data()));
    }
    socket
        .send(tungstenite::Message::binary(b"root\n".to_vec()))
        .await
        .unwrap();
    seen.clear();
    while !seen.contains("ROOT\n") {
        let message = socket.next().await.unwrap().unwrap();
        seen.push_str(&String::from_utf8_lossy(&message.into_data()));
    }
    socket.close(None).await.unwrap();
}
