//! The API over TLS, asked from the host itself: the lab's cables are not part of it. Then the daemon's start.

use std::{future::Future, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use nix::sched::{CloneFlags, setns};
use reqwest::Client;
use serde_json::{Value, json};
use testkit::{kubectl::Kubectl, layout::host_name, tool};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{Barrier, mpsc},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    Context,
    host::{Host, PATIENCE},
    measured::{Measured, percentile},
    usage,
};

const OBJECTS: usize = 5000;
const GETS: usize = 20_000;
const LISTS: usize = 20;
const WATCHERS: usize = 60;
const UPDATES: usize = 300;
const TASKS: usize = 32;
const CONNECTIONS: usize = 4;
const STARTS: usize = 5;

/// Who asks: where the server is, and the administrator's certificate.
#[derive(Clone)]
struct Access {
    maps: String,
    ca: Vec<u8>,
    identity: Vec<u8>,
}

pub(crate) fn measure(context: &Context, measured: &mut Vec<Measured>) -> Result<()> {
    let wants = |name: &str| context.wants("serving", name);
    let mut host = Host::up(context)?;
    let access = Access::read(&host)?;
    // Its threads are inside the host's network, and so are the connections that they open.
    let inside = runtime(&host.site.lab.layout.namespace_path(&host_name(1)))?;

    context.say(&format!("  {OBJECTS} creates"));
    let clients: Arc<[Client]> = (0..CONNECTIONS).map(|_| access.client()).collect::<Result<_>>()?;
    let created = wait(&inside, create(clients.clone(), access.maps.clone()))?;
    created.push("create-rate", "create-p99", measured);
    if wants("get-rate") || wants("get-p99") {
        context.say(&format!("  {GETS} gets"));
        let got = wait(&inside, get(clients.clone(), access.maps.clone()))?;
        got.push("get-rate", "get-p99", measured);
    }
    if wants("list") {
        context.say(&format!("  {LISTS} lists"));
        let listed = wait(&inside, list(clients.clone(), access.maps.clone()))?;
        measured.push(listed);
    }
    if wants("fan-out") {
        context.say(&format!("  {UPDATES} updates to {WATCHERS} watches"));
        let (times, rate) = wait(&inside, fan_out(access.clone()))?;
        let memory = usage::memory(host.pid()?)?.resident / 1_000_000;
        let p99 = percentile(&times, 99);
        measured.push(Measured::times(
            "fan-out",
            &times,
            format!(
                "p99 {:.1} ms, {rate:.0} events/s; the daemon's memory then {memory} MB",
                p99.as_secs_f64() * 1e3
            ),
        ));
    }
    if wants("start") {
        measured.push(start(context, &mut host)?);
    }
    drop(inside);
    host.site.lab.down()
}

impl Access {
    /// From the kubeconfig that the daemon wrote, as kubectl understands it.
    fn read(host: &Host) -> Result<Self> {
        let mut kubectl = Kubectl::admin(&host.site.lab, 1).command();
        let text = tool::run(kubectl.args(["config", "view", "--raw", "--output=json"]))?;
        let config: Value = serde_json::from_str(&text)?;
        let data = |path: &str| -> Result<Vec<u8>> {
            let text = config.pointer(path).and_then(Value::as_str);
            Ok(STANDARD.decode(text.with_context(|| format!("the kubeconfig has no {path}"))?)?)
        };
        let server = config
            .pointer("/clusters/0/cluster/server")
            .and_then(Value::as_str);
        let server = server.context("the kubeconfig names no server")?;
        let mut identity = data("/users/0/user/client-certificate-data")?;
        identity.push(b'\n');
        identity.extend(data("/users/0/user/client-key-data")?);
        Ok(Self {
            maps: format!("{server}/api/v1/namespaces/default/configmaps"),
            ca: data("/clusters/0/cluster/certificate-authority-data")?,
            identity,
        })
    }

    /// One with connections of its own.
    fn client(&self) -> Result<Client> {
        Ok(Client::builder()
            .identity(reqwest::Identity::from_pem(&self.identity)?)
            .tls_certs_only([reqwest::Certificate::from_pem(&self.ca)?])
            .no_proxy()
            .build()?)
    }
}

/// A runtime whose threads are in a network namespace.
fn runtime(namespace: &Path) -> Result<Runtime> {
    let namespace =
        std::fs::File::open(namespace).with_context(|| format!("there is no {}", namespace.display()))?;
    let enter = move || {
        if let Err(error) = setns(&namespace, CloneFlags::CLONE_NEWNET) {
            eprintln!("bench: can't enter the host's network: {error}");
        }
    };
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .on_thread_start(enter)
        .build()
        .context("can't start a runtime")
}

/// Runs work on the runtime's own threads.
fn wait<T: Send + 'static>(
    runtime: &Runtime,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    runtime
        .block_on(runtime.spawn(work))
        .context("a request panicked")?
}

/// Requests that were answered: how long each took, and all of them together.
struct Answered {
    times: Vec<Duration>,
    took: Duration,
}

impl Answered {
    fn push(&self, rate: &'static str, p99: &'static str, measured: &mut Vec<Measured>) {
        let count = self.times.len();
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let per_second = count as f64 / self.took.as_secs_f64();
        let note = format!("{count} in all, on {CONNECTIONS} connections of HTTP/2");
        measured.push(Measured::new(rate, vec![per_second], note));
        let median = percentile(&self.times, 50).as_secs_f64() * 1e3;
        let note = format!("the median is {median:.2} ms");
        measured.push(Measured::times(p99, &[percentile(&self.times, 99)], note));
    }
}

