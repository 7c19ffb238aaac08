//! The TLS side of the one port: which certificate is shown, and what the client's ALPN chooses.
//!
//! | ALPN | what it is | client certificate |
//! |---|---|---|
//! | `selvedge-link/1` | a host's link | demanded, of a tenant's CA |
//! | `selvedge-peer/1` | another orchestrator process on the same database | none; both sides prove the master key |
//! | anything else | page, API, Git, enrolment | not asked for |

mod own;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use identity::verify::ClientVerifier;
use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use telemetry::Clock;

use crate::config::Config;

/// ALPN of a host's link.
pub(crate) use link::tls::PROTOCOL as LINK;
/// ALPN of the hop between orchestrator processes.
pub(crate) const PEER: &[u8] = b"selvedge-peer/1";

/// How often files are looked at and the end of our own certificate is checked.
pub(crate) const LOOK: Duration = Duration::from_secs(30);

/// The certificate that is shown, and where it comes from.
#[derive(Debug)]
pub(crate) struct Certificates {
    current: ArcSwap<CertifiedKey>,
    source: Source,
    clock: Clock,
}

#[derive(Debug)]
enum Source {
    Files {
        certificate: PathBuf,
        key: PathBuf,
        /// What the files' times were when they were last read.
        seen: std::sync::Mutex<Option<(SystemTime, SystemTime)>>,
    },
    Own(Box<own::Own>),
}

impl Certificates {
    /// Reads the certificate that the configuration names, or makes one of our own CA.
    pub(crate) fn open(config: &Config, clock: &Clock) -> anyhow::Result<Arc<Self>> {
        let source = match (&config.server.cert_file, &config.server.key_file) {
            (Some(certificate), Some(key)) => Source::Files {
                certificate: certificate.clone(),
                key: key.clone(),
                seen: std::sync::Mutex::new(None),
            },
            _ => Source::Own(Box::new(own::Own::open(config, clock)?)),
        };
        let first = source
            .read(clock)?
            .context("the serving certificate can't be read")?;
        Ok(Arc::new(Self {
            current: ArcSwap::from_pointee(first),
            source,
            clock: clock.clone(),
        }))
    }

    /// Reads the files again if they changed, or renews our own certificate if it is due. A bad file leaves the
    /// old certificate in force.
    pub(crate) fn look(&self) -> anyhow::Result<bool> {
        let Some(new) = self.source.read(&self.clock)? else {
            return Ok(false);
        };
        self.current.store(Arc::new(new));
        Ok(true)
    }

    /// What hosts and people need to trust this server, if its certificate is of our own CA.
    pub(crate) fn ca_pem(&self) -> Option<&str> {
        match &self.source {
            Source::Files { .. } => None,
            Source::Own(own) => Some(own.ca_pem()),
        }
    }
}

impl Source {
    /// A certificate to show from now on, `None` if the old one is still right.
    fn read(&self, clock: &Clock) -> anyhow::Result<Option<CertifiedKey>> {
        match self {
            Self::Files {
                certificate,
                key,
                seen,
            } => {
                let time = |path: &PathBuf| {
                    std::fs::metadata(path)
                        .and_then(|meta| meta.modified())
                        .with_context(|| format!("can't read {}", path.display()))
                };
                let now = (time(certificate)?, time(key)?);
                let mut seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if *seen == Some(now) {
                    return Ok(None);
                }
                let chain = CertificateDer::pem_file_iter(certificate)
                    .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                    .with_context(|| format!("{} holds no certificate", certificate.display()))?;
                if chain.is_empty() {
                    bail!("{} holds no certificate", certificate.display());
                }
                let secret = PrivateKeyDer::from_pem_file(key)
                    .with_context(|| format!("{} holds no private key", key.display()))?;
                let certified = certified(chain, secret)
                    .with_context(|| format!("{} does not fit {}", key.display(), certificate.display()))?;
                *seen = Some(now);
                Ok(Some(certified))
            }
            Self::Own(own) => own.due(clock),
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> anyhow::Result<CertifiedKey> {
    Ok(CertifiedKey::from_der(chain, key, &provider())?)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The three configurations behind the port.
#[derive(Clone)]
pub(crate) struct Configs {
    pub(crate) link: Arc<ServerConfig>,
    pub(crate) peer: Arc<ServerConfig>,
    pub(crate) web: Arc<ServerConfig>,
}

impl Configs {
    /// Puts them together. `hosts` says which client certificates a link may have.
    pub(crate) fn new(
        certificates: Arc<Certificates>,
        hosts: &ClientVerifier,
        clock: &Clock,
    ) -> anyhow::Result<Self> {
        let builder = || {
            anyhow::Ok(
                ServerConfig::builder_with_provider(provider())
                    .with_safe_default_protocol_versions()
                    .context("the TLS library refuses its own versions")?
                    .with_no_client_auth()
                    .with_cert_resolver(certificates.clone()),
            )
        };
        let mut peer = builder()?;
        peer.alpn_protocols = vec![PEER.to_vec()];
        peer.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        peer.send_tls13_tickets = 0;
        let mut web = builder()?;
        web.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let link = link::tls::server_config(certificates.clone(), hosts, clock)
            .context("the TLS library refuses the link's configuration")?;
        Ok(Self {
            link,
            peer: Arc::new(peer),
            web: Arc::new(web),
        })
    }
}
