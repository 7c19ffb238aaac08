//! An orchestrator's port, and hosts for it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use identity::{
    ca::{Authority, HOST_LIFETIME, SERVER_LIFETIME},
    credentials::Credentials,
    csr::{self, Csr, FileKey},
    trust::ServerTrust,
    verify::{ClientVerifier, Peer},
};
use link::{
    host::{Connector, Handler, Options, State},
    message::{Assignment, HostMessage, Open, ServerMessage, Signal, Welcome},
    server::{self, Session},
    stream::Stream,
    tls::{self, Front, Incoming},
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
};
use telemetry::Clock;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_rustls::server::TlsStream;

pub(crate) const TENANT: &str = "0199-tenant";

pub(crate) type Link = Session<Box<TlsStream<TcpStream>>>;

pub(crate) struct Lab {
    pub(crate) clock: Clock,
    pub(crate) authority: Authority,
    pub(crate) verifier: ClientVerifier,
    pub(crate) ca_pem: String,
    pub(crate) front: Front,
    pub(crate) address: SocketAddr,
    listener: TcpListener,
}

impl Lab {
    pub(crate) async fn new() -> Self {
        let clock = Clock::system();
        let own = Authority::create("selvedge orchestrator", &clock).unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let serving = own.issue_server(&names, SERVER_LIFETIME, &clock).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(serving.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(serving.key.as_bytes()).unwrap();
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        let certified = Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)));
        let authority = Authority::create("selvedge tenant acme", &clock).unwrap();
        let verifier = ClientVerifier::new(&clock);
        verifier
            .set_authority(TENANT, &authority.certificate_pem())
            .unwrap();
        let link = tls::server_config(certified.clone(), &verifier, &clock).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut web = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(certified);
        web.alpn_protocols = vec![b"http/1.1".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            clock,
            authority,
            verifier,
            ca_pem: own.certificate_pem(),
            front: Front::new(link, Arc::new(web)),
            address: listener.local_addr().unwrap(),
            listener,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.address.port())
    }

    pub(crate) fn trust(&self) -> ServerTrust {
        ServerTrust::new(Some(&self.ca_pem)).unwrap()
    }

    pub(crate) fn credentials(&self, host: &str) -> Credentials {
        let key = Arc::new(FileKey::generate().unwrap());
        let csr = Csr::parse(&csr::make(&*key).unwrap()).unwrap();
        let issued = self
            .authority
            .issue_host(&csr, TENANT, host, HOST_LIFETIME, &self.clock)
            .unwrap();
        Credentials::new(key, &issued.certificate).unwrap()
    }

    pub(crate) fn options(&self, host: &str) -> Options {
        let (_, credentials) = watch::channel(Some(self.credentials(host)));
        let mut options = Options::new(&self.url(), self.trust(), credentials);
        options.ignore_environment = true;
        options.boot_id = "boot-1".into();
        options.first_pause = Duration::from_millis(20);
        options.coalesce = Duration::from_millis(20);
        options
    }

    pub(crate) async fn tcp(&self) -> TcpStream {
        self.listener.accept().await.unwrap().0
    }

    /// The next that comes in, as far as TLS.
    pub(crate) async fn incoming(&self) -> Incoming {
        let tcp = self.tcp().await;
        self.front.accept(tcp).await.unwrap()
    }

    /// The next host.
    pub(crate) async fn accept(&self) -> (Link, Peer) {
        let Incoming::Link(io, peer) = self.incoming().await else {
            panic!("somebody came who is no host");
        };
        let session = server::accept(io, server::Options::default()).await.unwrap();
        (session, peer)
    }

    /// The next host, told what is held of its status.
    pub(crate) async fn welcome(&self, status_generation: u64) -> Link {
        let (session, _) = self.accept().await;
        let welcome = Welcome {
            status_generation,
            heartbeat: 30,
        };
        session.handle().send(&ServerMessage::Welcome(welcome)).unwrap();
        session
    }
}

/// What came in at a host.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) generation: Mutex<u64>,
    pub(crate) assignments: Mutex<Vec<(u64, Assignment)>>,
    pub(crate) signals: watch::Sender<Vec<Signal>>,
    /// How often the orchestrator did not want this host.
    pub(crate) turned_away: AtomicUsize,
    /// Why assignments are refused.
    pub(crate) refusal: Mutex<Option<String>>,
    /// Held while an assignment shall not end.
    pub(crate) gate: tokio::sync::Mutex<()>,
}

impl Handler for Recorder {
    fn assignment_generation(&self) -> u64 {
        *self.generation.lock().unwrap()
    }

    async fn assign(&self, generation: u64, assignment: Assignment) -> Result<(), String> {
        let _open = self.gate.lock().await;
        self.assignments.lock().unwrap().push((generation, assignment));
        if let Some(why) = self.refusal.lock().unwrap().clone() {
            return Err(why);
        }
        *self.generation.lock().unwrap() = generation;
        Ok(())
    }

    async fn signal(&self, what: Signal) {
        self.signals.send_modify(|signals| signals.push(what));
    }

    fn turned_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    async fn open(&self, request: Open, stream: Stream) {
        match request {
            // Says back what it hears.
            Open::Api { .. } => {
                let (mut read, mut write) = tokio::io::split(stream);
                if tokio::io::copy(&mut read, &mut write).await.is_ok() {
                    let _ = tokio::io::AsyncWriteExt::shutdown(&mut write).await;
                }
            }
            // Sends a megabyte, then ends.
            Open::Logs { .. } => {
                let mut stream = stream;
                let lines = vec![b'l'; 1024 * 1024];
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, &lines).await;
                let _ = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
            }
            _ => stream.reset("no such machine"),
        }
    }
}

/// A running host; stops when dropped.
pub(crate) struct Host {
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) state: watch::Receiver<State>,
    task: JoinHandle<()>,
}

impl Host {
    pub(crate) fn run(options: Options) -> Self {
        let connector = Connector::new(options);
        let recorder = Arc::new(Recorder::default());
        let state = connector.state();
        let handler = recorder.clone();
        let task = tokio::spawn(async move { connector.run(handler).await });
        Self {
            recorder,
            state,
            task,
        }
    }

    pub(crate) async fn reaches(&mut self, want: impl Fn(&State) -> bool) -> State {
        let wait = self.state.wait_for(|state| want(state));
        let reached = tokio::time::timeout(Duration::from_secs(20), wait).await;
        reached
            .expect("the link's state was not reached in time")
            .unwrap()
            .clone()
    }
}

impl Host {
    /// Waits until the host is in, while the orchestrator's end does its work.
    pub(crate) async fn is_up(&mut self, link: &mut Link) {
        tokio::select! {
            _ = self.reaches(|state| *state == State::Connected) => {}
            () = async { while link.next().await.is_ok() {} } => panic!("the link ended"),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The next message that isn't a beat.
pub(crate) async fn next(link: &mut Link) -> HostMessage {
    loop {
        let message = tokio::time::timeout(Duration::from_secs(20), link.next()).await;
        match message.expect("no message came in time").unwrap() {
            HostMessage::Beat {} => {}
            other => return other,
        }
    }
}
