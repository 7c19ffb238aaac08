//! How much memory an idle link costs: `cargo run --release -p link --example memory -- 5000`.
//!
//! This process is the orchestrator's side; a child of it is all the hosts. Each prints what its resident memory grew
//! by, divided by the number of links, TLS included.

use std::{
    env, fs,
    net::SocketAddr,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use identity::{
    ca::{Authority, HOST_LIFETIME, SERVER_LIFETIME},
    credentials::Credentials,
    csr::{self, Csr, FileKey},
    trust::ServerTrust,
    verify::ClientVerifier,
};
use link::{
    host::{Connector, Handler, Options, State},
    message::{Assignment, HostMessage, Open, ServerMessage, Signal, Welcome},
    server,
    stream::Stream,
    tls::{self, Front, Incoming},
};
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
};
use serde_json::json;
use telemetry::Clock;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const TENANT: &str = "tenant-1";

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args = env::args().skip(1);
    let first = args.next().unwrap_or_else(|| "5000".into());
    if first == "hosts" {
        let count = args.next().unwrap_or_default().parse()?;
        return hosts(count, &args.next().unwrap_or_default()).await;
    }
    orchestrator(first.parse()?).await
}

fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    pages * 4096
}

struct Counts {
    up: AtomicUsize,
    beats: AtomicUsize,
}

async fn orchestrator(count: usize) -> Result<(), Failure> {
    let clock = Clock::system();
    let own = Authority::create("orchestrator", &clock)?;
    let serving = own.issue_server(&["127.0.0.1".into()], SERVER_LIFETIME, &clock)?;
    let chain = vec![CertificateDer::from_pem_slice(serving.certificate.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(serving.key.as_bytes())?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)?;
    let certified = Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)));
    let authority = Authority::create("tenant", &clock)?;
    let verifier = ClientVerifier::new(&clock);
    verifier.set_authority(TENANT, &authority.certificate_pem())?;
    let config = tls::server_config(certified, &verifier, &clock)?;
    let front = Front::new(config.clone(), config);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;

    let dir = env::temp_dir().join(format!("selvedge-memory-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let key = FileKey::generate()?;
    let csr = Csr::parse(&csr::make(&key)?)?;
    let issued = authority.issue_host(&csr, TENANT, "host-1", HOST_LIFETIME, &clock)?;
    key.write(&dir.join("host.key"))?;
    fs::write(dir.join("host.pem"), &issued.certificate)?;
    fs::write(dir.join("ca.pem"), own.certificate_pem())?;
    fs::write(dir.join("address"), address.to_string())?;

    // What the first connection brings into memory is the process's, not the links'.
    let counts = Arc::new(Counts {
        up: AtomicUsize::new(0),
        beats: AtomicUsize::new(0),
    });
    let serving = tokio::spawn(serve(listener, front, counts.clone()));
    let mut warm = child(&dir, 20)?;
    until(&counts, 20).await;
    let before = resident();
    let mut child = child(&dir, count)?;
    let started = tokio::time::Instant::now();
    until(&counts, count + 20).await;
    let took = started.elapsed();
    let up = resident();
    // All have had a beat: what is first allocated then is counted too.
    let beats = counts.beats.load(Ordering::Relaxed);
    while counts.beats.load(Ordering::Relaxed) < beats + 2 * count {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let idle = resident();
    println!("{count} links came up in {:.1} s", took.as_secs_f64());
    println!(
        "orchestrator: {} bytes a link after the handshakes, {} after two beats each",
        (up - before) / count,
        (idle - before) / count
    );
    child.kill()?;
    child.wait()?;
    warm.kill()?;
    warm.wait()?;
    serving.abort();
    fs::remove_dir_all(&dir)?;
    Ok(())
}

fn child(dir: &std::path::Path, count: usize) -> Result<std::process::Child, Failure> {
    let child = Command::new(env::current_exe()?)
        .args(["hosts", &count.to_string(), &dir.to_string_lossy()])
        .stdin(Stdio::null())
        .spawn()?;
    Ok(child)
}

async fn until(counts: &Counts, count: usize) {
    while counts.up.load(Ordering::Relaxed) < count {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn serve(listener: TcpListener, front: Front, counts: Arc<Counts>) {
    while let Ok((tcp, _)) = listener.accept().await {
        tokio::spawn(one(tcp, front.clone(), counts.clone()));
    }
}

async fn one(tcp: TcpStream, front: Front, counts: Arc<Counts>) {
    let Ok(Incoming::Link(io, _peer)) = front.accept(tcp).await else {
        return;
    };
    let Ok(mut session) = server::accept(io, server::Options::default()).await else {
        return;
    };
    let handle = session.handle();
    let welcome = Welcome {
        status_generation: 0,
        heartbeat: 10,
    };
    let _ = handle.send(&ServerMessage::Welcome(welcome));
    loop {
        match session.next().await {
            Ok(HostMessage::Status(status)) => {
                counts.up.fetch_add(1, Ordering::Relaxed);
                let generation = status.generation;
                let _ = handle.send(&ServerMessage::Ack { generation });
            }
            Ok(HostMessage::Beat {}) => {
                counts.beats.fetch_add(1, Ordering::Relaxed);
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

struct Nothing;

impl Handler for Nothing {
    fn assignment_generation(&self) -> u64 {
        0
    }

    async fn assign(&self, _generation: u64, _assignment: Assignment) -> Result<(), String> {
        Ok(())
    }

    async fn signal(&self, _what: Signal) {}

    async fn open(&self, _request: Open, stream: Stream) {
        stream.reset("nothing here");
    }
}

async fn hosts(count: usize, dir: &str) -> Result<(), Failure> {
    let dir = std::path::PathBuf::from(dir);
    let address: SocketAddr = fs::read_to_string(dir.join("address"))?.parse()?;
    let trust = ServerTrust::new(Some(&fs::read_to_string(dir.join("ca.pem"))?))?;
    let key = FileKey::read(&dir.join("host.key"))?.ok_or("no key")?;
    let credentials = Credentials::new(Arc::new(key), &fs::read_to_string(dir.join("host.pem"))?)?;
    let (_keep, credentials) = watch::channel(Some(credentials));
    let handler = Arc::new(Nothing);
    // Not all handshakes at once: their time limits are real.
    let gate = Arc::new(Semaphore::new(64));
    let before = resident();
    let mut up = Vec::new();
    for _ in 0..count {
        let permit = gate.clone().acquire_owned().await?;
        let mut options = Options::new(&format!("https://{address}"), trust.clone(), credentials.clone());
        options.ignore_environment = true;
        options
            .status
            .set("health", json!({"state": "healthy", "ready": 12, "total": 12}));
        let connector = Connector::new(options);
        let mut state = connector.state();
        let handler = handler.clone();
        tokio::spawn(async move { connector.run(handler).await });
        up.push(tokio::spawn(async move {
            let _ = state.wait_for(|state| *state == State::Connected).await;
            drop(permit);
        }));
    }
    for one in up {
        one.await?;
    }
    println!("hosts: {} bytes a link", (resident() - before) / count);
    // Until the parent ends us.
    std::future::pending().await
}
