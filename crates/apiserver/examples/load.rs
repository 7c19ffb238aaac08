//! How fast an API server is, over TLS from another process: `cargo build --release -p apiserver --examples &&
//! <target>/release/examples/load [folder]`.
//!
//! Starts the example `serve` on a folder (a new temporary one if none is named) and prints one line a figure.

#![allow(
    clippy::unwrap_used,
    reason = "a measurement that fails may say so by a panic"
)]

use std::{
    error::Error,
    future::Future,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use reqwest::{Client, header::ACCEPT};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::{Barrier, mpsc},
    task::JoinSet,
    time::Instant,
};

const OBJECTS: usize = 5_000;
const GETS: usize = 20_000;
const LISTS: usize = 20;
const WATCHERS: usize = 60;
const UPDATES: usize = 300;
const TASKS: usize = 32;
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let temporary = tempfile::tempdir()?;
    let dir = std::env::args()
        .nth(1)
        .map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    let (mut server, url) = start(&dir).await?;
    let pid = server.id().ok_or("the server is gone")?;
    println!("rss empty: {} MB", rss(pid)?);

    let clients: Vec<Client> = (0..4).map(|_| client(&dir)).collect::<Result<_, _>>()?;
    let maps = format!("{url}/api/v1/namespaces/default/configmaps");
    let body = |n: usize| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m{n:05}")}, "data": {"k": "x".repeat(700)}});
    measure("create", OBJECTS, |n| {
        let request = clients[n % clients.len()].post(&maps).json(&body(n));
        async move {
            request
                .send()
                .await
                .unwrap()
                .error_for_status()
                .unwrap()
                .bytes()
                .await
                .unwrap()
        }
    })
    .await;
    measure("get", GETS, |n| {
        let request = clients[n % clients.len()].get(format!("{maps}/m{:05}", n % OBJECTS));
        async move {
            request
                .send()
                .await
                .unwrap()
                .error_for_status()
                .unwrap()
                .bytes()
                .await
                .unwrap()
        }
    })
    .await;
    println!("rss with {OBJECTS} objects: {} MB", rss(pid)?);
    for (name, accept, query) in [
        ("list", "application/json", ""),
        ("table", TABLE, ""),
        ("list, one label", "application/json", "?labelSelector=a%3Db"),
    ] {
        let (mut times, mut bytes) = (Vec::new(), 0);
        for _ in 0..LISTS {
            let start = Instant::now();
            let answer = clients[0]
                .get(format!("{maps}{query}"))
                .header(ACCEPT, accept)
                .send()
                .await?
                .error_for_status()?;
            bytes = answer.bytes().await?.len();
            times.push(start.elapsed());
        }
        println!("{name} of {OBJECTS}: {} ({bytes} bytes)", percentiles(&mut times));
    }
    println!("rss after lists: {} MB", rss(pid)?);
    fan_out(&dir, &maps, &clients[0], &body).await?;
    println!("rss with {WATCHERS} watches: {} MB", rss(pid)?);
    server.kill().await?;
    Ok(())
}

async fn start(dir: &Path) -> Result<(Child, String), Box<dyn Error>> {
    let program = std::env::current_exe()?.with_file_name("serve");
    let mut server = Command::new(program)
        .arg(dir)
        .arg("0")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(server.stdout.take().ok_or("no output")?).lines();
    let url = lines.next_line().await?.ok_or("the server said nothing")?;
    Ok((server, url))
}

fn client(dir: &Path) -> Result<Client, Box<dyn Error>> {
    let identity = reqwest::Identity::from_pem(&std::fs::read(dir.join("pki/admin.pem"))?)?;
    let ca = reqwest::Certificate::from_pem(&std::fs::read(dir.join("ca.crt"))?)?;
    Ok(Client::builder()
        .identity(identity)
        .tls_certs_only([ca])
        .no_proxy()
        .build()?)
}

fn rss(pid: u32) -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .ok_or("no VmRSS")?;
    Ok(line
        .split_whitespace()
        .nth(1)
        .ok_or("no number")?
        .parse::<u64>()?
        / 1024)
}

fn percentiles(times: &mut [Duration]) -> String {
    times.sort();
    let at =
        |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1_000.0;
    format!("p50 {:.2} ms, p99 {:.2} ms", at(50), at(99))
}

/// Does `work` for each of `count` numbers, so many at a time.
async fn measure<W, F, T>(name: &str, count: usize, work: W)
where
    W: Fn(usize) -> F,
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let start = Instant::now();
    let mut running = JoinSet::new();
    let mut times = Vec::with_capacity(count);
    for n in 0..count {
        if running.len() >= TASKS
            && let Some(took) = running.join_next().await
        {
            times.push(took.unwrap());
        }
        let work = work(n);
        running.spawn(async move {
            let start = Instant::now();
            work.await;
            start.elapsed()
        });
    }
    while let Some(took) = running.join_next().await {
        times.push(took.unwrap());
    }
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = count as f64 / start.elapsed().as_secs_f64();
    println!(
        "{name}: {rate:.0}/s, {} ({TASKS} at a time)",
        percentiles(&mut times)
    );
}

/// Updates one object again and again; the time from each request to its arrival at the last of all watchers.
async fn fan_out(
    dir: &Path,
    maps: &str,
    writer: &Client,
    body: &dyn Fn(usize) -> Value,
) -> Result<(), Box<dyn Error>> {
    let revision: Value = writer.get(format!("{maps}?limit=1")).send().await?.json().await?;
    let revision = revision["metadata"]["resourceVersion"]
        .as_str()
        .ok_or("no revision")?
        .to_owned();
    let (sender, mut arrived) = mpsc::channel(1_024);
    let open = Arc::new(Barrier::new(WATCHERS + 1));
    for _ in 0..WATCHERS {
        let (client, open, sender) = (client(dir)?, open.clone(), sender.clone());
        let url = format!("{maps}?watch=true&allowWatchBookmarks=true&resourceVersion={revision}");
        tokio::spawn(async move {
            let mut response = client.get(url).send().await.unwrap().error_for_status().unwrap();
            open.wait().await;
            // Ends with the server.
            while let Ok(Some(chunk)) = response.chunk().await {
                let frames = chunk.iter().filter(|b| **b == b'\n').count();
                if sender.send(frames).await.is_err() {
                    return;
                }
            }
        });
    }
    open.wait().await;
    let mut times = Vec::new();
    let begin = Instant::now();
    for n in 0..UPDATES {
        let start = Instant::now();
        let mut map = body(0);
        map["data"]["n"] = n.to_string().into();
        writer
            .put(format!("{maps}/m00000"))
            .json(&map)
            .send()
            .await?
            .error_for_status()?;
        let mut waiting = WATCHERS;
        while waiting > 0 {
            waiting = waiting.saturating_sub(arrived.recv().await.ok_or("the watches ended")?);
        }
        times.push(start.elapsed());
    }
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = (UPDATES * WATCHERS) as f64 / begin.elapsed().as_secs_f64();
    println!(
        "update to the last of {WATCHERS} watchers: {} ({rate:.0} events/s)",
        percentiles(&mut times)
    );
    Ok(())
}
