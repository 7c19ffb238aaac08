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

/// A TLS connection without a certificate that asks nothing.
async fn stranger(site: &Site) -> tokio_rustls::client::TlsStream<TcpStream> {
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    let ca = rustls::pki_types::CertificateDer::from_pem_slice(site.tls.ca_pem().as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(site.url.trim_start_matches("https://"))
        .await
        .unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect("127.0.0.1".try_into().unwrap(), stream)
        .await
        .unwrap()
}

/// Waits for the end of a connection, with or without ceremony.
async fn ends(stream: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let mut rest = Vec::new();
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    assert!(end.is_ok(), "the connection stays");
}

#[tokio::test]
async fn a_connection_that_asks_nothing_is_ended() {
    let options = ServerOptions {
        first_request_timeout: Duration::from_millis(100),
        ..ServerOptions::default()
    };
    let site = Site::start_with(options, |_| {}).await;
    ends(&mut stranger(&site).await).await;
    // Neither may it begin and never go on.
    let mut half = stranger(&site).await;
    half.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    ends(&mut half).await;
    let mut local = UnixStream::connect(site.dir.path().join("api.sock"))
        .await
        .unwrap();
    ends(&mut local).await;
    // Who has asked once may stay, and ask again.
    let mut known = stranger(&site).await;
    for _ in 0..2 {
        known
            .write_all(b"GET /livez HTTP/1.1\r\nhost: h\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok") {
            answer.push(known.read_u8().await.unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"));
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

#[tokio::test]
async fn strangers_keep_nobody_out() {
    let options = ServerOptions {
        max_connections: 2,
        ..ServerOptions::default()
    };
    let site = Site::start_with(options, |_| {}).await;
    let admin = site.admin();
    let api = format!("{}/api", site.url);
    assert_eq!(admin.get(&api).send().await.unwrap().status(), StatusCode::OK);
    let held = stranger(&site).await;
    // Half of all places are theirs; another is closed at once.
    let mut more = TcpStream::connect(site.url.trim_start_matches("https://"))
        .await
        .unwrap();
    ends(&mut more).await;
    assert_eq!(admin.get(&api).send().await.unwrap().status(), StatusCode::OK);
    let mut local = UnixStream::connect(site.dir.path().join("api.sock"))
        .await
        .unwrap();
    local
        .write_all(b"GET /api HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    local.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(held);
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
