//! Signing in through an OpenID Connect provider: authorization code with PKCE (RFC 7636), discovery, JWKS.
//!
//! ```text
//! /oidc/start ── cookie {state, nonce, verifier}, sealed by HMAC ──▶ provider ──▶ /oidc/callback?code&state
//!     ── code + verifier ──▶ token endpoint ── id_token ──▶ signature, iss, aud, exp, nonce ──▶ claims
//! ```

mod keys;

use std::time::Duration;

use anyhow::{Context, bail};
use aws_lc_rs::{digest, hmac, rand};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use telemetry::Clock;
use tokio::{sync::Mutex, time::Instant};

use crate::config;
use keys::Keys;

/// A person has this long to sign in at the provider.
const PATIENCE: i64 = 600;
/// What the provider says of itself is asked again after this.
const FRESH: Duration = Duration::from_secs(3600);
/// No answer of a provider is larger.
const ANSWER: usize = 1 << 20;

/// The provider.
pub(crate) struct Provider {
    config: config::Oidc,
    secret: Option<String>,
    callback: String,
    client: reqwest::Client,
    seal: hmac::Key,
    clock: Clock,
    discovered: Mutex<Option<(Instant, Discovery)>>,
    keys: Keys,
}

/// `/.well-known/openid-configuration`, as far as it is needed.
#[derive(Clone, Deserialize)]
struct Discovery {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    #[serde(default)]
    userinfo_endpoint: Option<String>,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

/// What goes to the browser and comes back.
#[derive(Serialize, Deserialize)]
struct Pending {
    state: String,
    nonce: String,
    verifier: String,
    until: i64,
    next: String,
}

/// Who the provider says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Person {
    pub(crate) subject: String,
    pub(crate) username: String,
    pub(crate) email: String,
    pub(crate) name: String,
    /// The highest role that their groups give, if any does.
    pub(crate) role: Option<fleet::Role>,
}

impl Provider {
    /// Reads its files. `seal` is a secret that all processes share.
    pub(crate) fn new(config: &config::Oidc, url: &str, seal: &[u8], clock: &Clock) -> anyhow::Result<Self> {
        let mut builder = reqwest::Client::builder()
            .timeout(Duration::from_secs(10))
            .redirect(reqwest::redirect::Policy::none());
        if let Some(file) = &config.ca_file {
            let pem = std::fs::read(file)
                .with_context(|| format!("oidc.ca_file: can't read {}", file.display()))?;
            let certificates =
                reqwest::Certificate::from_pem_bundle(&pem).context("oidc.ca_file holds no certificate")?;
            builder = builder.tls_certs_merge(certificates);
        }
        let secret = match &config.client_secret_file {
            Some(file) => Some(config::read_secret(file).context("oidc.client_secret_file")?),
            None => None,
        };
        Ok(Self {
            secret,
            callback: format!("{url}/api/v1/oidc/callback"),
            client: builder.build().context("can't make the client for OIDC")?,
            seal: hmac::Key::new(hmac::HMAC_SHA256, seal),
            clock: clock.clone(),
            discovered: Mutex::new(None),
            keys: Keys::default(),
            config: config.clone(),
        })
    }

    /// What the button says.
    pub(crate) fn name(&self) -> &str {
        let rest = self
            .config
            .issuer
            .split("://")
            .nth(1)
            .unwrap_or(&self.config.issuer);
        rest.split('/').next().unwrap_or(rest)
    }

    /// Its name for itself.
    pub(crate) fn issuer(&self) -> &str {
        self.config.issuer.trim_end_matches('/')
    }

    /// The tenant whose people it knows.
    pub(crate) fn tenant(&self) -> &str {
        &self.config.tenant
    }

    /// Whether groups there mean roles here.
    pub(crate) fn gives_roles(&self) -> bool {
        !self.config.roles.is_empty()
    }

