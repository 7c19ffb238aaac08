//! The server by itself: routes, limits, the local socket, faults.

use std::{sync::Arc, time::Duration};

use apiserver::http::{Access, ServerOptions};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use reqwest::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    sync::Notify,
};

use super::site::{PATIENCE, Site};

#[tokio::test]
async fn routes_of_the_daemon() {
    let site = Site::start_with(ServerOptions::default(), |server| {
        server.route("/hook/", Access::Anyone, |request| async move {
            let caller = request.caller.map_or("nobody".into(), |caller| caller.user);
            let text = format!("{} {} {} {caller}", request.method, request.path, request.query);
            Response::new(Bytes::from(text + &String::from_utf8_lossy(&request.body)))
        });
        server.route("/debug/status", Access::Admin, |_| async {
            Response::new(Bytes::from("fine"))
        });
        server.readiness("gitops", || Err("no commit yet".into()));
    })
    .await;
    let hook = site
        .nobody()
        .post(format!("{}/hook/source?a=b", site.url))
        .body("!")
        .send()
        .await
        .unwrap();
    assert_eq!(hook.text().await.unwrap(), "POST /hook/source a=b nobody!");
    let code = async |client: reqwest::Client, path: &str| {
        client
            .get(format!("{}{path}", site.url))
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(code(site.nobody(), "/debug/status").await, 401);
    assert_eq!(code(site.client_of("visitor", &[]), "/debug/status").await, 403);
    assert_eq!(code(site.admin(), "/debug/status").await, 200);
    assert_eq!(code(site.admin(), "/debug/status/more").await, 404);
    assert_eq!(code(site.nobody(), "/livez").await, 200);
    let ready = site
        .nobody()
        .get(format!("{}/readyz", site.url))
        .send()
        .await
        .unwrap();
    assert_eq!(ready.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(
        ready
            .text()
            .await
            .unwrap()
            .contains("[-]gitops failed: no commit yet")
    );
}

#[tokio::test]
async fn a_panic_is_an_answer_and_the_connection_lives() {
    let site = Site::start_with(ServerOptions::default(), |server| {
        server.route("/panic", Access::Anyone, |_| async { panic!("on purpose") });
    })
    .await;
    let client = site.nobody();
    let answer = client.get(format!("{}/panic", site.url)).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(answer.text().await.unwrap().contains("InternalError"));
    assert_eq!(
        client
            .get(format!("{}/livez", site.url))
            .send()
            .await
            .unwrap()
            .status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn too_many_at_a_time_are_told_to_come_again() {
    let gate = Arc::new(Notify::new());
    let entered = Arc::new(Notify::new());
    let options = ServerOptions {
        max_requests: 1,
        max_watches: 1,
        ..ServerOptions::default()
    };
    let (route_gate, route_entered) = (gate.clone(), entered.clone());
    let site = Site::start_with(options, |server| {
        server.route("/slow", Access::Anyone, move |_| {
            let (gate, entered) = (route_gate.clone(), route_entered.clone());
            async move {
                entered.notify_one();
                gate.notified().await;
                Response::new(Bytes::new())
            }
        });
    })
    .await;
    let slow = tokio::spawn(site.nobody().get(format!("{}/slow", site.url)).send());
    entered.notified().await;
    let refused = site
        .admin()
        .get(format!("{}/api", site.url))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (refused.status(), &refused.headers()["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &"1".parse().unwrap())
    );
    assert_eq!(
        site.nobody()
            .get(format!("{}/livez", site.url))
            .send()
            .await
            .unwrap()
            .status(),
        StatusCode::OK
    );
    let watch = format!(
        "{}/api/v1/configmaps?watch=true&resourceVersion={}",
        site.url,
        site.api.revision()
    );
    let first = site.admin().get(&watch).send().await.unwrap();
    assert_eq!(first.status(), StatusCode::OK);
    assert_eq!(
        site.admin().get(&watch).send().await.unwrap().status(),
        StatusCode::TOO_MANY_REQUESTS
    );
    gate.notify_one();
    assert_eq!(slow.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!(
        site.admin()
            .get(format!("{}/api", site.url))
            .send()
            .await
            .unwrap()
            .status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_ended() {
    let options = ServerOptions {
        request_timeout: Duration::from_millis(100),
        ..ServerOptions::default()
    };
    let site = Site::start_with(options, |server| {
        server.route("/never", Access::Anyone, |_| async {
            std::future::pending::<()>().await;
            Response::new(Bytes::new())
        });
    })
    .await;
    let answer = site
        .nobody()
        .get(format!("{}/never", site.url))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn root_on_the_local_socket_is_the_admin() {
    let site = Site::start().await;
    let stream = UnixStream::connect(site.dir.path().join("api.sock"))
        .await
        .unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get("/api/v1/namespaces/default")
        .header("host", "local")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let namespace: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(namespace["metadata"]["name"], "default");
    drop(sender);
    connection.await.unwrap().unwrap();
}

#[tokio::test]
async fn who_speaks_no_tls_is_cut_and_others_go_on() {
    let site = Site::start().await;
    let address = site.url.trim_start_matches("https://").to_owned();
    let mut stream = TcpStream::connect(&address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("the connection stays open");
    assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
    assert_eq!(
        site.nobody()
            .get(format!("{}/livez", site.url))
            .send()
            .await
            .unwrap()
            .status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn http1_and_http2() {
    let site = Site::start().await;
    let one = site
        .nobody()
        .get(format!("{}/version", site.url))
        .send()
        .await
        .unwrap();
    assert_eq!(one.version(), reqwest::Version::HTTP_2);
    let ca = reqwest::Certificate::from_pem(site.tls.ca_pem().as_bytes()).unwrap();
    let old = reqwest::Client::builder()
        .tls_certs_only([ca])
        .no_proxy()
        .http1_only()
        .build()
        .unwrap();
    let one = old.get(format!("{}/version", site.url)).send().await.unwrap();
    assert_eq!(
        (one.version(), one.status()),
        (reqwest::Version::HTTP_11, StatusCode::OK)
    );
}
