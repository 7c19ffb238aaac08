//! A host's API in memory with GitOps running on it, and repositories to push to.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use apiserver::{
    Api, Caller, Client, Status,
    admission::GitOwned,
    api::{DeleteOptions, Target, WriteOptions},
};
use gitops::{Config, Engine};
use kinds::{
    object::{Gvr, Object},
    registry::Registry,
};
use serde_json::{Value, json};
use store::{SqliteStore, Store};
use telemetry::{Clock, Metrics};
use tokio::{sync::oneshot, task::JoinHandle};

/// How long anything may take before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) api: Api,
    pub(crate) client: Client,
    pub(crate) signal: reconcile::Signal,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
}

impl Site {
    pub(crate) async fn start() -> Self {
        let store: Arc<dyn Store> = Arc::new(SqliteStore::in_memory().unwrap());
        Self::start_with(tempfile::tempdir().unwrap(), store).await
    }

    /// Starts on what is there already, as after a restart of the daemon.
    pub(crate) async fn start_with(dir: tempfile::TempDir, store: Arc<dyn Store>) -> Self {
        let api = Api::new(Arc::new(Registry::builtin()), store, Clock::system())
            .with_admission(Arc::new(GitOwned));
        api.ensure_namespaces(&["default", "esx-system", "flux-system"])
            .await
            .unwrap();
        let mut config = Config::new(dir.path().join("state"), dir.path().join("run"));
        config.health_interval = Duration::from_millis(200);
        let engine = Engine::new(&api, config, &Metrics::new(), Clock::system());
        let signal = engine.source_signal();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(engine.run(async {
            let _ = stopped.await;
        }));
        let client = Client::new(api.clone(), "test");
        Self {
            dir,
            api,
            client,
            signal,
            stop: Some(stop),
            task: Some(task),
        }
    }

    /// Stops and gives back what outlives a restart.
    pub(crate) async fn stop(mut self) -> tempfile::TempDir {
        drop(self.stop.take());
        self.task.take().unwrap().await.unwrap();
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }

    pub(crate) async fn source(&self, url: &str, more: Value) {
        let mut spec = json!({"url": url, "interval": "1h", "ref": {"branch": "main"}});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let metadata = json!({"name": "site", "namespace": "flux-system"});
        let object = json!({"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository", "metadata": metadata, "spec": spec});
        self.client.apply(&object, true, false).await.unwrap();
    }

    pub(crate) async fn kustomization(&self, name: &str, more: Value) {
        let mut spec = json!({"interval": "1h", "path": "./", "prune": true, "sourceRef": {"kind": "GitRepository", "name": "site"}});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let metadata = json!({"name": name, "namespace": "flux-system"});
        let object = json!({"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization", "metadata": metadata, "spec": spec});
        self.client.apply(&object, true, false).await.unwrap();
    }

    /// Asks for the end of a Kustomization.
    pub(crate) async fn delete_kustomization(&self, name: &str) {
        let gvr = gvr("Kustomization");
        let target = Target::new(&gvr, "flux-system", name);
        self.api
            .delete(&break_glass(), target, &DeleteOptions::default())
            .await
            .unwrap();
    }

    pub(crate) async fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Object> {
        self.client.get(&gvr(kind), namespace, name).await.unwrap()
    }

