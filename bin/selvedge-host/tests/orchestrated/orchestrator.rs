//! The smallest orchestrator that there can be, in this process: lets hosts in, renews, links. It does as it is told,
//! and remembers what it was asked.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, body::Bytes, body::Incoming as Body, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use identity::{
    ca::{Authority, HOST_LIFETIME, SERVER_LIFETIME},
    csr::Csr,
    enrol::{Granted, Nonce, Renewal, Request as Enrol, Waiting},
    proof::{self, Nonces},
    verify::ClientVerifier,
};
use link::{
    close::{Close, FORBIDDEN},
    message::{HostMessage, Sections, ServerMessage, Welcome},
    server::{self, Handle},
    tls::{self, Front, Incoming},
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
};
use serde_json::{Value, json};
use telemetry::Clock;
use tokio::{net::TcpListener, task::JoinHandle};

const TENANT: &str = "0199-tenant";

/// What it is to do, and what came.
pub(crate) struct State {
    /// How long the next certificates live.
    pub(crate) lifetime: Duration,
    /// Hosts must be approved first.
    pub(crate) hold: bool,
    /// Requests and renewals are answered with 503.
    pub(crate) busy: bool,
    /// What a host is told when it has an older assignment.
    pub(crate) assign: Option<ServerMessage>,
    /// Fingerprints of keys that asked, each with its host's id. Whose host isn't here is not known.
    pub(crate) hosts: BTreeMap<String, String>,
    /// How many hosts there ever were.
    pub(crate) ever: usize,
    /// The last request.
    pub(crate) asked: Option<Enrol>,
    /// Renewals: whether the old certificate had ended.
    pub(crate) renewals: Vec<bool>,
    /// Every link that came: the host's id and the assignment it had.
    pub(crate) links: Vec<(String, u64)>,
    /// The hand on the newest link.
    pub(crate) link: Option<Handle>,
    /// What hosts say of themselves.
    pub(crate) status: Sections,
    pub(crate) events: Vec<String>,
    /// Acknowledged assignments.
    pub(crate) assigned: Vec<(u64, Option<String>)>,
}

pub(crate) struct Orchestrator {
    pub(crate) url: String,
    pub(crate) ca_file: PathBuf,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

struct Shared {
    state: Mutex<State>,
    authority: Authority,
    verifier: ClientVerifier,
    nonces: Nonces,
    clock: Clock,
}

impl Drop for Orchestrator {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Orchestrator {
    pub(crate) async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let clock = Clock::system();
        let own = Authority::create("orchestrator", &clock).unwrap();
        let serving = own
            .issue_server(&["127.0.0.1".to_owned()], SERVER_LIFETIME, &clock)
            .unwrap();
        let chain = vec![CertificateDer::from_pem_slice(serving.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(serving.key.as_bytes()).unwrap();
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        let certified = Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)));
        let authority = Authority::create("tenant acme", &clock).unwrap();
        let verifier = ClientVerifier::new(&clock);
        verifier
            .set_authority(TENANT, &authority.certificate_pem())
            .unwrap();
        let link = tls::server_config(certified.clone(), &verifier, &clock).unwrap();
        let mut web = ServerConfig::builder()
            .with_no_client_auth()
            .with_cert_resolver(certified);
        web.alpn_protocols = vec![b"http/1.1".to_vec()];
        let front = Front::new(link, Arc::new(web));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let dir = tempfile::tempdir().unwrap();
        let ca_file = dir.path().join("ca.pem");
        std::fs::write(&ca_file, own.certificate_pem()).unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                lifetime: HOST_LIFETIME,
                hold: false,
                busy: false,
                assign: None,
                hosts: BTreeMap::new(),
                ever: 0,
                asked: None,
                renewals: Vec::new(),
                links: Vec::new(),
                link: None,
                status: Sections::new(),
                events: Vec::new(),
                assigned: Vec::new(),
            }),
            authority,
            verifier,
            nonces: Nonces::new(&[7; 32]),
            clock,
        });
        let serving = tokio::spawn(serve(listener, front, shared.clone()));
        Self {
            url,
            ca_file,
            shared,
            serving,
            _dir: dir,
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    /// Sends to the newest link.
    pub(crate) fn send(&self, message: &ServerMessage) {
        let link = self.state().link.clone().expect("no host is linked");
        link.send(message).unwrap();
    }
}

