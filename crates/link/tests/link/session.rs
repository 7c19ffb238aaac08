//! Messages of one connection and of the next.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use identity::{
    ca::{Authority, HOST_LIFETIME},
    credentials::Credentials,
    csr::{self, Csr, FileKey},
};
use link::{
    close::{self, Close},
    host::State,
    message::{Assignment, Event, HostMessage, ServerMessage, Signal, Status, Target},
    tls::FrontError,
};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::lab::{Host, Lab, Link, TENANT, next};

async fn status(link: &mut Link) -> Status {
    match next(link).await {
        HostMessage::Status(status) => status,
        other => panic!("a status was due, {other:?} came"),
    }
}

fn sections(status: &Status) -> Value {
    json!(status.set)
}

#[tokio::test]
async fn status_is_sent_once_and_then_as_what_changed() {
    let lab = Lab::new().await;
    let options = lab.options("host-1");
    let book = options.status.clone();
    book.set("health", json!({"state": "progressing"}));
    book.set("vm/shop/till", json!({"power": "on"}));
    let _host = Host::run(options);

    let mut link = lab.welcome(7).await;
    assert_eq!(link.hello().boot_id, "boot-1");
    let first = status(&mut link).await;
    assert_eq!(
        (first.generation, first.base),
        (8, 0),
        "above what the orchestrator had, and everything"
    );
    assert_eq!(
        sections(&first),
        json!({"health": {"state": "progressing"}, "vm/shop/till": {"power": "on"}})
    );

    // Nothing more before the acknowledgement, however much changes.
    for at in 0..10 {
        book.set("health", json!({"state": "healthy", "at": at}));
    }
    book.remove("vm/shop/till");
    link.handle().send(&ServerMessage::Ack { generation: 8 }).unwrap();
    let second = status(&mut link).await;
    assert_eq!((second.generation, second.base), (9, 8));
    assert_eq!(
        sections(&second),
        json!({"health": {"state": "healthy", "at": 9}})
    );
    assert_eq!(second.remove, ["vm/shop/till"]);
    link.handle().send(&ServerMessage::Ack { generation: 9 }).unwrap();

    // The connection breaks; meanwhile one section changes.
    drop(link);
    book.set("compliance", json!({"state": "compliant"}));
    let mut link = lab.welcome(9).await;
    assert_eq!(link.hello().status_generation, 9);
    let third = status(&mut link).await;
    assert_eq!((third.generation, third.base), (10, 9));
    assert_eq!(sections(&third), json!({"compliance": {"state": "compliant"}}));
    link.handle()
        .send(&ServerMessage::Ack { generation: 10 })
        .unwrap();

    // An orchestrator that was restored from a backup has generation 8: it gets what changed since.
    drop(link);
    let mut link = lab.welcome(8).await;
    let fourth = status(&mut link).await;
    assert_eq!((fourth.generation, fourth.base), (11, 8));
    assert_eq!(
        sections(&fourth),
        json!({"health": {"state": "healthy", "at": 9}, "compliance": {"state": "compliant"}})
    );
    assert_eq!(fourth.remove, ["vm/shop/till"]);

    // One that has something of before this run gets everything.
    drop(link);
    let mut link = lab.welcome(3).await;
    let fifth = status(&mut link).await;
    assert_eq!((fifth.generation, fifth.base), (12, 0));
    assert_eq!(fifth.set.len(), 2);

    // One that can't build on it asks for everything.
    link.handle().send(&ServerMessage::Resync {}).unwrap();
    let sixth = status(&mut link).await;
    assert_eq!((sixth.generation, sixth.base), (13, 0));
    assert_eq!(sixth.set, fifth.set);
}

#[tokio::test]
async fn a_status_of_many_sections_comes_in_parts_that_build_on_one_another() {
    let lab = Lab::new().await;
    let options = lab.options("host-1");
    for at in 0..400 {
        options
            .status
            .set(&format!("vm/ns/{at:03}"), json!({"filler": "x".repeat(1000)}));
    }
    options.status.set("huge", json!("y".repeat(300_000)));
    let _host = Host::run(options);
    let mut link = lab.welcome(0).await;
    let (mut held, mut last) = (std::collections::BTreeMap::new(), 0);
    while held.len() < 401 {
        let part = status(&mut link).await;
        assert_eq!(part.base, last);
        last = part.generation;
        held.extend(part.set);
        let ack = ServerMessage::Ack { generation: last };
        link.handle().send(&ack).unwrap();
    }
    assert!(last >= 3, "400 kB don't fit into two messages");
    assert_eq!(held["huge"], json!({"tooLong": 300_002}));
}