    /// Where to send the browser, and the cookie that it must bring back.
    pub(crate) async fn start(&self, next: &str) -> anyhow::Result<(String, String)> {
        let discovery = self.discovery().await?;
        let pending = Pending {
            state: random()?,
            nonce: random()?,
            verifier: random()?,
            until: self.clock.now().as_second() + PATIENCE,
            next: place(next).to_owned(),
        };
        let challenge =
            URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, pending.verifier.as_bytes()).as_ref());
        let mut url: reqwest::Url = discovery
            .authorization_endpoint
            .parse()
            .context("the provider's authorization endpoint is no URL")?;
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.config.client_id)
            .append_pair("redirect_uri", &self.callback)
            .append_pair("scope", &self.config.scopes.join(" "))
            .append_pair("state", &pending.state)
            .append_pair("nonce", &pending.nonce)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        Ok((url.into(), self.close(&pending)?))
    }

    /// Who came back, and where in the page they wanted to go.
    pub(crate) async fn finish(
        &self,
        cookie: &str,
        state: &str,
        code: &str,
    ) -> anyhow::Result<(Person, String)> {
        let pending = self.open(cookie)?;
        if !crate::hooks::same(&pending.state, state) {
            bail!("the answer is not for this browser's sign-in; start again");
        }
        let discovery = self.discovery().await?;
        let (token, access) = self.exchange(&discovery, code, &pending.verifier).await?;
        let mut claims = self
            .keys
            .verify(&token, &discovery.issuer, &self.config.client_id, || {
                self.fetch(&discovery.jwks_uri)
            })
            .await?;
        if !claims
            .get("nonce")
            .and_then(Value::as_str)
            .is_some_and(|nonce| crate::hooks::same(nonce, &pending.nonce))
        {
            bail!("the provider's answer is for another sign-in (nonce)");
        }
        self.complete(&discovery, access.as_deref(), &mut claims).await?;
        Ok((self.person(&claims)?, pending.next))
    }

    /// Many providers put little into the token and the rest where it has to be asked for (Core, 5.3).
    async fn complete(
        &self,
        discovery: &Discovery,
        access: Option<&str>,
        claims: &mut Value,
    ) -> anyhow::Result<()> {
        let (Some(endpoint), Some(access)) = (&discovery.userinfo_endpoint, access) else {
            return Ok(());
        };
        let wanted = [&self.config.username_claim, &self.config.groups_claim];
        if wanted.iter().all(|claim| claims.get(claim.as_str()).is_some()) {
            return Ok(());
        }
        let answer = self
            .client
            .get(endpoint)
            .bearer_auth(access)
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .context("the provider's userinfo can't be asked")?;
        let more: Value =
            serde_json::from_slice(&bounded(answer).await?).context("the provider's userinfo is no JSON")?;
        // It must be about the same person (Core, 5.3.2).
        if more.get("sub") != claims.get("sub") {
            bail!("the provider's userinfo is about somebody else");
        }
        if let (Value::Object(claims), Value::Object(more)) = (claims, more) {
            for (claim, value) in more {
                claims.entry(claim).or_insert(value);
            }
        }
        Ok(())
    }

    fn person(&self, claims: &Value) -> anyhow::Result<Person> {
        let text = |claim: &str| {
            claims
                .get(claim)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let subject = text("sub");
        if subject.is_empty() {
            bail!("the provider names no subject");
        }
        let username = text(&self.config.username_claim);
        if username.is_empty() {
            bail!(
                "the provider gives no {}; set oidc.username_claim to a claim that it gives",
                self.config.username_claim
            );
        }
        // `email` as a name would let one who can set it at the provider be somebody else.
        if self.config.username_claim == "email" && claims.get("email_verified") != Some(&Value::Bool(true)) {
            bail!("the provider has not verified the e-mail address {username}");
        }
        let groups: Vec<&str> = match claims.get(&self.config.groups_claim) {
            Some(Value::Array(groups)) => groups.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(group)) => vec![group],
            _ => Vec::new(),
        };
        let role = groups
            .iter()
            .filter_map(|group| self.config.roles.get(*group))
            .filter_map(|role| match role.as_str() {
                "owner" => Some(fleet::Role::Owner),
                "operator" => Some(fleet::Role::Operator),
                "viewer" => Some(fleet::Role::Viewer),
                _ => None,
            })
            .max();
        Ok(Person {
            subject,
            username,
            email: text("email"),
            name: text("name"),
            role,
        })
    }

    /// The id_token and the access token for a code.
    async fn exchange(
        &self,
        discovery: &Discovery,
        code: &str,
        verifier: &str,
    ) -> anyhow::Result<(String, Option<String>)> {
        #[derive(Deserialize)]
        struct Tokens {
            id_token: Option<String>,
            access_token: Option<String>,
            error: Option<String>,
        }
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &self.callback),
            ("code_verifier", verifier),
        ];
        let mut request = self.client.post(&discovery.token_endpoint);
        let post_only = discovery
            .token_endpoint_auth_methods_supported
            .as_ref()
            .is_some_and(|methods| !methods.iter().any(|method| method == "client_secret_basic"));
        match &self.secret {
            Some(secret) if !post_only => {
                let encode = |text: &str| {
                    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
                        .to_string()
                };
                let both = format!("{}:{}", encode(&self.config.client_id), encode(secret));
                request = request.header("authorization", format!("Basic {}", STANDARD.encode(both)));
            }
            Some(secret) => {
                form.push(("client_id", &self.config.client_id));
                form.push(("client_secret", secret));
            }
            None => form.push(("client_id", &self.config.client_id)),
        }
        let mut body = String::new();
        for (key, value) in form {
            if !body.is_empty() {
                body.push('&');
            }
            body.push_str(key);
            body.push('=');
            body.extend(percent_encoding::utf8_percent_encode(
                value,
                percent_encoding::NON_ALPHANUMERIC,
            ));
        }
        let answer = request
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(body)
            .send()
            .await
            .map_err(reqwest::Error::without_url)
            .context("the provider's token endpoint can't be reached")?;
        let status = answer.status();
        let tokens: Tokens = serde_json::from_slice(&bounded(answer).await?)
            .context("the provider's token answer is no JSON")?;
        match (tokens.id_token, tokens.error) {
            (Some(token), None) if status.is_success() => Ok((token, tokens.access_token)),
            (_, Some(error)) => bail!("the provider refused the code: {error}"),
            _ => bail!("the provider answered {status} and gave no id_token"),
        }
    }

    async fn discovery(&self) -> anyhow::Result<Discovery> {
        let mut discovered = self.discovered.lock().await;
        if let Some((at, discovery)) = discovered.as_ref()
            && at.elapsed() < FRESH
        {
            return Ok(discovery.clone());
        }
        let issuer = self.config.issuer.trim_end_matches('/');
        let found = self
            .fetch(&format!("{issuer}/.well-known/openid-configuration"))
            .await?;
        let discovery: Discovery =
            serde_json::from_value(found).context("the provider's configuration lacks an endpoint")?;
        if discovery.issuer.trim_end_matches('/') != issuer {
            bail!(
                "the provider calls itself {}, not {issuer}: set oidc.issuer to that",
                discovery.issuer
            );
        }
        *discovered = Some((Instant::now(), discovery.clone()));
        Ok(discovery)
    }

    async fn fetch(&self, url: &str) -> anyhow::Result<Value> {
        let answer = self
            .client
            .get(url)
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .with_context(|| format!("the provider can't be asked: {url}"))?;
        serde_json::from_slice(&bounded(answer).await?).with_context(|| format!("{url} is no JSON"))
    }

    fn close(&self, pending: &Pending) -> anyhow::Result<String> {
        let body = URL_SAFE_NO_PAD.encode(serde_json::to_vec(pending)?);
        let mac = URL_SAFE_NO_PAD.encode(hmac::sign(&self.seal, body.as_bytes()).as_ref());
        Ok(format!("{body}.{mac}"))
    }

    fn open(&self, cookie: &str) -> anyhow::Result<Pending> {
        let opened = cookie.split_once('.').and_then(|(body, mac)| {
            let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
            hmac::verify(&self.seal, body.as_bytes(), &mac).ok()?;
            serde_json::from_slice::<Pending>(&URL_SAFE_NO_PAD.decode(body).ok()?).ok()
        });
        match opened {
            Some(pending) if self.clock.now().as_second() <= pending.until => Ok(pending),
            Some(_) => bail!("the sign-in took longer than ten minutes; start again"),
            None => bail!("this browser has not begun a sign-in; start again"),
        }
    }
}

