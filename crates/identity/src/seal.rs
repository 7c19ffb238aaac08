//! Secrets at rest: AES-256-GCM with a master key that isn't in the database.
//!
//! A sealed secret is bound to its tenant and record: copied to another row, or another tenant's, it does not open.
//!
//! ```text
//!   envelope:  1 (version) | key id (4, big endian) | nonce (12) | ciphertext | tag (16)
//!   bound to:  purpose, tenant and record, each with its length
//! ```
//!
//! The master key file holds one key a line, `ID BASE64`, the one that seals first; `#` begins a comment. To rotate:
//! put a new line first ([`MasterKeys::rotate`]), restart the processes, seal every secret again
//! ([`MasterKeys::is_current`] says which), then remove the old line. Nonces are random; one key is good for 2³²
//! secrets, far more than a fleet has.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac,
};
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::files;

const VERSION: u8 = 1;
const HEADER: usize = 5;
const KEY: usize = 32;

/// What went wrong with a seal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key file could not be read or written.
    #[error("can't {verb} {}", path.display())]
    File {
        /// `read` or `write`.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The key file isn't one.
    #[error("line {line} of the master key file is not `ID BASE64` with 32 bytes of key")]
    KeyFile {
        /// Line, from 1.
        line: usize,
    },
    /// The key file has no key.
    #[error("the master key file holds no key")]
    NoKey,
    /// Sealed by a key that isn't there.
    #[error("the secret was sealed by master key {0}, which is not in the master key file: restore it")]
    UnknownKey(u32),
    /// Not an envelope, or damaged, or of another record.
    #[error("a stored secret does not open: it is damaged, or was copied from another record")]
    Damaged,
    /// No randomness.
    #[error("nothing can be sealed: the random source failed")]
    Random,
}

/// What a secret belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding<'a> {
    /// What it is (`ca-key`, `repository-credentials`, …).
    pub purpose: &'a str,
    /// The tenant's id; empty for the installation's own.
    pub tenant: &'a str,
    /// The record's id.
    pub record: &'a str,
}

impl Binding<'_> {
    fn bytes(&self) -> Vec<u8> {
        // Lengths, so that no two bindings have the same bytes whatever is in them.
        let mut out = Vec::new();
        for part in [self.purpose, self.tenant, self.record] {
            out.extend_from_slice(&(part.len() as u64).to_be_bytes());
            out.extend_from_slice(part.as_bytes());
        }
        out
    }
}

/// The keys that seal.
pub struct MasterKeys(Vec<(u32, [u8; KEY])>);

impl MasterKeys {
    /// New keys: one, in memory.
    pub fn generate() -> Result<Self, Error> {
        Ok(Self(vec![(1, random_key()?)]))
    }

