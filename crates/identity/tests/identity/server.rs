//! The orchestrator's end of enrolment, as small as it can be: TLS, HTTP/1.1, one request a connection.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use identity::{
    ca::{Authority, SERVER_LIFETIME},
    csr::Csr,
    enrol::{Granted, Nonce, Renewal, Request, Waiting},
    proof::{self, Nonces},
    trust::ServerTrust,
    verify::ClientVerifier,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};
use telemetry::Clock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

pub(crate) const TENANT: &str = "tenant-1";

/// What a test looks at and changes.
#[derive(Default)]
pub(crate) struct Book {
    /// Whether requests are granted at once.
    pub(crate) open: bool,
    /// Requests that came, by the fingerprint of their key; whether they were approved.
    pub(crate) requests: Vec<(String, Csr, bool)>,
    pub(crate) granted: usize,
    pub(crate) renewed: usize,
    /// Renewals that were refused.
    pub(crate) refused: usize,
    /// Answers to give before any other: status, headers, body.
    pub(crate) first: Vec<(u16, &'static str, Value)>,
    pub(crate) lifetime_hours: u64,
    pub(crate) last: Option<Request>,
    /// Requests with an activation key are refused.
    pub(crate) used_up: bool,
    /// Renewals are answered with this.
    pub(crate) forgotten: Option<u16>,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) trust: ServerTrust,
    pub(crate) verifier: ClientVerifier,
    pub(crate) book: Arc<Mutex<Book>>,
}

struct Inner {
    clock: Clock,
    authority: Authority,
    verifier: ClientVerifier,
    nonces: Nonces,
    book: Arc<Mutex<Book>>,
}

impl Server {
    pub(crate) async fn start(clock: &Clock) -> Self {
        let own = Authority::create("orchestrator", clock).unwrap();
        let serving = own
            .issue_server(&["127.0.0.1".into()], SERVER_LIFETIME * 20, clock)
            .unwrap();
        let chain = vec![CertificateDer::from_pem_slice(serving.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(serving.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let authority = Authority::create("tenant", clock).unwrap();
        let verifier = ClientVerifier::new(clock);
        verifier
            .set_authority(TENANT, &authority.certificate_pem())
            .unwrap();
        let book = Arc::new(Mutex::new(Book {
            lifetime_hours: 24,
            ..Book::default()
        }));
        let inner = Arc::new(Inner {
            clock: clock.clone(),
            authority,
            verifier: verifier.clone(),
            nonces: Nonces::new(&[1; 32]),
            book: book.clone(),
        });
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(serve(acceptor.clone(), tcp, inner.clone()));
            }
        });
        Self {
            address,
            trust: ServerTrust::new(Some(&own.certificate_pem())).unwrap(),
            verifier,
            book,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub(crate) fn approve(&self) {
        for request in &mut self.book.lock().unwrap().requests {
            request.2 = true;
        }
    }
}

async fn serve(acceptor: TlsAcceptor, tcp: TcpStream, inner: Arc<Inner>) -> std::io::Result<()> {
    let mut io = acceptor.accept(tcp).await?;
    let mut all = Vec::new();
    let (head, body) = loop {
        let text = String::from_utf8_lossy(&all).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = header(head, "content-length")
                .and_then(|value| value.parse().ok())
                .unwrap_or(0);
            if body.len() >= length {
                break (head.to_owned(), body.to_owned());
            }
        }
        if io.read_buf(&mut all).await? == 0 {
            return Ok(());
        }
    };
    let (status, headers, body) = inner.answer(&head, &body);
    let body = body.to_string();
    let answer = format!(
        "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    io.write_all(answer.as_bytes()).await?;
    io.shutdown().await
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn no(status: u16, detail: &str) -> (u16, &'static str, Value) {
    (
        status,
        "",
        json!({"status": status, "title": "no", "detail": detail}),
    )
}

impl Inner {
    fn answer(&self, head: &str, body: &str) -> (u16, &'static str, Value) {
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let mut book = self.book.lock().unwrap();
        if !book.first.is_empty() {
            return book.first.remove(0);
        }
        match (method, path) {
            ("POST", "/enroll/v1/requests") => {
                let request: Request = serde_json::from_str(body).unwrap();
                let csr = Csr::parse(&request.csr).unwrap();
                let refused = book.used_up && request.activation_key.is_some();
                book.last = Some(request);
                if refused {
                    book.refused += 1;
                    return no(403, "this activation key is used up");
                }
                if book.open {
                    return self.grant(&mut book, &csr);
                }
                let id = csr.fingerprint()[..16].to_owned();
                if !book.requests.iter().any(|(known, ..)| *known == id) {
                    book.requests.push((id.clone(), csr, false));
                }
                (202, "", json!(Waiting { request: id, poll: 1 }))
            }
            ("GET", path) if path.starts_with("/enroll/v1/requests/") => {
                let id = &path[20..];
                let found = book.requests.iter().find(|(known, ..)| known == id);
                let Some((_, csr, approved)) = found.cloned() else {
                    return no(404, "no such request");
                };
                let proven = header(head, "X-Selvedge-Proof").unwrap_or_default();
                if proof::check_request(csr.public_key(), id, proven).is_err() {
                    return no(403, "not yours");
                }
                match approved {
                    true => self.grant(&mut book, &csr),
                    false => (
                        202,
                        "",
                        json!(Waiting {
                            request: id.into(),
                            poll: 1
                        }),
                    ),
                }
            }
            ("GET", "/enroll/v1/nonce") => {
                let nonce = self.nonces.give(&self.clock).unwrap();
                (200, "", json!(Nonce { nonce }))
            }
            ("POST", "/enroll/v1/renew") => {
                let renewal: Renewal = serde_json::from_str(body).unwrap();
                if let Some(status) = book.forgotten {
                    return no(status, "no such host");
                }
                if self.nonces.check(&renewal.nonce, &self.clock).is_err() {
                    return no(403, "nonce");
                }
                let peer = match self.verifier.check_expired(&renewal.certificate) {
                    Ok(peer) => peer,
                    Err(refusal) => {
                        book.refused += 1;
                        return no(403, &refusal.to_string());
                    }
                };
                if proof::check_renewal(&peer, &renewal.nonce, &renewal.csr, &renewal.proof).is_err() {
                    return no(403, "proof");
                }
                book.renewed += 1;
                self.grant(&mut book, &Csr::parse(&renewal.csr).unwrap())
            }
            _ => no(404, "nothing here"),
        }
    }

    fn grant(&self, book: &mut Book, csr: &Csr) -> (u16, &'static str, Value) {
        book.granted += 1;
        let lifetime = std::time::Duration::from_hours(book.lifetime_hours);
        let issued = self
            .authority
            .issue_host(csr, TENANT, "host-1", lifetime, &self.clock)
            .unwrap();
        let granted = Granted {
            certificate: issued.certificate,
            ca: self.authority.certificate_pem(),
            host_id: "host-1".into(),
            tenant: "acme".into(),
            site: Some("harbour".into()),
            assignment: None,
        };
        (200, "", json!(granted))
    }
}
