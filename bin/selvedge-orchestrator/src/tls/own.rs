//! A CA and a serving certificate of our own, for those who bring none.
//!
//! `<data>/ca.pem` is the CA's certificate, to be given to hosts and people; `<data>/ca.key` its key. The serving
//! certificate lives in memory only: each start makes one, and it is made anew long before its end.

use std::{net::IpAddr, path::Path, sync::Mutex, time::Duration};

use anyhow::{Context, bail};
use identity::ca::Authority;
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use telemetry::Clock;

use crate::{config::Config, files};

const SERVING: Duration = Duration::from_hours(90 * 24);
/// Age in seconds at which the serving certificate is made anew.
const RENEW: i64 = 30 * 86_400;

/// The CA, and when it last signed.
#[derive(Debug)]
pub(super) struct Own {
    authority: Authority,
    ca_pem: String,
    names: Vec<String>,
    signed_at: Mutex<Option<i64>>,
}

impl Own {
    /// Reads the CA, or makes it.
    pub(super) fn open(config: &Config, clock: &Clock) -> anyhow::Result<Self> {
        let data = &config.server.data;
        files::make_dir(data)?;
        let (certificate, key) = (data.join("ca.pem"), data.join("ca.key"));
        let authority = match (files::read(&certificate)?, files::read(&key)?) {
            (Some(pem), Some(secret)) => {
                let pem = String::from_utf8(pem).context("ca.pem is no PEM")?;
                let secret = PrivateKeyDer::from_pem_slice(&secret)
                    .with_context(|| format!("{} holds no key", key.display()))?;
                Authority::from_parts(&pem, secret.secret_der())
                    .with_context(|| format!("{} does not fit {}", key.display(), certificate.display()))?
            }
            // Hosts trust the certificate that was there: a new one would lock them out, so a person decides.
            (Some(_), None) => bail!(
                "{} is there without {}: restore the key, or remove both to have a new CA made",
                certificate.display(),
                key.display()
            ),
            // The key is written first: a crash between the two leaves only it, and nobody trusts it yet.
            (None, _) => make(&certificate, &key, clock)?,
        };
        let mut names = vec![config.public_name().to_owned()];
        names.extend(config.server.names.iter().cloned());
        names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        if let Ok(host) = std::fs::read_to_string("/proc/sys/kernel/hostname")
            && !host.trim().is_empty()
        {
            names.push(host.trim().to_owned());
        }
        names.extend(
            config
                .server
                .listen
                .iter()
                .map(std::net::SocketAddr::ip)
                .filter(|ip| !ip.is_unspecified())
                .map(|ip: IpAddr| ip.to_string()),
        );
        names.sort();
        names.dedup();
        Ok(Self {
            ca_pem: authority.certificate_pem(),
            authority,
            names,
            signed_at: Mutex::new(None),
        })
    }

    pub(super) fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// A new certificate, if the last one is old enough.
    pub(super) fn due(&self, clock: &Clock) -> anyhow::Result<Option<CertifiedKey>> {
        let now = clock.now().as_second();
        let mut signed_at = self
            .signed_at
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if signed_at.is_some_and(|at| (0..RENEW).contains(&(now - at))) {
            return Ok(None);
        }
        let serving = self
            .authority
            .issue_server(&self.names, SERVING, clock)
            .context("can't make the serving certificate for server.url and server.names")?;
        let chain = [serving.certificate.as_str(), &self.ca_pem]
            .map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()))
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .context("the serving certificate can't be read")?;
        let key =
            PrivateKeyDer::from_pem_slice(serving.key.as_bytes()).context("the serving key can't be read")?;
        let certified = super::certified(chain, key)?;
        *signed_at = Some(now);
        Ok(Some(certified))
    }
}

fn make(certificate: &Path, key: &Path, clock: &Clock) -> anyhow::Result<Authority> {
    let authority = Authority::create("selvedge orchestrator", clock).context("can't make the CA")?;
    files::write(key, pem("PRIVATE KEY", authority.key()).as_bytes(), 0o600)?;
    files::write(certificate, authority.certificate_pem().as_bytes(), 0o644)?;
    Ok(authority)
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().copied().map(char::from));
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}
