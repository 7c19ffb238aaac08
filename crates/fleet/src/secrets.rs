//! Random secrets and what is stored of them.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::Error;

/// 32 random bytes as 43 characters of base64url.
pub(crate) fn random() -> Result<String, Error> {
    Ok(URL_SAFE_NO_PAD.encode(bytes::<32>()?))
}

/// Random bytes.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|e| Error::Identity {
        what: "making a random secret",
        source: Box::new(e),
    })?;
    Ok(bytes)
}

/// What is stored of a random secret. There is nothing to guess, so a plain hash is enough.
pub(crate) fn hash(secret: &str) -> Vec<u8> {
    digest::digest(&digest::SHA256, secret.as_bytes())
        .as_ref()
        .to_vec()
}
