//! The host's own certificates: a CA, the serving certificate, and the two people who may come in.
//!
//! Everything is made once and kept in one folder, each certificate with its key in one file (so that a crash never
//! leaves a key without its certificate), mode 0600, synced before it counts. [`Tls::renew`] makes what is due anew:
//! certificates that are near their end, or a serving certificate whose names are no longer the host's.
//!
//! | file | what it is |
//! |---|---|
//! | `<dir>/ca.pem` | the CA; signs client certificates of this site's API only |
//! | `<dir>/serving.pem` | what the server shows |
//! | `<dir>/admin.pem`, `<dir>/break-glass.pem` | client certificates |
//! | `<config>/ca.crt` | the CA's certificate, for people |
//! | `<config>/admin.kubeconfig`, `<config>/break-glass.kubeconfig` | the same, ready for kubectl |
//!
//! Validity starts at a fixed day in the past: edge hosts without a battery clock boot with an old date and must
//! still trust their own certificates.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use telemetry::Clock;

use crate::api::{self, MASTERS};

mod files;
mod issue;
mod kubeconfig;

use issue::{Authority, Issued, Purpose};

/// User name in the admin's certificate.
pub const ADMIN: &str = "selvedge-admin";
/// User name in the break-glass certificate.
pub const BREAK_GLASS: &str = "selvedge-break-glass";

/// Where certificates live and what they are for.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    /// Folder of keys and certificates; made if absent.
    pub dir: PathBuf,
    /// Folder of kubeconfigs; made if absent.
    pub config_dir: PathBuf,
    /// Host names and addresses of the server beside `localhost`, `127.0.0.1` and `::1`.
    pub names: Vec<String>,
    /// What kubeconfigs name as the server, for example `https://127.0.0.1:6443`.
    pub server: String,
    /// What kubeconfigs call this cluster.
    pub cluster: String,
}

