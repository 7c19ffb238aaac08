//! The provider's keys, and whether an id_token is signed by one of them.

use std::{future::Future, time::Duration};

use anyhow::{Context, bail};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::JwkSet};
use serde_json::Value;
use tokio::{sync::Mutex, time::Instant};

/// An unknown key makes us ask the provider again, but not more often than this.
const PAUSE: Duration = Duration::from_secs(30);
/// Keys are asked again after this in any case.
const FRESH: Duration = Duration::from_secs(3600);

/// Signatures that need a key that only the provider has.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// What was last fetched.
#[derive(Default)]
pub(super) struct Keys(Mutex<Option<(Instant, JwkSet)>>);

impl Keys {
    /// The claims of a token that is signed, ours, and in force. Times have a minute of leeway.
    pub(super) async fn verify<F, R>(
        &self,
        token: &str,
        issuer: &str,
        audience: &str,
        fetch: F,
    ) -> anyhow::Result<Value>
    where
        F: Fn() -> R,
        R: Future<Output = anyhow::Result<Value>>,
    {
        let header = decode_header(token).context("the provider's id_token is no JWT")?;
        if !ALGORITHMS.contains(&header.alg) {
            bail!(
                "the provider signs with {:?}, which proves nothing here",
                header.alg
            );
        }
        let key = self.key(header.kid.as_deref(), fetch).await?;
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        let claims = decode::<Value>(token, &key, &validation)
            .context("the provider's id_token is not good")?
            .claims;
        // Several audiences: the token must have been made for us (OpenID Connect Core, 3.1.3.7).
        if let Some(party) = claims.get("azp").and_then(Value::as_str)
            && party != audience
        {
            bail!("the provider's id_token was made for {party}");
        }
        Ok(claims)
    }

    async fn key<F, R>(&self, kid: Option<&str>, fetch: F) -> anyhow::Result<DecodingKey>
    where
        F: Fn() -> R,
        R: Future<Output = anyhow::Result<Value>>,
    {
        let mut keys = self.0.lock().await;
        let age = keys.as_ref().map(|(at, _)| at.elapsed());
        let found = keys.as_ref().and_then(|(_, set)| pick(set, kid));
        let ask = match age {
            None => true,
            Some(age) => age > FRESH || (found.is_none() && age > PAUSE),
        };
        let found = if ask {
            let set: JwkSet =
                serde_json::from_value(fetch().await?).context("the provider's keys are no JWKS")?;
            let found = pick(&set, kid);
            *keys = Some((Instant::now(), set));
            found
        } else {
            found
        };
        match found {
            Some(key) => key,
            None => bail!("the provider signed with a key that it does not publish"),
        }
    }
}

/// The key that a token names, or the only one.
fn pick(set: &JwkSet, kid: Option<&str>) -> Option<anyhow::Result<DecodingKey>> {
    let jwk = match kid {
        Some(kid) => set.find(kid)?,
        None if set.keys.len() == 1 => set.keys.first()?,
        None => return None,
    };
    Some(DecodingKey::from_jwk(jwk).context("the provider's key can't be used"))
}
