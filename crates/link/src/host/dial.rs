//! Reaching the orchestrator: TCP, perhaps a proxy, TLS, WebSocket.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    net::{TcpSocket, TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{WebSocketStream, client_async_with_config, tungstenite};

use super::proxy::{Proxy, ProxyError, split_address};
use crate::{
    PATH,
    socket::{Meter, websocket_config},
    tls::PROTOCOL,
};

/// For each address of a name.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// For each of proxy, TLS and WebSocket.
const STEP_TIME: Duration = Duration::from_secs(20);

/// Why the orchestrator could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Not an address.
    #[error("the orchestrator's address must be like https://orchestrator.example:8443")]
    Url,
    /// The name isn't known.
    #[error("the name {0} is not known")]
    Name(String, #[source] io::Error),
    /// No connection.
    #[error("no connection to {0}")]
    Connect(String, #[source] io::Error),
    /// Trouble with the proxy.
    #[error("no tunnel through the proxy {0}")]
    Proxy(String, #[source] ProxyError),
    /// Too slow.
    #[error("the orchestrator was too slow with {0}")]
    Slow(&'static str),
    /// TLS failed; the certificate may be wrong, theirs or ours.
    #[error("TLS with the orchestrator failed")]
    Tls(#[source] io::Error),
    /// The server isn't an orchestrator, or something between reads along.
    #[error(
        "the server does not speak the link's protocol: it is no orchestrator, or a proxy between opens TLS"
    )]
    Protocol,
    /// No WebSocket.
    #[error("the orchestrator refused the link's WebSocket")]
    Upgrade(#[source] Box<tungstenite::Error>),
}

/// Where to.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) name: ServerName<'static>,
}

impl Target {
    /// Reads `https://host:port`.
    pub(super) fn parse(url: &str) -> Result<Self, DialError> {
        let rest = url.strip_prefix("https://").ok_or(DialError::Url)?;
        let (host, port) = split_address(rest.trim_end_matches('/'), 443).ok_or(DialError::Url)?;
        let name = ServerName::try_from(host.clone()).map_err(|_| DialError::Url)?;
        Ok(Self { host, port, name })
    }
}

pub(super) type Ws = WebSocketStream<Meter<TlsStream<TcpStream>>>;

pub(super) async fn dial(
    target: &Target,
    proxy: Option<&Proxy>,
    source: Option<IpAddr>,
    tls: Arc<ClientConfig>,
) -> Result<Ws, DialError> {
    let tcp = match proxy {
        None => connect(&target.host, target.port, source).await?,
        Some(proxy) => {
            let mut tcp = connect(&proxy.host, proxy.port, source).await?;
            let tunnel = proxy.tunnel(&mut tcp, &target.host, target.port);
            let failed = |error| DialError::Proxy(format!("{}:{}", proxy.host, proxy.port), error);
            within("the proxy's answer", tunnel).await?.map_err(failed)?;
            tcp
        }
    };
    let connect = TlsConnector::from(tls).connect(target.name.clone(), tcp);
    let io = within("TLS", connect).await?.map_err(DialError::Tls)?;
    if io.get_ref().1.alpn_protocol() != Some(PROTOCOL) {
        return Err(DialError::Protocol);
    }
    let host = if target.host.contains(':') {
        format!("[{}]", target.host)
    } else {
        target.host.clone()
    };
    let url = format!("wss://{host}:{}{PATH}", target.port);
    let upgrade = client_async_with_config(url, Meter::new(io), Some(websocket_config()));
    let (ws, _) = within("the WebSocket", upgrade)
        .await?
        .map_err(|error| DialError::Upgrade(Box::new(error)))?;
    Ok(ws)
}

async fn within<T>(what: &'static str, step: impl Future<Output = T>) -> Result<T, DialError> {
    timeout(STEP_TIME, step).await.map_err(|_| DialError::Slow(what))
}

/// Tries each address of a name in turn.
async fn connect(host: &str, port: u16, source: Option<IpAddr>) -> Result<TcpStream, DialError> {
    let addresses: Vec<SocketAddr> = lookup_host((host, port))
        .await
        .map_err(|error| DialError::Name(host.into(), error))?
        .collect();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match timeout(CONNECT_TIME, connect_to(address, source)).await {
            Ok(Ok(tcp)) => {
                // Small messages, each waited for.
                let _ = tcp.set_nodelay(true);
                return Ok(tcp);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(DialError::Connect(format!("{host}:{port}"), last))
}

async fn connect_to(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.connect(address).await
}
