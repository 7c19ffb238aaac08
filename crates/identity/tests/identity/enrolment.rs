//! A host that enrols and renews, over real TLS.

use std::{sync::Arc, time::Duration};

use identity::{
    credentials::Enrolment,
    csr::FileKey,
    enrol::{Answer, Client, ClientOptions, Error, Keeper, KeeperOptions, Pauses, Request, State},
    key::KeyStore,
};
use jiff::SignedDuration;
use serde_json::json;
use telemetry::Clock;
use tokio::{sync::watch, task::JoinHandle};

use super::server::{Server, TENANT};

fn clock() -> Clock {
    Clock::fixed("2026-11-20T12:00:00Z".parse().unwrap())
}

fn client(server: &Server, clock: &Clock) -> Client {
    Client::new(&ClientOptions {
        url: server.url(),
        trust: server.trust.clone(),
        proxy: None,
        clock: clock.clone(),
    })
    .unwrap()
}

struct Running {
    keeper: Arc<Keeper>,
    state: watch::Receiver<State>,
    task: JoinHandle<()>,
}

fn options(server: &Server, dir: &std::path::Path, clock: &Clock) -> KeeperOptions {
    let quick = (Duration::from_millis(20), Duration::from_millis(50));
    KeeperOptions {
        client: client(server, clock),
        keys: KeyStore::file(dir.to_owned()),
        file: dir.join("enrolment.json"),
        request: Request {
            serial: "SN-1".into(),
            activation_key: Some("SLV-SECRET".into()),
            ..Request::default()
        },
        clock: clock.clone(),
        pauses: Pauses {
            unanswered: quick,
            refused: quick,
            renewal: quick,
        },
    }
}

/// Waits until something is so.
async fn until(is: impl Fn() -> bool) {
    let wait = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .expect("not in time");
}

impl Running {
    fn start(server: &Server, dir: &std::path::Path, clock: &Clock) -> Self {
        Self::run(options(server, dir, clock))
    }

    fn run(options: KeeperOptions) -> Self {
        let keeper = Arc::new(Keeper::new(options));
        let state = keeper.state();
        let runs = keeper.clone();
        let task = tokio::spawn(async move { runs.run().await });
        Self { keeper, state, task }
    }

    async fn reaches(&mut self, want: impl FnMut(&State) -> bool) -> State {
        let wait = tokio::time::timeout(Duration::from_secs(20), self.state.wait_for(want)).await;
        wait.expect("the state was not reached in time").unwrap().clone()
    }

