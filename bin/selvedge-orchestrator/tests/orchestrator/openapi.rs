//! What the OpenAPI document promises: it is the checked-in one, and every endpoint that it names keeps tenants apart,
//! asks who one is, and asks for the role.

use std::{collections::BTreeMap, path::Path};

use crate::support::{PASSWORD, Server, Session, create_owner, create_token};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

fn document() -> Value {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_selvedge-orchestrator"))
        .arg("openapi")
        .output()
        .unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// To accept a change: `selvedge-orchestrator openapi > docs/openapi.json`.
#[test]
fn the_document_is_the_one_that_is_checked_in() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let kept: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let now = document();
    let (kept, now) = (flat(&kept), flat(&now));
    for (place, value) in &now {
        assert_eq!(
            kept.get(place),
            Some(value),
            "{place} is not as in docs/openapi.json; if it is meant so: selvedge-orchestrator openapi > docs/openapi.json"
        );
    }
    for place in kept.keys() {
        assert!(now.contains_key(place), "{place} is in docs/openapi.json only");
    }
}

/// Every leaf with its place.
fn flat(value: &Value) -> BTreeMap<String, String> {
    fn walk(value: &Value, place: &str, out: &mut BTreeMap<String, String>) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                for (key, value) in map {
                    walk(value, &format!("{place}/{key}"), out);
                }
            }
            Value::Array(items) if !items.is_empty() => {
                for (at, value) in items.iter().enumerate() {
                    walk(value, &format!("{place}/{at}"), out);
                }
            }
            leaf => {
                out.insert(place.to_owned(), leaf.to_string());
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(value, "", &mut out);
    out
}

/// One operation of the document.
struct Operation {
    id: String,
    method: Method,
    path: String,
    open: bool,
}

fn operations() -> Vec<Operation> {
    let document = document();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in ["get", "post", "put", "patch", "delete"] {
            if let Some(operation) = item.get(method) {
                operations.push(Operation {
                    id: operation["operationId"].as_str().unwrap().to_owned(),
                    method: method.to_uppercase().parse().unwrap(),
                    path: path.clone(),
                    open: operation.get("security").is_none(),
                });
            }
        }
    }
    assert!(operations.len() > 60, "{} operations", operations.len());
    operations
}

/// A body that each operation understands, so that it is the object or the role that is refused.
fn body(operation: &Operation) -> Value {
    match operation.id.as_str() {
        "createUser" => json!({ "username": "eve", "password": PASSWORD }),
        "createBinding" => json!({ "user": "ada", "role": "viewer", "scope": { "all": true } }),
        "createToken" => json!({ "name": "t2", "role": "viewer" }),
        "createRepository" => json!({ "name": "r2", "hosted": true }),
        "createSite" => json!({ "name": "s2" }),
        "createActivationKey" => json!({ "name": "k2" }),
        "createPolicy" => json!({ "name": "p2" }),
        "createGitCredential" => json!({ "name": "c2" }),
        "createChannel" => json!({ "name": "ch2", "kind": "webhook", "url": "https://hooks.example/x" }),
        "expectHosts" => json!({ "site": "site", "serial": "S2" }),
        "approveHost" => json!({ "site": "site" }),
        "signalHost" | "signalSite" => json!({ "what": "fetch" }),
        "setPower" => json!({ "action": "on" }),
        "startPlan" => json!({ "repository": "repo", "ref": "main" }),
        "createTenant" => json!({ "name": "third" }),
        _ => json!({}),
    }
}

