//! Peers that break the rules, or mean harm.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use link::{
    frame::{FRAME_MAX, Frame},
    message::{HostMessage, Open},
    server::{self, AcceptError, Ended, Options},
    tls::{self, FrontError, Incoming},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use super::lab::{Lab, Link};

type Raw = WebSocketStream<TlsStream<TcpStream>>;

async fn tls(lab: &Lab) -> TlsStream<TcpStream> {
    let config = tls::client_config(&lab.trust(), lab.credentials("host-1"), &lab.clock).unwrap();
    let tcp = TcpStream::connect(lab.address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    TlsConnector::from(config).connect(name, tcp).await.unwrap()
}

async fn link(lab: &Lab) -> TlsStreamOfServer {
    match lab.incoming().await {
        Incoming::Link(io, _) => io,
        Incoming::Web(_) => panic!("taken for a browser"),
    }
}

type TlsStreamOfServer = Box<tokio_rustls::server::TlsStream<TcpStream>>;

/// A host that was let in, and says what a test makes it say.
async fn pair(lab: &Lab) -> (Raw, Link) {
    let client = async {
        let (mut ws, _) = client_async("wss://localhost/link/v1", tls(lab).await)
            .await
            .unwrap();
        ws.send(control(r#"{"t":"hello","protocol":1}"#)).await.unwrap();
        ws
    };
    let (ws, (link, _)) = tokio::join!(client, lab.accept());
    (ws, link)
}

fn control(json: &'static str) -> Message {
    Message::Binary(Frame::Control(Bytes::from_static(json.as_bytes())).encode())
}

fn frame(frame: &Frame) -> Message {
    Message::Binary(frame.encode())
}

async fn end_of(link: &mut Link) -> Ended {
    let end = async {
        loop {
            if let Err(ended) = link.next().await {
                return ended;
            }
        }
    };
    timeout(Duration::from_secs(20), end)
        .await
        .expect("the link did not end")
}

#[tokio::test]
async fn frames_against_the_rules_end_the_link() {
    let lab = Lab::new().await;
    let wrong = [
        (Message::Text("hello".into()), "text"),
        (Message::Binary(Bytes::new()), "no frame"),
        (Message::Binary(Bytes::from_static(&[9, 0, 0, 0, 1])), "no frame"),
        (Message::Binary(Bytes::from_static(&[2, 0, 0])), "no frame"),
        (control("{"), "wrong control message"),
        (control(r#"{"t":"hello","protocol":1}"#), "second hello"),
        (
            control(r#"{"t":"status","generation":"x"}"#),
            "wrong control message",
        ),
        (frame(&Frame::Open(1, Bytes::from_static(b"{}"))), "rules"),
        (frame(&Frame::Data(5, Bytes::from_static(b"x"))), "rules"),
        (frame(&Frame::Credit(5, 1)), "rules"),
    ];
    for (message, why) in wrong {
        let (mut ws, mut link) = pair(&lab).await;
        ws.send(message.clone()).await.unwrap();
        let ended = end_of(&mut link).await.to_string();
        assert!(ended.contains(why), "{message:?}: {ended}");
        // And the host is told.
        let told = timeout(Duration::from_secs(10), ws.next()).await.unwrap();
        assert!(matches!(told, Some(Ok(Message::Close(Some(close)))) if u16::from(close.code) == 1002));
    }
}

#[tokio::test]
async fn a_message_of_a_newer_host_is_skipped() {
    let lab = Lab::new().await;
    let (mut ws, mut link) = pair(&lab).await;
    ws.send(control(r#"{"t":"hologram","of":"ada"}"#)).await.unwrap();
    ws.send(control(r#"{"t":"beat","battery":7}"#)).await.unwrap();
    assert_eq!(link.next().await.unwrap(), HostMessage::Beat {});
}

#[tokio::test]
async fn more_than_there_is_credit_for_ends_the_link_and_is_not_held() {
    let lab = Lab::new().await;
    let (mut ws, mut link) = pair(&lab).await;
    let mut stream = link
        .handle()
        .open(&Open::Serial {
            namespace: "shop".into(),
            name: "till".into(),
            user: String::new(),
        })
        .unwrap();
    let flood = async {
        // The open comes first.
        while !matches!(ws.next().await, Some(Ok(Message::Binary(bytes))) if bytes[0] == 1) {}
        let data = frame(&Frame::Data(1, vec![0; 16 * 1024].into()));
        for _ in 0..5 {
            let _ = ws.send(data.clone()).await;
        }
        ws
    };
    let (_ws, ended) = tokio::join!(flood, end_of(&mut link));
    assert!(matches!(ended, Ended::Violation(_)), "{ended:?}");
    let mut got = Vec::new();
    assert!(stream.read_to_end(&mut got).await.is_err());
    assert_eq!(got.len(), 64 * 1024);
}

#[tokio::test]
async fn a_frame_longer_than_any_may_be_is_refused_by_its_head() {
    let lab = Lab::new().await;
    let (ws, mut link) = pair(&lab).await;
    let mut raw = ws.into_inner();
    // A binary frame of FRAME_MAX + 1 bytes: of which only the head is ever sent.
    let mut head = vec![0x82, 0x80 | 127];
    head.extend_from_slice(&(FRAME_MAX as u64 + 1).to_be_bytes());
    head.extend_from_slice(&[0; 4]);
    raw.write_all(&head).await.unwrap();
    assert!(matches!(end_of(&mut link).await, Ended::WebSocket(_)));
}

#[tokio::test]
async fn who_is_slow_is_put_out() {
    let lab = Lab::new().await;
    let options = Options {
        handshake_time: Duration::from_millis(150),
        silence: Duration::from_millis(300),
        ..Options::default()
    };
    // No TLS at all.
    let front = lab.front.clone().time_limit(Duration::from_millis(150));
    let (_silent, tcp) = tokio::join!(TcpStream::connect(lab.address), lab.tcp());
    assert!(matches!(front.accept(tcp).await, Err(FrontError::Slow(_))));
    // A byte now and then of a TLS hello.
    let (mut dripping, tcp) = (TcpStream::connect(lab.address).await.unwrap(), lab.tcp().await);
    let drip = async {
        let mut every = tokio::time::interval(Duration::from_millis(20));
        loop {
            every.tick().await;
            if dripping.write_all(&[22]).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = drip => {}
        ended = front.accept(tcp) => assert!(matches!(ended, Err(FrontError::Slow(_) | FrontError::Handshake(_)))),
    }
    // No upgrade.
    let (_silent, io) = tokio::join!(tls(&lab), link(&lab));
    assert!(matches!(
        server::accept(io, options).await,
        Err(AcceptError::Slow("upgrade to WebSocket"))
    ));
    // No hello.
    let client = async {
        client_async("wss://localhost/link/v1", tls(&lab).await)
            .await
            .unwrap()
    };
    let serve = async { server::accept(link(&lab).await, options).await };
    let (_ws, served) = tokio::join!(client, serve);
    assert!(matches!(served, Err(AcceptError::Slow("first message"))));
    // Nothing after it.
    let client = async {
        let (mut ws, _) = client_async("wss://localhost/link/v1", tls(&lab).await)
            .await
            .unwrap();
        ws.send(control(r#"{"t":"hello","protocol":1}"#)).await.unwrap();
        ws
    };
    let serve = async { server::accept(link(&lab).await, options).await.unwrap() };
    let (_ws, mut session) = tokio::join!(client, serve);
    assert!(matches!(session.next().await, Err(Ended::Silent(_))));
}

#[tokio::test]
async fn only_the_links_path_is_there_and_only_hosts_speak_its_protocol() {
    let lab = Lab::new().await;
    let client = async { client_async("wss://localhost/other", tls(&lab).await).await };
    let serve = async { server::accept(link(&lab).await, Options::default()).await };
    let (refused, served) = tokio::join!(client, serve);
    assert!(matches!(served, Err(AcceptError::Upgrade(_))));
    let refused = refused.err().unwrap().to_string();
    assert!(refused.contains("404"), "{refused}");

    // A browser is let in without a certificate, as a browser.
    let mut config = lab
        .trust()
        .client_config(None, &[b"http/1.1"], &lab.clock)
        .unwrap();
    let browser = || async {
        let tcp = TcpStream::connect(lab.address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config.clone()));
        connector.connect("localhost".try_into().unwrap(), tcp).await
    };
    let (shown, incoming) = tokio::join!(browser(), lab.incoming());
    assert!(shown.is_ok() && matches!(incoming, Incoming::Web(_)));
    // One that claims to be a host without a certificate isn't let in.
    config.alpn_protocols = vec![tls::PROTOCOL.to_vec()];
    let browser = || async {
        let tcp = TcpStream::connect(lab.address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config.clone()));
        connector.connect("localhost".try_into().unwrap(), tcp).await
    };
    let accept = async { lab.front.accept(lab.tcp().await).await };
    let (_shown, incoming) = tokio::join!(browser(), accept);
    assert!(matches!(incoming, Err(FrontError::Handshake(_))));
}