    fn serial(&self) -> String {
        self.keeper
            .credentials()
            .borrow()
            .as_ref()
            .unwrap()
            .peer()
            .serial
            .clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn a_host_waits_for_approval_then_keeps_what_it_got() {
    let (clock, dir) = (clock(), tempfile::tempdir().unwrap());
    let server = Server::start(&clock).await;
    server.book.lock().unwrap().first = vec![
        (
            503,
            "Retry-After: 0\r\n",
            json!({"detail": "the database is away"}),
        ),
        (429, "Retry-After: 0\r\n", json!({})),
        (200, "", json!("what")),
    ];
    let mut host = Running::start(&server, dir.path(), &clock);
    let waits = host
        .reaches(|state| matches!(state, State::WaitsForApproval { .. }))
        .await;
    let State::WaitsForApproval { request } = waits else {
        unreachable!()
    };
    assert_eq!(request, server.book.lock().unwrap().requests[0].0);
    // Who hasn't got the key learns nothing of the request.
    let stranger = client(&server, &clock)
        .poll(&FileKey::generate().unwrap(), &request)
        .await;
    assert!(matches!(stranger, Err(Error::Refused { status: 403, .. })));

    server.approve();
    host.reaches(|state| matches!(state, State::Enrolled { .. }))
        .await;
    assert_eq!(
        server.book.lock().unwrap().requests.len(),
        1,
        "asked again, it is the same request"
    );
    let kept = Enrolment::read(&dir.path().join("enrolment.json"))
        .unwrap()
        .unwrap();
    assert_eq!(
        (kept.tenant.as_str(), kept.site.as_deref()),
        ("acme", Some("harbour"))
    );
    let peer = host.keeper.credentials().borrow().clone().unwrap().peer().clone();
    assert_eq!((peer.tenant.as_str(), peer.host.as_str()), (TENANT, "host-1"));
    assert_eq!(
        server
            .book
            .lock()
            .unwrap()
            .last
            .as_ref()
            .unwrap()
            .activation_key
            .as_deref(),
        Some("SLV-SECRET")
    );

    // Another run has it already and asks nobody.
    let serial = host.serial();
    drop(host);
    let mut host = Running::start(&server, dir.path(), &clock);
    host.reaches(|state| matches!(state, State::Enrolled { .. }))
        .await;
    assert_eq!(host.serial(), serial);
    assert_eq!(server.book.lock().unwrap().granted, 1);
}

#[tokio::test]
async fn a_certificate_is_renewed_when_due_when_told_and_when_it_is_long_over() {
    let (clock, dir) = (clock(), tempfile::tempdir().unwrap());
    let server = Server::start(&clock).await;
    server.book.lock().unwrap().open = true;
    let mut host = Running::start(&server, dir.path(), &clock);
    host.reaches(|state| matches!(state, State::Enrolled { .. }))
        .await;
    let first = host.serial();

    // Told to.
    let mut credentials = host.keeper.credentials();
    credentials.borrow_and_update();
    host.keeper.renew_now();
    credentials.changed().await.unwrap();
    let second = host.serial();
    assert_ne!(first, second);
    assert_eq!(server.book.lock().unwrap().renewed, 1);

    // Switched off for a month: the certificate is over by the time it is back.
    drop(host);
    clock.advance(SignedDuration::from_hours(24 * 31));
    let host = Running::start(&server, dir.path(), &clock);
    let mut credentials = host.keeper.credentials();
    let renewed = credentials.wait_for(|now| now.as_ref().is_some_and(|now| now.peer().serial != second));
    tokio::time::timeout(Duration::from_secs(20), renewed)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(server.book.lock().unwrap().renewed, 2);
    assert_eq!(
        server.book.lock().unwrap().granted,
        3,
        "by proof of the old key, not by enrolling again"
    );
}

#[tokio::test]
async fn a_revoked_host_stays_out_and_a_forgotten_one_asks_again() {
    let (clock, dir) = (clock(), tempfile::tempdir().unwrap());
    let server = Server::start(&clock).await;
    server.book.lock().unwrap().open = true;
    let mut host = Running::start(&server, dir.path(), &clock);
    host.reaches(|state| matches!(state, State::Enrolled { .. }))
        .await;
    let serial = host.serial();
    server.verifier.revoke_host("host-1");
    host.keeper.renew_now();
    let failing = host.reaches(|state| matches!(state, State::Failing { .. })).await;
    let State::Failing { reason, refused } = failing else {
        unreachable!()
    };
    assert!(refused && reason.contains("host host-1 was revoked"), "{reason}");
    assert_eq!(host.serial(), serial, "what it has it keeps: the site goes on");
    until(|| server.book.lock().unwrap().refused >= 3).await;
    assert_eq!(
        server.book.lock().unwrap().granted,
        1,
        "refused, it does not come in as a new one"
    );
    drop(host);

    // An orchestrator that was restored from before the enrolment doesn't know the host: deleted ones neither.
    server
        .verifier
        .set_revocations(identity::verify::Revocations::default());
    for status in [404, 410] {
        let mut host = Running::start(&server, dir.path(), &clock);
        host.reaches(|state| matches!(state, State::Enrolled { .. }))
            .await;
        let old = host.keeper.credentials().borrow().clone().unwrap();
        server.book.lock().unwrap().forgotten = Some(status);
        host.keeper.renew_now();
        let mut credentials = host.keeper.credentials();
        let again = credentials.wait_for(|now| {
            now.as_ref()
                .is_some_and(|now| now.peer().serial != old.peer().serial)
        });
        let again = tokio::time::timeout(Duration::from_secs(20), again).await;
        let again = again.unwrap().unwrap().clone().unwrap();
        assert_eq!(
            again.peer().public_key,
            old.peer().public_key,
            "with the key it had"
        );
        let asked = server.book.lock().unwrap().last.clone().unwrap();
        assert_eq!(asked.activation_key.as_deref(), Some("SLV-SECRET"));
        server.book.lock().unwrap().forgotten = None;
    }
    assert_eq!(server.book.lock().unwrap().renewed, 0);

    // Where it is not let in again at once, it waits for somebody, as a new one does; also if its key is used up.
    let mut host = Running::start(&server, dir.path(), &clock);
    host.reaches(|state| matches!(state, State::Enrolled { .. }))
        .await;
    {
        let mut book = server.book.lock().unwrap();
        (book.open, book.used_up, book.forgotten) = (false, true, Some(404));
    }
    host.keeper.renew_now();
    host.reaches(|state| matches!(state, State::WaitsForApproval { .. }))
        .await;
    assert!(host.keeper.credentials().borrow().is_none());
    assert_eq!(
        server.book.lock().unwrap().last.clone().unwrap().activation_key,
        None
    );
    server.approve();
    host.reaches(|state| matches!(state, State::Enrolled { .. }))
        .await;
}

#[tokio::test]
async fn a_host_that_is_forgotten_again_and_again_asks_ever_more_rarely() {
    let (clock, dir) = (clock(), tempfile::tempdir().unwrap());
    let server = Server::start(&clock).await;
    {
        let mut book = server.book.lock().unwrap();
        (book.open, book.forgotten) = (true, Some(404));
    }
    let quick = (Duration::from_millis(1), Duration::from_millis(1));
    let mut options = options(&server, dir.path(), &clock);
    options.pauses = Pauses {
        unanswered: quick,
        refused: (Duration::from_millis(1), Duration::from_hours(1000)),
        renewal: quick,
    };
    let mut host = Running::run(options);
    // Every certificate is forgotten as soon as it is there, and the pauses double: of 2^32 ms one is soon longer than
    // anybody waits here.
    let mut asked = 0;
    loop {
        host.keeper.renew_now();
        let wait = host.reaches(|state| matches!(state, State::Enrolled { .. }));
        if tokio::time::timeout(Duration::from_secs(1), wait).await.is_err() {
            break;
        }
        let granted = server.book.lock().unwrap().granted;
        asked = asked.max(granted);
        assert!(asked < 60, "it does not slow down");
        tokio::task::yield_now().await;
    }
    assert!(asked >= 2, "it did ask anew: {asked}");
}

#[tokio::test]
async fn a_new_host_whose_key_is_refused_does_not_go_on_without() {
    let (clock, dir) = (clock(), tempfile::tempdir().unwrap());
    let server = Server::start(&clock).await;
    server.book.lock().unwrap().used_up = true;
    let mut host = Running::start(&server, dir.path(), &clock);
    until(|| server.book.lock().unwrap().refused >= 3).await;
    let failing = host.reaches(|state| matches!(state, State::Failing { .. })).await;
    assert!(matches!(failing, State::Failing { reason, refused: true } if reason.contains("used up")));
    assert!(server.book.lock().unwrap().requests.is_empty());
}

#[tokio::test]
async fn after_two_thirds_of_its_life_a_certificate_is_renewed() {
    let (clock, dir) = (clock(), tempfile::tempdir().unwrap());
    let server = Server::start(&clock).await;
    server.book.lock().unwrap().open = true;
    let mut host = Running::start(&server, dir.path(), &clock);
    host.reaches(|state| matches!(state, State::Enrolled { .. }))
        .await;
    let first = host.keeper.credentials().borrow().clone().unwrap();
    drop(host);
    // Two thirds, and the tenth of the rest in which hosts that came together spread.
    let due = first.renew_at().duration_since(clock.now());
    let spread = first.peer().not_after.duration_since(first.renew_at()) / 10;
    clock.advance(due + spread + SignedDuration::from_secs(1));
    assert!(!first.is_expired(clock.now()));
    let host = Running::start(&server, dir.path(), &clock);
    let mut credentials = host.keeper.credentials();
    let renewed = credentials.wait_for(|now| {
        now.as_ref()
            .is_some_and(|now| now.peer().serial != first.peer().serial)
    });
    tokio::time::timeout(Duration::from_secs(20), renewed)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(server.book.lock().unwrap().renewed, 1);
}

#[tokio::test]
async fn only_the_right_server_is_believed_and_nothing_secret_is_shown() {
    let clock = clock();
    let (server, other) = (Server::start(&clock).await, Server::start(&clock).await);
    let wrong = Client::new(&ClientOptions {
        url: server.url(),
        trust: other.trust.clone(),
        proxy: None,
        clock: clock.clone(),
    })
    .unwrap();
    let key = FileKey::generate().unwrap();
    let request = Request {
        csr: identity::csr::make(&key).unwrap(),
        activation_key: Some("SLV-SECRET".into()),
        ..Request::default()
    };
    assert!(matches!(
        wrong.request(&request).await,
        Err(Error::Unreachable(_))
    ));
    assert!(!format!("{request:?}").contains("SECRET"));
    let right = client(&server, &clock);
    let answer = right.request(&request).await.unwrap();
    assert!(matches!(answer, Answer::Waiting(_)));
    // Ids come from the server and must not lead elsewhere.
    for id in ["", "../../api/v1/tenants", "a b", "x?y"] {
        assert!(
            matches!(right.poll(&key, id).await, Err(Error::Nonsense(_))),
            "{id}"
        );
    }
    // A clock of 1970 doesn't keep a host out.
    let unset = Clock::fixed("1970-01-01T00:01:00Z".parse().unwrap());
    assert!(client(&server, &unset).request(&request).await.is_ok());
}
