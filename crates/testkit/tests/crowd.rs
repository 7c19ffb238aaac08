//! Many hosts at one orchestrator: all enrol, all connect, and all come back when it is killed. `SELVEDGE_CROWD` says how
//! many; the figures are printed with `--nocapture`.

#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap in a helper of tests is a failed test"
)]

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testkit::Programs;
use testkit::cli::Cli;
use testkit::simulate::{Crowd, Hub, enrol};
use testkit::wait::wait_until;

/// An orchestrator on loopback; killed when dropped.
struct Orchestrator {
    program: String,
    config: String,
    child: Child,
}

impl Orchestrator {
    fn start(program: &str, config: &Path) -> Self {
        let config = config.to_str().unwrap().to_owned();
        let child = run(program, &config);
        Self {
            program: program.to_owned(),
            config,
            child,
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.child = run(&self.program, &self.config);
    }

    /// Memory in use, in bytes.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kilobytes * 1024
    }
}

impl Drop for Orchestrator {
    fn drop(&mut self) {
        // Either it runs and is killed, or it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(program: &str, config: &str) -> Child {
    Command::new(program)
        .args(["--config", config, "run"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_crowd_enrols_connects_and_comes_back() {
    let count: u32 = std::env::var("SELVEDGE_CROWD").map_or(200, |text| text.parse().unwrap());
    // An error means that a provider is there already, which is what we want.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("https://127.0.0.1:{port}");
    let config = dir.path().join("orchestrator.toml");
    let text = format!(
        "[server]\nurl = \"{url}\"\nlisten = [\"127.0.0.1:{port}\"]\ndata = \"{}\"\n[limits]\nconnections_per_address = 100000\n",
        dir.path().join("data").display()
    );
    fs::write(&config, text).unwrap();
    let programs = Programs::find();
    let mut orchestrator = Orchestrator::start(programs.orchestrator().unwrap(), &config);
    let ready = || std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
    wait_until("the orchestrator", Duration::from_secs(20), ready).unwrap();

    let password = dir.path().join("password");
    fs::write(&password, "a long password of a crowd").unwrap();
    let password = password.to_str().unwrap();
    let mut admin = Command::new(programs.orchestrator().unwrap());
    admin
        .arg("--config")
        .arg(&config)
        .args(["admin", "create", "--tenant", "acme", "--user", "ada"]);
    testkit::tool::run(admin.args(["--password-file", password])).unwrap();
    let authority = dir.path().join("data/ca.pem");
    let cli = Cli::new(programs.cli().unwrap(), dir.path().join("cli.toml"));
    let given = format!("@{password}");
    cli.run([
        "login",
        &url,
        "--user",
        "ada",
        "--password",
        &given,
        "--ca-file",
        authority.to_str().unwrap(),
    ])
    .unwrap();
    cli.run(["repo", "create", "shops", "--hosted"]).unwrap();
    cli.run(["site", "create", "berlin", "--repo", "shops", "--path", "."])
        .unwrap();
    let uses = count.to_string();
    let key = cli
        .json(["enroll", "key", "create", "--site", "berlin", "--max-uses", &uses])
        .unwrap();
    let hub = Hub {
        url,
        authority: fs::read_to_string(&authority).unwrap(),
    };

    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let empty = orchestrator.memory();
        let enrolled = enrol(&hub, 0..count, 32, key["key"].as_str()).await.unwrap();
        println!(
            "{count} enrolled in {:.1} s: {:.0} a second; {} were told to come back later",
            enrolled.took.as_secs_f64(),
            f64::from(count) / enrolled.took.as_secs_f64(),
            enrolled.turned_away
        );
        assert_eq!(enrolled.hosts.len(), usize::try_from(count).unwrap());
        let before = orchestrator.memory();
        let mut crowd = Crowd::start(&hub, &enrolled.hosts).unwrap();
        let took = crowd.wait_connected(Duration::from_secs(600)).await.unwrap();
        println!(
            "all connected after {:.1} s; the orchestrator has {:.1} MB empty, {:.1} MB after enrolment, {:.1} MB connected: {:.1} kB a host",
            took.as_secs_f64(),
            megabytes(empty),
            megabytes(before),
            megabytes(orchestrator.memory()),
            (megabytes(orchestrator.memory()) - megabytes(before)) * 1000.0 / f64::from(count)
        );
        orchestrator.kill();
        while crowd.connected() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        orchestrator.start_again();
        let took = crowd.wait_connected(Duration::from_secs(600)).await.unwrap();
        println!("all back {:.1} s after it was started again", took.as_secs_f64());
        let site = cli.json(["site", "get", "berlin"]).unwrap();
        assert_eq!(site["hosts"]["online"], count, "{}", site["hosts"]);
        crowd.stop().await;
    });
}

#[expect(clippy::cast_precision_loss, reason = "a memory's size is far below 2^53")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