#[tokio::test]
async fn nothing_is_sent_of_a_book_that_is_held() {
    let lab = Lab::new().await;
    let mut options = lab.options("host-1");
    let book = link::status::StatusBook::held();
    options.status = book.clone();
    book.set("source", json!({"applied": "1"}));
    book.event(Event {
        reason: "Started".into(),
        ..Event::default()
    });
    let _host = Host::run(options);
    let mut link = lab.welcome(0).await;
    // Events aren't held back, so the status, were it sent, would be before them.
    assert!(matches!(next(&mut link).await, HostMessage::Events { .. }));
    book.set("health", json!({"state": "healthy"}));
    book.release();
    assert_eq!(status(&mut link).await.set.len(), 2);
}

#[tokio::test]
async fn events_come_in_order_and_again_when_the_connection_broke() {
    let lab = Lab::new().await;
    let options = lab.options("host-1");
    let book = options.status.clone();
    let event = |reason: &str| Event {
        reason: reason.into(),
        ..Event::default()
    };
    for at in 0..300 {
        book.event(event(&format!("{at}")));
    }
    assert_eq!(book.dropped_events(), 44, "256 are kept");
    let _host = Host::run(options);
    let mut link = lab.welcome(0).await;
    let mut reasons = Vec::new();
    while reasons.len() < 256 {
        let HostMessage::Events { items } = next(&mut link).await else {
            panic!("events were due")
        };
        reasons.extend(items.into_iter().map(|event| event.reason));
    }
    let wanted: Vec<String> = (44..300).map(|at| at.to_string()).collect();
    assert_eq!(reasons, wanted);
    // No beat was answered since, so nobody knows that they arrived.
    drop(link);
    let mut link = lab.welcome(0).await;
    let HostMessage::Events { items } = next(&mut link).await else {
        panic!("events were due")
    };
    assert_eq!(items[0].reason, "44");
}

#[tokio::test]
async fn of_assignments_that_come_while_one_is_taken_only_the_last_is() {
    let lab = Lab::new().await;
    let host = Host::run(lab.options("host-1"));
    let mut link = lab.welcome(0).await;
    let gate = host.recorder.gate.lock().await;
    for generation in 1..=5 {
        let assignment = Assignment {
            site: format!("site-{generation}"),
            target: Target::Pinned { commit: "abc".into() },
            ..Assignment::default()
        };
        let assign = ServerMessage::Assign {
            generation,
            assignment: Box::new(assignment),
        };
        link.handle().send(&assign).unwrap();
    }
    // Signals don't wait for assignments. When this one was seen, all five have come in.
    link.handle()
        .send(&ServerMessage::Signal { what: Signal::Fetch })
        .unwrap();
    let mut signals = host.recorder.signals.subscribe();
    tokio::select! {
        _ = signals.wait_for(|seen| seen.contains(&Signal::Fetch)) => {}
        message = link.next() => panic!("{message:?} came too early"),
    }
    drop(gate);
    for generation in [1, 5] {
        let assigned = HostMessage::Assigned {
            generation,
            error: None,
        };
        assert_eq!(next(&mut link).await, assigned);
    }
    let taken: Vec<u64> = host
        .recorder
        .assignments
        .lock()
        .unwrap()
        .iter()
        .map(|(at, _)| *at)
        .collect();
    assert_eq!(taken, [1, 5]);

    *host.recorder.refusal.lock().unwrap() = Some("the source's branch is missing".into());
    let assign = ServerMessage::Assign {
        generation: 6,
        assignment: Box::default(),
    };
    link.handle().send(&assign).unwrap();
    let error = Some("the source's branch is missing".into());
    assert_eq!(
        next(&mut link).await,
        HostMessage::Assigned { generation: 6, error }
    );
    drop(link);
    let link = lab.welcome(0).await;
    assert_eq!(
        link.hello().assignment_generation,
        5,
        "what is in force, not what was refused"
    );
}

