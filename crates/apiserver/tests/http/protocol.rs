//! What the server says to requests that are not as they should be, and to who is nobody.

use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use super::site::Site;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

struct Asked {
    code: u16,
    reason: String,
    message: String,
}

async fn ask(site: &Site, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Asked {
    let mut request = site
        .admin()
        .request(method, format!("{}{path}", site.url))
        .body(body.to_owned());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    let code = response.status().as_u16();
    let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default();
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    if code >= 400 {
        assert_eq!(
            (body["kind"].as_str(), body["code"].as_u64()),
            (Some("Status"), Some(code.into())),
            "{body}"
        );
    }
    Asked {
        code,
        reason: text("reason"),
        message: text("message"),
    }
}

#[tokio::test]
async fn refusals_are_status_objects() {
    let site = Site::start().await;
    let json = ("content-type", "application/json");
    let map = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}"#;
    for (method, path, headers, body, code, reason) in [
        (Method::GET, "/nothing", vec![], "", 404, "NotFound"),
        (Method::GET, "/api/v1/pods", vec![], "", 404, "NotFound"),
        (Method::GET, "/api/v2/configmaps", vec![], "", 404, "NotFound"),
        (Method::GET, "/apis/none.io", vec![], "", 404, "NotFound"),
        (Method::GET, "/apis/none.io/v1", vec![], "", 404, "NotFound"),
        (Method::GET, "/api/v1/configmaps/a", vec![], "", 404, "NotFound"),
        (
            Method::GET,
            "/api/v1/namespaces/default/configmaps/a/status",
            vec![],
            "",
            404,
            "NotFound",
        ),
        (
            Method::GET,
            "/api/v1/namespaces/default/namespaces/a",
            vec![],
            "",
            404,
            "NotFound",
        ),
        (
            Method::GET,
            "/api/v1/namespaces/default/configmaps/absent",
            vec![],
            "",
            404,
            "NotFound",
        ),
        (
            Method::POST,
            "/api/v1/namespaces/default/configmaps/a",
            vec![json],
            map,
            405,
            "MethodNotAllowed",
        ),
        (Method::PUT, CONFIG_MAPS, vec![json], map, 405, "MethodNotAllowed"),
        (Method::OPTIONS, CONFIG_MAPS, vec![], "", 405, "MethodNotAllowed"),
        (Method::POST, "/apis", vec![json], "{}", 405, "MethodNotAllowed"),
        (
            Method::GET,
            CONFIG_MAPS,
            vec![("accept", "text/html")],
            "",
            406,
            "NotAcceptable",
        ),
        (
            Method::GET,
            CONFIG_MAPS,
            vec![("accept", "application/json;as=Chair;g=meta.k8s.io;v=v1")],
            "",
            406,
            "NotAcceptable",
        ),
        (
            Method::POST,
            CONFIG_MAPS,
            vec![("content-type", "text/plain")],
            map,
            415,
            "UnsupportedMediaType",
        ),
        (
            Method::PATCH,
            "/api/v1/namespaces/default/configmaps/a",
            vec![json],
            "{}",
            415,
            "UnsupportedMediaType",
        ),
        (Method::POST, CONFIG_MAPS, vec![json], "{", 400, "BadRequest"),
        (Method::POST, CONFIG_MAPS, vec![json], "", 400, "BadRequest"),
        (Method::POST, CONFIG_MAPS, vec![json], "[]", 400, "BadRequest"),
        (
            Method::POST,
            "/api/v1/namespaces/absent/configmaps",
            vec![json],
            map,
            404,
            "NotFound",
        ),
        (
            Method::GET,
            "/api/v1/configmaps?limit=many",
            vec![],
            "",
            400,
            "BadRequest",
        ),
        (
            Method::GET,
            "/api/v1/configmaps?labelSelector=((",
            vec![],
            "",
            400,
            "BadRequest",
        ),
        (
            Method::GET,
            "/api/v1/configmaps?continue=nonsense",
            vec![],
            "",
            400,
            "BadRequest",
        ),
        (
            Method::POST,
            "/api/v1/namespaces/default/configmaps?dryRun=Some",
            vec![json],
            map,
            422,
            "Invalid",
        ),
        (
            Method::POST,
            "/api/v1/namespaces/default/configmaps?fieldValidation=Maybe",
            vec![json],
            map,
            422,
            "Invalid",
        ),
    ] {
        let asked = ask(&site, method.clone(), path, &headers, body).await;
        assert_eq!(
            (asked.code, asked.reason.as_str()),
            (code, reason),
            "{method} {path}: {}",
            asked.message
        );
        assert!(!asked.message.is_empty(), "{method} {path}");
    }
}