    /// Waits until an object (null if absent) is as `level` says.
    pub(crate) async fn wait(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        what: &str,
        level: impl Fn(&Value) -> bool,
    ) -> Object {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let object = self.get(kind, namespace, name).await.unwrap_or_default();
            if level(&object) {
                return object;
            }
            assert!(
                tokio::time::Instant::now() < until,
                "not {what} in time: {}",
                serde_json::to_string_pretty(&object).unwrap()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the Kustomization has applied a commit.
    pub(crate) async fn applied(&self, name: &str, commit: &str) -> Object {
        self.wait("Kustomization", "flux-system", name, "applied", |o| {
            o["status"]["lastAppliedRevision"]
                .as_str()
                .is_some_and(|r| r.ends_with(commit))
                && ready(o) == ("True".into(), "ReconciliationSucceeded".into())
        })
        .await
    }

    /// Waits until an object's Ready condition has a status and reason; gives the message.
    pub(crate) async fn ready_is(&self, kind: &str, name: &str, status: &str, reason: &str) -> String {
        let object = self
            .wait(kind, "flux-system", name, reason, |o| {
                ready(o) == (status.into(), reason.into())
            })
            .await;
        message(&object)
    }

    pub(crate) async fn config_map(&self, name: &str) -> Option<Object> {
        self.get("ConfigMap", "default", name).await
    }

    pub(crate) async fn events(&self, reason: &str) -> Vec<Object> {
        let events = self.client.list(&gvr("Event"), None).await.unwrap().items;
        events.into_iter().filter(|e| e["reason"] == reason).collect()
    }

    pub(crate) async fn wait_event(&self, reason: &str) -> Object {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(event) = self.events(reason).await.pop() {
                return event;
            }
            assert!(tokio::time::Instant::now() < until, "no event {reason}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Writes an object as somebody else.
    pub(crate) async fn write_as(&self, caller: &Caller, object: &Object) {
        self.try_write_as(caller, object).await.unwrap();
    }

    pub(crate) async fn try_write_as(&self, caller: &Caller, object: &Object) -> Result<(), Status> {
        let gvr = gvr(kinds::object::kind(object));
        let target = Target::new(
            &gvr,
            kinds::object::namespace(object),
            kinds::object::name(object),
        );
        let options = WriteOptions {
            manager: "kubectl-edit".into(),
            ..WriteOptions::default()
        };
        self.api
            .update(caller, target, object.clone(), &options)
            .await
            .map(drop)
    }

    pub(crate) fn fetch_now(&self) {
        self.signal.all();
    }
}

/// A person at the keyboard with the break-glass identity.
pub(crate) fn break_glass() -> Caller {
    Caller {
        user: "selvedge-break-glass".into(),
        groups: vec!["system:masters".into(), "selvedge:break-glass".into()],
        ..Caller::default()
    }
}

pub(crate) fn gvr(kind: &str) -> Gvr {
    let registry = Registry::builtin();
    registry
        .iter()
        .find(|k| k.kind == kind && k.group != "events.k8s.io")
        .unwrap()
        .gvr()
}

fn ready_condition(object: &Value) -> Value {
    let conditions = object["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    conditions
        .into_iter()
        .find(|c| c["type"] == "Ready")
        .unwrap_or_default()
}

pub(crate) fn ready(object: &Value) -> (String, String) {
    let condition = ready_condition(object);
    let text = |f: &str| condition[f].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"))
}

pub(crate) fn message(object: &Value) -> String {
    ready_condition(object)["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// A repository to push to, and a work tree to push from.
pub(crate) struct Repo {
    dir: tempfile::TempDir,
}

impl Repo {
    pub(crate) fn new() -> Self {
        let repo = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        run(
            repo.dir.path(),
            &["init", "-q", "--bare", "-b", "main", "site.git"],
        );
        run(&repo.bare(), &["config", "http.receivepack", "true"]);
        run(repo.dir.path(), &["init", "-q", "-b", "main", "work"]);
        repo
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn bare(&self) -> PathBuf {
        self.dir.path().join("site.git")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.bare().display())
    }

    pub(crate) fn write(&self, path: &str, text: &str) -> &Self {
        let file = self.work().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
        self
    }

    pub(crate) fn remove(&self, path: &str) -> &Self {
        std::fs::remove_file(self.work().join(path)).unwrap();
        self
    }

    /// Commits everything and pushes; gives the commit.
    pub(crate) fn push(&self) -> String {
        self.commit();
        run(
            &self.work(),
            &["push", "-q", "--force", "../site.git", "HEAD:main"],
        );
        self.head()
    }

    pub(crate) fn commit(&self) -> String {
        run(&self.work(), &["add", "-A"]);
        run(&self.work(), &["commit", "-q", "--allow-empty", "-m", "a change"]);
        self.head()
    }

    pub(crate) fn head(&self) -> String {
        run(&self.work(), &["rev-parse", "HEAD"])
    }

    pub(crate) fn git(&self, args: &[&str]) -> String {
        run(&self.work(), args)
    }
}

pub(crate) fn run(dir: &Path, args: &[&str]) -> String {
    let out = Command::new("git")
        .current_dir(dir)
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@example.com",
            "-c",
            "protocol.file.allow=always",
        ])
        .args(args)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

pub(crate) fn config_map(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{k: \"{value}\"}}\n")
}
