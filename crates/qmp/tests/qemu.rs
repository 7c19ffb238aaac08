//! Against a real QEMU.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::{path::PathBuf, process::Stdio, time::Duration};

use qmp::{Client, Error, Limits, RunState};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

/// A QEMU that ends with the test.
struct Qemu {
    child: Child,
    socket: PathBuf,
    _dir: tempfile::TempDir,
}

fn qemu(machine: &str) -> Qemu {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("qmp.sock");
    // QEMU gets the listening socket as its standard input, so that it can be connected to before QEMU is up.
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let child = Command::new("qemu-system-x86_64")
        .args([
            "-machine",
            machine,
            "-accel",
            "tcg",
            "-display",
            "none",
            "-nodefaults",
            "-no-user-config",
            "-S",
        ])
        .args([
            "-chardev",
            "socket,id=qmp,fd=0,server=on,wait=off",
            "-mon",
            "chardev=qmp,mode=control",
        ])
        .args(["-m", "32", "-serial", "none"])
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)))
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    Qemu {
        child,
        socket,
        _dir: dir,
    }
}

#[tokio::test]
async fn commands_events_and_the_end_of_qemu() {
    let mut qemu = qemu("q35");
    let (client, mut events) = Client::connect(&qemu.socket, Limits::default()).await.unwrap();
    assert_ne!(client.version(), "0.0.0");
    let status = client.query_status().await.unwrap();
    assert_eq!((status.running, status.state), (false, RunState::Prelaunch));

    client.cont().await.unwrap();
    let resume = events.recv().await.unwrap();
    assert_eq!(resume.name, "RESUME");
    assert!(resume.at_micros.is_some());
    assert!(client.query_status().await.unwrap().running);
    client.stop().await.unwrap();
    assert_eq!(client.query_status().await.unwrap().state, RunState::Paused);

    assert!(client.query_block().await.unwrap().is_empty());
    let node = json!({"driver": "null-co", "node-name": "n0", "size": 1 << 20});
    client.blockdev_add(node).await.unwrap();
    client.blockdev_del("n0").await.unwrap();
    let unknown = client.device_del("nothing").await.unwrap_err();
    assert!(unknown.is_class("DeviceNotFound"), "{unknown}");
    let refused = client.execute("no-such-command", Value::Null).await.unwrap_err();
    assert!(refused.is_class("CommandNotFound"), "{refused}");

    // Many requests at once each get their own answer.
    let kinds = futures::future::join_all((0..40).map(|n| {
        let client = client.clone();
        async move {
            if n % 2 == 0 {
                client.query_uuid().await.map(drop)
            } else {
                client.query_kvm().await.map(drop)
            }
        }
    }));
    assert!(kinds.await.into_iter().all(|r| r.is_ok()));

    client.quit().await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), client.closed())
        .await
        .unwrap();
    assert!(client.is_closed());
    assert!(matches!(client.query_status().await, Err(Error::Closed)));
    qemu.child.wait().await.unwrap();
    while let Ok(event) = events.recv().await {
        assert!(["STOP", "SHUTDOWN"].contains(&event.name.as_str()), "{event:?}");
    }
    assert!(matches!(
        client.events().recv().await,
        Err(tokio::sync::broadcast::error::RecvError::Closed)
    ));
}

#[tokio::test]
async fn a_killed_qemu_is_seen_at_once() {
    let mut qemu = qemu("none");
    let (client, _events) = Client::connect(&qemu.socket, Limits::default()).await.unwrap();
    let begin = tokio::time::Instant::now();
    qemu.child.start_kill().unwrap();
    client.closed().await;
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "took {:?}",
        begin.elapsed()
    );
    qemu.child.wait().await.unwrap();
}

#[tokio::test]
async fn nobody_behind_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("absent.sock");
    assert!(matches!(
        Client::connect(&path, Limits::default()).await,
        Err(Error::Connect { .. })
    ));
}