#[tokio::test]
async fn large_bodies_are_refused() {
    let site = Site::start().await;
    let body = format!(r#"{{"data":{{"a":"{}"}}}}"#, "x".repeat(3 * 1024 * 1024));
    let asked = ask(
        &site,
        Method::POST,
        CONFIG_MAPS,
        &[("content-type", "application/json")],
        &body,
    )
    .await;
    assert_eq!(
        (asked.code, asked.reason.as_str()),
        (413, "RequestEntityTooLarge")
    );
}

#[tokio::test]
async fn strict_requests_may_not_say_a_thing_twice() {
    let site = Site::start().await;
    let body = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","name":"b"}}"#;
    let path = format!("{CONFIG_MAPS}?fieldValidation=Strict");
    let asked = ask(
        &site,
        Method::POST,
        &path,
        &[("content-type", "application/json")],
        body,
    )
    .await;
    assert_eq!(
        (asked.code, asked.message.as_str()),
        (400, "strict decoding error: duplicate field \"metadata.name\"")
    );
}

#[tokio::test]
async fn yaml_bodies_and_heads() {
    let site = Site::start().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a: b}\n";
    let asked = ask(
        &site,
        Method::POST,
        CONFIG_MAPS,
        &[("content-type", "application/yaml")],
        yaml,
    )
    .await;
    assert_eq!(asked.code, 201, "{}", asked.message);
    let url = format!("{}{CONFIG_MAPS}/m", site.url);
    let head = site.admin().head(&url).send().await.unwrap();
    let get = site.admin().get(&url).send().await.unwrap();
    assert_eq!(
        head.headers()[header::CONTENT_LENGTH],
        get.headers()[header::CONTENT_LENGTH]
    );
    assert_eq!(
        (head.status(), head.bytes().await.unwrap().len()),
        (StatusCode::OK, 0)
    );
}

