//! `git http-backend` behind a small server: plain or TLS, with or without sign-in.

use std::{convert::Infallible, path::PathBuf, process::Stdio, sync::Arc};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::AUTHORIZATION,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::{io::AsyncWriteExt as _, net::TcpListener, process::Command, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

pub(crate) struct GitServer {
    pub(crate) url: String,
    /// The certificate, PEM, if it speaks TLS.
    pub(crate) certificate: String,
    task: JoinHandle<()>,
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Backend {
    root: PathBuf,
    /// The whole `Authorization` header that is asked for.
    authorization: Option<String>,
}

/// Serves the bare repositories in a folder.
pub(crate) async fn serve(root: PathBuf, tls: bool, authorization: Option<&str>) -> GitServer {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let backend = Backend {
        root,
        authorization: authorization.map(String::from),
    };
    let (acceptor, certificate) = if tls { certificate() } else { (None, String::new()) };
    let scheme = if tls { "https" } else { "http" };
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (backend, acceptor) = (backend.clone(), acceptor.clone());
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(backend.clone(), request));
                // A client that breaks off, as one that does not trust us, is what some tests want.
                let _ = match acceptor {
                    Some(acceptor) => match acceptor.accept(stream).await {
                        Ok(stream) => {
                            http1::Builder::new()
                                .serve_connection(TokioIo::new(stream), service)
                                .await
                        }
                        Err(_) => return,
                    },
                    None => {
                        http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await
                    }
                };
            });
        }
    });
    GitServer {
        url: format!("{scheme}://{address}"),
        certificate,
        task,
    }
}

fn certificate() -> (Option<TlsAcceptor>, String) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let chain = vec![CertificateDer::from(made.cert.der().to_vec())];
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    (Some(TlsAcceptor::from(Arc::new(config))), made.cert.pem())
}

async fn answer(backend: Backend, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let given = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .map(String::from);
    if backend.authorization.is_some() && backend.authorization != given {
        let answer = Response::builder()
            .status(StatusCode::UNAUTHORIZED)
            .header("WWW-Authenticate", "Basic realm=\"git\"");
        return Ok(answer.body(Full::default()).unwrap());
    }
    let text = |name: &str| {
        request
            .headers()
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", &backend.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", request.method().as_str())
        .env("PATH_INFO", request.uri().path())
        .env("QUERY_STRING", request.uri().query().unwrap_or_default())
        .env("CONTENT_TYPE", text("content-type"))
        .env("HTTP_CONTENT_ENCODING", text("content-encoding"))
        .env("GIT_PROTOCOL", text("git-protocol"))
        .env("REMOTE_ADDR", "127.0.0.1")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut input = child.stdin.take().unwrap();
    let feed = tokio::spawn(async move {
        let _ = input.write_all(&body).await;
    });
    let out = child.wait_with_output().await.unwrap().stdout;
    feed.await.unwrap();
    let split = out.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(0);
    let mut status = StatusCode::OK;
    let mut answer = Response::builder();
    for line in String::from_utf8_lossy(&out[..split]).lines() {
        let Some((name, value)) = line.split_once(": ") else {
            continue;
        };
        if name == "Status" {
            status = value[..3].parse().unwrap();
        } else {
            answer = answer.header(name, value);
        }
    }
    Ok(answer
        .status(status)
        .body(Full::from(out[split + 4..].to_vec()))
        .unwrap())
}
