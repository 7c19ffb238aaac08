//! A host: enrols, keeps its link, takes assignments, serves streams with a small API of its own.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use identity::{
    credentials::Credentials,
    csr,
    enrol::{Answer, Client, ClientOptions, Granted, Request as Enrolment},
    key::{FileKey, HostKey},
    trust::ServerTrust,
};
use link::{
    host::{Connector, Handler, Options, State},
    message::{Assignment, Open, Signal},
    status::StatusBook,
    stream::Stream,
};
use telemetry::Clock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    task::JoinHandle,
};

use super::Server;

/// What a host was told.
#[derive(Default)]
pub(crate) struct Told {
    generation: AtomicU64,
    assignment: Mutex<Option<Assignment>>,
    pub(crate) signals: Mutex<Vec<Signal>>,
}

impl Told {
    pub(crate) fn assignment(&self) -> Option<Assignment> {
        self.assignment.lock().unwrap().clone()
    }
}

impl Handler for Told {
    fn assignment_generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    async fn assign(&self, generation: u64, assignment: Assignment) -> Result<(), String> {
        *self.assignment.lock().unwrap() = Some(assignment);
        self.generation.store(generation, Ordering::SeqCst);
        Ok(())
    }

    async fn signal(&self, what: Signal) {
        self.signals.lock().unwrap().push(what);
    }

    async fn open(&self, request: Open, mut stream: Stream) {
        match request {
            Open::Api { user, groups, .. } => api(stream, format!("{user} {}", groups.join(","))).await,
            Open::Serial { name, .. } => {
                stream
                    .write_all(format!("login at {name}: ").as_bytes())
                    .await
                    .unwrap();
                let mut chunk = [0; 256];
                while let Ok(n @ 1..) = stream.read(&mut chunk).await {
                    if stream.write_all(&chunk[..n].to_ascii_uppercase()).await.is_err() {
                        return;
                    }
                }
                let _ = stream.shutdown().await;
            }
            Open::Logs { lines, .. } => {
                for line in 0..lines.min(3) {
                    stream
                        .write_all(format!("line {line}\n").as_bytes())
                        .await
                        .unwrap();
                }
                stream.shutdown().await.unwrap();
            }
            _ => stream.reset("not served here"),
        }
    }
}

/// An API server that says who asks, and echoes upgrades in capitals.
async fn api(stream: Stream, who: String) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        let who = who.clone();
        async move {
            if request.headers().contains_key("upgrade") {
                let upgrade = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    let mut io = TokioIo::new(upgrade.await.unwrap());
                    let mut chunk = [0; 64];
                    while let Ok(n @ 1..) = io.read(&mut chunk).await {
                        io.write_all(&chunk[..n].to_ascii_uppercase()).await.unwrap();
                    }
                });
                let answer = Response::builder()
                    .status(101)
                    .header("connection", "Upgrade")
                    .header("upgrade", "SPDY/3.1")
                    .body(String::new());
                return Ok::<_, std::convert::Infallible>(answer.unwrap());
            }
            Ok(Response::new(format!(
                "{} {} as {who}",
                request.method(),
                request.uri()
            )))
        }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

/// A host that is connected.
pub(crate) struct Host {
    pub(crate) id: String,
    pub(crate) granted: Granted,
    pub(crate) key: Arc<dyn HostKey>,
    pub(crate) told: Arc<Told>,
    pub(crate) status: StatusBook,
    pub(crate) state: watch::Receiver<State>,
    _credentials: watch::Sender<Option<Credentials>>,
    link: JoinHandle<()>,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.link.abort();
    }
}

pub(crate) fn enrolment_client(server: &Server) -> Client {
    Client::new(&ClientOptions {
        url: server.url.clone(),
        trust: ServerTrust::new(Some(&server.ca_pem())).unwrap(),
        proxy: None,
        clock: Clock::system(),
    })
    .unwrap()
}

/// A request to be let in, with a key of its own.
pub(crate) fn enrolment(serial: &str, activation_key: Option<&str>) -> (Arc<dyn HostKey>, Enrolment) {
    let key: Arc<dyn HostKey> = Arc::new(FileKey::generate().unwrap());
    let request = Enrolment {
        csr: csr::make(&*key).unwrap(),
        serial: serial.to_owned(),
        hostname: serial.to_ascii_lowercase(),
        activation_key: activation_key.map(str::to_owned),
        tenant: Some("acme".to_owned()),
        ..Enrolment::default()
    };
    (key, request)
}

impl Host {
    /// Enrols with an activation key and connects.
    pub(crate) async fn enrol(server: &Server, serial: &str, activation_key: &str) -> Self {
        let (key, request) = enrolment(serial, Some(activation_key));
        match enrolment_client(server).request(&request).await.unwrap() {
            Answer::Granted(granted) => Self::connect(server, key, *granted),
            Answer::Waiting(waiting) => panic!("must wait: {waiting:?}"),
        }
    }

    /// Connects with a certificate.
    pub(crate) fn connect(server: &Server, key: Arc<dyn HostKey>, granted: Granted) -> Self {
        let credentials = Credentials::new(key.clone(), &granted.certificate).unwrap();
        let (sender, receiver) = watch::channel(Some(credentials));
        let trust = ServerTrust::new(Some(&server.ca_pem())).unwrap();
        let status = StatusBook::new();
        let mut options = Options::new(&server.url, trust, receiver);
        options.ignore_environment = true;
        options.boot_id = "boot".into();
        options.status = status.clone();
        options.first_pause = Duration::from_millis(100);
        options.most_pause = Duration::from_millis(500);
        options.coalesce = Duration::from_millis(50);
        let connector = Connector::new(options);
        let state = connector.state();
        let told = Arc::new(Told::default());
        let handler = told.clone();
        let link = tokio::spawn(async move { connector.run(handler).await });
        Self {
            id: granted.host_id.clone(),
            granted,
            key,
            told,
            status,
            state,
            _credentials: sender,
            link,
        }
    }
}