/// Objects of one tenant, by the name of the parameter that asks for them.
async fn furnish(person: &Session<'_>) -> BTreeMap<&'static str, String> {
    let id = |value: &Value| {
        value["id"]
            .as_str()
            .unwrap_or_else(|| panic!("{value}"))
            .to_owned()
    };
    let mut ids = BTreeMap::new();
    let repository = person
        .post("/repositories", json!({ "name": "repo", "hosted": true }))
        .await;
    ids.insert("repository", id(&repository));
    ids.insert(
        "policy",
        id(&person.post("/policies", json!({ "name": "policy" })).await),
    );
    ids.insert(
        "site",
        id(&person
            .post("/sites", json!({ "name": "site", "repository": "repo" }))
            .await),
    );
    ids.insert(
        "key",
        id(&person.post("/enrollment/keys", json!({ "name": "key" })).await),
    );
    ids.insert(
        "token",
        id(&person
            .post("/tokens", json!({ "name": "token", "role": "viewer" }))
            .await),
    );
    let user = person
        .post("/users", json!({ "username": "carl", "password": PASSWORD }))
        .await;
    ids.insert("user", id(&user));
    let binding = json!({ "user": "carl", "role": "viewer", "scope": { "all": true } });
    ids.insert("binding", id(&person.post("/bindings", binding).await));
    let host = person
        .post("/enrollment/expected", json!({ "site": "site", "serial": "S1" }))
        .await;
    ids.insert("host", id(&host));
    // What only time or a push makes, and what lies below the others.
    for (name, value) in [
        ("rollout", "01900000-0000-7000-8000-000000000001"),
        ("plan", "01900000-0000-7000-8000-000000000002"),
        ("alert", "01900000-0000-7000-8000-000000000003"),
        ("channel", "01900000-0000-7000-8000-000000000004"),
        ("credential", "01900000-0000-7000-8000-000000000005"),
        ("namespace", "default"),
        ("vm", "web"),
    ] {
        ids.insert(name, value.to_owned());
    }
    ids
}

fn fill(path: &str, tenant: &str, ids: &BTreeMap<&'static str, String>) -> String {
    let mut out = path.replace("{tenant}", tenant);
    for (name, id) in ids {
        out = out.replace(&format!("{{{name}}}"), id);
    }
    assert!(
        !out.contains('{'),
        "a parameter that this test does not know: {out}"
    );
    out
}

async fn ask(
    server: &Server,
    token: Option<&str>,
    operation: &Operation,
    path: &str,
) -> (StatusCode, String) {
    let mut request = server.client.request(
        operation.method.clone(),
        format!("{}/api/v1{path}?q=x", server.url),
    );
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if operation.method != Method::GET && operation.method != Method::DELETE {
        request = request.json(&body(operation));
    }
    let answer = request.send().await.unwrap();
    let status = answer.status();
    if answer
        .headers()
        .get("content-type")
        .is_some_and(|kind| kind == "text/event-stream")
    {
        return (status, String::new());
    }
    (status, answer.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_keeps_tenants_apart_and_asks_for_the_role() {
    let server = Server::start("").await;
    create_owner(server.dir.path(), "other", "bob");
    let ada = server.sign_in("acme", "ada").await;
    let bob = server.sign_in("other", "bob").await;
    let ours = furnish(&ada).await;
    let theirs = furnish(&bob).await;
    let owner = create_token(server.dir.path(), "acme", "owner", "owner");
    let viewer = create_token(server.dir.path(), "acme", "eyes", "viewer");
    // A person of another tenant, by the session that their own tool keeps.
    let stranger = bob.cookie.split_once('=').unwrap().1.to_owned();
    let acme = ada.get("").await["id"].as_str().unwrap().to_owned();

    let mut wrong = Vec::new();
    let mut asked = (0, 0, 0);
    for operation in operations() {
        let own = fill(&operation.path, "acme", &ours);
        if !operation.open {
            asked.0 += 1;
            let (status, said) = ask(&server, None, &operation, &own).await;
            if status != 401 {
                wrong.push(format!("{} without credentials: {status} {said}", operation.id));
            }
            let (status, _) = ask(&server, Some("slv_guess"), &operation, &own).await;
            if status != 401 {
                wrong.push(format!("{} with a made-up token: {status}", operation.id));
            }
        }
        if operation.path.contains("{tenant}") {
            asked.1 += 1;
            let foreign = fill(&operation.path, "other", &theirs);
            let (status, said) = ask(&server, Some(&owner), &operation, &foreign).await;
            if status != 404 {
                wrong.push(format!("{} in another tenant: {status} {said}", operation.id));
            }
            for tenant in ["acme", acme.as_str()] {
                let ours = fill(&operation.path, tenant, &ours);
                let (status, said) = ask(&server, Some(&stranger), &operation, &ours).await;
                if status != 404 || tenant != "acme" && said.contains("acme") {
                    wrong.push(format!(
                        "{} by a stranger's session: {status} {said}",
                        operation.id
                    ));
                }
            }
            let ids = operation.path.matches('{').count() > 1;
            if ids {
                let mixed = fill(&operation.path, "acme", &theirs);
                let (status, said) = ask(&server, Some(&owner), &operation, &mixed).await;
                if status != 404 {
                    wrong.push(format!(
                        "{} with another tenant's ids: {status} {said}",
                        operation.id
                    ));
                }
            }
        }
        if operation.method != Method::GET && operation.path.contains("{tenant}") {
            asked.2 += 1;
            let (status, said) = ask(&server, Some(&viewer), &operation, &own).await;
            // What is not there is not there for a viewer either.
            let absent = ["{rollout}", "{alert}", "{channel}", "{credential}"]
                .iter()
                .any(|part| operation.path.contains(part));
            if status != 403 && !(absent && status == 404) {
                wrong.push(format!("{} as a viewer: {status} {said}", operation.id));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(asked.0 > 50 && asked.1 > 45 && asked.2 > 25, "{asked:?}");
    // Nothing of all that changed anything of theirs.
    assert_eq!(bob.get("/sites").await["total"], 1);
    assert_eq!(bob.get("/hosts").await["total"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_guarded() {
    let server = Server::start("").await;
    let ada = server.sign_in("acme", "ada").await;
    // Without the CSRF token nothing is changed by a cookie.
    let answer = server
        .client
        .post(format!("{}/api/v1/tenants/acme/sites", server.url))
        .header("cookie", &ada.cookie)
        .json(&json!({ "name": "forged" }))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 403);

    // ETag and If-Match.
    ada.post("/sites", json!({ "name": "berlin" })).await;
    let answer = ada.request(Method::GET, "/sites/berlin").send().await.unwrap();
    let tag = answer.headers()["etag"].to_str().unwrap().to_owned();
    let patch = |tag: &str, name: &str| {
        ada.request(Method::PATCH, "/sites/berlin")
            .header("if-match", tag)
            .json(&json!({ "displayName": name }))
            .send()
    };
    assert_eq!(patch(&tag, "Berlin").await.unwrap().status(), 200);
    let refused = patch(&tag, "Late").await.unwrap();
    assert_eq!(refused.status(), 412);
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    assert_eq!(ada.get("/sites/berlin").await["displayName"], "Berlin");

    // Idempotency keys: done once, answered twice, also when the answer has a secret that is shown once.
    let make = |key: &str, name: &str| {
        ada.request(Method::POST, "/tokens")
            .header("idempotency-key", key)
            .json(&json!({ "name": name, "role": "viewer" }))
            .send()
    };
    let first = make("k1", "ci").await.unwrap();
    assert_eq!(first.status(), 201);
    let first: Value = first.json().await.unwrap();
    let again = make("k1", "ci").await.unwrap();
    assert_eq!(again.status(), 201);
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(again.json::<Value>().await.unwrap(), first);
    assert_eq!(make("k1", "other").await.unwrap().status(), 422);
    // A token that is called as the person is another caller: it does not hear the person's answer.
    let namesake = ada
        .post("/tokens", json!({ "name": "ada", "role": "viewer" }))
        .await;
    let answer = server
        .client
        .post(format!("{}/api/v1/tenants/acme/tokens", server.url))
        .bearer_auth(namesake["secret"].as_str().unwrap())
        .header("idempotency-key", "k1")
        .json(&json!({ "name": "ci", "role": "viewer" }))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 403);
    assert_eq!(make("k2", "ci").await.unwrap().status(), 409);

    // Bodies: bounded, JSON only, errors with their place.
    let (status, said) = ada.try_send(Method::POST, "/sites", json!({ "nmae": "x" })).await;
    assert_eq!(status, 422);
    assert!(said["detail"].as_str().unwrap().contains("nmae"), "{said}");
    let (status, _) = ada
        .try_send(Method::POST, "/sites", json!({ "name": "x".repeat(2 << 20) }))
        .await;
    assert_eq!(status, 413);
    let answer = ada
        .request(Method::POST, "/sites")
        .header("content-type", "text/plain")
        .body("{\"name\":\"x\"}")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 415);

    // Headers that keep browsers careful, on the page and on errors.
    for path in ["/", "/api/v1/me", "/nowhere"] {
        let answer = server
            .client
            .get(format!("{}{path}", server.url))
            .send()
            .await
            .unwrap();
        let headers = answer.headers();
        assert!(
            headers["content-security-policy"]
                .to_str()
                .unwrap()
                .contains("default-src 'self'")
        );
        assert_eq!(headers["x-content-type-options"], "nosniff");
    }

    // Signed out is out.
    let answer = ada.request(Method::DELETE, "//session").send().await.unwrap();
    assert_eq!(answer.status(), 204);
    assert_eq!(
        ada.request(Method::GET, "//me").send().await.unwrap().status(),
        401
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_passwords_becomes_slow() {
    let server = Server::start("").await;
    let mut last = StatusCode::OK;
    for n in 0..40 {
        let answer = server
            .client
            .post(format!("{}/api/v1/session", server.url))
            .json(&json!({ "tenant": "acme", "username": "ada", "password": format!("guess {n}") }))
            .send()
            .await
            .unwrap();
        last = answer.status();
        if last == 429 {
            assert!(answer.headers().contains_key("retry-after"));
            break;
        }
        assert_eq!(last, 401);
    }
    assert_eq!(last, 429);
}