/// What went wrong with keys and certificates.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("can't {verb} {}", path.display())]
    File {
        /// `read` or `write`.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A certificate could not be made.
    #[error("can't make the certificate {0}")]
    Issue(String, #[source] rcgen::Error),
    /// A stored file is no certificate with its key.
    #[error("{} holds no certificate with its key: restore it, or remove it to have a new one made", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The TLS library refused.
    #[error("the TLS configuration was refused")]
    Config(#[source] rustls::Error),
    /// The client verifier could not be made.
    #[error("client certificates can't be verified with this CA")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

/// The host's certificates, open.
#[derive(Debug)]
pub struct Tls {
    options: Mutex<TlsOptions>,
    clock: Clock,
    authority: Authority,
    serving: Arc<Serving>,
    config: Arc<ServerConfig>,
}

/// A client's certificate and key as PEM, for clients in tests and other processes of the host.
#[derive(Clone, Debug)]
pub struct ClientPem {
    /// Certificate, PEM.
    pub certificate: String,
    /// Private key, PEM (PKCS#8).
    pub key: String,
}

impl Tls {
    /// Reads the certificates, making what is absent or due.
    pub fn open(options: TlsOptions, clock: &Clock) -> Result<Self, Error> {
        files::make_dir(&options.dir)?;
        files::make_dir(&options.config_dir)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let authority = Authority::open(&options.dir.join("ca.pem"), clock)?;
        let first = serving_certificate(&options, &authority, clock)?.0;
        let serving = Arc::new(Serving(RwLock::new(certified(&first)?)));
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(authority.certificate().clone())
            .map_err(Error::Config)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(Error::Verifier)?;
        let mut config = ServerConfig::builder_with_details(provider, Arc::new(Time(clock.clone())))
            .with_safe_default_protocol_versions()
            .map_err(Error::Config)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(serving.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Kubernetes clients make few, long connections: resumption would cost memory and save nothing.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let tls = Self {
            options: Mutex::new(options),
            clock: clock.clone(),
            authority,
            serving,
            config: Arc::new(config),
        };
        tls.renew()?;
        Ok(tls)
    }

    /// What a TLS listener runs with. Renewed certificates show through it.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// The CA's certificate, PEM.
    #[must_use]
    pub fn ca_pem(&self) -> String {
        self.authority.certificate_pem()
    }

    /// Changes the server's names and address (the host's address changed), then renews.
    pub fn set_names(&self, names: Vec<String>, server: &str) -> Result<bool, Error> {
        {
            let mut options = self.options.lock().unwrap_or_else(PoisonError::into_inner);
            options.names = names;
            options.server = server.into();
        }
        self.renew()
    }

    /// Makes anew what is due, and the kubeconfigs when they differ. Returns whether anything was written.
    pub fn renew(&self) -> Result<bool, Error> {
        // Held to the end: one renewal at a time.
        let options = self.options.lock().unwrap_or_else(PoisonError::into_inner);
        let (serving, mut written) = serving_certificate(&options, &self.authority, &self.clock)?;
        *self.serving.0.write().unwrap_or_else(PoisonError::into_inner) = certified(&serving)?;
        written |= files::write_if_changed(
            &options.config_dir.join("ca.crt"),
            self.ca_pem().as_bytes(),
            0o644,
        )?;
        for (file, user, groups) in PEOPLE {
            let purpose = Purpose::Client { user, groups };
            let (issued, made) =
                self.authority
                    .keep(&options.dir.join(format!("{file}.pem")), &purpose, &self.clock)?;
            let text = kubeconfig::render(&options.cluster, &options.server, &self.ca_pem(), user, &issued);
            let path = options.config_dir.join(format!("{file}.kubeconfig"));
            written |= made | files::write_if_changed(&path, text.as_bytes(), 0o600)?;
        }
        Ok(written)
    }

    /// The path of the admin's kubeconfig.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.options
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .config_dir
            .join("admin.kubeconfig")
    }

    /// The path of the break-glass kubeconfig.
    #[must_use]
    pub fn break_glass_kubeconfig(&self) -> PathBuf {
        self.options
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .config_dir
            .join("break-glass.kubeconfig")
    }

    /// A further client certificate of a user in groups; not kept.
    pub fn client(&self, user: &str, groups: &[&str]) -> Result<ClientPem, Error> {
        let issued = self
            .authority
            .issue(&Purpose::Client { user, groups }, &self.clock)?;
        Ok(ClientPem {
            certificate: issued.certificate_pem(),
            key: issued.key_pem(),
        })
    }
}

/// File name, user and groups of those who get a kubeconfig.
const PEOPLE: [(&str, &str, &[&str]); 2] = [
    ("admin", ADMIN, &[MASTERS]),
    ("break-glass", BREAK_GLASS, &[MASTERS, api::BREAK_GLASS]),
];

fn serving_certificate(
    options: &TlsOptions,
    authority: &Authority,
    clock: &Clock,
) -> Result<(Issued, bool), Error> {
    let mut names: Vec<String> = [
        "localhost",
        "127.0.0.1",
        "::1",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
    ]
    .map(str::to_owned)
    .into();
    for name in &options.names {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    authority.keep(
        &options.dir.join("serving.pem"),
        &Purpose::Serving { names: &names },
        clock,
    )
}

fn certified(issued: &Issued) -> Result<Arc<CertifiedKey>, Error> {
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&issued.key()).map_err(Error::Config)?;
    Ok(Arc::new(CertifiedKey::new(vec![issued.certificate.clone()], key)))
}

/// The serving certificate of the moment.
#[derive(Debug)]
struct Serving(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Serving {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Our clock, for rustls.
#[derive(Debug)]
struct Time(Clock);

impl rustls::time_provider::TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(
            seconds,
        )))
    }
}

fn read_pair(path: &Path) -> Result<Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>, Error> {
    let Some(pem) = files::read(path)? else {
        return Ok(None);
    };
    let damaged = || Error::Damaged { path: path.into() };
    let certificate = CertificateDer::from_pem_slice(&pem).map_err(|_| damaged())?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| damaged())?;
    Ok(Some((certificate, key)))
}

#[cfg(test)]
mod tests;
