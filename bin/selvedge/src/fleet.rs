//! Asking an orchestrator: its REST API, with the context that `selvedge login` stored.

pub(crate) mod contexts;
pub(crate) mod socket;

use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::{Certificate, Client, Method, RequestBuilder, Response, StatusCode, header};
use serde::Deserialize;
use serde_json::Value;

use self::contexts::Context;
use crate::api::Unreachable;

/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Rows that are asked for at a time.
const PAGE: usize = 500;

/// An orchestrator as one person or program sees it.
pub(crate) struct Fleet {
    http: Client,
    pub(crate) context: Context,
}

/// A refusal, as `application/problem+json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    title: String,
    detail: String,
    field: Option<String>,
    /// What to do.
    next: Option<String>,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        match (self.detail.is_empty(), self.title.is_empty()) {
            (false, _) => f.write_str(&self.detail)?,
            (true, false) => f.write_str(&self.title)?,
            (true, true) => write!(f, "the orchestrator refused with status {}", self.status)?,
        }
        match &self.next {
            Some(next) => write!(f, "; {next}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refused {}

/// A page of a list.
#[derive(Deserialize)]
struct Page {
    items: Vec<Value>,
    next: Option<String>,
}

impl Fleet {
    /// With the context of a name, or the current one.
    pub(crate) fn open(context: Option<&str>, tenant: Option<&str>) -> anyhow::Result<Self> {
        let mut context = contexts::Contexts::read()?.find(context)?;
        if let Some(tenant) = tenant {
            context.tenant = Some(tenant.to_owned());
        }
        Self::with(context)
    }

    /// With a context that is not stored.
    pub(crate) fn with(context: Context) -> anyhow::Result<Self> {
        let mut builder = Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .https_only(true)
            .user_agent(concat!("selvedge/", env!("CARGO_PKG_VERSION")));
        if let Some(ca) = &context.ca {
            let ca =
                Certificate::from_pem_bundle(ca.as_bytes()).context("the orchestrator's CA is damaged")?;
            builder = builder.tls_certs_only(ca);
        }
        Ok(Self {
            http: builder.build()?,
            context,
        })
    }

    /// A path below the tenant: `sites/shop`.
    pub(crate) fn path(&self, rest: &str) -> anyhow::Result<String> {
        let tenant = self
            .context
            .tenant
            .as_deref()
            .context("which tenant? name it with --tenant, or log in with --tenant")?;
        Ok(format!("/api/v1/tenants/{}/{rest}", segment(tenant)))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut request = self
            .http
            .request(method.clone(), format!("{}{path}", self.context.url));
        if let Some(credential) = &self.context.credential {
            request = request.bearer_auth(credential.bearer());
        }
        if method == Method::POST {
            request = request.header("Idempotency-Key", key());
        }
        request
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let response = request.send().await.map_err(|error| Unreachable {
            server: self.context.url.clone(),
            why: root(&error),
            hint: "is the address right, and does `selvedge login --ca-file` name its CA?",
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.unwrap_or_default();
        let mut refused: Refused = serde_json::from_str(&text).unwrap_or_default();
        refused.status = status.as_u16();
        if status == StatusCode::UNAUTHORIZED && refused.next.is_none() {
            refused.next = Some("log in with `selvedge login`".into());
        }
        Err(refused.into())
    }

    async fn json(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let response = self.send(request.timeout(TIMEOUT)).await?;
        let bytes = response.bytes().await.context("the answer broke off")?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).context("the answer is not JSON: is this address an orchestrator's?")
    }

    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.json(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.json(self.request(Method::POST, path).json(body)).await
    }

    /// A JSON merge patch.
    pub(crate) async fn patch(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let request = self
            .request(Method::PATCH, path)
            .header(header::CONTENT_TYPE, "application/merge-patch+json")
            .body(body.to_string());
        self.json(request).await
    }

    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<()> {
        self.json(self.request(Method::DELETE, path)).await.map(drop)
    }

    /// An answer that comes piece by piece, for as long as it takes.
    pub(crate) async fn stream(&self, path: &str) -> anyhow::Result<Response> {
        self.send(self.request(Method::GET, path)).await
    }

    /// The whole answer of a sign-in: its cookie is needed.
    pub(crate) async fn sign_in(&self, body: &Value) -> anyhow::Result<(String, Value)> {
        let request = self
            .request(Method::POST, "/api/v1/session")
            .json(body)
            .timeout(TIMEOUT);
        let response = self.send(request).await?;
        let cookies = response.headers().get_all(header::SET_COOKIE);
        let session = cookies.iter().filter_map(|c| c.to_str().ok()).find_map(|cookie| {
            let pair = cookie.split(';').next()?;
            pair.trim().strip_prefix("selvedge_session=").map(str::to_owned)
        });
        let me = response
            .json()
            .await
            .context("the answer to the sign-in is not JSON")?;
        Ok((session.context("the orchestrator opened no session")?, me))
    }

    /// All rows of a list, page by page, at most `limit`.
    pub(crate) async fn list(
        &self,
        path: &str,
        query: &[(&str, &str)],
        limit: usize,
    ) -> anyhow::Result<Vec<Value>> {
        let mut rows: Vec<Value> = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let page = PAGE.min(limit - rows.len()).to_string();
            let mut pairs: Vec<(&str, &str)> = query.to_vec();
            pairs.push(("limit", &page));
            if let Some(cursor) = &cursor {
                pairs.push(("cursor", cursor));
            }
            let value = self.get(&with_query(path, &pairs)).await?;
            // Some lists are short and have no pages.
            if value.is_array() {
                return Ok(serde_json::from_value(value)?);
            }
            let page: Page = serde_json::from_value(value).context("the answer is no list")?;
            let got = page.items.len();
            rows.extend(page.items);
            if rows.len() >= limit || got == 0 {
                rows.truncate(limit);
                return Ok(rows);
            }
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(rows),
            }
        }
    }
}

/// A path with a query.
pub(crate) fn with_query(path: &str, pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{name}={}", segment(value)))
        .collect();
    if pairs.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", pairs.join("&"))
    }
}

