//! A host's key with its certificate: on disk, and for TLS.

use std::{fmt, path::Path, sync::Arc};

use jiff::Timestamp;
use rustls::{
    SignatureAlgorithm, SignatureScheme,
    client::ResolvesClientCert,
    pki_types::{CertificateDer, pem::PemObject},
    sign::{CertifiedKey, Signer, SigningKey},
};
use serde::{Deserialize, Serialize};
use telemetry::chain;

use crate::{
    enrol::Granted,
    files,
    key::{HostKey, KeyError},
    verify::Peer,
};

/// What a host keeps of its enrolment, in one file of mode 0600 (JSON).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Enrolment {
    /// The certificate and what is above it, PEM.
    pub certificate: String,
    /// The tenant's CA, PEM.
    pub ca: String,
    /// The host's id.
    pub host_id: String,
    /// The tenant's name.
    pub tenant: String,
    /// The site's name, when it was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
}

impl From<&Granted> for Enrolment {
    fn from(granted: &Granted) -> Self {
        Self {
            certificate: granted.certificate.clone(),
            ca: granted.ca.clone(),
            host_id: granted.host_id.clone(),
            tenant: granted.tenant.clone(),
            site: granted.site.clone(),
        }
    }
}

impl Enrolment {
    /// Reads the file; none if there is none.
    pub fn read(path: &Path) -> Result<Option<Self>, KeyError> {
        let content = files::read(path).map_err(|source| KeyError::File {
            verb: "read",
            path: path.into(),
            source,
        })?;
        let damaged = |_| KeyError::Damaged { path: path.into() };
        content
            .map(|content| serde_json::from_slice(&content).map_err(damaged))
            .transpose()
    }

    /// Writes the file: whole or not at all, synced.
    pub fn write(&self, path: &Path) -> Result<(), KeyError> {
        let failed = |source| KeyError::File {
            verb: "write",
            path: path.into(),
            source,
        };
        let text = serde_json::to_vec_pretty(self).map_err(|e| failed(e.into()))?;
        files::write(path, &text, 0o600).map_err(failed)
    }
}

/// Why key and certificate can't be used together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No certificate of a host.
    #[error("this is not a host's certificate in PEM")]
    Malformed,
    /// A certificate of another key.
    #[error("the certificate is for another key than this host's")]
    OtherKey,
}

/// A host's key and certificate, for TLS. Cheap to clone.
#[derive(Clone)]
pub struct Credentials {
    peer: Arc<Peer>,
    certified: Arc<CertifiedKey>,
    key: Arc<dyn HostKey>,
}

impl Credentials {
    /// Puts a key and its certificate (PEM, the host's first) together.
    pub fn new(key: Arc<dyn HostKey>, certificate_pem: &str) -> Result<Self, Error> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate_pem.as_bytes()).collect();
        let chain = chain.map_err(|_| Error::Malformed)?;
        let peer = chain.first().and_then(|first| Peer::read(first));
        let peer = peer.ok_or(Error::Malformed)?;
        if peer.public_key != key.public_key() {
            return Err(Error::OtherKey);
        }
        let signer = Arc::new(Signing(key.clone()));
        Ok(Self {
            peer: Arc::new(peer),
            certified: Arc::new(CertifiedKey::new(chain, signer)),
            key,
        })
    }

    /// What the certificate says.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &Arc<dyn HostKey> {
        &self.key
    }

    /// The certificate, PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        let first = self.certified.cert.first();
        first.map_or_else(String::new, |first| crate::x509::pem("CERTIFICATE", first))
    }

    /// When to renew: at two thirds of the certificate's life.
    #[must_use]
    pub fn renew_at(&self) -> Timestamp {
        let life = self.peer.not_after.duration_since(self.peer.not_before);
        self.peer
            .not_before
            .checked_add(life * 2 / 3)
            .unwrap_or(self.peer.not_after)
    }

    /// Whether the certificate's time is over.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now > self.peer.not_after
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("host", &self.peer.host)
            .field("serial", &self.peer.serial)
            .field("not_after", &self.peer.not_after)
            .finish_non_exhaustive()
    }
}

impl ResolvesClientCert for Credentials {
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let can = schemes.contains(&SignatureScheme::ECDSA_NISTP256_SHA256);
        can.then(|| self.certified.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A host's key as rustls wants it.
#[derive(Debug)]
struct Signing(Arc<dyn HostKey>);

impl SigningKey for Signing {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let can = offered.contains(&SignatureScheme::ECDSA_NISTP256_SHA256);
        can.then(|| Box::new(Self(self.0.clone())) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for Signing {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.0
            .sign(message)
            .map_err(|e| rustls::Error::General(chain(&e).to_string()))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}
