//! Watches: frames, bookmarks, ends.

use std::time::Duration;

use reqwest::{Response, header::ACCEPT};
use serde_json::{Value, json};

use super::site::{PATIENCE, Site};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

struct Frames {
    response: Response,
    buffer: Vec<u8>,
}

impl Frames {
    async fn open(site: &Site, query: &str, accept: &str) -> Self {
        let url = format!("{}/api/v1/configmaps?watch=true&{query}", site.url);
        let response = site.admin().get(url).header(ACCEPT, accept).send().await.unwrap();
        Self {
            response,
            buffer: Vec::new(),
        }
    }

    /// The next frame; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(at) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=at).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk())
                .await
                .expect("no frame came")
                .unwrap();
            self.buffer.extend_from_slice(&chunk?);
        }
    }

    /// Type and name of the next frame.
    async fn event(&mut self) -> (String, String) {
        let frame = self.next().await.expect("the watch ended");
        let text = |pointer: &str| {
            frame
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        (text("/type"), text("/object/metadata/name"))
    }
}

fn pair(kind: &str, name: &str) -> (String, String) {
    (kind.into(), name.into())
}

fn map(name: &str, label: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "labels": {"l": label}}, "data": {},
    })
}

#[tokio::test]
async fn from_nowhere_from_a_revision_and_with_a_selector() {
    let site = Site::start().await;
    let client = site.client();
    client.create(&map("a", "x")).await.unwrap();
    let revision = site.api.revision();
    let mut all = Frames::open(&site, "", "application/json").await;
    let mut later = Frames::open(&site, &format!("resourceVersion={revision}"), "application/json").await;
    let mut some = Frames::open(
        &site,
        &format!("resourceVersion={revision}&labelSelector=l%3Dy"),
        "application/json",
    )
    .await;
    assert_eq!(all.event().await, pair("ADDED", "a"));
    client.create(&map("b", "y")).await.unwrap();
    for frames in [&mut all, &mut later, &mut some] {
        assert_eq!(frames.event().await, pair("ADDED", "b"));
    }
    client.update(&map("b", "z")).await.unwrap();
    assert_eq!(all.event().await, pair("MODIFIED", "b"));
    let left = some.next().await.unwrap();
    assert_eq!(
        (&left["type"], &left["object"]["metadata"]["labels"]["l"]),
        (&json!("DELETED"), &json!("y"))
    );
    assert_eq!(
        left["object"]["metadata"]["resourceVersion"],
        site.api.revision().to_string()
    );
    client
        .delete(&kinds::Gvr::new("v1", "configmaps"), "default", "b")
        .await
        .unwrap();
    assert_eq!(all.event().await, pair("DELETED", "b"));
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let site = Site::start().await;
    for name in ["a", "b"] {
        site.client().create(&map(name, "x")).await.unwrap();
    }
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut frames = Frames::open(&site, query, "application/json").await;
    assert_eq!(frames.event().await, pair("ADDED", "a"));
    assert_eq!(frames.event().await, pair("ADDED", "b"));
    let mark = frames.next().await.unwrap();
    assert_eq!(
        (&mark["type"], &mark["object"]["kind"]),
        (&json!("BOOKMARK"), &json!("ConfigMap"))
    );
    assert_eq!(
        mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    site.client().create(&map("c", "x")).await.unwrap();
    assert_eq!(frames.event().await, pair("ADDED", "c"));
}

#[tokio::test]
async fn tables_tell_their_columns_once() {
    let site = Site::start().await;
    site.client().create(&map("a", "x")).await.unwrap();
    let mut frames = Frames::open(&site, "", TABLE).await;
    let first = frames.next().await.unwrap();
    assert_eq!(first["object"]["columnDefinitions"][0]["name"], "Name");
    assert_eq!(first["object"]["rows"][0]["cells"][0], "a");
    site.client().create(&map("b", "x")).await.unwrap();
    let second = frames.next().await.unwrap();
    assert_eq!(
        (
            &second["object"]["columnDefinitions"],
            &second["object"]["rows"][0]["cells"][0]
        ),
        (&Value::Null, &json!("b"))
    );
}

#[tokio::test]
async fn the_time_asked_for_ends_it_with_a_bookmark() {
    let site = Site::start().await;
    let revision = site.api.revision();
    let query = format!("resourceVersion={revision}&timeoutSeconds=1&allowWatchBookmarks=true");
    let mut frames = Frames::open(&site, &query, "application/json").await;
    let mark = frames.next().await.unwrap();
    assert_eq!(
        (&mark["type"], &mark["object"]["metadata"]["resourceVersion"]),
        (&json!("BOOKMARK"), &json!(revision.to_string()))
    );
    assert_eq!(frames.next().await, None);
    let query = format!("resourceVersion={revision}&timeoutSeconds=1");
    assert_eq!(
        Frames::open(&site, &query, "application/json").await.next().await,
        None
    );
}

#[tokio::test]
async fn refusals_are_events_where_clients_expect_them() {
    let site = Site::start().await;
    let mut frames = Frames::open(&site, "resourceVersion=999999", "application/json").await;
    assert_eq!(frames.response.status(), 200);
    let error = frames.next().await.unwrap();
    assert_eq!(
        (&error["type"], &error["object"]["code"]),
        (&json!("ERROR"), &json!(410))
    );
    assert_eq!(frames.next().await, None);
    for query in [
        "sendInitialEvents=true",
        "resourceVersionMatch=Exact",
        "continue=x",
    ] {
        let frames = Frames::open(&site, query, "application/json").await;
        assert_eq!(frames.response.status(), 422, "{query}");
    }
}

#[tokio::test]
async fn a_client_that_goes_frees_its_watch() {
    let site = Site::start().await;
    let open = async || {
        let text = site
            .admin()
            .get(format!("{}/metrics", site.url))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with("selvedge_api_watches "))
            .unwrap()
            .to_owned();
        line.rsplit(' ').next().unwrap().parse::<u32>().unwrap()
    };
    let level = async |wanted: u32| {
        let reached = async {
            while open().await != wanted {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, reached)
            .await
            .unwrap_or_else(|_| panic!("never {wanted} watches"));
    };
    let revision = site.api.revision();
    let watches = [
        Frames::open(&site, &format!("resourceVersion={revision}"), "application/json").await,
        Frames::open(&site, &format!("resourceVersion={revision}"), TABLE).await,
    ];
    level(2).await;
    drop(watches);
    level(0).await;
}

#[tokio::test]
async fn stopping_ends_watches_at_once() {
    let mut site = Site::start().await;
    let revision = site.api.revision();
    let mut frames = Frames::open(&site, &format!("resourceVersion={revision}"), "application/json").await;
    let stopped = site.stop();
    assert_eq!(frames.next().await, None);
    tokio::time::timeout(Duration::from_secs(9), stopped)
        .await
        .expect("draining hangs")
        .unwrap();
}