async fn bounded(mut answer: reqwest::Response) -> anyhow::Result<Vec<u8>> {
    let mut kept = Vec::new();
    while let Some(chunk) = answer.chunk().await.context("the provider's answer broke off")? {
        if kept.len() + chunk.len() > ANSWER {
            bail!("the provider's answer is larger than {ANSWER} bytes");
        }
        kept.extend_from_slice(&chunk);
    }
    Ok(kept)
}

/// A place within our own page, never another site.
fn place(next: &str) -> &str {
    // Browsers leave tabs out of an address: `/<tab>/evil.example` is `//evil.example`.
    if next.starts_with('/')
        && !next.starts_with("//")
        && !next.contains(|c: char| c == '\\' || c.is_control())
    {
        next
    } else {
        "/"
    }
}

fn random() -> anyhow::Result<String> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("no randomness"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider() -> Provider {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let config: config::Oidc = toml::from_str(
            "issuer = \"https://id.example\"\nclient_id = \"c\"\ntenant = \"acme\"\n[roles]\nadmins = \"owner\"\nall = \"viewer\"\n",
        )
        .unwrap();
        Provider::new(
            &config,
            "https://o.example",
            &[7; 32],
            &Clock::fixed("2026-01-02T03:04:05Z".parse().unwrap()),
        )
        .unwrap()
    }

    #[test]
    fn the_cookie_is_ours_and_ends() {
        let provider = provider();
        let pending = |until| Pending {
            state: "s".into(),
            nonce: "n".into(),
            verifier: "v".into(),
            until,
            next: "/".into(),
        };
        let now = provider.clock.now().as_second();
        let cookie = provider.close(&pending(now + 1)).unwrap();
        assert_eq!(provider.open(&cookie).unwrap().verifier, "v");
        let (body, mac) = cookie.split_once('.').unwrap();
        assert!(provider.open(&format!("{body}A.{mac}")).is_err());
        assert!(provider.open("nonsense").is_err());
        let old = provider.close(&pending(now - 1)).unwrap();
        assert!(provider.open(&old).is_err());
    }

    #[test]
    fn groups_give_the_highest_role() {
        let provider = provider();
        let person = provider
            .person(&serde_json::json!({"sub": "1", "preferred_username": "ada", "groups": ["all", "admins", "x"]}))
            .unwrap();
        assert_eq!(person.role, Some(fleet::Role::Owner));
        let person = provider
            .person(&serde_json::json!({"sub": "1", "preferred_username": "ada"}))
            .unwrap();
        assert_eq!(person.role, None);
        assert!(provider.person(&serde_json::json!({"sub": "1"})).is_err());
    }

    #[test]
    fn one_goes_on_to_places_of_ours_only() {
        for (next, want) in [
            ("/t/acme", "/t/acme"),
            ("//evil.example", "/"),
            ("https://evil.example", "/"),
            ("/\\evil.example", "/"),
            ("/\t/evil.example", "/"),
            ("", "/"),
        ] {
            assert_eq!(place(next), want);
        }
    }
}
