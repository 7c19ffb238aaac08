//! An orchestrator of its own for a test: its process, a person who is signed in, hosts that do as told.

pub(crate) mod host;

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// The orchestrator's process. Killed and removed when dropped.
pub(crate) struct Server {
    pub(crate) dir: TempDir,
    pub(crate) url: String,
    pub(crate) port: u16,
    child: Child,
    pub(crate) client: reqwest::Client,
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_selvedge-orchestrator"))
}

/// A port that nobody has at this moment.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

impl Server {
    /// Starts one with an owner `ada` of tenant `acme`. `more` is added to its configuration.
    pub(crate) async fn start(more: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), free_port(), more).await
    }

    /// Another process beside this one: the same keys, the same database (which `more` names).
    pub(crate) async fn another(&self, port: u16, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        for file in ["master.key", "ca.pem", "ca.key"] {
            std::fs::copy(self.data().join(file), dir.path().join("data").join(file)).unwrap();
        }
        Self::start_in(dir, port, more).await
    }

    /// Starts one on a folder and port.
    pub(crate) async fn start_in(dir: TempDir, port: u16, more: &str) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let url = format!("https://localhost:{port}");
        std::fs::write(
            dir.path().join("orchestrator.toml"),
            format!(
                "[server]\nurl = \"{url}\"\nlisten = [\"127.0.0.1:{port}\"]\ndata = \"{}\"\n{more}\n",
                dir.path().join("data").display()
            ),
        )
        .unwrap();
        create_owner(dir.path(), "acme", "ada");
        let child = spawn(dir.path());
        let ca = wait_for("the CA", || async {
            std::fs::read(dir.path().join("data/ca.pem")).ok()
        })
        .await;
        let client = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()])
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        let server = Self {
            dir,
            url,
            port,
            child,
            client,
        };
        server.ready().await;
        server
    }

    async fn ready(&self) {
        wait_for("the orchestrator", || async {
            let answer = self
                .client
                .get(format!("{}/readyz", self.url))
                .send()
                .await
                .ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn ca_pem(&self) -> String {
        std::fs::read_to_string(self.data().join("ca.pem")).unwrap()
    }

    /// What it wrote to its log.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// kill -9, then a new process on the same data.
    pub(crate) async fn restart(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.child = spawn(self.dir.path());
        self.ready().await;
    }

    /// Sends a signal by name, as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([format!("-{name}"), self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits for the process's end; its exit code.
    pub(crate) async fn ended(&mut self) -> i32 {
        for _ in 0..600 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the orchestrator did not end; its log:\n{}", self.log());
    }

    /// Signs in.
    pub(crate) async fn sign_in(&self, tenant: &str, user: &str) -> Session<'_> {
        let answer = self
            .client
            .post(format!("{}/api/v1/session", self.url))
            .json(&json!({ "tenant": tenant, "username": user, "password": PASSWORD }))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
        let cookie = answer.headers()["set-cookie"]
            .to_str()
            .unwrap()
            .split(';')
            .next()
            .unwrap()
            .to_owned();
        let me: Value = answer.json().await.unwrap();
        Session {
            server: self,
            tenant: tenant.to_owned(),
            cookie,
            csrf: me["csrf"].as_str().unwrap().to_owned(),
        }
    }

    /// A request with a token.
    pub(crate) async fn with_token(&self, token: &str, method: Method, path: &str) -> Response {
        self.client
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(token)
            .send()
            .await
            .unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the orchestrator\n{}", self.log());
        }
    }
}

fn spawn(dir: &Path) -> Child {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("log"))
        .unwrap();
    program()
        .arg("--config")
        .arg(dir.join("orchestrator.toml"))
        .arg("run")
        .env("SELVEDGE_LOG", "info,selvedge_orchestrator=trace,fleet=trace,link=debug,hyper=trace,h2=trace,rustls=trace,sqlx=trace,reqwest=trace")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Runs a subcommand, which must succeed; what it printed.
pub(crate) fn run(dir: &Path, args: &[&str]) -> String {
    let output = program()
        .arg("--config")
        .arg(dir.join("orchestrator.toml"))
        .args(args)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Makes an owner from the command line.
pub(crate) fn create_owner(dir: &Path, tenant: &str, user: &str) {
    std::fs::write(dir.join("password"), PASSWORD).unwrap();
    let file = dir.join("password");
    run(
        dir,
        &[
            "admin",
            "create",
            "--tenant",
            tenant,
            "--user",
            user,
            "--password-file",
            file.to_str().unwrap(),
        ],
    );
}

/// A token from the command line.
pub(crate) fn create_token(dir: &Path, tenant: &str, name: &str, role: &str) -> String {
    run(
        dir,
        &[
            "token", "create", "--tenant", tenant, "--name", name, "--role", role,
        ],
    )
    .trim()
    .to_owned()
}

/// Waits until something is there; half a minute at most.
pub(crate) async fn wait_for<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    for _ in 0..600 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} did not come about in 30 s");
}

/// A person who is signed in.
pub(crate) struct Session<'a> {
    pub(crate) server: &'a Server,
    pub(crate) tenant: String,
    pub(crate) cookie: String,
    pub(crate) csrf: String,
}

impl Session<'_> {
    /// A request below `/api/v1/tenants/TENANT`, or below `/api/v1` if the path begins with `//`.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = match path.strip_prefix("//") {
            Some(rest) => format!("{}/api/v1/{rest}", self.server.url),
            None => format!("{}/api/v1/tenants/{}{path}", self.server.url, self.tenant),
        };
        self.server
            .client
            .request(method, url)
            .header("cookie", &self.cookie)
            .header("x-csrf-token", &self.csrf)
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let answer = self.request(Method::GET, path).send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert_eq!(status, 200, "GET {path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// A request with a body, which must succeed.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, answer) = self.try_send(method.clone(), path, body).await;
        assert!(status.is_success(), "{method} {path}: {status} {answer}");
        answer
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        self.send(Method::POST, path, body).await
    }

    pub(crate) async fn try_send(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let answer = self.request(method, path).json(&body).send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }
}
