//! Listeners, connections, draining.

use std::{
    future::Future,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Semaphore,
    time,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::tls::Tls;

use super::{
    Listeners, State,
    auth::Peer,
    service,
    strangers::{Place, Strangers},
};

/// How long a client may take for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a client may take for a request's headers, and how long an idle HTTP/1 connection stays.
const HEADERS: Duration = Duration::from_secs(60);
/// How often the other end is asked whether it is still there, and how long it may be silent then.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(20);
/// How often certificates are looked at.
const RENEW: Duration = Duration::from_secs(3_600);

/// Serves until told to stop, then drains.
pub(super) async fn run(state: Arc<State>, listeners: Listeners, shutdown: impl Future<Output = ()> + Send) {
    let most = state.options.max_connections;
    let room = Arc::new(Semaphore::new(most));
    let strangers = Strangers::new(most.div_ceil(2), state.options.max_strangers);
    let connections = TaskTracker::new();
    let acceptors = TaskTracker::new();
    let mut sockets = Vec::new();
    if let Some((listeners, tls)) = listeners.tls {
        let acceptor = TlsAcceptor::from(tls.server_config());
        sockets.extend(listeners.into_iter().map(|listener| {
            (
                Socket::Tls(listener, acceptor.clone(), strangers.clone()),
                room.clone(),
            )
        }));
        acceptors.spawn(renew(state.clone(), tls));
    }
    // Root on this machine finds room however many come over the network.
    let local = listeners
        .unix
        .map(|unix| (Socket::Unix(unix), Arc::new(Semaphore::new(most))));
    for (socket, room) in sockets.into_iter().chain(local) {
        acceptors.spawn(accept(state.clone(), room, connections.clone(), socket));
    }
    shutdown.await;
    state.draining.cancel();
    acceptors.close();
    acceptors.wait().await;
    connections.close();
    if time::timeout(state.options.drain_timeout, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            open = connections.len(),
            "connections were still busy at the end of the drain and are cut"
        );
    }
    state.cut.cancel();
    connections.wait().await;
}

/// Renews certificates before they end; a failure is tried again the next time.
async fn renew(state: Arc<State>, tls: Arc<Tls>) {
    loop {
        tokio::select! {
            () = state.draining.cancelled() => return,
            () = time::sleep(RENEW) => {}
        }
        match tokio::task::spawn_blocking({
            let tls = tls.clone();
            move || tls.renew()
        })
        .await
        {
            Ok(Ok(true)) => tracing::info!("certificates were renewed"),
            Ok(Ok(false)) | Err(_) => {}
            Ok(Err(error)) => {
                tracing::error!(error = %telemetry::chain(&error), "certificates can't be renewed");
            }
        }
    }
}

enum Socket {
    Tls(TcpListener, TlsAcceptor, Arc<Strangers>),
    Unix(UnixListener),
}

enum Accepted {
    Tls(TcpStream, TlsAcceptor, Place),
    /// From an address that has too many here already.
    TooMany,
    Unix(UnixStream),
}

impl Socket {
    async fn accept(&self) -> std::io::Result<Accepted> {
        match self {
            Self::Tls(listener, acceptor, strangers) => {
                let (stream, from) = listener.accept().await?;
                Ok(match strangers.enter(from.ip()) {
                    Some(place) => Accepted::Tls(stream, acceptor.clone(), place),
                    None => Accepted::TooMany,
                })
            }
            Self::Unix(listener) => Ok(Accepted::Unix(listener.accept().await?.0)),
        }
    }
}

/// Accepts connections, each when there is room for it, until the server drains.
async fn accept(state: Arc<State>, room: Arc<Semaphore>, connections: TaskTracker, socket: Socket) {
    let draining = state.draining.clone();
    loop {
        let accepted = async {
            let permit = room.clone().acquire_owned().await.ok();
            (permit, socket.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = draining.cancelled() => return,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok(Accepted::TooMany) => {
                state.metrics.refused.inc();
            }
            Ok(accepted) => {
                let state = state.clone();
                connections.spawn(async move {
                    let _permit = permit;
                    begin(state, accepted).await;
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: those that are open must end first.
                tracing::warn!(%error, "can't accept a connection");
                time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Finds out who is at the other end, then serves it.
async fn begin(state: Arc<State>, accepted: Accepted) {
    match accepted {
        Accepted::TooMany => {}
        Accepted::Tls(stream, acceptor, place) => {
            set_options(&stream);
            let stream = match time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
                Err(_) => return tracing::debug!("a TLS handshake took too long"),
            };
            let certificates = stream.get_ref().1.peer_certificates();
            let peer = Peer::of_certificate(certificates.and_then(<[_]>::first));
            // Who has said who it is gives its stranger's place back; others keep it until they go.
            let _place = peer.is_nobody().then_some(place);
            serve(state, stream, peer).await;
        }
        Accepted::Unix(stream) => {
            let own = nix::unistd::geteuid().as_raw();
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == 0 || peer.uid() == own => {
                    serve(state, stream, Peer::local_admin()).await;
                }
                Ok(peer) => tracing::warn!(
                    uid = peer.uid(),
                    "a user that is not root came to the local socket and was sent away"
                ),
                Err(error) => tracing::warn!(%error, "can't tell who came to the local socket"),
            }
        }
    }
}

/// Small answers leave at once; a peer that has vanished is noticed, also below a watch that has nothing to say.
fn set_options(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let socket = stream.as_fd();
    let _ = setsockopt(&socket, sockopt::KeepAlive, &true);
    let _ = setsockopt(&socket, sockopt::TcpKeepIdle, &30);
    let _ = setsockopt(&socket, sockopt::TcpKeepInterval, &10);
    let _ = setsockopt(&socket, sockopt::TcpKeepCount, &3);
    let _ = setsockopt(&socket, sockopt::TcpUserTimeout, &60_000);
}

pub(super) async fn serve<S>(state: Arc<State>, stream: S, peer: Peer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (draining, cut) = (state.draining.clone(), state.cut.clone());
    let _open = Open::new(state.clone());
    let peer = Arc::new(peer);
    let limit = state.options.first_request_timeout;
    let asked = Arc::new(AtomicBool::new(false));
    let has_asked = asked.clone();
    let service = service_fn(move |request| {
        asked.store(true, Ordering::Relaxed);
        let (state, peer) = (state.clone(), peer.clone());
        async move { Ok::<_, std::convert::Infallible>(service::handle(state, &peer, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(64 * 1024)
        .max_headers(100);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER)
        .max_concurrent_streams(250)
        .max_header_list_size(64 * 1024)
        .max_send_buf_size(64 * 1024);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // Until it is known which HTTP is spoken, no other bound holds for a client that is silent.
    let silent = async {
        time::sleep(limit).await;
        if has_asked.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = silent => return tracing::debug!("a connection's first request took too long"),
        () = draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = cut.cancelled() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended badly");
    }
}

/// Counts a connection as long as it lives.
struct Open(Arc<State>);

impl Open {
    fn new(state: Arc<State>) -> Self {
        state.metrics.connections.inc();
        Self(state)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.connections.dec();
    }
}
