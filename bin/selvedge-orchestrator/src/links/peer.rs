//! The hop between two orchestrator processes on one database.
//!
//! TLS with ALPN `selvedge-peer/1`. Neither side trusts the other's certificate: both prove that they know the master
//! key, by a MAC over what TLS exports for this one connection (RFC 5705). Whoever sits in between has two connections
//! with two exports, and can prove nothing.
//!
//! ```text
//! caller → MAC("caller")            callee → MAC("callee"), only after the caller's was right
//! caller → length, JSON {host, open | signal}        callee → 1 byte: 0 done, 1 not here; then bytes flow
//! ```

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use aws_lc_rs::hmac;
use link::message::{Open, Signal};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client, server};

use crate::{app::Shared, tls::PEER};

/// Connecting, proving and asking together take no longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is asked is small.
const ASK: usize = 64 << 10;
const LABEL: &[u8] = b"EXPERIMENTAL selvedge-peer/1";

/// A stream through another process.
pub(crate) type Hop = client::TlsStream<TcpStream>;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ask {
    host: String,
    open: Option<Open>,
    signal: Option<Signal>,
}

/// Opens a stream on a host that is connected to the process at `address`.
pub(crate) async fn open(app: &Shared, address: &str, host: &str, what: &Open) -> anyhow::Result<Hop> {
    ask(
        app,
        address,
        Ask {
            host: host.to_owned(),
            open: Some(what.clone()),
            signal: None,
        },
    )
    .await
}

/// Sends a signal to a host that is connected to the process at `address`.
pub(crate) async fn signal(app: &Shared, address: &str, host: &str, what: Signal) -> anyhow::Result<()> {
    let ask = ask(
        app,
        address,
        Ask {
            host: host.to_owned(),
            open: None,
            signal: Some(what),
        },
    );
    ask.await.map(|_| ())
}

async fn ask(app: &Shared, address: &str, what: Ask) -> anyhow::Result<Hop> {
    timeout(PATIENCE, begin(app, address, what))
        .await
        .context("the other process was too slow")?
}

async fn begin(app: &Shared, address: &str, what: Ask) -> anyhow::Result<Hop> {
    let tcp = TcpStream::connect(address)
        .await
        .with_context(|| format!("can't connect to {address}"))?;
    let _ = tcp.set_nodelay(true);
    let name = ServerName::try_from("selvedge-peer").context("a name")?;
    let mut tls = TlsConnector::from(config()?)
        .connect(name, tcp)
        .await
        .context("the TLS handshake failed")?;
    let exported = tls
        .get_ref()
        .1
        .export_keying_material([0_u8; 32], LABEL, None)
        .context("TLS exports nothing")?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &app.peer_secret);
    tls.write_all(proof(&key, b"caller", &exported).as_ref()).await?;
    let mut theirs = [0; 32];
    tls.read_exact(&mut theirs)
        .await
        .context("the other process does not take our proof: has it the same master key?")?;
    check(&key, b"callee", &exported, &theirs)?;
    let text = serde_json::to_vec(&what)?;
    tls.write_all(&u32::try_from(text.len())?.to_be_bytes()).await?;
    tls.write_all(&text).await?;
    tls.flush().await?;
    match tls.read_u8().await.context("the other process broke off")? {
        0 => Ok(tls),
        _ => bail!("the host is not connected there any more"),
    }
}

/// Serves another process.
pub(crate) async fn serve(app: Shared, mut tls: server::TlsStream<TcpStream>) {
    match timeout(PATIENCE, hear(&app, &mut tls)).await {
        Ok(Ok(Some(mut stream))) => {
            let _ = copy_bidirectional(&mut tls, &mut stream).await;
        }
        Ok(Ok(None)) => {
            let _ = tls.shutdown().await;
        }
        Ok(Err(error)) => tracing::warn!(error = %format!("{error:#}"), "another process was refused"),
        Err(_) => {}
    }
}

async fn hear(
    app: &Shared,
    tls: &mut server::TlsStream<TcpStream>,
) -> anyhow::Result<Option<link::stream::Stream>> {
    let exported = tls
        .get_ref()
        .1
        .export_keying_material([0_u8; 32], LABEL, None)
        .context("TLS exports nothing")?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &app.peer_secret);
    let mut theirs = [0; 32];
    tls.read_exact(&mut theirs).await?;
    check(&key, b"caller", &exported, &theirs)?;
    tls.write_all(proof(&key, b"callee", &exported).as_ref()).await?;
    tls.flush().await?;
    let length = usize::try_from(tls.read_u32().await?)?;
    if length > ASK {
        bail!("it asks {length} bytes");
    }
    let mut text = vec![0; length];
    tls.read_exact(&mut text).await?;
    let ask: Ask = serde_json::from_slice(&text).context("it asks what is not understood")?;
    let handle = app.links.get(&ask.host);
    let (answer, stream) = match (handle, ask.open, ask.signal) {
        (Some(handle), Some(open), _) => match handle.open(&open) {
            Ok(stream) => (0, Some(stream)),
            Err(_) => (1, None),
        },
        (Some(handle), None, Some(what)) => {
            let sent = handle.send(&link::message::ServerMessage::Signal { what });
            (u8::from(sent.is_err()), None)
        }
        _ => (1, None),
    };
    tls.write_u8(answer).await?;
    tls.flush().await?;
    Ok(stream)
}

fn proof(key: &hmac::Key, side: &[u8], exported: &[u8; 32]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(side);
    context.update(exported);
    context.sign()
}

fn check(key: &hmac::Key, side: &[u8], exported: &[u8; 32], theirs: &[u8; 32]) -> anyhow::Result<()> {
    let message = [side, exported].concat();
    hmac::verify(key, &message, theirs).map_err(|_| anyhow::anyhow!("it does not know the master key"))
}

fn config() -> anyhow::Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("the TLS library refuses TLS 1.3")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![PEER.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// Takes any certificate: the proof over the export is what counts.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
