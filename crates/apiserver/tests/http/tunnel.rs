//! Callers who come through the orchestrator: on a stream, with the roles that they have there.

use apiserver::admission::{FileAudit, GitOwned};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use super::site::Site;
use apiserver::{
    api::roles,
    http::{Access, Tunnel},
};

/// One HTTP/1.1 connection through a tunnel.
struct Remote(http1::SendRequest<Full<Bytes>>);

impl Remote {
    async fn connect(tunnel: &Tunnel, user: &str, group: &str) -> Self {
        let (near, far) = tokio::io::duplex(16 << 10);
        let (tunnel, user, groups) = (tunnel.clone(), user.to_owned(), vec![group.to_owned()]);
        tokio::spawn(async move { tunnel.serve(far, &user, &groups, "203.0.113.9").await });
        let (sender, connection) = http1::handshake(TokioIo::new(near)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    async fn ask(&mut self, method: &str, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let media = if method == "PATCH" {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "site")
            .header("content-type", media)
            .body(Full::from(body.map(|b| b.to_string()).unwrap_or_default()))
            .unwrap();
        let response = self.0.send_request(request).await.unwrap();
        let code = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

async fn site() -> (Site, Tunnel, tempfile::TempDir) {
    let audit = tempfile::tempdir().unwrap();
    let log = FileAudit::open(audit.path().join("audit.log"), 1 << 20, 1).unwrap();
    let mut tunnel = None;
    let site = Site::start_admitted(
        |api| {
            api.with_admission(std::sync::Arc::new(GitOwned))
                .with_audit(std::sync::Arc::new(log))
        },
        |server| {
            let answer = |_| async { hyper::Response::new(Bytes::from("{}")) };
            server.route("/debug/status", Access::Admin, answer);
            server.route("/debug/nics", Access::Viewer, answer);
            tunnel = Some(server.tunnel());
        },
    )
    .await;
    (site, tunnel.unwrap(), audit)
}

#[tokio::test]
async fn each_role_may_what_it_may() {
    let (site, tunnel, audit) = site().await;
    site.api.ensure_namespaces(&["flux-system"]).await.unwrap();
    let mut viewer = Remote::connect(&tunnel, "vera", roles::VIEWER).await;
    let mut operator = Remote::connect(&tunnel, "otto", roles::OPERATOR).await;
    let mut owner = Remote::connect(&tunnel, "olga", roles::OWNER).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let secrets = "/api/v1/namespaces/flux-system/secrets";

    assert_eq!(viewer.ask("GET", "/apis", None).await.0, 200);
    assert_eq!(viewer.ask("GET", maps, None).await.0, 200);
    let (code, refusal) = viewer.ask("POST", maps, Some(config_map("v"))).await;
    assert_eq!(code, 403);
    assert!(
        refusal["message"]
            .as_str()
            .unwrap()
            .contains("viewers may not write"),
        "{refusal}"
    );
    assert_eq!(viewer.ask("GET", "/api/v1/secrets", None).await.0, 403);
    assert_eq!(viewer.ask("GET", "/debug/status", None).await.0, 403);
    assert_eq!(viewer.ask("GET", "/debug/nics", None).await.0, 200);

    assert_eq!(operator.ask("POST", maps, Some(config_map("o"))).await.0, 201);
    assert_eq!(operator.ask("GET", secrets, None).await.0, 403);
    assert_eq!(operator.ask("GET", "/api/v1/secrets", None).await.0, 403);
    assert_eq!(
        operator
            .ask("GET", &format!("{secrets}?watch=true"), None)
            .await
            .0,
        403
    );
    assert_eq!(
        operator
            .ask("DELETE", "/api/v1/namespaces/flux-system", None)
            .await
            .0,
        403
    );

    assert_eq!(owner.ask("GET", secrets, None).await.0, 200);
    assert_eq!(owner.ask("GET", "/debug/status", None).await.0, 200);
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "create", "resource": "configmaps", "namespace": "default"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert_eq!(
        viewer.ask("POST", path, Some(review.clone())).await.1["status"]["allowed"],
        false
    );
    assert_eq!(
        operator.ask("POST", path, Some(review)).await.1["status"]["allowed"],
        true
    );

    let log = std::fs::read_to_string(audit.path().join("audit.log")).unwrap();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |user: &str, decision: &str| {
        lines
            .iter()
            .find(|l| l["user"] == user && l["decision"] == decision)
            .cloned()
            .unwrap_or_else(|| panic!("no {decision} of {user} in {log}"))
    };
    assert_eq!(of("otto", "allowed")["name"], "o");
    assert_eq!(of("otto", "allowed")["from"], "203.0.113.9");
    assert_eq!(of("vera", "refused")["verb"], "create");
}

#[tokio::test]
async fn operators_ask_for_a_run_and_change_nothing_else_of_what_steers() {
    let (site, tunnel, _audit) = site().await;
    let kustomization = json!({
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
        "metadata": {"name": "mine", "namespace": "default"},
        "spec": {"interval": "1m", "path": "./", "prune": true, "sourceRef": {"kind": "GitRepository", "name": "r"}},
    });
    site.client().create(&kustomization).await.unwrap();
    let mut operator = Remote::connect(&tunnel, "otto", roles::OPERATOR).await;
    let all = "/apis/kustomize.toolkit.fluxcd.io/v1/namespaces/default/kustomizations";
    let one = format!("{all}/mine");
    let run = json!({"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": "now"}}});
    assert_eq!(operator.ask("PATCH", &one, Some(run)).await.0, 200);
    let elsewhere = json!({"spec": {"path": "./other"}});
    assert_eq!(operator.ask("PATCH", &one, Some(elsewhere)).await.0, 403);
    assert_eq!(operator.ask("DELETE", &one, None).await.0, 403);
    let mut new = kustomization;
    new["metadata"]["name"] = "new".into();
    assert_eq!(operator.ask("POST", all, Some(new)).await.0, 403);
}

#[tokio::test]
async fn nobody_becomes_more_than_the_orchestrator_may_say() {
    let (_site, tunnel, _audit) = site().await;
    for (user, group) in [
        ("eve", "system:masters"),
        ("eve", "system:selvedge"),
        ("eve", "selvedge:break-glass"),
        ("eve", ""),
        ("system:selvedge:vm", roles::OWNER),
        ("", roles::OWNER),
    ] {
        let mut eve = Remote::connect(&tunnel, user, group).await;
        let code = eve
            .ask("GET", "/api/v1/namespaces/default/configmaps", None)
            .await
            .0;
        assert!(code == 401 || code == 403, "{user} {group}: {code}");
    }
}
