//! Certificate signing requests: a host makes one, the orchestrator checks that whoever sent it has the key.

use std::sync::OnceLock;

use aws_lc_rs::{
    digest,
    signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey},
};
use rcgen::{CertificateParams, DistinguishedName, PublicKeyData, SignatureAlgorithm, SigningKey};
use rustls::pki_types::{CertificateSigningRequestDer, pem::PemObject};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

pub use crate::key::{FileKey, HostKey, KeyError};
use crate::x509;

/// The longest request that is read, in bytes of PEM. A P-256 request without names has under 500.
pub const MAX_PEM: usize = 8 * 1024;

const ECDSA_WITH_SHA256: &str = "1.2.840.10045.4.3.2";

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Longer than [`MAX_PEM`].
    #[error("the certificate signing request is longer than {MAX_PEM} bytes")]
    TooLong,
    /// Not a request in PEM.
    #[error("this is no certificate signing request in PEM")]
    Malformed,
    /// Another kind of key.
    #[error("the key of a certificate signing request must be ECDSA P-256, and its signature with SHA-256")]
    Key,
    /// The signature isn't by the key.
    #[error("the certificate signing request is not signed by its own key")]
    Signature,
}

/// A request whose sender has the key. Its names, if it had any, are gone: who the host is decides the orchestrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csr {
    public_key: Vec<u8>,
}

impl Csr {
    /// Reads and checks a request.
    pub fn parse(pem: &str) -> Result<Self, Error> {
        if pem.len() > MAX_PEM {
            return Err(Error::TooLong);
        }
        let der =
            CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|_| Error::Malformed)?;
        let (rest, csr) = X509CertificationRequest::from_der(&der).map_err(|_| Error::Malformed)?;
        if !rest.is_empty() {
            return Err(Error::Malformed);
        }
        let info = &csr.certification_request_info;
        let public_key = x509::p256_point(&info.subject_pki).ok_or(Error::Key)?;
        if csr.signature_algorithm.algorithm.to_id_string() != ECDSA_WITH_SHA256 {
            return Err(Error::Key);
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &public_key)
            .verify(info.raw, &csr.signature_value.data)
            .map_err(|_| Error::Signature)?;
        Ok(Self { public_key })
    }

    /// The key: an uncompressed SEC 1 point, 65 bytes.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// SHA-256 of the key in hexadecimal: what a person compares, and what makes a repeated request the same one.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.public_key)
    }

    /// Whether `signature` (ASN.1 DER) over `message` is by the request's key.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.public_key)
            .verify(message, signature)
            .is_ok()
    }
}

/// SHA-256 of a public key (its uncompressed point) in hexadecimal.
#[must_use]
pub fn fingerprint(public_key: &[u8]) -> String {
    x509::hex(digest::digest(&digest::SHA256, public_key).as_ref())
}

/// A request for a key, PEM. It names nobody.
pub fn make(key: &dyn HostKey) -> Result<String, KeyError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let borrowed = Borrowed(key, OnceLock::new());
    let request = params
        .serialize_request(&borrowed)
        .and_then(|request| request.pem());
    request.map_err(|e| {
        let Borrowed(_, why) = borrowed;
        why.into_inner().unwrap_or_else(|| KeyError::Sign(e.to_string()))
    })
}

/// A host's key as the certificate library wants it. That keeps no reasons: they are kept beside.
struct Borrowed<'a>(&'a dyn HostKey, OnceLock<KeyError>);

impl PublicKeyData for Borrowed<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Borrowed<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message).map_err(|error| {
            // Only the first counts, and there is but one.
            let _ = self.1.set(error);
            rcgen::Error::RemoteKeyError
        })
    }
}

impl PublicKeyData for Csr {
    fn der_bytes(&self) -> &[u8] {
        &self.public_key
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}