#[tokio::test]
async fn nobody_may_only_know_that_it_is_alive() {
    let site = Site::start().await;
    let code = async |path: &str| {
        site.nobody()
            .get(format!("{}{path}", site.url))
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    for path in ["/healthz", "/livez", "/readyz", "/readyz/ping", "/version"] {
        assert_eq!(code(path).await, 200, "{path}");
    }
    for path in [
        "/",
        "/api",
        "/apis",
        "/api/v1",
        CONFIG_MAPS,
        "/openapi/v2",
        "/openapi/v3",
        "/metrics",
        "/nothing",
    ] {
        assert_eq!(code(path).await, 401, "{path}");
    }
    assert_eq!(code("/readyz/nothing").await, 404);
}

#[tokio::test]
async fn a_certificate_of_another_ca_opens_nothing() {
    let (site, other) = (Site::start().await, Site::start().await);
    let pem = other.tls.client("selvedge-admin", &["system:masters"]).unwrap();
    let identity = reqwest::Identity::from_pem(format!("{}{}", pem.certificate, pem.key).as_bytes()).unwrap();
    let ca = reqwest::Certificate::from_pem(site.tls.ca_pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder()
        .identity(identity)
        .tls_certs_only([ca])
        .no_proxy()
        .build()
        .unwrap();
    assert!(client.get(format!("{}/livez", site.url)).send().await.is_err());
}

#[tokio::test]
async fn who_is_no_master_may_only_ask_who_it_is() {
    let site = Site::start().await;
    let visitor = site.client_of("visitor", &["guests"]);
    let refused = visitor
        .get(format!("{}{CONFIG_MAPS}", site.url))
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let url = format!("{}/apis/authentication.k8s.io/v1/selfsubjectreviews", site.url);
    let review: Value = visitor
        .post(url)
        .json(&body)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        review["status"]["userInfo"],
        json!({"username": "visitor", "groups": ["guests", "system:authenticated"]})
    );
    let url = format!(
        "{}/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        site.url
    );
    let body = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "configmaps"}}});
    let review: Value = visitor
        .post(url)
        .json(&body)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        (&review["status"]["allowed"], &review["spec"]),
        (&json!(false), &body["spec"])
    );
    // A certificate can't make its owner a part of the daemon.
    let impostor = site.client_of("system:selvedge:gitops", &["system:selvedge", "system:masters"]);
    let refused = impostor
        .get(format!("{}{CONFIG_MAPS}", site.url))
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn openapi_documents_are_cached_by_their_hash() {
    let site = Site::start().await;
    let admin = site.admin();
    let get = async |path: &str, etag: Option<&str>| {
        let mut request = admin.get(format!("{}{path}", site.url));
        if let Some(etag) = etag {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        request.send().await.unwrap()
    };
    let index: Value = get("/openapi/v3", None).await.json().await.unwrap();
    let path = index["paths"]["api/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap()
        .to_owned();
    let document = get(&path, None).await;
    assert!(
        document.headers()[header::CACHE_CONTROL]
            .to_str()
            .unwrap()
            .contains("immutable")
    );
    let etag = document.headers()[header::ETAG].to_str().unwrap().to_owned();
    let document: Value = document.json().await.unwrap();
    assert_eq!(document["openapi"], "3.0.0");
    assert_eq!(get(&path, Some(&etag)).await.status(), StatusCode::NOT_MODIFIED);
    // Another hash leads to the right one; reqwest follows.
    let moved = get("/openapi/v3/api/v1?hash=0123", None).await;
    assert!(moved.url().as_str().ends_with(&path), "{}", moved.url());
    assert_eq!(
        get("/openapi/v3/apis/none.io/v1", None).await.status(),
        StatusCode::NOT_FOUND
    );
    let packed = admin
        .get(format!("{}/openapi/v2", site.url))
        .header(header::ACCEPT_ENCODING, "gzip")
        .send()
        .await
        .unwrap();
    assert_eq!(packed.headers()[header::CONTENT_ENCODING], "gzip");
    let patch = &document["paths"]["/api/v1/namespaces/{namespace}/configmaps/{name}"]["patch"];
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "", "kind": "ConfigMap", "version": "v1"})
    );
    assert!(
        patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object(),
        "{patch}"
    );
}

#[tokio::test]
async fn every_reference_in_openapi_leads_somewhere() {
    fn check(node: &Value, root: &Value) {
        match node {
            Value::Object(map) => {
                if let Some(reference) = map.get("$ref").and_then(Value::as_str) {
                    assert!(
                        root.pointer(reference.trim_start_matches('#')).is_some(),
                        "{reference}"
                    );
                }
                map.values().for_each(|child| check(child, root));
            }
            Value::Array(items) => items.iter().for_each(|child| check(child, root)),
            _ => {}
        }
    }
    let site = Site::start().await;
    let admin = site.admin();
    let get = async |path: String| {
        admin
            .get(format!("{}{path}", site.url))
            .send()
            .await
            .unwrap()
            .json::<Value>()
            .await
            .unwrap()
    };
    let index = get("/openapi/v3".into()).await;
    let groups = index["paths"].as_object().unwrap();
    assert!(groups.len() > 4, "{index}");
    for key in groups.keys() {
        let document = get(format!("/openapi/v3/{key}")).await;
        check(&document, &document);
    }
    let v2 = get("/openapi/v2".into()).await;
    check(&v2, &v2);
}
