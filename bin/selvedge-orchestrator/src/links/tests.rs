//! Links whose certificates end.

use futures::{SinkExt, StreamExt};
use jiff::SignedDuration;
use link::server::{Options, Session, accept};
use tokio::io::DuplexStream;
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use super::*;

/// A host's raw end of its link, and ours.
async fn pair() -> (WebSocketStream<DuplexStream>, Session<DuplexStream>) {
    let (here, there) = tokio::io::duplex(64 << 10);
    let host = async {
        let (mut host, _) = client_async("ws://fleet.example/link/v1", there).await.unwrap();
        let hello = b"\0{\"t\":\"hello\",\"protocol\":1}";
        host.send(Message::binary(hello.to_vec())).await.unwrap();
        host
    };
    let (host, session) = tokio::join!(host, accept(here, Options::default()));
    (host, session.unwrap())
}

#[tokio::test]
async fn a_link_ends_when_its_certificate_was_not_renewed() {
    let links = Links::default();
    let now: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
    let until = |days: i64| now + SignedDuration::from_hours(24 * days);
    let (mut old, old_session) = pair().await;
    let (_new, new_session) = pair().await;
    let tenant: Arc<str> = "t".into();
    links.add("old", tenant.clone(), old_session.handle(), until(1));
    links.add("new", tenant, new_session.handle(), until(31));
    // As long as a new connection with the certificate would still be taken, this one stays too.
    let grace = SignedDuration::try_from(identity::verify::EXPIRY_GRACE).unwrap();
    for at in [now, until(1), until(1) + grace] {
        links.sweep(at);
        assert!(links.get("old").is_some() && links.get("new").is_some(), "{at}");
    }
    let end = tokio::spawn(async move {
        let mut session = old_session;
        while session.next().await.is_ok() {}
    });
    links.sweep(until(1) + grace + SignedDuration::from_secs(1));
    assert!(links.get("old").is_none(), "it is used for nothing more");
    assert!(links.get("new").is_some(), "others stay");
    // The host hears why, and the session is over.
    let close = loop {
        if let Message::Close(Some(close)) = old.next().await.unwrap().unwrap() {
            break close;
        }
    };
    assert_eq!(u16::from(close.code), RESTART);
    assert!(close.reason.contains("certificate ended"), "{}", close.reason);
    drop(old);
    end.await.unwrap();
}
