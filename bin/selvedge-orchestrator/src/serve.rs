//! The one port: accepts, bounds, finishes TLS, and hands each connection to the one that its ALPN names.
//!
//! Every wait for a stranger has an end: the TLS handshake, the request's head, its body (in the handlers), and a
//! peer that does not acknowledge what was sent.

pub(crate) mod open_files;
mod prompt;
mod room;

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::{LazyConfigAcceptor, StartHandshake, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use crate::{
    config::Limits,
    tls::{self, Configs},
};
use prompt::Prompt;
use room::{Room, Rooms};

/// A stranger has this long for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// And this long for the head of a request, also of the next one on the same connection.
const HEAD: Duration = Duration::from_secs(30);
/// What an HTTP/2 client says first, bytes (RFC 9113, 3.4).
const PREFACE: usize = 24;
/// The largest head of a request.
const HEAD_BYTES: usize = 64 << 10;
/// The kernel gives a connection up whose peer has not acknowledged for this long, milliseconds.
const UNACKNOWLEDGED: u32 = 60_000;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct From(pub(crate) IpAddr);

/// Who takes the connections that are not HTTP for people.
pub(crate) trait Others: Send + Sync + 'static {
    /// A host's link, with its verified client certificate.
    fn link(
        self: Arc<Self>,
        stream: TlsStream<TcpStream>,
        from: SocketAddr,
    ) -> impl Future<Output = ()> + Send;
    /// Another orchestrator process.
    fn peer(self: Arc<Self>, stream: TlsStream<TcpStream>) -> impl Future<Output = ()> + Send;
}

/// What a listener needs.
pub(crate) struct Server<O> {
    pub(crate) configs: Configs,
    pub(crate) router: Router,
    pub(crate) others: Arc<O>,
    pub(crate) limits: Limits,
    pub(crate) stop: CancellationToken,
}

/// Opens the addresses.
pub(crate) async fn bind(addresses: &[SocketAddr]) -> anyhow::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for address in addresses {
        let socket = match address {
            SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4(),
            SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6(),
        }
        .context("can't make a socket")?;
        socket.set_reuseaddr(true).context("can't set up a socket")?;
        socket
            .bind(*address)
            .with_context(|| format!("server.listen: can't listen on {address}"))?;
        // Thousands of hosts that come back together must find room in the queue.
        listeners.push(
            socket
                .listen(8192)
                .with_context(|| format!("server.listen: can't listen on {address}"))?,
        );
    }
    Ok(listeners)
}

impl<O: Others> Server<O> {
    /// Serves until `stop`, then lets requests under way end, for at most `drain`.
    pub(crate) async fn run(self, listeners: Vec<TcpListener>, drain: Duration) {
        let server = Arc::new(self);
        let tasks = TaskTracker::new();
        let graceful = Arc::new(GracefulShutdown::new());
        let rooms = Arc::new(Rooms::new(
            server.limits.connections,
            server.limits.connections_per_address,
            // One address alone can't keep all others waiting.
            server.limits.handshakes.div_ceil(4),
        ));
        let handshakes = Arc::new(Semaphore::new(server.limits.handshakes));
        let accepting = TaskTracker::new();
        for listener in listeners {
            accepting.spawn(accept(
                listener,
                server.clone(),
                rooms.clone(),
                handshakes.clone(),
                graceful.clone(),
                tasks.clone(),
            ));
        }
        accepting.close();
        accepting.wait().await;
        tasks.close();
        // The accept loops have ended and no new watcher can be made, but connections may still hold a clone.
        let _ = timeout(drain, async {
            if let Ok(graceful) = Arc::try_unwrap(graceful) {
                graceful.shutdown().await;
            }
            tasks.wait().await;
        })
        .await;
    }
}

async fn accept<O: Others>(
    listener: TcpListener,
    server: Arc<Server<O>>,
    rooms: Arc<Rooms>,
    handshakes: Arc<Semaphore>,
    graceful: Arc<GracefulShutdown>,
    tasks: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            () = server.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors or memory: give others time to end.
                tracing::warn!(%error, "can't accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some(room) = rooms.enter(from.ip()) else {
            tracing::debug!(from = %from.ip(), "too many connections: one was closed");
            continue;
        };
        set_up(&stream);
        let (server, handshakes) = (server.clone(), handshakes.clone());
        let watcher = graceful.watcher();
        tasks.spawn(async move {
            // Each part has memory of its own and gives it back when it is done: there are tens of thousands of these.
            let Some((alpn, stream)) = Box::pin(greet(stream, &server.configs, &room, handshakes)).await
            else {
                return;
            };
            match alpn {
                Alpn::Link => {
                    // Hosts behind one address are many, and each has shown a certificate.
                    room.known();
                    Box::pin(server.others.clone().link(stream, from)).await;
                }
                // It counts against its address: it has still to prove that it is one of us.
                Alpn::Peer => Box::pin(server.others.clone().peer(stream)).await,
                Alpn::Web => Box::pin(web(stream, from, server.router.clone(), watcher)).await,
            }
            drop(room);
        });
    }
}

/// TLS with a stranger, in its time, with so many others as there is room for.
async fn greet(
    stream: TcpStream,
    configs: &Configs,
    room: &Room,
    handshakes: Arc<Semaphore>,
) -> Option<(Alpn, TlsStream<TcpStream>)> {
    // Who says nothing costs a socket, and no place among those that are worked on.
    let acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
    let hello = timeout(HANDSHAKE, acceptor).await.ok()?.ok()?;
    let _own = room.handshake().await.ok()?;
    let _permit = handshakes.acquire_owned().await.ok()?;
    timeout(HANDSHAKE, handshake(hello, configs)).await.ok()?.ok()
}

enum Alpn {
    Link,
    Peer,
    Web,
}

async fn handshake(
    start: StartHandshake<TcpStream>,
    configs: &Configs,
) -> std::io::Result<(Alpn, TlsStream<TcpStream>)> {
    let (alpn, config) = {
        let hello = start.client_hello();
        let mut alpn = hello.alpn().into_iter().flatten();
        match alpn.find(|name| *name == tls::LINK || *name == tls::PEER) {
            Some(name) if name == tls::LINK => (Alpn::Link, configs.link.clone()),
            Some(_) => (Alpn::Peer, configs.peer.clone()),
            None => (Alpn::Web, configs.web.clone()),
        }
    };
    Ok((alpn, start.into_stream(config).await?))
}

async fn web(
    stream: TlsStream<TcpStream>,
    from: SocketAddr,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(From(from.ip()));
        let router = router.clone();
        async move { router.oneshot(request.map(Body::new)).await as Result<_, Infallible> }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(128)
        .max_header_list_size(32 << 10)
        .keep_alive_interval(HEAD)
        .keep_alive_timeout(HEAD);
    // What was agreed on, and nothing else: to find it out from the first bytes would have no time limit.
    let two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let builder = if two {
        builder.http2_only()
    } else {
        builder.http1_only()
    };
    let stream = Prompt::new(stream, if two { PREFACE } else { 1 }, HEAD);
    let connection = builder
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .into_owned();
    // A client that breaks off is its own affair.
    let _ = watcher.watch(connection).await;
}

fn set_up(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::TcpUserTimeout, &UNACKNOWLEDGED);
    let _ = nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::KeepAlive, &true);
}
