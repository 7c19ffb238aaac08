//! Time: paused, on connections inside the process.

use std::{sync::Arc, time::Duration};

use futures::{SinkExt, StreamExt};
use identity::trust::ServerTrust;
use serde_json::json;
use tokio::{
    io::{AsyncWriteExt, DuplexStream, duplex},
    time::Instant,
};
use tokio_tungstenite::{
    WebSocketStream, accept_async, client_async, client_async_with_config, tungstenite::Message,
};

use super::{session::Session, *};
use crate::{
    close::Close,
    frame::Frame,
    message::{HostMessage, ServerMessage, Welcome},
    server,
    socket::{Meter, websocket_config},
};

const URL: &str = "ws://fleet.example/link/v1";

struct Nothing;

impl Handler for Nothing {
    fn assignment_generation(&self) -> u64 {
        0
    }

    async fn assign(&self, _generation: u64, _assignment: Assignment) -> Result<(), String> {
        Ok(())
    }

    async fn signal(&self, _what: Signal) {}

    async fn open(&self, _request: Open, stream: Stream) {
        stream.reset("nothing here");
    }
}

fn options() -> Options {
    let clock = Clock::system();
    let authority = identity::ca::Authority::create("test", &clock).unwrap();
    let trust = ServerTrust::new(Some(&authority.certificate_pem())).unwrap();
    Options::new("https://fleet.example", trust, watch::channel(None).1)
}

/// A host's session, and the raw other end of its connection.
async fn raw_pair(options: &Options) -> (Session<DuplexStream>, WebSocketStream<DuplexStream>) {
    let (here, there) = duplex(64 * 1024);
    let client = client_async_with_config(URL, Meter::new(here), Some(websocket_config()));
    let (client, server) = tokio::join!(client, accept_async(there));
    (Session::new(client.unwrap().0, options), server.unwrap())
}

fn message(message: &ServerMessage) -> Message {
    let json = serde_json::to_vec(message).unwrap();
    Message::Binary(Frame::Control(json.into()).encode())
}

/// A host's session that was welcomed by an orchestrator's.
async fn pair(
    options: &Options,
) -> (
    Session<DuplexStream>,
    server::Session<DuplexStream>,
    Work<Nothing>,
) {
    let (here, there) = duplex(64 * 1024);
    let mut work = Work::new(Arc::new(Nothing));
    let host = async {
        let client = client_async_with_config(URL, Meter::new(here), Some(websocket_config())).await;
        let mut session = Session::new(client.unwrap().0, options);
        session.begin(&mut work).await.unwrap();
        session
    };
    let orchestrator = async {
        let mut session = server::accept(there, server::Options::default()).await.unwrap();
        session
            .handle()
            .send(&ServerMessage::Welcome(Welcome::default()))
            .unwrap();
        // The welcome is sent by asking for what comes next.
        let _ = tokio::time::timeout(Duration::from_millis(1), session.next()).await;
        session
    };
    let (host, orchestrator) = tokio::join!(host, orchestrator);
    (host, orchestrator, work)
}

