//! Authorities: a tenant's, which signs its hosts' certificates, and the orchestrator's own, which signs what its
//! server shows when it was given no certificate.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use telemetry::Clock;

use crate::{csr::Csr, trust, x509};

/// How long a host's certificate is good if nothing else is said.
pub const HOST_LIFETIME: Duration = Duration::from_hours(30 * 24);
/// How long a serving certificate is good.
pub const SERVER_LIFETIME: Duration = Duration::from_hours(365 * 24);
/// How long an authority is good.
pub const AUTHORITY_LIFETIME: Duration = Duration::from_hours(20 * 365 * 24);
/// Hosts' certificates are valid from this long before they are made.
pub const SKEW: Duration = Duration::from_hours(1);

/// What went wrong with an authority.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificate library refused.
    #[error("can't make the certificate of {0}")]
    Make(String, #[source] rcgen::Error),
    /// Stored bytes are no authority.
    #[error("the stored authority is damaged: its certificate and its key don't belong together")]
    Damaged,
    /// An id that can't stand in a certificate's name.
    #[error("{0:?} can't stand in a certificate: ids are letters, digits and dashes")]
    Id(String),
    /// Outside of what a certificate can say.
    #[error("the lifetime ends outside of the years that a certificate can name")]
    Lifetime,
}

/// A certificate of a host, as issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The certificate, PEM.
    pub certificate: String,
    /// Serial number, lower-case hexadecimal: what a revocation names.
    pub serial: String,
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
}

/// A serving certificate with its key.
pub struct Serving {
    /// The certificate, PEM.
    pub certificate: String,
    /// Its key, PKCS#8 PEM. A secret.
    pub key: String,
    /// Until when it is valid.
    pub not_after: Timestamp,
}

/// A CA with its key, ready to sign.
pub struct Authority {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority. `name` is for people (`selvedge tenant acme`).
    pub fn create(name: &str, clock: &Clock) -> Result<Self, Error> {
        let failed = |e| Error::Make(name.into(), e);
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        // The name carries the key's mark, so that no two authorities are taken for one another.
        let mark = x509::hex(&params.key_identifier(&key)[..4]);
        params.distinguished_name = common_name(&format!("{name} {mark}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, clock, AUTHORITY_LIFETIME, Start::Oldest)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        Self::with(certificate.der().clone(), key)
    }

    /// An authority from what [`Authority::certificate_pem`] and [`Authority::key`] gave.
    pub fn from_parts(certificate_pem: &str, key: &[u8]) -> Result<Self, Error> {
        let certificate =
            CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|_| Error::Damaged)?;
        let key = KeyPair::try_from(key).map_err(|_| Error::Damaged)?;
        let facts = x509::facts(&certificate).ok_or(Error::Damaged)?;
        if facts.public_key.as_deref() != Some(key.public_key_raw()) {
            return Err(Error::Damaged);
        }
        Self::with(certificate, key)
    }

    fn with(certificate: CertificateDer<'static>, key: KeyPair) -> Result<Self, Error> {
        let der = key.serialize_der();
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|_| Error::Damaged)?;
        Ok(Self {
            certificate,
            key: der,
            issuer,
        })
    }

    /// The certificate, PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        x509::pem("CERTIFICATE", &self.certificate)
    }

    /// The key, PKCS#8 DER. A secret: seal it before it is stored.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// A certificate for a host. Only the request's key is used.
    pub fn issue_host(
        &self,
        csr: &Csr,
        tenant_id: &str,
        host_id: &str,
        lifetime: Duration,
        clock: &Clock,
    ) -> Result<Issued, Error> {
        let uri = host_uri(tenant_id, host_id)?;
        let failed = |e| Error::Make(format!("host {host_id}"), e);
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(host_id);
        params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(failed)?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial()?);
        set_validity(&mut params, clock, lifetime, Start::Now)?;
        let certificate = params.signed_by(csr, &self.issuer).map_err(failed)?;
        let facts = x509::facts(certificate.der()).ok_or(Error::Damaged)?;
        Ok(Issued {
            certificate: x509::pem("CERTIFICATE", certificate.der()),
            serial: facts.serial,
            not_before: facts.not_before,
            not_after: facts.not_after,
        })
    }

    /// A certificate with a new key for a server, for DNS names and addresses.
    pub fn issue_server(
        &self,
        names: &[String],
        lifetime: Duration,
        clock: &Clock,
    ) -> Result<Serving, Error> {
        let label = || names.first().cloned().unwrap_or_default();
        let failed = |e| Error::Make(label(), e);
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new(names.to_vec()).map_err(failed)?;
        params.distinguished_name = common_name("selvedge-orchestrator");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial()?);
        set_validity(&mut params, clock, lifetime, Start::Oldest)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        let facts = x509::facts(certificate.der()).ok_or(Error::Damaged)?;
        Ok(Serving {
            certificate: x509::pem("CERTIFICATE", certificate.der()),
            key: key.serialize_pem(),
            not_after: facts.not_after,
        })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// The one name in a host's certificate.
pub fn host_uri(tenant_id: &str, host_id: &str) -> Result<String, Error> {
    for id in [tenant_id, host_id] {
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if id.is_empty() || id.len() > 64 || !id.chars().all(good) {
            return Err(Error::Id(id.chars().take(80).collect()));
        }
    }
    Ok(format!("spiffe://selvedge/{tenant_id}/host/{host_id}"))
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// 16 random bytes, positive and without a leading zero, so that it reads the same everywhere.
fn serial() -> Result<SerialNumber, Error> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Error::Make("serial".into(), rcgen::Error::RingUnspecified))?;
    bytes[0] = (bytes[0] & 0x3f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// From when a certificate is valid.
enum Start {
    /// A little before now: what hosts show to orchestrators, whose clocks are right.
    Now,
    /// The day that no host's clock counts as before: what is shown to hosts, whose clocks may not be set yet.
    Oldest,
}

fn set_validity(
    params: &mut CertificateParams,
    clock: &Clock,
    lifetime: Duration,
    start: Start,
) -> Result<(), Error> {
    let at = |time: Timestamp| {
        let seconds = u64::try_from(time.as_second()).map_err(|_| Error::Lifetime)?;
        Ok(rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds))
    };
    let now = clock.now();
    let end = now.checked_add(lifetime).map_err(|_| Error::Lifetime)?;
    // 9999 is the last year of an X.509 time.
    if end.as_second() >= 253_402_300_800 {
        return Err(Error::Lifetime);
    }
    let begin = now.checked_sub(SKEW).map_err(|_| Error::Lifetime)?;
    params.not_before = at(match start {
        Start::Now => begin,
        Start::Oldest => begin.min(trust::OLDEST),
    })?;
    params.not_after = at(end)?;
    Ok(())
}
