//! Making certificates, and telling when one is due.

use std::{net::IpAddr, path::Path, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use telemetry::Clock;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use super::{Error, files, read_pair};

const DAY: i64 = 86_400;
const CA_DAYS: i64 = 20 * 365;
const LEAF_DAYS: i64 = 365;
/// Renewed when less than this is left: long enough for a host that is switched on once a season.
const RENEW_DAYS: i64 = 120;

/// What a certificate is for.
pub(super) enum Purpose<'a> {
    Serving { names: &'a [String] },
    Client { user: &'a str, groups: &'a [&'a str] },
}

/// A certificate with its key.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Issued {
    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()))
    }

    pub(super) fn certificate_pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
    }

    pub(super) fn key_pem(&self) -> String {
        pem("PRIVATE KEY", &self.key)
    }

    fn pair_pem(&self) -> String {
        self.certificate_pem() + &self.key_pem()
    }
}

/// The CA of this site's API.
#[derive(Debug)]
pub(super) struct Authority(Issued);

impl Authority {
    /// Reads the CA, or makes it.
    pub(super) fn open(path: &Path, clock: &Clock) -> Result<Self, Error> {
        if let Some(found) = read_issued(path)? {
            return Ok(Self(found));
        }
        let key = KeyPair::generate().map_err(|e| Error::Issue("ca".into(), e))?;
        let mut params = CertificateParams::default();
        // The name carries the key's mark, so that clients that know several sites never take one CA for another.
        let mark = params
            .key_identifier(&key)
            .iter()
            .take(4)
            .map(|b| format!("{b:02x}"))
            .collect::<String>();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("selvedge-site-ca-{mark}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        set_validity(&mut params, clock, CA_DAYS);
        let certificate = params
            .self_signed(&key)
            .map_err(|e| Error::Issue("ca".into(), e))?;
        let issued = Issued {
            certificate: certificate.der().clone(),
            key: key.serialize_der(),
        };
        files::write(path, issued.pair_pem().as_bytes(), 0o600)?;
        Ok(Self(issued))
    }

    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.0.certificate
    }

    pub(super) fn certificate_pem(&self) -> String {
        self.0.certificate_pem()
    }

    /// The certificate in a file, made anew when it is absent, due, of another CA or for other names. The second
    /// is whether it was made.
    pub(super) fn keep(
        &self,
        path: &Path,
        purpose: &Purpose<'_>,
        clock: &Clock,
    ) -> Result<(Issued, bool), Error> {
        // A damaged leaf is no loss: unlike the CA it is simply made anew.
        let found = match read_issued(path) {
            Err(Error::Damaged { .. }) => None,
            other => other?,
        };
        if let Some(found) = found
            && self.is_good(&found, purpose, clock)
        {
            return Ok((found, false));
        }
        let issued = self.issue(purpose, clock)?;
        files::write(path, issued.pair_pem().as_bytes(), 0o600)?;
        Ok((issued, true))
    }

    /// A new certificate with a new key.
    pub(super) fn issue(&self, purpose: &Purpose<'_>, clock: &Clock) -> Result<Issued, Error> {
        let label = match purpose {
            Purpose::Serving { .. } => "serving",
            Purpose::Client { user, .. } => user,
        };
        let failed = |e| Error::Issue(label.into(), e);
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = match purpose {
            Purpose::Serving { names } => CertificateParams::new(names.to_vec()).map_err(failed)?,
            Purpose::Client { .. } => CertificateParams::default(),
        };
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        match purpose {
            Purpose::Serving { .. } => {
                params.distinguished_name.push(DnType::CommonName, "selvedge-api");
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }
            Purpose::Client { user, groups } => {
                for (at, group) in groups.iter().enumerate() {
                    // One name of a kind is all that the library keeps; written by its number, a second is another kind.
                    let organisation = match at {
                        0 => DnType::OrganizationName,
                        _ => DnType::CustomDnType(vec![2, 5, 4, 10]),
                    };
                    params.distinguished_name.push(organisation, *group);
                }
                params.distinguished_name.push(DnType::CommonName, *user);
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }
        }
        set_validity(&mut params, clock, LEAF_DAYS);
        let ca_key = KeyPair::try_from(&self.0.key[..]).map_err(failed)?;
        let issuer = Issuer::from_ca_cert_der(&self.0.certificate, ca_key).map_err(failed)?;
        let certificate = params.signed_by(&key, &issuer).map_err(failed)?;
        Ok(Issued {
            certificate: certificate.der().clone(),
            key: key.serialize_der(),
        })
    }

    fn is_good(&self, found: &Issued, purpose: &Purpose<'_>, clock: &Clock) -> bool {
        let Ok((_, certificate)) = X509Certificate::from_der(&found.certificate) else {
            return false;
        };
        let Ok((_, ca)) = X509Certificate::from_der(&self.0.certificate) else {
            return false;
        };
        let left = certificate.validity().not_after.timestamp() - clock.now().as_second();
        if left < RENEW_DAYS * DAY || certificate.verify_signature(Some(ca.public_key())).is_err() {
            return false;
        }
        match purpose {
            Purpose::Client { .. } => true,
            Purpose::Serving { names } => names_of(&certificate) == wanted(names),
        }
    }
}

fn read_issued(path: &Path) -> Result<Option<Issued>, Error> {
    let Some((certificate, key)) = read_pair(path)? else {
        return Ok(None);
    };
    let issued = Issued {
        certificate,
        key: key.secret_der().to_vec(),
    };
    let whole = X509Certificate::from_der(&issued.certificate).is_ok_and(|(_, certificate)| {
        KeyPair::try_from(&issued.key[..]).is_ok_and(|key| {
            certificate.public_key().subject_public_key.data.as_ref() == key.public_key_raw()
        })
    });
    if whole {
        Ok(Some(issued))
    } else {
        Err(Error::Damaged { path: path.into() })
    }
}

fn set_validity(params: &mut CertificateParams, clock: &Clock, days: i64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let end = clock.now().as_second().max(0).saturating_add(days * DAY);
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = epoch + Duration::from_secs(u64::try_from(end).unwrap_or(0));
    // A host that boots in 1970 still gets a certificate that ends after it starts; it is renewed once time is set.
    if params.not_after <= params.not_before {
        params.not_before = epoch;
    }
}

fn wanted(names: &[String]) -> Vec<String> {
    let mut names: Vec<String> = names
        .iter()
        .map(|name| {
            name.parse::<IpAddr>()
                .map_or_else(|_| name.clone(), |ip| ip.to_string())
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

fn names_of(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes)
                .ok()
                .map(|b| IpAddr::from(b).to_string()),
            _ => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|b| IpAddr::from(b).to_string()),
        },
        _ => None,
    };
    let names: Vec<String> = names.value.general_names.iter().filter_map(text).collect();
    wanted(&names)
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out + &format!("-----END {label}-----\n")
}
