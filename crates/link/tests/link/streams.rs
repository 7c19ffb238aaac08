//! Many byte streams on one connection.

use std::{io::ErrorKind, time::Duration};

use link::{
    message::{HostMessage, Open, ServerMessage, Signal},
    server::Handle,
    stream::Stream,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
    time::timeout,
};

use super::lab::{Host, Lab, Link};

fn echo() -> Open {
    Open::Api {
        user: "ada".into(),
        groups: vec!["selvedge:viewer".into()],
        from: "192.0.2.1".into(),
    }
}

fn megabyte_of_logs() -> Open {
    Open::Logs {
        unit: String::new(),
        follow: false,
        lines: 10,
        user: "ada".into(),
    }
}

fn no_such_machine() -> Open {
    Open::Vnc {
        namespace: "shop".into(),
        name: "till".into(),
        user: "ada".into(),
    }
}

/// Does the link's work until it ends, as the orchestrator's task does.
fn drive(mut link: Link) -> (Handle, JoinHandle<()>) {
    let handle = link.handle();
    let task = tokio::spawn(async move { while link.next().await.is_ok() {} });
    (handle, task)
}

async fn say_and_hear(stream: Stream, length: usize, seed: usize) {
    let wanted: Vec<u8> = (0..length)
        .map(|at| u8::try_from((at * 31 + seed * 7) % 251).unwrap())
        .collect();
    let (mut read, mut write) = tokio::io::split(stream);
    let said = wanted.clone();
    let say = async move {
        write.write_all(&said).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let hear = async move {
        let mut heard = Vec::new();
        read.read_to_end(&mut heard).await.unwrap();
        heard
    };
    let ((), heard) = tokio::join!(say, hear);
    assert_eq!(heard.len(), wanted.len());
    assert!(heard == wanted, "the bytes of one stream are another's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_carry_their_bytes_both_ways_and_end_by_halves() {
    let lab = Lab::new().await;
    let _host = Host::run(lab.options("host-1"));
    let (handle, task) = drive(lab.welcome(0).await);
    let work: Vec<_> = (0..20)
        .map(|seed| tokio::spawn(say_and_hear(handle.open(&echo()).unwrap(), 200_000 + seed, seed)))
        .collect();
    for one in work {
        timeout(Duration::from_secs(30), one).await.unwrap().unwrap();
    }
    assert_eq!(handle.streams(), 0, "nothing is left of streams that ended");
    task.abort();
}

#[tokio::test]
async fn a_stream_that_nobody_reads_stops_no_other() {
    let lab = Lab::new().await;
    let _host = Host::run(lab.options("host-1"));
    let (handle, task) = drive(lab.welcome(0).await);
    // Sixteen that send a megabyte each to a reader that is asleep.
    let mut asleep: Vec<Stream> = (0..16)
        .map(|_| handle.open(&megabyte_of_logs()).unwrap())
        .collect();
    timeout(
        Duration::from_secs(30),
        say_and_hear(handle.open(&echo()).unwrap(), 500_000, 1),
    )
    .await
    .expect("a stream was stopped by others");
    // When one awakes, all of it is there.
    let mut lines = Vec::new();
    asleep.pop().unwrap().read_to_end(&mut lines).await.unwrap();
    assert_eq!(lines.len(), 1024 * 1024);
    drop(asleep);
    task.abort();
}

#[tokio::test]
async fn control_goes_before_data() {
    let lab = Lab::new().await;
    let host = Host::run(lab.options("host-1"));
    let mut link = lab.welcome(0).await;
    let handle = link.handle();
    let mut streams: Vec<Stream> = (0..8).map(|_| handle.open(&echo()).unwrap()).collect();
    for stream in &mut streams {
        // As much as there is credit for: half a megabyte waits in the queue, and nothing has been sent yet.
        stream.write_all(&[7; 64 * 1024]).await.unwrap();
    }
    handle
        .send(&ServerMessage::Signal { what: Signal::Fetch })
        .unwrap();
    let mut signals = host.recorder.signals.subscribe();
    let mut arrived = 0;
    let seen = async { signals.wait_for(|seen| !seen.is_empty()).await.map(|_| ()) };
    tokio::select! {
        biased;
        seen = seen => seen.unwrap(),
        _ = async { while !matches!(link.next().await, Err(_) | Ok(HostMessage::Hello(_))) { arrived += 1; } } => {}
    }
    let (received, sent) = link.traffic();
    assert!(sent < 8 * 64 * 1024 + 20_000, "{received} {sent} {arrived}");
}

#[tokio::test]
async fn a_reset_says_why_and_a_lost_link_ends_all_streams() {
    let lab = Lab::new().await;
    let host = Host::run(lab.options("host-1"));
    let (handle, task) = drive(lab.welcome(0).await);
    let mut refused = handle.open(&no_such_machine()).unwrap();
    let error = refused.read_u8().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::ConnectionReset, "no such machine")
    );

    let mut open = handle.open(&echo()).unwrap();
    open.write_all(b"x").await.unwrap();
    assert_eq!(open.read_u8().await.unwrap(), b'x');
    drop(host);
    let error = open.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    timeout(Duration::from_secs(10), task).await.unwrap().unwrap();
    assert!(handle.is_closed());
    assert!(handle.open(&echo()).is_err());
    drop((open, refused));
    assert_eq!(handle.streams(), 0);
}

#[tokio::test]
async fn what_was_written_before_the_shutdown_arrives_though_the_writer_is_gone() {
    let lab = Lab::new().await;
    let _host = Host::run(lab.options("host-1"));
    let (handle, task) = drive(lab.welcome(0).await);
    // The host's side of `logs` writes a megabyte, shuts down and is dropped while most of it has no credit yet.
    for _ in 0..3 {
        let mut stream = handle.open(&megabyte_of_logs()).unwrap();
        let mut lines = Vec::new();
        stream.read_to_end(&mut lines).await.unwrap();
        assert_eq!(lines.len(), 1024 * 1024);
    }
    assert_eq!(handle.streams(), 0);
    task.abort();
}
