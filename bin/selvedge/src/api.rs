//! Asking a host's API.

use std::time::Duration;

use anyhow::Context;
use reqwest::{Certificate, Client, Identity, Method, header};
use serde_json::Value;

use crate::kubeconfig::Kubeconfig;

/// The host did not answer at all.
#[derive(Debug)]
pub(crate) struct Unreachable {
    pub(crate) server: String,
    pub(crate) why: String,
    /// What to look at.
    pub(crate) hint: &'static str,
}

impl std::fmt::Display for Unreachable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { server, why, hint } = self;
        write!(f, "{server} does not answer ({why}); {hint}")
    }
}

impl std::error::Error for Unreachable {}

/// A refusal by the API.
#[derive(Debug)]
struct Refused {
    /// Of HTTP.
    code: u16,
    message: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refused {}

/// Whether an error says that there is no such object.
pub(crate) fn is_gone(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<Refused>()
        .is_some_and(|refused| refused.code == 404)
}

/// A host's API.
pub(crate) struct Api {
    client: Client,
    server: String,
    token: Option<String>,
}

/// A resource as discovery names it.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    /// `/api/v1` or `/apis/group/version`.
    pub(crate) prefix: String,
    pub(crate) plural: String,
    pub(crate) namespaced: bool,
}

impl Api {
    pub(crate) fn new(kubeconfig: &Kubeconfig) -> anyhow::Result<Self> {
        let mut builder = Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_secs(60));
        if let Some(authority) = &kubeconfig.authority {
            builder = builder.tls_certs_only(Certificate::from_pem_bundle(authority)?);
        }
        if let Some(identity) = &kubeconfig.identity {
            builder = builder
                .identity(Identity::from_pem(identity).context("the client certificate or key is damaged")?);
        }
        Ok(Self {
            client: builder.build()?,
            server: kubeconfig.server.clone(),
            token: kubeconfig.token.clone(),
        })
    }

    /// GET; `accept` is a media type.
    pub(crate) async fn get_as(&self, path: &str, accept: &str) -> anyhow::Result<Value> {
        self.send(Method::GET, path, accept, None).await
    }

    /// GET of JSON.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.get_as(path, "application/json").await
    }

    /// A JSON merge patch.
    pub(crate) async fn merge_patch(&self, path: &str, patch: &Value) -> anyhow::Result<Value> {
        let body = ("application/merge-patch+json", patch.to_string());
        self.send(Method::PATCH, path, "application/json", Some(body))
            .await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<(&str, String)>,
    ) -> anyhow::Result<Value> {
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.server))
            .header(header::ACCEPT, accept);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some((kind, text)) = body {
            request = request.header(header::CONTENT_TYPE, kind).body(text);
        }
        let answer = request.send().await.map_err(|error| Unreachable {
            server: self.server.clone(),
            why: telemetry::chain(&error).to_string(),
            hint: "is selvedge-host running, and is the kubeconfig this host's?",
        })?;
        let code = answer.status().as_u16();
        let bytes = answer.bytes().await.context("the answer broke off")?;
        let value: Value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        if (200..300).contains(&code) {
            return Ok(value);
        }
        let message = value
            .get("message")
            .and_then(Value::as_str)
            .unwrap_or("no reason given")
            .to_owned();
        Err(Refused { code, message }.into())
    }

    /// Finds a resource by plural, singular, short name or kind, as a person types it; `name.group` also works.
    pub(crate) async fn resource(&self, typed: &str) -> anyhow::Result<Resource> {
        let wanted = typed.to_lowercase();
        let (word, group) = wanted
            .split_once('.')
            .map_or((wanted.as_str(), None), |(w, g)| (w, Some(g)));
        let mut known = Vec::new();
        for prefix in self.prefixes(group).await? {
            let list = self.get(&prefix).await?;
            for resource in list["resources"].as_array().into_iter().flatten() {
                let text = |field: &str| resource[field].as_str().unwrap_or_default().to_owned();
                let plural = text("name");
                if plural.contains('/') {
                    continue;
                }
                let short = resource["shortNames"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str);
                let mut names = vec![plural.clone(), text("singularName"), text("kind").to_lowercase()];
                names.extend(short.map(str::to_owned));
                if names.iter().any(|name| name == word) {
                    return Ok(Resource {
                        prefix,
                        plural,
                        namespaced: resource["namespaced"] == true,
                    });
                }
                known.push(plural);
            }
        }
        known.sort();
        known.dedup();
        anyhow::bail!(
            "the host serves no kind {typed:?}; it serves {}",
            known.join(", ")
        )
    }

    /// The preferred version of every group, or of one.
    async fn prefixes(&self, group: Option<&str>) -> anyhow::Result<Vec<String>> {
        let mut prefixes = Vec::new();
        if group.is_none() {
            prefixes.push("/api/v1".to_owned());
        }
        let groups = self.get("/apis").await?;
        for found in groups["groups"].as_array().into_iter().flatten() {
            let name = found["name"].as_str().unwrap_or_default();
            if group.is_none_or(|wanted| name.starts_with(wanted)) {
                let version = found["preferredVersion"]["groupVersion"]
                    .as_str()
                    .unwrap_or_default();
                prefixes.push(format!("/apis/{version}"));
            }
        }
        Ok(prefixes)
    }
}

impl Resource {
    /// The path of a list, or of one object.
    pub(crate) fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let mut path = self.prefix.clone();
        if let (true, Some(namespace)) = (self.namespaced, namespace) {
            path.push_str("/namespaces/");
            path.push_str(namespace);
        }
        path.push('/');
        path.push_str(&self.plural);
        if let Some(name) = name {
            path.push('/');
            path.push_str(name);
        }
        path
    }
}