#[tokio::test]
async fn a_host_comes_back_when_it_was_told_to_and_not_before() {
    let lab = Lab::new().await;
    let mut host = Host::run(lab.options("host-1"));
    let mut link = lab.welcome(0).await;
    host.is_up(&mut link).await;
    link.close(Close::new(close::RESTART, "upgrade").retry_after(Duration::from_secs(40)))
        .await;
    let paused = host.reaches(|state| matches!(state, State::Pausing { .. })).await;
    let State::Pausing { reason, pause } = paused else {
        unreachable!()
    };
    assert_eq!(reason, "closed by the other side (1012: upgrade)");
    assert!(
        pause >= Duration::from_secs(40) && pause <= Duration::from_secs(60),
        "{pause:?}"
    );
}

#[tokio::test]
async fn a_host_hears_that_it_is_not_wanted_and_only_then() {
    for (code, times) in [(close::FORBIDDEN, 1), (close::RESTART, 0), (close::REPLACED, 0)] {
        let lab = Lab::new().await;
        let mut host = Host::run(lab.options("host-1"));
        let mut link = lab.welcome(0).await;
        host.is_up(&mut link).await;
        link.close(Close::new(code, "go")).await;
        host.reaches(|state| matches!(state, State::Pausing { .. })).await;
        assert_eq!(host.recorder.turned_away.load(Ordering::Relaxed), times, "{code}");
    }
}

#[tokio::test]
async fn a_revoked_host_is_refused_at_once_and_a_restored_one_is_not() {
    let lab = Lab::new().await;
    let mut host = Host::run(lab.options("host-1"));
    let link = lab.welcome(0).await;
    lab.verifier.revoke_host("host-1");
    drop(link);
    let refuse = async {
        loop {
            let refused = lab.front.accept(lab.tcp().await).await;
            assert!(matches!(refused, Err(FrontError::Handshake(_))));
        }
    };
    let revoked =
        |state: &State| matches!(state, State::Pausing { reason, .. } if reason.contains("Revoked"));
    tokio::select! {
        () = refuse => {}
        _ = host.reaches(revoked) => {}
    }
    lab.verifier
        .set_revocations(identity::verify::Revocations::default());
    // Attempts that began before may still fail.
    while lab.front.accept(lab.tcp().await).await.is_err() {}
}

#[tokio::test]
async fn another_tenants_authority_cannot_make_a_host_of_this_one() {
    let lab = Lab::new().await;
    let other = Authority::create("selvedge tenant evil", &lab.clock).unwrap();
    lab.verifier
        .set_authority("0199-evil", &other.certificate_pem())
        .unwrap();
    let key = Arc::new(FileKey::generate().unwrap());
    let csr = Csr::parse(&csr::make(&*key).unwrap()).unwrap();
    let forged = other
        .issue_host(&csr, TENANT, "host-1", HOST_LIFETIME, &lab.clock)
        .unwrap();
    let forged = Credentials::new(key, &forged.certificate).unwrap();
    let mut options = lab.options("host-1");
    options.credentials = watch::channel(Some(forged)).1;
    let _host = Host::run(options);
    let refused = lab.front.accept(lab.tcp().await).await;
    assert!(matches!(refused, Err(FrontError::Handshake(_))));
}

#[tokio::test]
async fn a_host_waits_for_its_certificate_and_takes_a_new_one() {
    let lab = Lab::new().await;
    let (sender, receiver) = watch::channel(None);
    let mut options = lab.options("host-1");
    options.credentials = receiver;
    let mut host = Host::run(options);
    host.reaches(|state| *state == State::Waiting).await;
    sender.send_replace(Some(lab.credentials("host-1")));
    let (link, peer) = lab.accept().await;
    assert_eq!((peer.tenant.as_str(), peer.host.as_str()), (TENANT, "host-1"));
    drop(link);
    let (_link, again) = lab.accept().await;
    assert_eq!(again.serial, peer.serial);
}