/// A text as it stands in a path or a query.
pub(crate) fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// A value that no request had before.
fn key() -> String {
    let now = telemetry::Clock::system().now();
    format!("selvedge-{}-{}", std::process::id(), now.as_nanosecond())
}

/// What lies beneath an error of the HTTP client.
fn root(error: &reqwest::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// `key=value`
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not KEY=VALUE")),
    }
}

/// The value itself, or with `@` before it the content of a file: secrets need not stand on a command line.
pub(crate) fn value_or_file(value: &str) -> anyhow::Result<String> {
    let Some(path) = value.strip_prefix('@') else {
        return Ok(value.to_owned());
    };
    if path.is_empty() {
        bail!("after @ comes the name of a file");
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("can't read {path}"))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_a_path_is_escaped() {
        assert_eq!(segment("shop-1.a"), "shop-1.a");
        assert_eq!(segment("a/b c?ü"), "a%2Fb%20c%3F%C3%BC");
        assert_eq!(with_query("/x", &[("q", "a&b")]), "/x?q=a%26b");
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let text = r#"{"status":409,"title":"Conflict","detail":"there is a site of that name","field":"name","next":"choose another"}"#;
        let refused: Refused = serde_json::from_str(text).unwrap();
        assert_eq!(
            refused.to_string(),
            "name: there is a site of that name; choose another"
        );
    }

    #[test]
    fn pairs_and_files() {
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(pair("a").is_err() && pair("=b").is_err());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "word\n").unwrap();
        assert_eq!(
            value_or_file(&format!("@{}", file.path().display())).unwrap(),
            "word"
        );
        assert_eq!(value_or_file("word").unwrap(), "word");
        assert!(value_or_file("@").is_err());
    }
}
