//! A server in this process, and clients for it.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::Arc,
    time::Duration,
};

use apiserver::{
    Api, Client,
    api::MASTERS,
    http::{Listeners, Server, ServerOptions},
    tls::{Tls, TlsOptions},
};
use kinds::registry::Registry;
use store::{Options, SqliteStore};
use telemetry::{Clock, Metrics};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{TcpListener, UnixListener},
    process::{Child, ChildStdout, Command},
    sync::oneshot,
    task::JoinHandle,
};

/// Longer than anything here takes; only a failure waits so long.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Site {
    pub api: Api,
    pub tls: Arc<Tls>,
    pub url: String,
    pub dir: TempDir,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
    namespaces: JoinHandle<()>,
}

impl Site {
    pub async fn start() -> Self {
        Self::start_with(ServerOptions::default(), |_| {}).await
    }

    /// A site whose server is changed before it runs.
    pub async fn start_with(options: ServerOptions, change: impl FnOnce(&mut Server)) -> Self {
        Self::start_so(options, |api| api, change).await
    }

    /// A site with rules for writes and an audit log.
    pub async fn start_admitted(rules: impl FnOnce(Api) -> Api, change: impl FnOnce(&mut Server)) -> Self {
        Self::start_so(ServerOptions::default(), rules, change).await
    }

    async fn start_so(
        options: ServerOptions,
        rules: impl FnOnce(Api) -> Api,
        change: impl FnOnce(&mut Server),
    ) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::in_memory_with(Options::default()).unwrap());
        let clock = Clock::system();
        let api = rules(Api::new(Arc::new(Registry::builtin()), store, clock.clone()));
        api.ensure_namespaces(&["default"]).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let tls = TlsOptions {
            dir: dir.path().join("pki"),
            config_dir: dir.path().join("etc"),
            names: Vec::new(),
            server: url.clone(),
            cluster: "test".into(),
        };
        let tls = Arc::new(Tls::open(tls, &clock).unwrap());
        let mut server = Server::new(api.clone(), &Metrics::new(), options);
        change(&mut server);
        let (stop, stopped) = oneshot::channel();
        let unix = UnixListener::bind(dir.path().join("api.sock")).unwrap();
        let listeners = Listeners {
            tls: Some((vec![listener], tls.clone())),
            unix: Some(unix),
        };
        let serving = tokio::spawn(server.run(listeners, async {
            let _ = stopped.await;
        }));
        let namespaces = tokio::spawn({
            let api = api.clone();
            async move { api.run_namespaces().await }
        });
        Self {
            api,
            tls,
            url,
            dir,
            stop: Some(stop),
            serving: Some(serving),
            namespaces,
        }
    }

    /// Tells the server to stop; the handle ends when it has.
    pub fn stop(&mut self) -> JoinHandle<()> {
        let _ = self.stop.take().unwrap().send(());
        self.serving.take().unwrap()
    }

    pub fn client(&self) -> Client {
        Client::new(self.api.clone(), "test")
    }

    /// An HTTP client with the admin's certificate.
    pub fn admin(&self) -> reqwest::Client {
        self.client_of("selvedge-admin", &[MASTERS])
    }

    /// An HTTP client of any user.
    pub fn client_of(&self, user: &str, groups: &[&str]) -> reqwest::Client {
        let pem = self.tls.client(user, groups).unwrap();
        let identity =
            reqwest::Identity::from_pem(format!("{}{}", pem.certificate, pem.key).as_bytes()).unwrap();
        self.builder().identity(identity).build().unwrap()
    }

    /// An HTTP client without a certificate.
    pub fn nobody(&self) -> reqwest::Client {
        self.builder().build().unwrap()
    }

    fn builder(&self) -> reqwest::ClientBuilder {
        let ca = reqwest::Certificate::from_pem(self.tls.ca_pem().as_bytes()).unwrap();
        reqwest::Client::builder().tls_certs_only([ca]).no_proxy()
    }

    /// `kubectl` of the machine.
    pub fn kubectl(&self) -> Kubectl<'_> {
        Kubectl {
            site: self,
            program: "kubectl".into(),
            home: "home".into(),
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.namespaces.abort();
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

pub struct Kubectl<'a> {
    pub site: &'a Site,
    pub program: PathBuf,
    /// Name of its home within the site's folder: caches of different versions don't mix.
    pub home: String,
}

