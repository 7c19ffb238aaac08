//! The API of a host over its local socket, as root.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use tokio::{
    runtime::Handle,
    time::{Instant, timeout_at},
};

/// Asks, and waits for the answer in the calling thread.
pub(crate) struct Api {
    runtime: Handle,
    client: Client,
}

/// The runs of a reconciler so far, by its metrics.
#[derive(Clone, Copy)]
pub(crate) struct Runs {
    pub(crate) count: f64,
    pub(crate) seconds: f64,
}

/// What comes from a watch: all objects there are, then each change.
pub(crate) struct Watch {
    runtime: Handle,
    response: Response,
    rest: Vec<u8>,
}

impl Api {
    /// Of the daemon that listens on `socket`; it need not be there yet.
    pub(crate) fn new(runtime: Handle, socket: &Path) -> Result<Self> {
        let client = Client::builder().unix_socket(socket).build()?;
        Ok(Self { runtime, client })
    }

    /// Whether the daemon says that it is ready.
    pub(crate) fn is_ready(&self) -> bool {
        let answer = self.client.get("http://host/readyz").send();
        self.runtime
            .block_on(answer)
            .is_ok_and(|answer| answer.status().is_success())
    }

    /// An object or a list.
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        self.send(Method::GET, path, "", None)
    }

    /// Creates an object in a collection.
    pub(crate) fn create(&self, path: &str, object: &Value) -> Result<Value> {
        self.send(Method::POST, path, "application/json", Some(object))
    }

    /// Merges a patch into an object.
    pub(crate) fn merge(&self, path: &str, patch: &Value) -> Result<Value> {
        self.send(Method::PATCH, path, "application/merge-patch+json", Some(patch))
    }

    /// Sets an annotation of an object.
    pub(crate) fn annotate(&self, path: &str, key: &str, value: &str) -> Result<Value> {
        self.merge(path, &json!({"metadata": {"annotations": {key: value}}}))
    }

    /// Deletes an object.
    pub(crate) fn delete(&self, path: &str) -> Result<Value> {
        self.send(Method::DELETE, path, "", None)
    }

    /// What a reconciler has done so far.
    pub(crate) fn runs(&self, reconciler: &str) -> Result<Runs> {
        let text = self.runtime.block_on(async {
            let answer = self.client.get("http://host/metrics").send().await?;
            answer.error_for_status()?.text().await
        })?;
        let read = |what: &str| {
            let name = format!("selvedge_{reconciler}_duration_seconds_{what}");
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(&name)?.trim().parse::<f64>().ok());
            value.with_context(|| format!("there is no metric {name}"))
        };
        Ok(Runs {
            count: read("count")?,
            seconds: read("sum")?,
        })
    }

    /// Watches a collection, with everything that is in it already.
    pub(crate) fn watch(&self, path: &str) -> Result<Watch> {
        let response = self.runtime.block_on(async {
            let answer = self
                .client
                .get(format!("http://host{path}?watch=true"))
                .send()
                .await?;
            answer.error_for_status()
        });
        Ok(Watch {
            runtime: self.runtime.clone(),
            response: response.with_context(|| format!("can't watch {path}"))?,
            rest: Vec::new(),
        })
    }

    fn send(&self, method: Method, path: &str, kind: &str, body: Option<&Value>) -> Result<Value> {
        let mut request = self.client.request(method.clone(), format!("http://host{path}"));
        if let Some(body) = body {
            request = request.header("content-type", kind).body(body.to_string());
        }
        self.runtime.block_on(async {
            let answer = request.send().await.with_context(|| format!("{method} {path}"))?;
            let status = answer.status();
            let value: Value = answer.json().await.with_context(|| format!("{method} {path}"))?;
            ensure!(
                status.is_success(),
                "{method} {path}: {status}: {}",
                value["message"]
            );
            Ok(value)
        })
    }
}

impl Watch {
    /// Takes events until `find`, given an event's type and object, finds what it looks for; with the moment.
    pub(crate) fn until<T>(
        &mut self,
        what: &str,
        timeout: Duration,
        mut find: impl FnMut(&str, &Value) -> Option<T>,
    ) -> Result<(T, Instant)> {
        let deadline = Instant::now() + timeout;
        let mut last = String::from("nothing");
        loop {
            while let Some(event) = self.next()? {
                let kind = event["type"].as_str().unwrap_or_default();
                if let Some(found) = find(kind, &event["object"]) {
                    return Ok((found, Instant::now()));
                }
                last = format!(
                    "{kind} {}: {}",
                    event["object"]["metadata"]["name"], event["object"]["status"]
                );
            }
            let more = self
                .runtime
                .block_on(async { timeout_at(deadline, self.response.chunk()).await });
            match more {
                Ok(Ok(Some(bytes))) => self.rest.extend_from_slice(&bytes),
                Ok(Ok(None)) => bail!("{what}: the watch ended"),
                Ok(Err(error)) => return Err(error).with_context(|| format!("{what}: the watch broke")),
                Err(_) => bail!(
                    "{what}: not within {} s; last seen: {last:.600}",
                    timeout.as_secs()
                ),
            }
        }
    }

    fn next(&mut self) -> Result<Option<Value>> {
        let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') else {
            return Ok(None);
        };
        let line: Vec<u8> = self.rest.drain(..=end).collect();
        serde_json::from_slice(&line)
            .context("an event is no JSON")
            .map(Some)
    }
}
