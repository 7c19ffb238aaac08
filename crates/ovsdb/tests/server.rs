//! The client against a real ovsdb-server.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use ovsdb::{Atom, Client, Condition, Config, ConnectionState, Datum, Error, MonitorSpec, Row, Transaction};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

struct Server(Child);

impl Server {
    fn start(dir: &Path) -> Self {
        let db = dir.join("conf.db");
        if !db.exists() {
            let made = Command::new("ovsdb-tool")
                .arg("create")
                .arg(&db)
                .arg(SCHEMA)
                .status()
                .unwrap();
            assert!(made.success());
        }
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "ovsdb-server"])
            .arg(format!("--remote=punix:{}", dir.join("db.sock").display()))
            .arg(format!("--unixctl={}", dir.join("ctl").display()))
            .arg(&db)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spec() -> MonitorSpec {
    let columns = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    [
        ("Bridge".into(), columns(&["name", "ports", "external_ids"])),
        ("Port".into(), columns(&["name", "tag", "external_ids"])),
        ("Open_vSwitch".into(), columns(&["bridges", "next_cfg"])),
    ]
    .into()
}

fn add_bridge(name: &str) -> Transaction {
    let mut t = Transaction::new();
    t.insert(
        "Interface",
        &Row::new().with("name", Datum::one(name)),
        Some("interface1"),
    );
    let interface = Datum::one(Atom::NamedUuid("interface1".into()));
    let port = Row::new()
        .with("name", Datum::one(name))
        .with("tag", Datum::one(7))
        .with("interfaces", interface);
    t.insert("Port", &port, Some("port1"));
    let bridge = Row::new()
        .with("name", Datum::one(name))
        .with("ports", Datum::one(Atom::NamedUuid("port1".into())))
        .with("external_ids", Datum::map([("k", "v")]));
    t.insert("Bridge", &bridge, Some("bridge1"));
    t.mutate(
        "Open_vSwitch",
        &[],
        &[("bridges", "insert", Datum::one(Atom::NamedUuid("bridge1".into())))],
    );
    t
}

async fn client(dir: &Path) -> Client {
    let mut config = Config::new(dir.join("db.sock"));
    config.keepalive = Duration::from_millis(200);
    config.reconnect = Duration::from_millis(10);
    let client = Client::spawn(config);
    tokio::time::timeout(Duration::from_secs(10), client.connected())
        .await
        .unwrap();
    client
}

#[tokio::test]
async fn it_talks_to_a_real_server() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(dir.path());
    let client = client(dir.path()).await;
    assert!(client.list_dbs().await.unwrap().contains(&"Open_vSwitch".into()));
    let schema = client.get_schema("Open_vSwitch").await.unwrap();
    assert!(schema["tables"]["Bridge"].is_object());
    assert!(matches!(
        client.get_schema("Nothing").await,
        Err(Error::Refused { .. })
    ));

    let mut init = Transaction::new();
    init.insert("Open_vSwitch", &Row::new(), None);
    client.transact("Open_vSwitch", &init).await.unwrap();
    let seen = client.monitor("Open_vSwitch", spec()).await;

    client.transact("Open_vSwitch", &add_bridge("br0")).await.unwrap();
    // The answer comes after the update: no waiting here.
    let snapshot = seen.borrow().clone().unwrap();
    let (id, bridge) = snapshot.rows("Bridge").next().unwrap();
    assert_eq!(
        (bridge.text("name"), bridge.key("external_ids", "k")),
        ("br0", Some("v"))
    );
    let port = snapshot
        .row("Port", bridge.references("ports").next().unwrap())
        .unwrap();
    assert_eq!(port.integer("tag"), Some(7));

    let mut guarded = Transaction::new();
    let expected = Row::new().with("name", Datum::one("other"));
    guarded.wait("Bridge", &[Condition::uuid(id)], &["name"], &[expected]);
    guarded.delete("Bridge", &[]);
    let error = client.transact("Open_vSwitch", &guarded).await.unwrap_err();
    assert!(error.is_guard(), "{error}");

    let mut t = Transaction::new();
    t.update(
        "Port",
        &[Condition::equals("name", Datum::one("br0"))],
        &Row::new().with("tag", Datum::one(9)),
    );
    t.select(
        "Port",
        &[Condition::differs("tag", Datum::empty())],
        &["name", "tag"],
    );
    t.update(
        "Bridge",
        &[],
        &Row::new().with("external_ids", Datum::map([("x", "y"), ("z", "")])),
    );
    let results = client.transact("Open_vSwitch", &t).await.unwrap();
    let rows = Client::rows_of(&results[1]);
    assert_eq!((rows[0].text("name"), rows[0].integer("tag")), ("br0", Some(9)));
    let snapshot = seen.borrow().clone().unwrap();
    assert_eq!(
        snapshot
            .rows("Bridge")
            .next()
            .unwrap()
            .1
            .strings("external_ids")
            .len(),
        2
    );

    let mut bad = Transaction::new();
    bad.update("Port", &[], &Row::new().with("tag", Datum::one(5000)));
    let error = client.transact("Open_vSwitch", &bad).await.unwrap_err();
    assert!(matches!(error, Error::Operation { index: 0, .. }), "{error}");
}

#[tokio::test]
async fn it_comes_back_with_its_monitors_when_the_server_does() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let client = client(dir.path()).await;
    let mut init = Transaction::new();
    init.insert("Open_vSwitch", &Row::new(), None);
    client.transact("Open_vSwitch", &init).await.unwrap();
    client.transact("Open_vSwitch", &add_bridge("br0")).await.unwrap();
    let mut seen = client.monitor("Open_vSwitch", spec()).await;
    seen.wait_for(|s| s.as_ref().is_some_and(|s| s.count("Bridge") == 1))
        .await
        .unwrap();

    drop(server);
    let mut state = client.state();
    state
        .wait_for(|s| matches!(s, ConnectionState::Disconnected(_)))
        .await
        .unwrap();
    assert!(matches!(
        client.list_dbs().await,
        Err(Error::NotConnected { .. } | Error::Lost)
    ));
    assert_eq!(seen.borrow().as_ref().unwrap().count("Bridge"), 1);

    let _server = Server::start(dir.path());
    tokio::time::timeout(Duration::from_secs(10), client.connected())
        .await
        .unwrap();
    client.transact("Open_vSwitch", &add_bridge("br1")).await.unwrap();
    let two = seen.wait_for(|s| s.as_ref().is_some_and(|s| s.count("Bridge") == 2));
    tokio::time::timeout(Duration::from_secs(10), two)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_server_that_is_stopped_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let client = client(dir.path()).await;
    client.list_dbs().await.unwrap();
    let pid = server.0.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-STOP", &pid])
            .status()
            .unwrap()
            .success()
    );
    let mut state = client.state();
    let gone = state.wait_for(|s| matches!(s, ConnectionState::Disconnected(_)));
    tokio::time::timeout(Duration::from_secs(10), gone)
        .await
        .unwrap()
        .unwrap();
    assert!(
        Command::new("kill")
            .args(["-CONT", &pid])
            .status()
            .unwrap()
            .success()
    );
    tokio::time::timeout(Duration::from_secs(10), client.connected())
        .await
        .unwrap();
}
