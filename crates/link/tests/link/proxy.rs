//! Through an HTTP proxy.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use link::host::{Proxy, State};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use super::lab::{Host, Lab};

/// A proxy that knows CONNECT and wants a name and a password. Counts nothing, keeps nothing.
async fn proxy(wanted: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(serve(tcp, wanted));
        }
    });
    address
}

async fn serve(tcp: TcpStream, wanted: &str) -> std::io::Result<()> {
    let mut tcp = BufReader::new(tcp);
    let (mut target, mut let_in) = (String::new(), wanted.is_empty());
    loop {
        let mut line = String::new();
        tcp.read_line(&mut line).await?;
        if let Some(rest) = line.strip_prefix("CONNECT ") {
            target = rest.split(' ').next().unwrap_or_default().into();
        }
        let_in |= line.trim_end() == format!("Proxy-Authorization: Basic {wanted}");
        if line == "\r\n" {
            break;
        }
    }
    if !let_in {
        return tcp
            .write_all(b"HTTP/1.1 407 Who?\r\nContent-Length: 0\r\n\r\n")
            .await;
    }
    let Ok(mut server) = TcpStream::connect(&target).await else {
        return tcp.write_all(b"HTTP/1.1 502 Not there\r\n\r\n").await;
    };
    tcp.write_all(b"HTTP/1.1 200 Go\r\nVia: test\r\n\r\n").await?;
    tokio::io::copy_bidirectional(&mut tcp, &mut server).await?;
    Ok(())
}

#[tokio::test]
async fn a_host_behind_a_proxy_comes_through_with_name_and_password() {
    let lab = Lab::new().await;
    // ada:l o/ng
    let address = proxy("YWRhOmwgby9uZw==").await;
    let mut options = lab.options("host-1");
    options.proxy = Some(Proxy::parse(&format!("http://ada:l%20o%2Fng@{address}/")).unwrap());
    let mut host = Host::run(options);
    let mut link = lab.welcome(0).await;
    host.is_up(&mut link).await;
}

#[tokio::test]
async fn what_a_proxy_refuses_is_said() {
    let lab = Lab::new().await;
    for (url, server, why) in [
        (
            proxy("c2VjcmV0").await.to_string(),
            lab.url(),
            "wants a user name and password",
        ),
        (
            proxy("").await.to_string(),
            "https://127.0.0.1:1".into(),
            "refused the tunnel: HTTP/1.1 502 Not there",
        ),
    ] {
        let mut options = lab.options("host-1");
        options.proxy = Some(Proxy::parse(&url).unwrap());
        options.url = server;
        let mut host = Host::run(options);
        let reached = host.reaches(|state| matches!(state, State::Pausing { .. })).await;
        let State::Pausing { reason, .. } = reached else {
            unreachable!()
        };
        assert!(reason.contains(why), "{reason}");
    }
}

/// A program that ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The same with a proxy that people use.
#[tokio::test]
async fn a_host_comes_through_tinyproxy() {
    let dir = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let file = dir.path().join("tinyproxy.conf");
    let settings = format!("Port {port}\nListen 127.0.0.1\nAllow 127.0.0.1\nBasicAuth ada secret\n");
    std::fs::write(&file, settings).unwrap();
    let started = Command::new("tinyproxy")
        .arg("-d")
        .arg("-c")
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("tinyproxy: run scripts/setup");
    let _running = Running(started);
    let listens = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), listens)
        .await
        .unwrap();

    let lab = Lab::new().await;
    let mut options = lab.options("host-1");
    options.proxy = Some(Proxy::parse(&format!("http://ada:secret@127.0.0.1:{port}")).unwrap());
    let mut host = Host::run(options);
    let mut link = lab.welcome(0).await;
    host.is_up(&mut link).await;
    drop(host);

    let mut options = lab.options("host-1");
    options.proxy = Some(Proxy::parse(&format!("http://ada:wrong@127.0.0.1:{port}")).unwrap());
    let mut host = Host::run(options);
    let reached = host.reaches(|state| matches!(state, State::Pausing { .. })).await;
    let State::Pausing { reason, .. } = reached else {
        unreachable!()
    };
    assert!(reason.contains("wants a user name and password"), "{reason}");
}
