//! Nonces and proofs of possession, for renewing a certificate whose time may be over.
//!
//! A nonce is a time and 16 random bytes with a MAC over both, by a key that all orchestrator processes share: any of
//! them gives nonces, any of them checks them, and none remembers any. It is good for [`NONCE_LIFETIME`].
//!
//! Single use is not enforced and needs not be: the proof signs the nonce *and* the new CSR, so a recorded renewal
//! that is sent again can only bring another certificate for the same key, which whoever recorded it hasn't got. Who
//! wants it strict keeps [`Nonces::check`]'s mark in a table for [`NONCE_LIFETIME`].

use std::time::Duration;

use aws_lc_rs::{constant_time::verify_slices_are_equal, digest, hmac};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jiff::Timestamp;
use telemetry::Clock;

use crate::{csr::HostKey, key::KeyError, verify::Peer, x509};

/// How long a nonce is good.
pub const NONCE_LIFETIME: Duration = Duration::from_mins(5);
/// How far ahead of this process's clock the giver's may be.
pub const NONCE_SKEW: Duration = Duration::from_mins(1);

const TIME: usize = 8;
const RANDOM: usize = 16;
const MAC: usize = 32;

/// Why a nonce or proof was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not ours.
    #[error("this nonce was not given by this orchestrator")]
    Forged,
    /// Too old.
    #[error("the nonce is older than five minutes: ask for another one")]
    Stale,
    /// The signature isn't by the certificate's key.
    #[error("the proof is not signed by the certificate's key")]
    Proof,
    /// No randomness.
    #[error("no nonce could be made: the random source failed")]
    Random,
}

/// Gives and checks nonces.
#[derive(Clone, Debug)]
pub struct Nonces(hmac::Key);

impl Nonces {
    /// With a secret that all processes share (32 bytes; `seal::MasterKeys::derive` gives one).
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// A nonce.
    pub fn give(&self, clock: &Clock) -> Result<String, Error> {
        let mut bytes = [0; TIME + RANDOM + MAC];
        bytes[..TIME].copy_from_slice(&clock.now().as_second().to_be_bytes());
        aws_lc_rs::rand::fill(&mut bytes[TIME..TIME + RANDOM]).map_err(|_| Error::Random)?;
        let mac = hmac::sign(&self.0, &bytes[..TIME + RANDOM]);
        bytes[TIME + RANDOM..].copy_from_slice(mac.as_ref());
        Ok(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Checks a nonce; gives its mark, by which one could remember that it was used.
    pub fn check(&self, nonce: &str, clock: &Clock) -> Result<String, Error> {
        if nonce.len() > 2 * (TIME + RANDOM + MAC) {
            return Err(Error::Forged);
        }
        let bytes = URL_SAFE_NO_PAD.decode(nonce).map_err(|_| Error::Forged)?;
        let Some((body, mac)) = bytes.split_at_checked(TIME + RANDOM) else {
            return Err(Error::Forged);
        };
        if hmac::verify(&self.0, body, mac).is_err() {
            return Err(Error::Forged);
        }
        let mut time = [0; TIME];
        time.copy_from_slice(&body[..TIME]);
        let given = Timestamp::from_second(i64::from_be_bytes(time)).map_err(|_| Error::Forged)?;
        let age = clock.now().duration_since(given).as_secs_f64();
        if age > NONCE_LIFETIME.as_secs_f64() || age < -NONCE_SKEW.as_secs_f64() {
            return Err(Error::Stale);
        }
        Ok(x509::hex(&body[TIME..]))
    }
}

/// What the old key signs in a renewal: SHA-256 over the nonce and the CSR's PEM, as they are sent.
#[must_use]
pub fn renewal_message(nonce: &str, csr_pem: &str) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(nonce.as_bytes());
    context.update(csr_pem.as_bytes());
    context.finish().as_ref().to_vec()
}

/// The `proof` of a renewal.
pub fn prove_renewal(key: &dyn HostKey, nonce: &str, csr_pem: &str) -> Result<String, KeyError> {
    Ok(STANDARD.encode(key.sign(&renewal_message(nonce, csr_pem))?))
}

/// Checks the `proof` of a renewal against the old certificate (checked by `ClientVerifier::check_expired`).
pub fn check_renewal(peer: &Peer, nonce: &str, csr_pem: &str, proof: &str) -> Result<(), Error> {
    check(&peer.public_key, &renewal_message(nonce, csr_pem), proof)
}

/// The value of `X-Selvedge-Proof` for a request's id.
pub fn prove_request(key: &dyn HostKey, request: &str) -> Result<String, KeyError> {
    Ok(STANDARD.encode(key.sign(request.as_bytes())?))
}

/// Checks the value of `X-Selvedge-Proof` against the public key of the request's CSR.
pub fn check_request(public_key: &[u8], request: &str, proof: &str) -> Result<(), Error> {
    check(public_key, request.as_bytes(), proof)
}

fn check(public_key: &[u8], message: &[u8], proof: &str) -> Result<(), Error> {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
    if proof.len() > 256 {
        return Err(Error::Proof);
    }
    let signature = STANDARD.decode(proof).map_err(|_| Error::Proof)?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public_key)
        .verify(message, &signature)
        .map_err(|_| Error::Proof)
}

/// Compares two secrets in a time that doesn't depend on where they differ.
#[must_use]
pub fn same_secret(a: &[u8], b: &[u8]) -> bool {
    verify_slices_are_equal(a, b).is_ok()
}
