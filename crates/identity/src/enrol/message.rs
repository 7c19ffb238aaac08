//! What goes over `/enroll/v1`. JSON, camelCase.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The header that proves possession of the key when a host asks what became of its request: base64 of the signature
/// of the request's id by the CSR's key.
pub const PROOF_HEADER: &str = "X-Selvedge-Proof";

/// `POST /enroll/v1/requests`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Request {
    /// Certificate signing request, PEM. Its names are ignored.
    pub csr: String,
    /// The machine's serial number.
    pub serial: String,
    /// The machine's UUID.
    pub uuid: String,
    /// The machine's MAC addresses, lower case with colons.
    pub macs: Vec<String>,
    /// The machine's own name.
    pub hostname: String,
    /// The one-time key, if the host was given one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activation_key: Option<String>,
    /// The tenant to ask, if the host was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

/// The answer 200: the host is in.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Granted {
    /// The host's certificate and what is above it, PEM.
    pub certificate: String,
    /// The tenant's CA, PEM.
    pub ca: String,
    /// The host's id.
    pub host_id: String,
    /// The tenant's name.
    pub tenant: String,
    /// The site's name, when the host has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// The assignment (`link::message::Assignment`), when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assignment: Option<Value>,
}

/// The answer 202: somebody must approve.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Waiting {
    /// The request's id; asked for with `GET /enroll/v1/requests/ID` and [`PROOF_HEADER`].
    pub request: String,
    /// When to ask again, in seconds.
    pub poll: u64,
}

/// What an enrolment request leads to.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// 200
    Granted(Box<Granted>),
    /// 202
    Waiting(Waiting),
}

/// `POST /enroll/v1/renew`; answered by [`Granted`].
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Renewal {
    /// Certificate signing request, PEM; with the old key or a new one.
    pub csr: String,
    /// The certificate to renew, PEM; may have expired.
    pub certificate: String,
    /// What [`Nonce`] gave.
    pub nonce: String,
    /// base64 of the signature by the certificate's key: see `proof::renewal_message`.
    pub proof: String,
}

/// `GET /enroll/v1/nonce`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Nonce {
    /// Good for a few minutes.
    pub nonce: String,
}

/// `application/problem+json`, as far as a host needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Problem {
    /// The status code.
    pub status: u16,
    /// What is wrong, short.
    pub title: String,
    /// What is wrong here.
    pub detail: String,
}

// The key is a secret until it is used.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("serial", &self.serial)
            .field("uuid", &self.uuid)
            .field("macs", &self.macs)
            .field("hostname", &self.hostname)
            .field("activation_key", &self.activation_key.as_ref().map(|_| "…"))
            .field("tenant", &self.tenant)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Granted")
            .field("host_id", &self.host_id)
            .field("tenant", &self.tenant)
            .field("site", &self.site)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewal").finish_non_exhaustive()
    }
}
