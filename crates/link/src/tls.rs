//! TLS of the link: one port for hosts and people, told apart by what the client offers (ALPN).

use std::{io, sync::Arc, time::Duration};

use identity::{
    credentials::Credentials,
    trust::{self, ServerTrust},
    verify::{ClientVerifier, Peer},
};
use rustls::{
    ClientConfig, ServerConfig,
    pki_types::UnixTime,
    server::{Acceptor, NoServerSessionStorage, ResolvesServerCert},
};
use telemetry::Clock;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

/// What a host offers as its protocol (ALPN).
pub const PROTOCOL: &[u8] = b"selvedge-link/1";

/// The TLS configuration of the link: a client certificate is required. Nothing is kept of ended connections.
pub fn server_config(
    certificate: Arc<dyn ResolvesServerCert>,
    verifier: &ClientVerifier,
    clock: &Clock,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(Time(clock.clone())))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(verifier.clone()))
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    // A host comes for days. Tickets would only be memory, and a ticket would let in who was revoked since.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The TLS configuration of a host.
pub fn client_config(
    trust: &ServerTrust,
    credentials: Credentials,
    clock: &Clock,
) -> Result<Arc<ClientConfig>, trust::Error> {
    let config = trust.client_config(Some(credentials), &[PROTOCOL], clock)?;
    Ok(Arc::new(config))
}

/// Who came in.
pub enum Incoming {
    /// A host, and whose certificate it showed.
    Link(Box<TlsStream<TcpStream>>, Peer),
    /// Anybody else: pages, API, Git, enrolment.
    Web(Box<TlsStream<TcpStream>>),
}

/// Why nobody came in.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// Too slow.
    #[error("the TLS handshake took longer than {} s", .0.as_secs())]
    Slow(Duration),
    /// TLS failed.
    #[error("the TLS handshake failed")]
    Handshake(#[source] io::Error),
    /// The certificate isn't a host's. (The verifier has refused it before.)
    #[error("a host came without a host's certificate")]
    NoPeer,
}

/// Does the TLS handshake of a port that hosts and people share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Front {
    link: Arc<ServerConfig>,
    web: Arc<ServerConfig>,
    time: Duration,
}

impl Front {
    /// With the configuration of hosts ([`server_config`]) and that of everybody else.
    #[must_use]
    pub fn new(link: Arc<ServerConfig>, web: Arc<ServerConfig>) -> Self {
        Self {
            link,
            web,
            time: Duration::from_secs(15),
        }
    }

    /// With another time limit than 15 s for the whole handshake.
    #[must_use]
    pub fn time_limit(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// Does the handshake with one client.
    pub async fn accept(&self, tcp: TcpStream) -> Result<Incoming, FrontError> {
        match timeout(self.time, Box::pin(self.handshake(tcp))).await {
            Ok(done) => done,
            Err(_) => Err(FrontError::Slow(self.time)),
        }
    }

    async fn handshake(&self, tcp: TcpStream) -> Result<Incoming, FrontError> {
        // Small messages, each waited for.
        let _ = tcp.set_nodelay(true);
        let start = LazyConfigAcceptor::new(Acceptor::default(), tcp)
            .await
            .map_err(FrontError::Handshake)?;
        let is_link = start
            .client_hello()
            .alpn()
            .is_some_and(|mut offered| offered.any(|protocol| protocol == PROTOCOL));
        let config = if is_link { &self.link } else { &self.web };
        let stream = start
            .into_stream(config.clone())
            .await
            .map_err(FrontError::Handshake)?;
        if !is_link {
            return Ok(Incoming::Web(Box::new(stream)));
        }
        let certificates = stream.get_ref().1.peer_certificates();
        let peer = certificates.and_then(|chain| Peer::read(chain.first()?));
        let peer = peer.ok_or(FrontError::NoPeer)?;
        Ok(Incoming::Link(Box::new(stream), peer))
    }
}

/// Our clock, for rustls.
#[derive(Debug)]
struct Time(Clock);

impl rustls::time_provider::TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}