/// What a kubectl said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    /// It did well; what it printed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// It failed; what it complained.
    #[track_caller]
    pub fn fails(self) -> String {
        assert_ne!(self.code, 0, "{self:?}");
        self.err
    }
}

impl Kubectl<'_> {
    pub fn command(&self, arguments: &[&str]) -> Command {
        let home = self.site.dir.path().join(&self.home);
        std::fs::create_dir_all(&home).unwrap();
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &home)
            .env("KUBECONFIG", self.site.tls.admin_kubeconfig())
            .env("TMPDIR", self.site.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub async fn run(&self, arguments: &[&str]) -> Said {
        self.said(self.command(arguments), "").await
    }

    /// With something on its standard input.
    pub async fn feed(&self, arguments: &[&str], input: &str) -> Said {
        self.said(self.command(arguments), input).await
    }

    pub async fn said(&self, mut command: Command, input: &str) -> Said {
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let Output {
            status,
            stdout,
            stderr,
        } = tokio::time::timeout(PATIENCE, child.wait_with_output())
            .await
            .expect("kubectl hangs")
            .unwrap();
        Said {
            code: status.code().unwrap_or(-1),
            out: String::from_utf8(stdout).unwrap(),
            err: String::from_utf8(stderr).unwrap(),
        }
    }

    /// Started and left running.
    pub fn start(&self, arguments: &[&str]) -> Running {
        let mut child = self.command(arguments).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Running { child, lines }
    }
}

pub struct Running {
    pub child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// The next line that holds a text.
    pub async fn line_with(&mut self, text: &str) -> String {
        let found = async {
            loop {
                let line = self.lines.next_line().await.unwrap().expect("kubectl ended");
                if line.contains(text) {
                    return line;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found)
            .await
            .unwrap_or_else(|_| panic!("no line with {text:?}"))
    }
}

/// Whether the machine has a kubectl; says so if not.
pub fn has_kubectl() -> bool {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .any(|dir| dir.join("kubectl").is_file());
    if !found {
        eprintln!("SKIPPED: there is no kubectl on this machine's PATH");
    }
    found
}

/// Whether the machine's kubectl is 1.28 or newer: it has `events`, `--subresource` and OpenAPI v3. The one of
/// Debian 12 has not, and says things in other words; it has tests of its own.
pub fn has_new_kubectl() -> bool {
    if !has_kubectl() {
        return false;
    }
    let said = std::process::Command::new("kubectl")
        .args(["version", "--client", "-o", "json"])
        .output()
        .unwrap();
    let version: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
    let minor = version["clientVersion"]["minor"].as_str().unwrap_or_default();
    let minor: u32 = minor.trim_end_matches('+').parse().unwrap_or(0);
    let new = minor >= 28;
    if !new {
        eprintln!("SKIPPED: this machine's kubectl is 1.{minor}, which is too old for this");
    }
    new
}

/// A script that an editor variable can name.
pub fn script(dir: &Path, name: &str, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

pub const CONFIG_MAP: &str = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: app, namespace: default, labels: {app: web}}
data: {colour: red, size: \"1\"}
";

pub const MACHINE: &str = "\
apiVersion: vmoperator.vmware.com/v1alpha1
kind: VirtualMachine
metadata: {name: web, namespace: default}
spec:
  imageName: demo.ova
  className: small
  powerState: poweredOn
  networkInterfaces: [{networkName: VM Network}]
";
