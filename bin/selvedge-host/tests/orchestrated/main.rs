//! The daemon as it is, and an orchestrator: enrolment, assignments, streams, revocation; killed at bad moments.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers too: a failed unwrap is a failed test"
)]

mod orchestrator;
#[path = "../../../../crates/identity/tests/identity/soft_tpm.rs"]
mod soft_tpm;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use link::message::{Assignment, Open, ServerMessage, Signal, Source, Target};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep},
};

use self::{orchestrator::Orchestrator, soft_tpm::SoftTpm};

/// Longer than anything here takes; only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is there.
async fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not in time: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A host's folders, and its daemon while it runs.
struct Host {
    dir: tempfile::TempDir,
    daemon: Option<Child>,
}

impl Host {
    fn new(url: &str, ca_file: &Path, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        // The machine's own stays out of this.
        let tpm = match more.contains("tpm_device") {
            true => "",
            false => "tpm_device = \"/nowhere/tpm\"\n",
        };
        let text = format!(
            "[host]\nname = \"till\"\nserial = \"S1\"\n[paths]\nstate = {:?}\nrun = {:?}\nconfig = {:?}\n\
             [api]\nlisten = [\"127.0.0.1:0\"]\n[network]\novs_db = {:?}\novs_rundir = {:?}\nmanage_nics = false\n\
             [vm]\naccelerator = \"tcg\"\n[orchestrator]\nurl = {url:?}\nca_file = {ca_file:?}\n{tpm}{more}",
            at("state"),
            at("run"),
            at("etc"),
            at("none/db.sock"),
            at("none"),
        );
        fs::write(dir.path().join("host.toml"), text).unwrap();
        Self { dir, daemon: None }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_selvedge-host"));
        command
            .arg("--config")
            .arg(self.dir.path().join("host.toml"))
            .args(arguments)
            .env_remove("HTTPS_PROXY")
            .env("NO_PROXY", "127.0.0.1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        command
    }

    fn start(&mut self) {
        self.daemon = Some(self.command(&["run"]).spawn().unwrap());
    }

    /// As a power cut does.
    fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("state").join(name)
    }

    fn json(&self, name: &str) -> Option<Value> {
        serde_json::from_slice(&fs::read(self.path(name)).ok()?).ok()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            eprintln!("the host's log:\n{log}");
        }
    }
}

/// A repository with a commit for each text.
struct Repository(tempfile::TempDir);

impl Repository {
    fn new() -> Self {
        let repository = Self(tempfile::tempdir().unwrap());
        repository.git(&["init", "-q", "-b", "main", "."]);
        repository
    }

    fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .current_dir(self.0.path())
            .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
            .args(arguments)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        assert!(output.status.success(), "git {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn commit(&self, value: &str) -> String {
        let text =
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: app}}\ndata: {{v: \"{value}\"}}\n");
        fs::create_dir_all(self.0.path().join("shop")).unwrap();
        fs::write(self.0.path().join("shop/app.yaml"), text).unwrap();
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", value]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn assign(&self, generation: u64, target: Target) -> ServerMessage {
        let assignment = Assignment {
            tenant: "acme".into(),
            site: "shop".into(),
            host: "till".into(),
            source: Some(Source {
                url: format!("file://{}", self.0.path().display()),
                branch: "main".into(),
                path: "shop".into(),
                interval: "1s".into(),
                ..Source::default()
            }),
            variables: [("CITY".to_owned(), "Bonn".to_owned())].into(),
            target,
            ..Assignment::default()
        };
        ServerMessage::Assign {
            generation,
            assignment: Box::new(assignment),
        }
    }
}

fn pinned(commit: &str) -> Target {
    Target::Pinned {
        commit: commit.into(),
    }
}