#[tokio::test(start_paused = true)]
async fn a_host_beats_every_half_minute_or_so_and_stays() {
    let (mut host, mut orchestrator, mut work) = pair(&options()).await;
    let begin = Instant::now();
    let mut times = vec![begin];
    let beats = async {
        while begin.elapsed() < Duration::from_hours(1) {
            match orchestrator.next().await.unwrap() {
                HostMessage::Beat {} => times.push(Instant::now()),
                other => assert!(matches!(other, HostMessage::Clock { .. }), "{other:?}"),
            }
        }
    };
    tokio::select! {
        ended = host.serve(&mut work) => panic!("{ended}"),
        () = beats => {}
    }
    let gaps: Vec<f64> = times
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_secs_f64())
        .collect();
    assert!(gaps[0] <= 30.1, "the first is somewhere in the first interval");
    assert!(gaps[1..].iter().all(|gap| (26.9..33.1).contains(gap)), "{gaps:?}");
    assert!(
        gaps[1..].iter().any(|gap| (gap - 30.0).abs() > 0.5),
        "all at the same moment: {gaps:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_orchestrator_that_answers_no_beat_is_given_up_after_three() {
    let (mut host, mut raw) = raw_pair(&options()).await;
    let mut work = Work::new(Arc::new(Nothing));
    raw.send(message(&ServerMessage::Welcome(Welcome::default())))
        .await
        .unwrap();
    host.begin(&mut work).await.unwrap();
    // It says other things, so the connection itself is alive.
    let chatter = async {
        let mut every = tokio::time::interval(Duration::from_secs(5));
        loop {
            every.tick().await;
            raw.send(message(&ServerMessage::Signal { what: Signal::Fetch }))
                .await
                .unwrap();
        }
    };
    let begin = Instant::now();
    let ended = tokio::select! {
        ended = host.serve(&mut work) => ended,
        () = chatter => unreachable!(),
    };
    assert!(matches!(ended, Ended::Silent(_)), "{ended}");
    let took = begin.elapsed().as_secs();
    assert!((81..=132).contains(&took), "{took} s");
    drop(host);
    let mut beats = 0;
    while let Some(Ok(message)) = raw.next().await {
        beats += usize::from(message.into_data().ends_with(br#"{"t":"beat"}"#));
    }
    assert_eq!(beats, 3);
}

#[tokio::test(start_paused = true)]
async fn an_orchestrator_hears_for_two_minutes_then_it_is_over() {
    let (_host, mut orchestrator, _work) = pair(&options()).await;
    let begin = Instant::now();
    assert!(matches!(orchestrator.next().await, Err(Ended::Silent(_))));
    assert_eq!(begin.elapsed().as_secs_f64().round(), 120.0);
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_was_begun_has_to_end_within_half_a_minute() {
    let (here, there) = duplex(64 * 1024);
    let client = async {
        let (mut ws, _) = client_async(URL, here).await.unwrap();
        let hello = Frame::Control(br#"{"t":"hello","protocol":1}"#.to_vec().into());
        ws.send(Message::Binary(hello.encode())).await.unwrap();
        ws.into_inner()
    };
    let (raw, session) = tokio::join!(client, server::accept(there, server::Options::default()));
    let (mut raw, mut session) = (raw, session.unwrap());
    // A binary frame of 100,000 bytes, of which one comes every second.
    let drip = async {
        let mut head = vec![0x82, 0x80 | 127];
        head.extend_from_slice(&100_000_u64.to_be_bytes());
        raw.write_all(&head).await.unwrap();
        let mut every = tokio::time::interval(Duration::from_secs(1));
        loop {
            every.tick().await;
            raw.write_all(&[0]).await.unwrap();
        }
    };
    let begin = Instant::now();
    let ended = tokio::select! {
        ended = session.next() => ended.unwrap_err(),
        () = drip => unreachable!(),
    };
    assert!(matches!(ended, Ended::Unfinished), "{ended}");
    assert_eq!(begin.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_read_is_put_out_after_a_minute() {
    let (_host, mut orchestrator, _work) = pair(&options()).await;
    let assignment = Assignment {
        variables: [("x".to_owned(), "y".repeat(150_000))].into(),
        ..Assignment::default()
    };
    let assign = ServerMessage::Assign {
        generation: 1,
        assignment: Box::new(assignment),
    };
    // More than the connection takes, and then more than is ever held.
    while orchestrator.handle().send(&assign).is_ok() {}
    let begin = Instant::now();
    let ended = orchestrator.next().await.unwrap_err();
    assert!(matches!(ended, Ended::Stalled), "{ended}");
    assert_eq!(begin.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn what_changes_often_is_sent_once_a_second() {
    let options = options();
    let book = options.status.clone();
    let (mut host, mut orchestrator, mut work) = pair(&options).await;
    let changes = async {
        let mut every = tokio::time::interval(Duration::from_millis(10));
        for at in 0..1000 {
            every.tick().await;
            book.set("usage", json!(at));
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    };
    let (mut messages, mut last) = (0, json!(null));
    let receive = async {
        loop {
            if let HostMessage::Status(status) = orchestrator.next().await.unwrap() {
                messages += 1;
                last = status.set["usage"].clone();
                let ack = ServerMessage::Ack {
                    generation: status.generation,
                };
                orchestrator.handle().send(&ack).unwrap();
            }
        }
    };
    tokio::select! {
        ended = host.serve(&mut work) => panic!("{ended}"),
        () = receive => unreachable!(),
        () = changes => {}
    }
    assert!((9..=12).contains(&messages), "{messages} messages in ten seconds");
    assert_eq!(last, json!(999));
}

#[test]
fn pauses_follow_what_the_orchestrator_says_and_begin_anew_after_a_good_minute() {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(5));
    let broken = || Ended::Broken(std::io::ErrorKind::ConnectionReset.into());
    let pause = |backoff: &mut Backoff, ended, lasted| judge(Outcome::Ended(ended, lasted), backoff, false).1;
    for _ in 0..20 {
        assert!(pause(&mut backoff, broken(), Duration::from_secs(5)) <= Duration::from_mins(5));
    }
    assert_eq!(backoff.ceiling(), Duration::from_mins(5));
    assert!(pause(&mut backoff, broken(), Duration::from_secs(61)) <= Duration::from_secs(1));

    let told = Close::new(close::RESTART, "").retry_after(Duration::from_secs(100));
    for _ in 0..50 {
        let pause = pause(&mut backoff, Ended::ByPeer(told.clone()), Duration::ZERO).as_secs();
        assert!((100..=150).contains(&pause), "{pause}");
    }
    let forbidden = Close::new(close::FORBIDDEN, "unknown host");
    assert!(pause(&mut backoff, Ended::ByPeer(forbidden), Duration::ZERO) >= Duration::from_secs(15));
    let (_, revoked) = judge(Outcome::Ended(broken(), Duration::ZERO), &mut backoff, true);
    assert!(revoked >= Duration::from_mins(48));
}

#[test]
fn addresses_are_read() {
    use super::dial::Target;
    let target = |url| Target::parse(url).map(|target| (target.host, target.port));
    assert_eq!(
        target("https://fleet.example").unwrap(),
        ("fleet.example".into(), 443)
    );
    assert_eq!(
        target("https://fleet.example:8443/").unwrap(),
        ("fleet.example".into(), 8443)
    );
    assert_eq!(
        target("https://[2001:db8::1]:8443").unwrap(),
        ("2001:db8::1".into(), 8443)
    );
    for bad in [
        "",
        "http://fleet.example",
        "https://",
        "https://a:b",
        "https://a/b",
        "https://u@a",
        "https://a b",
    ] {
        assert!(target(bad).is_err(), "{bad}");
    }
}

/// With every tenth beat, and at the next one when the clock was set.
#[tokio::test(start_paused = true)]
async fn a_host_says_what_time_it_is() {
    let clock = Clock::fixed("2026-11-20T12:00:00Z".parse().unwrap());
    let options = Options {
        clock: clock.clone(),
        ..options()
    };
    let (mut host, mut orchestrator, mut work) = pair(&options).await;
    let mut beats = Vec::new();
    let told = async {
        let (mut count, mut steps) = (0, 0);
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        seconds.tick().await;
        while beats.len() < 3 {
            tokio::select! {
                _ = seconds.tick() => clock.advance(jiff::SignedDuration::from_secs(1)),
                message = orchestrator.next() => match message.unwrap() {
                    HostMessage::Beat {} => count += 1,
                    HostMessage::Clock { time } => {
                        let there: jiff::Timestamp = time.parse().unwrap();
                        assert!(clock.now().duration_since(there).abs() < jiff::SignedDuration::from_secs(2));
                        beats.push(std::mem::take(&mut count));
                        steps += 1;
                        if steps == 1 {
                            clock.advance(jiff::SignedDuration::from_hours(-1));
                        }
                    }
                    other => panic!("{other:?}"),
                },
            }
        }
    };
    tokio::select! {
        ended = host.serve(&mut work) => panic!("{ended}"),
        () = told => {}
    }
    assert_eq!(beats, [10, 1, 10]);
}
