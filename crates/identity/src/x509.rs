//! Reading certificates, and PEM.

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
    x509::SubjectPublicKeyInfo,
};

/// What a host's certificate says.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) uri: Option<String>,
    pub(crate) serial: String,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    pub(crate) public_key: Option<Vec<u8>>,
}

/// Reads a certificate, trusting nothing in it. `None` if it is none.
pub(crate) fn facts(der: &[u8]) -> Option<Facts> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let names = certificate.subject_alternative_name().ok()?;
    let mut uris = names.iter().flat_map(|names| &names.value.general_names);
    // Exactly one name, and it a URI: with two there would be a choice of who this is.
    let uri = match (uris.next(), uris.next()) {
        (Some(GeneralName::URI(uri)), None) => Some((*uri).to_owned()),
        _ => None,
    };
    let time = |at: i64| Timestamp::from_second(at).ok();
    Some(Facts {
        uri,
        serial: hex(certificate.raw_serial()),
        not_before: time(certificate.validity().not_before.timestamp())?,
        not_after: time(certificate.validity().not_after.timestamp())?,
        public_key: p256_point(certificate.public_key()),
    })
}

/// The uncompressed point of a P-256 key; `None` for any other key.
pub(crate) fn p256_point(key: &SubjectPublicKeyInfo<'_>) -> Option<Vec<u8>> {
    const EC_PUBLIC_KEY: &str = "1.2.840.10045.2.1";
    const P256: &str = "1.2.840.10045.3.1.7";
    let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
    let point = &key.subject_public_key.data;
    let good = key.algorithm.algorithm.to_id_string() == EC_PUBLIC_KEY
        && curve.to_id_string() == P256
        && point.len() == 65
        && point[0] == 4;
    good.then(|| point.to_vec())
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// PEM of a label and DER.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out + &format!("-----END {label}-----\n")
}