fn applied(orchestrator: &Orchestrator, commit: &str) -> Option<()> {
    let state = orchestrator.state();
    (state.status.get("source")?["applied"] == *commit).then_some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_enrols_takes_its_assignment_pulls_and_reports() {
    let orchestrator = Orchestrator::start().await;
    let repository = Repository::new();
    let first = repository.commit("${CITY}");
    orchestrator.state().assign = Some(repository.assign(3, Target::Follow));
    orchestrator.state().hold = true;
    let mut host = Host::new(
        &orchestrator.url,
        &orchestrator.ca_file,
        "activation_key = \"K\"\n",
    );
    host.start();
    let asked = until("a request", || orchestrator.state().asked.clone()).await;
    assert_eq!((&*asked.serial, &*asked.hostname), ("S1", "till"));
    assert_eq!(asked.activation_key.as_deref(), Some("K"));
    // Killed while somebody is to approve it, it is the same host afterwards.
    host.kill();
    orchestrator.state().asked = None;
    host.start();
    until("the request again", || orchestrator.state().asked.clone()).await;
    orchestrator.state().hold = false;
    until("the first commit applied", || applied(&orchestrator, &first)).await;
    {
        let state = orchestrator.state();
        assert_eq!(state.hosts.len(), 1);
        assert_eq!(state.assigned.first(), Some(&(3, None)));
        for section in ["health", "compliance", "versions", "inventory", "objects"] {
            assert!(
                state.status.contains_key(section),
                "{section}: {:?}",
                state.status.keys()
            );
        }
        assert_eq!(state.status["source"]["origin"], "assignment");
        assert_eq!(state.status["inventory"]["serial"], "S1");
    }
    until("healthy", || {
        (orchestrator.state().status["health"]["state"] == "healthy").then_some(())
    })
    .await;
    until("events", || {
        orchestrator
            .state()
            .events
            .contains(&"Applied".to_owned())
            .then_some(())
    })
    .await;
    // The API inside the link, as a viewer.
    let link = orchestrator.state().link.clone().unwrap();
    let ask = async |path: &str| {
        let open = Open::Api {
            user: "ada".into(),
            groups: vec!["selvedge:viewer".into()],
            from: "192.0.2.1".into(),
        };
        let mut stream = link.open(&open).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text).await;
        text
    };
    let map = ask("/api/v1/namespaces/default/configmaps/app").await;
    assert!(map.starts_with("HTTP/1.1 200") && map.contains("Bonn"), "{map}");
    assert!(ask("/api/v1/secrets").await.starts_with("HTTP/1.1 403"));
    let logs = Open::Logs {
        unit: String::new(),
        follow: false,
        lines: 1000,
        user: "ada".into(),
    };
    let mut text = String::new();
    link.open(&logs).unwrap().read_to_string(&mut text).await.unwrap();
    assert!(text.contains("the host has a certificate"), "{text}");
    // What is pushed is fetched at once when the orchestrator says so.
    let second = repository.commit("two");
    orchestrator.send(&ServerMessage::Signal { what: Signal::Fetch });
    until("the second commit applied", || applied(&orchestrator, &second)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_host_stays_also_when_it_is_killed_and_alone() {
    let orchestrator = Orchestrator::start().await;
    let repository = Repository::new();
    let first = repository.commit("one");
    let second = repository.commit("two");
    orchestrator.state().assign = Some(repository.assign(5, pinned(&first)));
    let mut host = Host::new(&orchestrator.url, &orchestrator.ca_file, "");
    host.start();
    // Killed as soon as the assignment is on disk, most likely before anything was fetched.
    until("the assignment", || host.json("orchestrator/assignment.json")).await;
    host.kill();
    let alone = Orchestrator::start().await;
    // Nobody answers at the orchestrator's address any more.
    drop(orchestrator);
    host.start();
    let source = |host: &Host| host.json("git/flux-system_selvedge-site.json");
    let revision = until("a fetched commit", || source(&host)).await;
    assert!(revision["commit"] == *first, "{revision}");
    host.kill();

    // The same host, and an orchestrator that was restored from an old backup: it knows the host and an older assignment.
    let file = host.dir.path().join("host.toml");
    let text = fs::read_to_string(&file).unwrap();
    let (before, _) = text.split_once("[orchestrator]").unwrap();
    let moved = format!(
        "{before}[orchestrator]\nurl = {:?}\nca_file = {:?}\n",
        alone.url, alone.ca_file
    );
    fs::write(&file, moved).unwrap();
    fs::remove_dir_all(host.path("identity")).unwrap();
    host.start();
    let (id, has) = until("a link", || alone.state().links.first().cloned()).await;
    // Its ids are the same here, so the generations count.
    assert_eq!((&*id, has), ("host-1", 5));
    alone.send(&repository.assign(4, pinned(&second)));
    let (generation, error) = until("an answer", || alone.state().assigned.first().cloned()).await;
    assert_eq!(generation, 4);
    assert!(error.unwrap().contains("older"));
    until("its commit", || applied(&alone, &first)).await;
    alone.send(&repository.assign(6, pinned(&second)));
    until("the approved commit", || applied(&alone, &second)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_month_alone_the_old_key_proves_who_it_is() {
    let orchestrator = Orchestrator::start().await;
    orchestrator.state().lifetime = Duration::from_secs(1);
    let mut host = Host::new(&orchestrator.url, &orchestrator.ca_file, "");
    host.start();
    until("the enrolment", || host.json("identity/enrolment.json")).await;
    orchestrator.state().busy = true;
    host.kill();
    let kept = host.json("identity/enrolment.json").unwrap();
    let der =
        rustls::pki_types::pem::PemObject::from_pem_slice(kept["certificate"].as_str().unwrap().as_bytes());
    let der: rustls::pki_types::CertificateDer<'_> = der.unwrap();
    let end = identity::verify::Peer::read(&der).unwrap().not_after;
    let clock = telemetry::Clock::system();
    until("the end of the certificate", || (clock.now() > end).then_some(())).await;
    {
        let mut state = orchestrator.state();
        state.busy = false;
        state.lifetime = identity::ca::HOST_LIFETIME;
        state.renewals.clear();
        state.links.clear();
    }
    host.start();
    let (id, _) = until("a link", || orchestrator.state().links.first().cloned()).await;
    let state = orchestrator.state();
    assert_eq!(
        (&*id, &*state.renewals),
        ("host-1", &[true][..]),
        "it renewed first, by the old key"
    );
    assert_eq!(state.hosts.len(), 1, "it did not enrol again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_that_lost_its_memory_gets_its_host_back() {
    let orchestrator = Orchestrator::start().await;
    let mut host = Host::new(
        &orchestrator.url,
        &orchestrator.ca_file,
        "activation_key = \"K\"\n",
    );
    host.start();
    until("a link", || orchestrator.state().links.first().cloned()).await;
    let keys: Vec<String> = orchestrator.state().hosts.keys().cloned().collect();
    // A backup from before the host came was restored: nobody is known, and connections begin anew.
    {
        let mut state = orchestrator.state();
        state.hosts.clear();
        state.asked = None;
        state.links.clear();
    }
    host.kill();
    host.start();
    let (id, _) = until("a link as a new host", || {
        orchestrator.state().links.first().cloned()
    })
    .await;
    assert_eq!(id, "host-2");
    let state = orchestrator.state();
    assert_eq!(
        state.hosts.keys().cloned().collect::<Vec<_>>(),
        keys,
        "with the key it had"
    );
    let asked = state.asked.clone().unwrap();
    assert_eq!(asked.activation_key.as_deref(), Some("K"));
    assert_eq!(host.json("identity/enrolment.json").unwrap()["hostId"], "host-2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_host_runs_on_and_does_not_come_back() {
    let orchestrator = Orchestrator::start().await;
    let repository = Repository::new();
    let first = repository.commit("one");
    orchestrator.state().assign = Some(repository.assign(1, Target::Follow));
    let mut host = Host::new(&orchestrator.url, &orchestrator.ca_file, "");
    host.start();
    until("the first commit", || applied(&orchestrator, &first)).await;
    orchestrator.send(&ServerMessage::Signal {
        what: Signal::Revoked,
    });
    until("the mark", || host.json("identity/revoked.json")).await;
    until("the link's end", || {
        orchestrator.state().link.is_none().then_some(())
    })
    .await;
    // It still follows its branch.
    let second = repository.commit("two");
    let fetched = |host: &Host| host.json("git/flux-system_selvedge-site.json");
    until("the second commit", || {
        (fetched(&host)?["commit"] == *second).then_some(())
    })
    .await;
    // Nor does it come back after a restart, which the third commit shows to be long over.
    orchestrator.state().links.clear();
    host.kill();
    host.start();
    let third = repository.commit("three");
    until("the third commit", || {
        (fetched(&host)?["commit"] == *third).then_some(())
    })
    .await;
    assert!(orchestrator.state().links.is_empty());
    host.kill();
    let refused = host.command(&["enroll"]).status().unwrap();
    assert_eq!(refused.code(), Some(1));
    let again = host.command(&["enroll", "--again"]).status().unwrap();
    assert!(again.success());
    assert_eq!(orchestrator.state().hosts.len(), 2, "it is a new host");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_key_is_in_its_tpm_is_nobody_without_it() {
    let (orchestrator, mut tpm) = (Orchestrator::start().await, SoftTpm::new());
    let with = |tpm: &SoftTpm| format!("key = \"auto\"\ntpm_device = {:?}\n", tpm.socket());
    let mut host = Host::new(&orchestrator.url, &orchestrator.ca_file, &with(&tpm));
    host.start();
    until("a link", || orchestrator.state().links.first().cloned()).await;
    assert!(host.path("identity/tpm-key.json").exists() && !host.path("identity/key.pem").exists());
    until("the inventory", || {
        (orchestrator.state().status.get("inventory")?["tpm"] == "keeps the host's key").then_some(())
    })
    .await;
    orchestrator.send(&ServerMessage::Signal { what: Signal::Renew });
    until("a renewal", || {
        (orchestrator.state().renewals == [false]).then_some(())
    })
    .await;

    // A power cut: host and TPM come back.
    host.kill();
    tpm.off();
    orchestrator.state().links.clear();
    tpm.on();
    host.start();
    until("a link again", || orchestrator.state().links.first().cloned()).await;
    assert_eq!(orchestrator.state().hosts.len(), 1);
    host.kill();

    // Its disk in another machine.
    orchestrator.state().links.clear();
    let other = SoftTpm::new();
    let file = host.dir.path().join("host.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace(&with(&tpm), &with(&other))).unwrap();
    host.start();
    until("the reason", || {
        let log = fs::read_to_string(host.dir.path().join("log")).unwrap();
        log.contains("the TPM does not know this host's key")
            .then_some(())
    })
    .await;
    assert!(orchestrator.state().links.is_empty());
    host.kill();
    assert_eq!(orchestrator.state().hosts.len(), 1, "nor did it ask as another");
    let again = host.command(&["enroll", "--again"]).status().unwrap();
    assert!(again.success());
    assert_eq!(orchestrator.state().hosts.len(), 2, "it is a new host");
    assert!(host.path("identity/tpm-key.json").exists());
}