/// Sends `count` requests, so many at a time.
async fn many<F>(count: usize, request: impl Fn(usize) -> F) -> Result<Answered>
where
    F: Future<Output = reqwest::Result<reqwest::Response>> + Send + 'static,
{
    let begin = Instant::now();
    let mut running = JoinSet::new();
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        if running.len() >= TASKS
            && let Some(took) = running.join_next().await
        {
            times.push(took??);
        }
        let request = request(number);
        running.spawn(async move {
            let start = Instant::now();
            request.await?.error_for_status()?.bytes().await?;
            Ok::<_, reqwest::Error>(start.elapsed())
        });
    }
    while let Some(took) = running.join_next().await {
        times.push(took??);
    }
    let took = begin.elapsed();
    times.sort();
    Ok(Answered { times, took })
}

fn map(number: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m{number:05}")}, "data": {"k": "x".repeat(700)}})
}

async fn create(clients: Arc<[Client]>, maps: String) -> Result<Answered> {
    many(OBJECTS, |number| {
        clients[number % CONNECTIONS]
            .post(&maps)
            .json(&map(number))
            .send()
    })
    .await
}

async fn get(clients: Arc<[Client]>, maps: String) -> Result<Answered> {
    let one = |number: usize| format!("{maps}/m{:05}", number % OBJECTS);
    many(GETS, |number| {
        clients[number % CONNECTIONS].get(one(number)).send()
    })
    .await
}

async fn list(clients: Arc<[Client]>, maps: String) -> Result<Measured> {
    let (mut times, mut bytes) = (Vec::new(), 0);
    for _ in 0..LISTS {
        let start = Instant::now();
        let answer = clients[0].get(&maps).send().await?.error_for_status()?;
        bytes = answer.bytes().await?.len();
        times.push(start.elapsed());
    }
    ensure!(bytes > OBJECTS * 700, "the list has only {bytes} bytes");
    times.sort();
    let p99 = percentile(&times, 99).as_secs_f64() * 1e3;
    Ok(Measured::times(
        "list",
        &times,
        format!("p99 {p99:.0} ms, {bytes} bytes"),
    ))
}

/// Updates one object again and again; the times until the last of all watches has each, and events a second.
async fn fan_out(access: Access) -> Result<(Vec<Duration>, f64)> {
    let writer = access.client()?;
    let maps = &access.maps;
    let newest: Value = writer.get(format!("{maps}?limit=1")).send().await?.json().await?;
    let revision = newest["metadata"]["resourceVersion"]
        .as_str()
        .context("a list without a revision")?;
    let (sender, mut arrived) = mpsc::channel(1024);
    let open = Arc::new(Barrier::new(WATCHERS + 1));
    let mut watches: JoinSet<Result<()>> = JoinSet::new();
    for _ in 0..WATCHERS {
        let (client, open, sender) = (access.client()?, open.clone(), sender.clone());
        let url = format!("{maps}?watch=true&resourceVersion={revision}");
        watches.spawn(async move {
            let mut response = client.get(url).send().await?.error_for_status()?;
            open.wait().await;
            while let Some(chunk) = response.chunk().await? {
                let events = chunk.iter().filter(|byte| **byte == b'\n').count();
                if sender.send(events).await.is_err() {
                    break;
                }
            }
            Ok(())
        });
    }
    drop(sender);
    timeout(PATIENCE, open.wait())
        .await
        .context("not all watches are opened")?;
    let mut times = Vec::with_capacity(UPDATES);
    let begin = Instant::now();
    for number in 0..UPDATES {
        let start = Instant::now();
        let mut changed = map(0);
        changed["data"]["n"] = number.to_string().into();
        writer
            .put(format!("{maps}/m00000"))
            .json(&changed)
            .send()
            .await?
            .error_for_status()?;
        let mut waiting = WATCHERS;
        while waiting > 0 {
            let events = timeout(PATIENCE, arrived.recv())
                .await
                .context("a watch is silent")?;
            waiting = waiting.saturating_sub(events.context("the watches ended")?);
        }
        times.push(start.elapsed());
    }
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = (UPDATES * WATCHERS) as f64 / begin.elapsed().as_secs_f64();
    times.sort();
    Ok((times, rate))
}

/// Kills the daemon and starts it again, with all objects in its store.
fn start(context: &Context, host: &mut Host) -> Result<Measured> {
    let (mut times, mut whole) = (Vec::new(), Duration::ZERO);
    for round in 0..STARTS {
        context.say(&format!(
            "  start with {OBJECTS} objects, {} of {STARTS}",
            round + 1
        ));
        host.site.lab.kill_daemon(1)?;
        let begin = Instant::now();
        host.site.lab.start_daemon(1)?;
        let command = format!("/proc/{}/comm", host.pid()?);
        let mut began = None;
        loop {
            // The lab's own preparations run under the same number first.
            if began.is_none()
                && std::fs::read_to_string(&command).is_ok_and(|name| name.trim() == "selvedge-host")
            {
                began = Some(Instant::now());
            }
            if host.api.is_ready() {
                break;
            }
            ensure!(
                begin.elapsed() < PATIENCE,
                "the API is not ready: {}",
                host.site.last_words()
            );
            context
                .runtime
                .block_on(async { sleep(Duration::from_millis(1)).await });
        }
        times.push(began.unwrap_or(begin).elapsed());
        whole = whole.max(begin.elapsed());
        host.site.wait_api()?;
        // Its start is over when it has done all that it has to do then.
        host.apply()?;
    }
    let note = format!(
        "1 ms more or less; with the lab's namespaces entered {:.0} ms at worst",
        whole.as_secs_f64() * 1e3
    );
    Ok(Measured::times("start", &times, note))
}
