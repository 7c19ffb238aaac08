//! A host's private key.

mod store;
mod tpm;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};

pub use store::{KeyStore, Place};
pub use tpm::{DEVICE, TpmError, TpmKey};

use crate::files;

/// What went wrong with a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file could not be read or written.
    #[error("can't {verb} {}", path.display())]
    File {
        /// `read`, `write` or `remove`.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file holds no P-256 key.
    #[error("{} holds no ECDSA P-256 key: restore it, or remove it and enrol the host again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The key could not be made.
    #[error("no key could be made: the random source failed")]
    Make,
    /// The key is in a TPM, and that did not do it.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The key could not sign.
    #[error("the key did not sign: {0}")]
    Sign(String),
}

/// An ECDSA P-256 key that signs and is never shown: a file, or a TPM.
pub trait HostKey: fmt::Debug + Send + Sync {
    /// The public key: an uncompressed SEC 1 point, 65 bytes.
    fn public_key(&self) -> &[u8];

    /// Signs with ECDSA over SHA-256. The signature is in ASN.1 DER.
    ///
    /// May take as long as a TPM does: some tens of milliseconds, as a rule.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError>;

    /// Whether only a TPM can use it.
    fn in_tpm(&self) -> bool {
        false
    }
}

/// A key in memory or in a file of mode 0600.
pub struct FileKey {
    pair: EcdsaKeyPair,
}

impl FileKey {
    /// A new key that is nowhere but in memory.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| KeyError::Make)?;
        Ok(Self { pair })
    }

    /// Reads a key, or makes it: written beside, synced, renamed, so that a crash leaves the old one or the new one.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        if let Some(found) = Self::read(path)? {
            return Ok(found);
        }
        let made = Self::generate()?;
        made.write(path)?;
        Ok(made)
    }

    /// Reads a key; none if there is no file.
    pub fn read(path: &Path) -> Result<Option<Self>, KeyError> {
        let pem = files::read(path).map_err(|source| KeyError::File {
            verb: "read",
            path: path.into(),
            source,
        })?;
        let Some(pem) = pem else { return Ok(None) };
        let damaged = || KeyError::Damaged { path: path.into() };
        let der = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| damaged())?;
        Self::from_pkcs8(der.secret_der())
            .map(Some)
            .map_err(|_| damaged())
    }

    /// Writes the key to a file of mode 0600.
    pub fn write(&self, path: &Path) -> Result<(), KeyError> {
        files::write(path, self.pem()?.as_bytes(), 0o600).map_err(|source| KeyError::File {
            verb: "write",
            path: path.into(),
            source,
        })
    }

    /// A key from PKCS#8 DER.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der)
            .map_err(|e| KeyError::Sign(e.to_string()))?;
        Ok(Self { pair })
    }

    /// The key as PKCS#8 DER: what [`FileKey::from_pkcs8`] reads. A secret.
    pub fn to_pkcs8(&self) -> Result<Vec<u8>, KeyError> {
        let der = self.pair.to_pkcs8v1().map_err(|_| KeyError::Make)?;
        Ok(der.as_ref().to_vec())
    }

    fn pem(&self) -> Result<String, KeyError> {
        Ok(crate::x509::pem("PRIVATE KEY", &self.to_pkcs8()?))
    }
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileKey")
    }
}

impl HostKey for FileKey {
    fn public_key(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.pair
            .sign(&SystemRandom::new(), message)
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| KeyError::Sign("the library refused".into()))
    }
}