impl State {
    fn knows(&self, host: &str) -> bool {
        self.hosts.values().any(|known| known == host)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grant(&self, csr: &Csr, host: &str) -> Value {
        let lifetime = self.state().lifetime;
        let issued = self
            .authority
            .issue_host(csr, TENANT, host, lifetime, &self.clock)
            .unwrap();
        serde_json::to_value(Granted {
            certificate: issued.certificate,
            ca: self.authority.certificate_pem(),
            host_id: host.into(),
            tenant: "acme".into(),
            ..Granted::default()
        })
        .unwrap()
    }

    fn answer(&self, path: &str, body: &[u8]) -> (u16, Value) {
        if self.state().busy {
            return (503, json!({"status": 503, "title": "not now"}));
        }
        match path {
            "/enroll/v1/requests" => {
                let asked: Enrol = serde_json::from_slice(body).unwrap();
                let csr = Csr::parse(&asked.csr).unwrap();
                let mut state = self.state();
                let host = match state.hosts.get(&csr.fingerprint()) {
                    Some(known) => known.clone(),
                    None => {
                        state.ever += 1;
                        let host = format!("host-{}", state.ever);
                        state.hosts.insert(csr.fingerprint(), host.clone());
                        host
                    }
                };
                state.asked = Some(asked);
                if state.hold {
                    let waiting = Waiting {
                        request: csr.fingerprint(),
                        poll: 1,
                    };
                    return (202, serde_json::to_value(waiting).unwrap());
                }
                drop(state);
                (200, self.grant(&csr, &host))
            }
            "/enroll/v1/nonce" => {
                let nonce = self.nonces.give(&self.clock).unwrap();
                (200, serde_json::to_value(Nonce { nonce }).unwrap())
            }
            "/enroll/v1/renew" => {
                let renewal: Renewal = serde_json::from_slice(body).unwrap();
                self.nonces.check(&renewal.nonce, &self.clock).unwrap();
                let Ok(peer) = self.verifier.check_expired(&renewal.certificate) else {
                    return (403, json!({"status": 403, "detail": "the host was revoked"}));
                };
                proof::check_renewal(&peer, &renewal.nonce, &renewal.csr, &renewal.proof).unwrap();
                if !self.state().knows(&peer.host) {
                    return (404, json!({"status": 404, "detail": "no such host"}));
                }
                self.state().renewals.push(peer.not_after < self.clock.now());
                (200, self.grant(&Csr::parse(&renewal.csr).unwrap(), &peer.host))
            }
            _ => {
                let request = path.strip_prefix("/enroll/v1/requests/").expect(path);
                if self.state().hold {
                    return (202, json!({"request": request, "poll": 1}));
                }
                let (host, asked) = {
                    let state = self.state();
                    (state.hosts[request].clone(), state.asked.clone().unwrap())
                };
                (200, self.grant(&Csr::parse(&asked.csr).unwrap(), &host))
            }
        }
    }
}

async fn serve(listener: TcpListener, front: Front, shared: Arc<Shared>) {
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let (front, shared) = (front.clone(), shared.clone());
        tokio::spawn(async move {
            match front.accept(tcp).await {
                Ok(Incoming::Web(io)) => web(TokioIo::new(io), shared).await,
                Ok(Incoming::Link(io, peer)) => {
                    if let Ok(session) = server::accept(io, server::Options::default()).await {
                        linked(session, peer.host, shared).await;
                    }
                }
                // A host that was just killed.
                Err(_) => {}
            }
        });
    }
}

async fn web<IO>(io: IO, shared: Arc<Shared>)
where
    IO: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let service = service_fn(|request: Request<Body>| {
        let shared = shared.clone();
        async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await?.to_bytes();
            let (code, value) = shared.answer(&path, &body);
            let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
            *response.status_mut() = hyper::StatusCode::from_u16(code).unwrap();
            Ok::<_, hyper::Error>(response)
        }
    });
    let _ = http1::Builder::new().serve_connection(io, service).await;
}

async fn linked<IO>(mut session: server::Session<IO>, host: String, shared: Arc<Shared>)
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send,
{
    let handle = session.handle();
    let has = session.hello().assignment_generation;
    if !shared.state().knows(&host) {
        handle.close(Close::new(FORBIDDEN, "the host is not enrolled here"));
        while session.next().await.is_ok() {}
        return;
    }
    handle.send(&ServerMessage::Welcome(Welcome::default())).unwrap();
    {
        let mut state = shared.state();
        state.links.push((host, has));
        state.link = Some(handle.clone());
        if let Some(assign) = &state.assign
            && matches!(assign, ServerMessage::Assign { generation, .. } if *generation > has)
        {
            handle.send(assign).unwrap();
        }
    }
    while let Ok(message) = session.next().await {
        match message {
            HostMessage::Status(status) => {
                let mut state = shared.state();
                if status.base == 0 {
                    state.status.clear();
                }
                for name in &status.remove {
                    state.status.remove(name);
                }
                state.status.extend(status.set);
                drop(state);
                let _ = handle.send(&ServerMessage::Ack {
                    generation: status.generation,
                });
            }
            HostMessage::Events { items } => {
                shared
                    .state()
                    .events
                    .extend(items.into_iter().map(|event| event.reason));
            }
            HostMessage::Assigned { generation, error } => shared.state().assigned.push((generation, error)),
            HostMessage::Beat {} => drop(handle.send(&ServerMessage::Beat {})),
            _ => {}
        }
    }
    shared.state().link = None;
}
