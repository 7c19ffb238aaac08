//! Client certificates of hosts: many authorities and what is revoked, both swapped at run time.
//!
//! A certificate names its tenant; only that tenant's authorities are asked. So a tenant's CA can't make a host of
//! another tenant, whatever it signs.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use telemetry::Clock;

use crate::x509;

/// How long after its end a certificate is still let in.
pub const EXPIRY_GRACE: Duration = Duration::from_mins(5);

/// Whose certificate it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The tenant's id.
    pub tenant: String,
    /// The host's id.
    pub host: String,
    /// The certificate's serial number, lower-case hexadecimal.
    pub serial: String,
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
    /// The key: an uncompressed SEC 1 point.
    pub public_key: Vec<u8>,
}

impl Peer {
    /// Reads who a certificate is for, checking nothing. For certificates that were checked, or are one's own.
    #[must_use]
    pub fn read(certificate: &[u8]) -> Option<Self> {
        let facts = x509::facts(certificate)?;
        let uri = facts.uri?;
        let (tenant, host) = uri.strip_prefix("spiffe://selvedge/")?.split_once("/host/")?;
        // What the maker would refuse, the reader refuses.
        crate::ca::host_uri(tenant, host).ok()?;
        Some(Self {
            tenant: tenant.into(),
            host: host.into(),
            serial: facts.serial,
            not_before: facts.not_before,
            not_after: facts.not_after,
            public_key: facts.public_key?,
        })
    }
}

/// Why a certificate was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a host's certificate at all.
    #[error("this is not a host's certificate")]
    Malformed,
    /// The tenant that it names isn't known here.
    #[error("the certificate names a tenant that is not known here")]
    UnknownTenant,
    /// The tenant's CA didn't sign it, or not for a client.
    #[error("the certificate of host {host} was not signed by its tenant's authority for a client")]
    Untrusted {
        /// The host that it names.
        host: String,
    },
    /// Its time is over.
    #[error("the certificate of host {host} expired at {at}")]
    Expired {
        /// The host.
        host: String,
        /// When.
        at: Timestamp,
    },
    /// Its time has not begun.
    #[error("the certificate of host {host} is valid from {at} only: a clock is wrong")]
    NotYet {
        /// The host.
        host: String,
        /// When.
        at: Timestamp,
    },
    /// The host, or this certificate of it, was revoked.
    #[error("host {host} was revoked")]
    Revoked {
        /// The host.
        host: String,
    },
}

/// A stored authority can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the authority of tenant {0} is not a certificate in PEM that can be trusted")]
pub struct BadAuthority(pub String);

/// What is revoked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations {
    /// Ids of hosts: whatever certificate they show.
    pub hosts: HashSet<String>,
    /// Serial numbers (lower-case hexadecimal) of single certificates.
    pub serials: HashSet<String>,
}

type Trusted = HashMap<String, Arc<dyn ClientCertVerifier>>;

/// Verifies hosts' certificates; give it to rustls, and ask it who a peer is. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct ClientVerifier(Arc<Inner>);

struct Inner {
    clock: Clock,
    provider: Arc<CryptoProvider>,
    trusted: ArcSwap<Trusted>,
    revoked: ArcSwap<Revocations>,
    // Held while a swap is prepared: changes come one after another.
    writing: Mutex<()>,
}

impl ClientVerifier {
    /// A verifier that trusts nobody yet.
    #[must_use]
    pub fn new(clock: &Clock) -> Self {
        Self(Arc::new(Inner {
            clock: clock.clone(),
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            trusted: ArcSwap::default(),
            revoked: ArcSwap::default(),
            writing: Mutex::default(),
        }))
    }