    /// Reads the key file, or makes it with mode 0600.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if let Some(found) = Self::read(path)? {
            return Ok(found);
        }
        let made = Self::generate()?;
        let first = files::create(path, made.text().as_bytes(), 0o600).map_err(|source| Error::File {
            verb: "write",
            path: path.into(),
            source,
        })?;
        // Another process was faster: its keys count, or what this one seals nobody could open.
        match (first, Self::read(path)?) {
            (false, Some(theirs)) => Ok(theirs),
            _ => Ok(made),
        }
    }

    /// Reads the key file; none if there is none.
    pub fn read(path: &Path) -> Result<Option<Self>, Error> {
        let content = files::read(path).map_err(|source| Error::File {
            verb: "read",
            path: path.into(),
            source,
        })?;
        content
            .map(|content| Self::parse(&String::from_utf8_lossy(&content)))
            .transpose()
    }

    /// Reads the text of a key file.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut keys: Vec<(u32, [u8; KEY])> = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let bad = || Error::KeyFile { line: at + 1 };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (id, key) = line.split_once(char::is_whitespace).ok_or_else(bad)?;
            let id: u32 = id.parse().map_err(|_| bad())?;
            let key = STANDARD.decode(key.trim()).map_err(|_| bad())?;
            let key: [u8; KEY] = key.try_into().map_err(|_| bad())?;
            if keys.iter().any(|(other, _)| *other == id) {
                return Err(bad());
            }
            keys.push((id, key));
        }
        if keys.is_empty() {
            return Err(Error::NoKey);
        }
        Ok(Self(keys))
    }

    /// Writes the key file, mode 0600, synced.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        files::write(path, self.text().as_bytes(), 0o600).map_err(|source| Error::File {
            verb: "write",
            path: path.into(),
            source,
        })
    }

    fn text(&self) -> String {
        let mut text = String::from(
            "# The keys that seal secrets in the database. Without them it is of no use: keep a copy elsewhere.\n",
        );
        for (id, key) in &self.0 {
            text += &format!("{id} {}\n", STANDARD.encode(key));
        }
        text
    }

    /// Adds a new key that seals from now on; the others still open.
    pub fn rotate(&mut self) -> Result<(), Error> {
        let next = self.0.iter().map(|(id, _)| *id).max().unwrap_or(0);
        let next = next.checked_add(1).ok_or(Error::NoKey)?;
        self.0.insert(0, (next, random_key()?));
        Ok(())
    }

    /// Seals a secret.
    pub fn seal(&self, binding: Binding<'_>, secret: &[u8]) -> Result<Vec<u8>, Error> {
        let (id, key) = self.0.first().ok_or(Error::NoKey)?;
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| Error::Random)?;
        let mut sealed = secret.to_vec();
        cipher(key)?
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(binding.bytes()),
                &mut sealed,
            )
            .map_err(|_| Error::Damaged)?;
        let mut out = Vec::with_capacity(HEADER + NONCE_LEN + sealed.len());
        out.push(VERSION);
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// Opens what [`MasterKeys::seal`] made for the same binding.
    pub fn open_sealed(&self, binding: Binding<'_>, sealed: &[u8]) -> Result<Vec<u8>, Error> {
        let (id, rest) = split(sealed)?;
        let (nonce, body) = rest.split_at_checked(NONCE_LEN).ok_or(Error::Damaged)?;
        let found = self.0.iter().find(|(other, _)| *other == id);
        let (_, key) = found.ok_or(Error::UnknownKey(id))?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Error::Damaged)?;
        let mut body = body.to_vec();
        let secret = cipher(key)?
            .open_in_place(nonce, Aad::from(binding.bytes()), &mut body)
            .map_err(|_| Error::Damaged)?;
        Ok(secret.to_vec())
    }

    /// Whether a sealed secret was sealed by the key that seals now; if not, seal it again.
    #[must_use]
    pub fn is_current(&self, sealed: &[u8]) -> bool {
        split(sealed).is_ok_and(|(id, _)| self.0.first().is_some_and(|(current, _)| *current == id))
    }

    /// A further secret for one purpose (nonces, cookies), the same in all processes. Of the oldest key, so that it stays
    /// when a new one is put first.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let mut out = [0; 32];
        if let Some((_, key)) = self.0.last() {
            let key = hmac::Key::new(hmac::HMAC_SHA256, key);
            let mac = hmac::sign(&key, format!("selvedge derived secret 1\0{purpose}").as_bytes());
            out.copy_from_slice(mac.as_ref());
        }
        out
    }
}

impl fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(id, _)| id)).finish()
    }
}

fn split(sealed: &[u8]) -> Result<(u32, &[u8]), Error> {
    match sealed {
        [VERSION, a, b, c, d, rest @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), rest)),
        _ => Err(Error::Damaged),
    }
}

fn cipher(key: &[u8; KEY]) -> Result<LessSafeKey, Error> {
    UnboundKey::new(&AES_256_GCM, key)
        .map(LessSafeKey::new)
        .map_err(|_| Error::Damaged)
}

fn random_key() -> Result<[u8; KEY], Error> {
    let mut key = [0; KEY];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| Error::Random)?;
    Ok(key)
}
