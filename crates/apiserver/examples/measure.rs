//! Prints how fast the store and the API in process are here: `cargo run --release -p apiserver --example measure`.
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a program for its developers"
)]

use std::{future::Future, path::Path, sync::Arc, time::Duration};

use apiserver::{Api, Client, client::Applied};
use bytes::Bytes;
use futures::{StreamExt, stream};
use kinds::{gvr, registry::Registry};
use serde_json::{Value, json};
use store::{Key, ListQuery, Options, SqliteStore, Store};
use telemetry::Clock;
use tokio::time::Instant;

/// As many requests are on their way at a time.
const AT_A_TIME: usize = 64;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    println!("{:<44} {:>9}", "resident memory at the start", resident());
    let directory = tempfile::tempdir_in(".").unwrap();
    store(&directory.path().join("store.db")).await;
    api(&directory.path().join("api.db")).await;
    println!("{:<44} {:>9}", "resident memory at the end", resident());
}

fn key(number: usize) -> Key {
    Key {
        resource: "/configmaps".into(),
        namespace: "ns".into(),
        name: format!("c{number:06}"),
    }
}

fn value(revision: u64) -> Bytes {
    let data = "x".repeat(1500);
    format!(r#"{{"metadata":{{"resourceVersion":"{revision}"}},"data":{{"a":"{data}"}}}}"#).into()
}

async fn store(path: &Path) {
    let store = Arc::new(SqliteStore::open(path, Options::default()).unwrap());
    rate("store: create, 64 at a time", 20_000, |n| {
        let store = store.clone();
        async move {
            store.create(&key(n), Box::new(value)).await.unwrap();
        }
    })
    .await;
    let one = Instant::now();
    for n in 0..100 {
        store.create(&key(100_000 + n), Box::new(value)).await.unwrap();
    }
    print("store: create, one at a time", one.elapsed() / 100);
    rate("store: get, 64 at a time", 50_000, |n| {
        let store = store.clone();
        async move {
            store.get(&key(n % 20_000)).await.unwrap().unwrap();
        }
    })
    .await;
    let query = ListQuery {
        resource: "/configmaps".into(),
        limit: 5000,
        ..ListQuery::default()
    };
    for _ in 0..2 {
        let start = Instant::now();
        store.list(query.clone()).await.unwrap();
        print("store: list of 5,000", start.elapsed());
    }
    fan_out(&store).await;
    drop(store);
    let start = Instant::now();
    let store = SqliteStore::open(path, Options::default()).unwrap();
    print("store: open with 20,000 objects", start.elapsed());
    let start = Instant::now();
    drop(store);
    print("store: close", start.elapsed());
    println!(
        "{:<44} {:>9}",
        "resident memory after the store's part",
        resident()
    );
}

/// Time from a write to the last of 60 watchers having it.
async fn fan_out(store: &Arc<SqliteStore>) {
    let barrier = Arc::new(tokio::sync::Semaphore::new(0));
    for _ in 0..60 {
        let (mut watch, barrier) = (
            store.watch("/configmaps", store.revision()).unwrap(),
            barrier.clone(),
        );
        tokio::spawn(async move {
            while watch.next().await.is_some() {
                barrier.add_permits(1);
            }
        });
    }
    let start = Instant::now();
    for n in 0..200 {
        store.create(&key(200_000 + n), Box::new(value)).await.unwrap();
        barrier.acquire_many(60).await.unwrap().forget();
    }
    print("store: a write, seen by 60 watchers", start.elapsed() / 200);
}

async fn api(path: &Path) {
    let start = Instant::now();
    let registry = Arc::new(Registry::builtin());
    print("api: the kinds, from their documents", start.elapsed());
    let store = Arc::new(SqliteStore::open(path, Options::default()).unwrap());
    let api = Api::new(registry, store, Clock::system());
    api.ensure_namespaces(&["default", "kube-system"]).await.unwrap();
    print("api: from nothing to ready", start.elapsed());
    let client = Client::new(api.clone(), "gitops");
    for expected in [Applied::Created, Applied::Unchanged, Applied::Unchanged] {
        let start = Instant::now();
        stream::iter(0..1000)
            .map(|n| apply(&client, object(n), expected))
            .buffer_unordered(AT_A_TIME)
            .collect::<Vec<_>>()
            .await;
        print(&format!("client: apply 1,000, {expected:?}"), start.elapsed());
    }
    // The same on all cores.
    let start = Instant::now();
    stream::iter(0..1000)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { apply(&client, object(n), Applied::Unchanged).await })
        })
        .buffer_unordered(AT_A_TIME)
        .collect::<Vec<_>>()
        .await;
    print("client: apply 1,000, Unchanged, spawned", start.elapsed());
    let start = Instant::now();
    let list = client.list(&gvr::config_maps(), None).await.unwrap();
    print(&format!("client: list of {}", list.items.len()), start.elapsed());
}

async fn apply(client: &Client, object: Value, expected: Applied) {
    assert_eq!(client.apply(&object, true, false).await.unwrap().0, expected);
}

fn object(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": format!("c{number}"), "namespace": "default",
            "labels": {"kustomize.toolkit.fluxcd.io/name": "site", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"},
            "annotations": {"selvedge.dev/source-path": "site/config.yaml"},
        },
        "data": {"one": "1", "two": "x".repeat(300), "three": "a: b\nc: d\n"},
    })
}

async fn rate<F: Future<Output = ()>>(what: &str, count: usize, one: impl Fn(usize) -> F) {
    let start = Instant::now();
    stream::iter(0..count)
        .map(one)
        .buffer_unordered(AT_A_TIME)
        .collect::<Vec<_>>()
        .await;
    println!(
        "{what:<44} {:>9.0}/s",
        count as f64 / start.elapsed().as_secs_f64()
    );
}

fn print(what: &str, took: Duration) {
    println!("{what:<44} {:>9.2} ms", took.as_secs_f64() * 1000.0);
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap_or("unknown")
        .trim()
        .to_owned()
}
