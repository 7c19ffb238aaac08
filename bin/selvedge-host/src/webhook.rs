//! The webhook: a Git server that can reach the host tells it that something was pushed.
//!
//! It carries no data and so needs no secret: all it can do is make the host look at its own repositories,
//! and many requests while one look is under way are one more look.

use std::net::SocketAddr;

use anyhow::Context;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use reconcile::Signal;
use tokio::{net::TcpListener, sync::Semaphore, time::Duration};

/// Connections at a time; more wait to be accepted.
const CONNECTIONS: usize = 16;

/// How long a caller may take to send its request line and headers.
const HEADERS: Duration = Duration::from_secs(5);

/// Listens for ever; each `POST /hook/source` gives `signal`.
pub(crate) async fn serve(listener: TcpListener, signal: Signal) {
    let room = std::sync::Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let signal = signal.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let service = service_fn(move |request| {
                let answer = answer(&request, &signal);
                async move { Ok::<_, std::convert::Infallible>(answer) }
            });
            let mut server = http1::Builder::new();
            server
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS)
                .keep_alive(false);
            // A caller that breaks off is none of our business.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Opens the webhook's address.
pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("webhook.listen: can't listen on {address}"))
}

fn answer(request: &Request<Incoming>, signal: &Signal) -> Response<Full<Bytes>> {
    let (code, text) = match (request.method(), request.uri().path()) {
        (&Method::POST, "/hook/source") => {
            signal.all();
            (StatusCode::ACCEPTED, "looking\n")
        }
        (_, "/hook/source") => (StatusCode::METHOD_NOT_ALLOWED, "POST /hook/source\n"),
        _ => (StatusCode::NOT_FOUND, "POST /hook/source\n"),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = code;
    response
}
