//! Against other sides that misbehave, and against a guest agent of the test's own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::time::Duration;

use qmp::{Agent, Client, Error, Limits, agent};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};

#[tokio::test]
async fn a_server_that_does_not_greet_is_refused() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"{\"return\": {}}\n").await.unwrap();
    assert!(matches!(
        Client::over(ours, Limits::default()).await,
        Err(Error::NoGreeting)
    ));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_given_up() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    assert!(matches!(
        Client::over(ours, Limits::default()).await,
        Err(Error::Timeout { .. })
    ));
}

#[tokio::test]
async fn a_line_without_end_closes_the_connection() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let server = tokio::spawn(async move {
        theirs.write_all(b"{\"QMP\": {}}\n").await.unwrap();
        let mut line = String::new();
        BufReader::new(&mut theirs).read_line(&mut line).await.unwrap();
        theirs.write_all(b"{\"return\": {}, \"id\": 1}\n").await.unwrap();
        let _ = theirs.write_all(&vec![b'x'; 64 * 1024]).await;
        theirs
    });
    let limits = Limits {
        line: 1024,
        ..Limits::default()
    };
    let (client, _events) = Client::over(ours, limits).await.unwrap();
    client.closed().await;
    assert!(matches!(client.query_status().await, Err(Error::Closed)));
    drop(server.await.unwrap());
}

/// An agent that first sends what was left over from another time.
async fn guest(listener: UnixListener) {
    let (stream, _) = listener.accept().await.unwrap();
    let (read, mut write) = stream.into_split();
    write
        .write_all(b"{\"return\": {\"stale\": 1}}\nsh\": 2}\n{\"return\": \"cut sh")
        .await
        .unwrap();
    let mut lines = BufReader::new(read);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).await.unwrap() > 0 {
        let text = line.iter().copied().filter(|b| *b != 0xff).collect::<Vec<_>>();
        let request: Value = serde_json::from_slice(&text).unwrap();
        let answer = match request["execute"].as_str().unwrap() {
            "guest-sync-delimited" => {
                write.write_all(&[0xff]).await.unwrap();
                json!({"return": request["arguments"]["id"]})
            }
            "guest-ping" => json!({"return": {}}),
            "guest-get-host-name" => json!({"return": {"host-name": "inside"}}),
            "guest-network-get-interfaces" => {
                json!({"return": [{"name": "eth0", "hardware-address": "52:54:00:AB:00:01",
                "ip-addresses": [{"ip-address": "10.0.0.5", "ip-address-type": "ipv4", "prefix": 24},
                                 {"ip-address": "nonsense", "prefix": 24}, {"ip-address": "fe80::1", "prefix": 999}]}]})
            }
            "guest-slow" => {
                line.clear();
                continue;
            }
            _ => json!({"error": {"class": "CommandNotFound", "desc": "no"}}),
        };
        write.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
        line.clear();
    }
}

#[tokio::test]
async fn the_agent_gets_into_step_and_back_after_a_lost_answer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let server = tokio::spawn(guest(UnixListener::bind(&path).unwrap()));
    let mut agent = Agent::connect(&path, Duration::from_millis(500)).await.unwrap();
    agent.ping().await.unwrap();
    assert!(matches!(
        agent.execute("guest-slow", Value::Null).await,
        Err(Error::Timeout { .. })
    ));
    assert_eq!(agent.host_name().await.unwrap(), "inside");
    let cards = agent.network_interfaces().await.unwrap();
    assert_eq!(cards[0].mac, "52:54:00:ab:00:01");
    assert_eq!(cards[0].addresses, vec![("10.0.0.5".parse().unwrap(), 24)]);
    assert!(
        agent
            .execute("guest-other", Value::Null)
            .await
            .unwrap_err()
            .is_class("CommandNotFound")
    );
    drop(agent);
    server.await.unwrap();
}

proptest::proptest! {
    #[test]
    fn whatever_a_guest_says_about_its_cards_is_bounded(text in "[\\[{]{0,3}\"?(name|ip-addresses|hardware-address)?\"?:?[\\[{0-9\\]},\"]{0,20}") {
        if let Ok(value) = serde_json::from_str(&text) {
            let _ = agent::interfaces(&value);
        }
    }
}