    /// Trusts these tenants (id, certificates of its authorities in PEM) and no others. On an error nothing changes.
    pub fn set_authorities<'a>(
        &self,
        tenants: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), BadAuthority> {
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut trusted = Trusted::new();
        for (tenant, pem) in tenants {
            trusted.insert(tenant.into(), self.verifier(tenant, pem)?);
        }
        self.0.trusted.store(Arc::new(trusted));
        Ok(())
    }

    /// Trusts one more tenant, or other authorities of it: `pem` may hold several, for the change from one to the next.
    pub fn set_authority(&self, tenant: &str, pem: &str) -> Result<(), BadAuthority> {
        let made = self.verifier(tenant, pem)?;
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut trusted = Trusted::clone(&self.0.trusted.load());
        trusted.insert(tenant.into(), made);
        self.0.trusted.store(Arc::new(trusted));
        Ok(())
    }

    /// Trusts a tenant no more.
    pub fn remove_authority(&self, tenant: &str) {
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut trusted = Trusted::clone(&self.0.trusted.load());
        trusted.remove(tenant);
        self.0.trusted.store(Arc::new(trusted));
    }

    /// Revokes these and no others.
    pub fn set_revocations(&self, revoked: Revocations) {
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.revoked.store(Arc::new(revoked));
    }

    /// Revokes one more host. Its next handshake fails; its present session is the server's to close.
    pub fn revoke_host(&self, host: &str) {
        self.revoke(|revoked| revoked.hosts.insert(host.into()));
    }

    /// Revokes one more certificate.
    pub fn revoke_serial(&self, serial: &str) {
        self.revoke(|revoked| revoked.serials.insert(serial.into()));
    }

    fn revoke(&self, change: impl FnOnce(&mut Revocations) -> bool) {
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut revoked = Revocations::clone(&self.0.revoked.load());
        if change(&mut revoked) {
            self.0.revoked.store(Arc::new(revoked));
        }
    }

    /// Whether a peer was revoked, by its host or by its certificate.
    #[must_use]
    pub fn is_revoked(&self, peer: &Peer) -> bool {
        let revoked = self.0.revoked.load();
        revoked.hosts.contains(&peer.host) || revoked.serials.contains(&peer.serial)
    }

    /// Checks a certificate (and what came with it) now, and says whose it is.
    pub fn check(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
    ) -> Result<Peer, Refusal> {
        let peer = Peer::read(certificate).ok_or(Refusal::Malformed)?;
        let now = self.0.clock.now();
        if now < peer.not_before {
            return Err(Refusal::NotYet {
                host: peer.host,
                at: peer.not_before,
            });
        }
        if now.duration_since(peer.not_after).as_secs_f64() > EXPIRY_GRACE.as_secs_f64() {
            return Err(Refusal::Expired {
                host: peer.host,
                at: peer.not_after,
            });
        }
        self.check_signed(&peer, certificate, others)?;
        Ok(peer)
    }

    /// Checks a certificate whose time may be over: for renewal by proof of its key.
    pub fn check_expired(&self, certificate_pem: &str) -> Result<Peer, Refusal> {
        if certificate_pem.len() > crate::csr::MAX_PEM {
            return Err(Refusal::Malformed);
        }
        let certificate =
            CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|_| Refusal::Malformed)?;
        let peer = Peer::read(&certificate).ok_or(Refusal::Malformed)?;
        self.check_signed(&peer, &certificate, &[])?;
        Ok(peer)
    }

    fn check_signed(
        &self,
        peer: &Peer,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
    ) -> Result<(), Refusal> {
        // Before the signature: a flood of a revoked host costs no curve operations.
        if self.is_revoked(peer) {
            return Err(Refusal::Revoked {
                host: peer.host.clone(),
            });
        }
        let trusted = self.0.trusted.load();
        let verifier = trusted.get(&peer.tenant).ok_or(Refusal::UnknownTenant)?;
        // The time was judged by the caller; within it, any moment will do.
        let at = u64::try_from(peer.not_before.as_second().max(0)).unwrap_or(0);
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at) + crate::ca::SKEW);
        verifier
            .verify_client_cert(certificate, others, at)
            .map(|_| ())
            .map_err(|_| Refusal::Untrusted {
                host: peer.host.clone(),
            })
    }

    fn verifier(&self, tenant: &str, pem: &str) -> Result<Arc<dyn ClientCertVerifier>, BadAuthority> {
        let bad = || BadAuthority(tenant.into());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            roots.add(certificate.map_err(|_| bad())?).map_err(|_| bad())?;
        }
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), self.0.provider.clone())
            .build()
            .map(|verifier| verifier as Arc<dyn ClientCertVerifier>)
            .map_err(|_| bad())
    }
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientVerifier")
            .field("tenants", &self.0.trusted.load().len())
            .finish_non_exhaustive()
    }
}

impl ClientCertVerifier for ClientVerifier {
    // No hints: a list of every tenant's CA would tell who the customers are, and cost each handshake kilobytes.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let error = match self.check(end_entity, intermediates) {
            Ok(_) => return Ok(ClientCertVerified::assertion()),
            Err(Refusal::Malformed) => CertificateError::BadEncoding,
            Err(Refusal::UnknownTenant | Refusal::Untrusted { .. }) => CertificateError::UnknownIssuer,
            Err(Refusal::Expired { .. }) => CertificateError::Expired,
            Err(Refusal::NotYet { .. }) => CertificateError::NotValidYet,
            Err(Refusal::Revoked { .. }) => CertificateError::Revoked,
        };
        Err(error.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
