//! Hosts whose clocks are wrong, over real TLS.

use std::{sync::Arc, time::Duration};

use identity::{
    enrol::{Client, ClientOptions, Keeper, KeeperOptions, Pauses, Request, State},
    key::KeyStore,
};
use jiff::SignedDuration;
use telemetry::Clock;

use super::server::Server;

fn clock() -> Clock {
    Clock::fixed("2026-11-20T12:00:00Z".parse().unwrap())
}

/// The server's certificate is valid from a day that no clock is before, and the host's an hour early: with a clock that is
/// an hour off, or not set at all, a host gets in and does not take what it got for ended.
#[tokio::test]
async fn a_host_with_a_wrong_clock_enrols() {
    for (off, is_set) in [(-1, true), (1, true), (-24 * 365 * 56, false)] {
        let server = Server::start(&clock()).await;
        let wrong = clock();
        wrong.advance(SignedDuration::from_hours(off));
        assert_eq!(wrong.now().as_second() > 1_000_000_000, is_set);
        let dir = tempfile::tempdir().unwrap();
        let client = Client::new(&ClientOptions {
            url: server.url(),
            trust: server.trust.clone(),
            proxy: None,
            clock: wrong.clone(),
        });
        let quick = (Duration::from_millis(20), Duration::from_millis(50));
        let keeper = Arc::new(Keeper::new(KeeperOptions {
            client: client.unwrap(),
            keys: KeyStore::file(dir.path().to_owned()),
            file: dir.path().join("enrolment.json"),
            request: Request {
                serial: "SN-1".into(),
                ..Request::default()
            },
            clock: wrong.clone(),
            pauses: Pauses {
                unanswered: quick,
                refused: quick,
                renewal: quick,
            },
        }));
        let (mut state, runs) = (keeper.state(), keeper.clone());
        let task = tokio::spawn(async move { runs.run().await });
        let enrolled = async {
            state
                .wait_for(|state| matches!(state, State::WaitsForApproval { .. }))
                .await
                .unwrap();
            server.approve();
            state
                .wait_for(|state| matches!(state, State::Enrolled { .. }))
                .await
                .unwrap();
        };
        let in_time = tokio::time::timeout(Duration::from_secs(20), enrolled).await;
        task.abort();
        assert!(in_time.is_ok(), "{off} hours off: {:?}", keeper.state().borrow());
        let held = keeper.credentials().borrow().clone().unwrap();
        assert!(!held.is_expired(wrong.now()));
        // Known to the orchestrator's clock from now on, and an hour before.
        let issued = held.peer().not_before;
        assert_eq!(
            clock().now().duration_since(issued),
            SignedDuration::from_hours(1)
        );
    }
}
