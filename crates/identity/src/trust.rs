//! Which servers a host believes.

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use rustls::{
    ClientConfig, RootCertStore,
    client::{Resumption, WebPkiServerVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
};
use telemetry::Clock;

use crate::credentials::Credentials;

/// No clock is before this: this software isn't older. Hosts without a battery start in 1970 and must still come in.
pub(crate) const OLDEST: Timestamp = Timestamp::constant(1_767_225_600, 0);

/// Why no trust could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The given CA isn't one.
    #[error("the orchestrator's CA is not a certificate in PEM")]
    Ca,
    /// This system has no CAs.
    #[error("this system has no list of CAs: name the orchestrator's CA in the configuration")]
    NoSystemRoots,
    /// The TLS library refused.
    #[error("the TLS library refused the configuration")]
    Tls(#[source] rustls::Error),
}

/// The CAs that may sign an orchestrator's certificate. Made once and shared: cheap to clone.
#[derive(Clone)]
pub struct ServerTrust {
    provider: Arc<CryptoProvider>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl ServerTrust {
    /// Trusts the CAs in `ca_pem` **only**; without it, those of the system.
    pub fn new(ca_pem: Option<&str>) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        if let Some(pem) = ca_pem {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|_| Error::Ca)?;
                roots.add(certificate).map_err(|_| Error::Ca)?;
            }
        } else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        if roots.is_empty() {
            return Err(if ca_pem.is_some() {
                Error::Ca
            } else {
                Error::NoSystemRoots
            });
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|_| Error::Ca)?;
        Ok(Self { provider, verifier })
    }

    /// A TLS client's configuration: with the host's certificate or without, for these protocols (ALPN).
    pub fn client_config(
        &self,
        credentials: Option<Credentials>,
        protocols: &[&[u8]],
        clock: &Clock,
    ) -> Result<ClientConfig, Error> {
        let floor = credentials
            .as_ref()
            .map_or(OLDEST, |c| c.peer().not_before.max(OLDEST));
        let time = Arc::new(Time {
            clock: clock.clone(),
            floor,
        });
        let builder = ClientConfig::builder_with_details(self.provider.clone(), time)
            .with_safe_default_protocol_versions()
            .map_err(Error::Tls)?
            .with_webpki_verifier(self.verifier.clone());
        let mut config = match credentials {
            Some(credentials) => builder.with_client_cert_resolver(Arc::new(credentials)),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        // One long connection: tickets would be memory for nothing.
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

impl fmt::Debug for ServerTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTrust")
    }
}

/// Our clock, but never before `floor`.
#[derive(Debug)]
struct Time {
    clock: Clock,
    floor: Timestamp,
}

impl rustls::time_provider::TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.clock.now().max(self.floor).as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}
