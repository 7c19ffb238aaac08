//! The host's side of enrolment, one question at a time.

use std::time::Duration;

use reqwest::{Proxy, RequestBuilder, Response, StatusCode, header::RETRY_AFTER};
use serde::de::DeserializeOwned;
use telemetry::Clock;

use super::{Answer, Granted, Nonce, PROOF_HEADER, Problem, Renewal, Request};
use crate::{
    csr,
    key::{HostKey, KeyError},
    proof,
    trust::{self, ServerTrust},
};

/// The longest answer that is read.
const MAX_ANSWER: usize = 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// For the whole of a question and its answer. Long: when ten thousand hosts come at once, they wait in line.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How to reach the orchestrator.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Its address: `https://orchestrator.example:8443`.
    pub url: String,
    /// Which servers to believe.
    pub trust: ServerTrust,
    /// An HTTP proxy, `http://user:password@proxy:3128`; else `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` count.
    pub proxy: Option<String>,
    /// Where time comes from.
    pub clock: Clock,
}

/// Why enrolment or renewal did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A proxy that is none.
    #[error("the proxy's address can't be used")]
    Proxy(#[source] reqwest::Error),
    /// The HTTP client could not be made.
    #[error("the HTTP client could not be made")]
    Client(#[source] reqwest::Error),
    /// The TLS configuration could not be made.
    #[error("TLS can't be used")]
    Trust(#[from] trust::Error),
    /// No answer.
    #[error("the orchestrator did not answer")]
    Unreachable(#[source] reqwest::Error),
    /// Try again, not before.
    #[error("the orchestrator is busy or not ready ({status}{})", after_colon(.detail))]
    Busy {
        /// Status code.
        status: u16,
        /// What it says.
        detail: String,
        /// When to come back, if it said so.
        retry_after: Option<Duration>,
    },
    /// No: a person must do something.
    #[error("the orchestrator refused ({status}{})", after_colon(.detail))]
    Refused {
        /// Status code.
        status: u16,
        /// What it says.
        detail: String,
    },
    /// Not an answer of an orchestrator.
    #[error("what answers at the orchestrator's address is no orchestrator: {0}")]
    Nonsense(&'static str),
    /// The host's key failed.
    #[error("the host's key could not be used")]
    Key(#[from] KeyError),
}

fn after_colon(detail: &str) -> String {
    if detail.is_empty() {
        String::new()
    } else {
        format!(": {detail}")
    }
}

/// Asks an orchestrator for certificates. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    url: String,
}

impl Client {
    /// A client with connections of its own.
    pub fn new(options: &ClientOptions) -> Result<Self, Error> {
        let tls = options
            .trust
            .client_config(None, &[b"h2", b"http/1.1"], &options.clock)?;
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .user_agent(concat!("selvedge-host/", env!("CARGO_PKG_VERSION")));
        if let Some(proxy) = &options.proxy {
            builder = builder.proxy(Proxy::all(proxy).map_err(Error::Proxy)?);
        }
        Ok(Self::with_http(
            &options.url,
            builder.build().map_err(Error::Client)?,
        ))
    }

    /// A client on an HTTP client that many share.
    #[must_use]
    pub fn with_http(url: &str, http: reqwest::Client) -> Self {
        Self {
            http,
            url: url.trim_end_matches('/').into(),
        }
    }

    /// Asks to be let in. The same request (same key) may be sent again and again.
    pub async fn request(&self, request: &Request) -> Result<Answer, Error> {
        let asked = self.http.post(self.at("requests")).json(request);
        self.answer(asked).await
    }

    /// Asks what became of a request that waits.
    pub async fn poll(&self, key: &dyn HostKey, request: &str) -> Result<Answer, Error> {
        let proof = proof::prove_request(key, request)?;
        let url = self.at(&format!("requests/{}", path_segment(request)?));
        self.answer(self.http.get(url).header(PROOF_HEADER, proof)).await
    }

    /// A new certificate for the old one's key, by proof of that key. Works with an expired certificate.
    pub async fn renew(&self, key: &dyn HostKey, certificate_pem: &str) -> Result<Granted, Error> {
        let nonce: Nonce = self.json(self.http.get(self.at("nonce"))).await?.1;
        let csr = csr::make(key)?;
        let renewal = Renewal {
            proof: proof::prove_renewal(key, &nonce.nonce, &csr)?,
            certificate: certificate_pem.into(),
            nonce: nonce.nonce,
            csr,
        };
        Ok(self
            .json(self.http.post(self.at("renew")).json(&renewal))
            .await?
            .1)
    }

    fn at(&self, what: &str) -> String {
        format!("{}/enroll/v1/{what}", self.url)
    }

    async fn answer(&self, asked: RequestBuilder) -> Result<Answer, Error> {
        let (status, body): (_, serde_json::Value) = self.json(asked).await?;
        let read = |_| Error::Nonsense("the answer is not one to an enrolment request");
        if status == StatusCode::ACCEPTED {
            return serde_json::from_value(body).map(Answer::Waiting).map_err(read);
        }
        let granted: Granted = serde_json::from_value(body).map_err(read)?;
        Ok(Answer::Granted(Box::new(granted)))
    }

    async fn json<T: DeserializeOwned>(&self, asked: RequestBuilder) -> Result<(StatusCode, T), Error> {
        let response = asked.send().await.map_err(Error::Unreachable)?;
        let status = response.status();
        let retry_after = retry_after(&response);
        let body = body(response).await?;
        if status == StatusCode::OK || status == StatusCode::ACCEPTED {
            let read = serde_json::from_slice(&body);
            return read
                .map(|read| (status, read))
                .map_err(|_| Error::Nonsense("the answer is not the JSON that was asked for"));
        }
        let problem: Problem = serde_json::from_slice(&body).unwrap_or_default();
        let detail = if problem.detail.is_empty() {
            problem.title
        } else {
            problem.detail
        };
        let detail: String = detail.chars().take(500).collect();
        let status_code = status.as_u16();
        let again = status.is_server_error()
            || status == StatusCode::TOO_MANY_REQUESTS
            || status == StatusCode::REQUEST_TIMEOUT;
        Err(if again {
            Error::Busy {
                status: status_code,
                detail,
                retry_after,
            }
        } else {
            Error::Refused {
                status: status_code,
                detail,
            }
        })
    }
}

async fn body(mut response: Response) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Error::Unreachable)? {
        if out.len() + chunk.len() > MAX_ANSWER {
            return Err(Error::Nonsense("the answer is longer than a megabyte"));
        }
        out.extend_from_slice(&chunk);
    }
    Ok(out)
}

fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    let seconds: u64 = text.trim().parse().ok()?;
    // A server that says "in a year" doesn't know.
    Some(Duration::from_secs(seconds.min(3600)))
}

/// An id comes from the server: it must not become another path.
fn path_segment(id: &str) -> Result<&str, Error> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if id.is_empty() || id.len() > 128 || !id.chars().all(good) {
        return Err(Error::Nonsense("the request's id can't stand in a path"));
    }
    Ok(id)
}
