//! Requests that come twice, repositories and their webhooks.

use fleet::Error;
use fleet::idempotency::Begun;
use fleet::model::{ReachState, RepositoryAuth, RepositorySpec};
use serde_json::json;

use crate::support::both;

both!(a_request_that_comes_twice_is_done_once, |s| {
    let room = s.fleet.idempotency();
    let t = s.tenant.id.as_str();
    assert_eq!(room.begin(t, "ada", "k1", b"hash").await.unwrap(), Begun::New);
    assert_eq!(room.begin(t, "ada", "k1", b"hash").await.unwrap(), Begun::Running);
    assert_eq!(
        room.begin(t, "ada", "k1", b"other").await.unwrap(),
        Begun::Mismatch
    );
    // Another's key of the same name is another key.
    assert_eq!(room.begin(t, "bob", "k1", b"other").await.unwrap(), Begun::New);
    room.finish(t, "ada", "k1", 201, b"{}").await.unwrap();
    let done = Begun::Done {
        status: 201,
        body: b"{}".to_vec(),
    };
    assert_eq!(room.begin(t, "ada", "k1", b"hash").await.unwrap(), done);
    // A process that died in the middle does not block it for ever.
    s.later(61);
    assert_eq!(room.begin(t, "bob", "k1", b"other").await.unwrap(), Begun::New);
    room.cancel(t, "bob", "k1").await.unwrap();
    assert_eq!(room.begin(t, "bob", "k1", b"third").await.unwrap(), Begun::New);
    s.later(25 * 3600);
    room.expire().await.unwrap();
    assert_eq!(room.begin(t, "ada", "k1", b"other").await.unwrap(), Begun::New);
    assert!(room.begin(t, "ada", &"k".repeat(300), b"").await.is_err());
});

both!(a_repository_lives, |s| {
    let room = s.fleet.repositories();
    let spec = RepositorySpec {
        name: "shops".to_owned(),
        url: "https://git.example/shops.git".to_owned(),
        ..RepositorySpec::default()
    };
    let made = room.create(&s.owner, &spec).await.unwrap();
    assert_eq!((made.branch.as_str(), made.generation), ("main", 1));
    for (bad, at) in [
        (json!({"url": "https://u:p@git.example/x"}), "url"),
        (json!({"url": "ext::sh -c id"}), "url"),
        (json!({"branch": "-x"}), "branch"),
        (json!({"branch": "a..b"}), "branch"),
        (
            json!({"auth": "basic", "credentials": {"username": "x"}}),
            "credentials.password",
        ),
        (json!({"hosted": true}), "hosted"),
    ] {
        match room.update(&s.owner, "shops", None, &bad).await {
            Err(Error::Invalid { field, .. }) => assert_eq!(field, at),
            other => panic!("{bad}: {other:?}"),
        }
    }
    let patch = json!({"auth": "bearer", "credentials": {"bearer": "t0ken"}});
    let with = room.update(&s.owner, "shops", Some(1), &patch).await.unwrap();
    assert!(with.has_credentials && with.auth == RepositoryAuth::Bearer);
    let stored = room.credentials(&s.tenant.id, &made.id).await.unwrap().unwrap();
    assert_eq!(stored.bearer, "t0ken");
    let without = room
        .update(&s.owner, "shops", None, &json!({"credentials": null}))
        .await
        .unwrap();
    assert!(!without.has_credentials);

    // The webhook's secret is the key to it, until it is made anew.
    let secret = room.webhook_secret(&s.tenant.id, &made.id).await.unwrap();
    assert!(room.by_webhook("acme", "shops", &secret).await.unwrap().is_some());
    assert!(room.by_webhook("acme", "shops", "x").await.unwrap().is_none());
    assert!(
        room.by_webhook("other", "shops", &secret)
            .await
            .unwrap()
            .is_none()
    );
    room.rotate_webhook(&s.owner, "shops").await.unwrap();
    assert!(room.by_webhook("acme", "shops", &secret).await.unwrap().is_none());

    // The same result of a check again writes nothing.
    let t = s.tenant.id.as_str();
    room.set_reach(t, &made.id, ReachState::Failed, "no route")
        .await
        .unwrap();
    let seen = s.fleet.changes().newest().await.unwrap();
    room.set_reach(t, &made.id, ReachState::Failed, "no route")
        .await
        .unwrap();
    assert_eq!(s.fleet.changes().newest().await.unwrap(), seen);
    assert_eq!(
        room.get(&s.owner, "shops").await.unwrap().reach.message,
        "no route"
    );

    s.site("berlin", "").await;
    s.fleet
        .sites()
        .update(
            &s.owner,
            "berlin",
            None,
            &json!({"repository": "shops", "branch": "lab"}),
        )
        .await
        .unwrap();
    let mut branches = room.branches(t, &made.id).await.unwrap();
    branches.sort();
    assert_eq!(branches, ["lab", "main"]);
    let used = room.delete(&s.owner, "shops", None).await;
    assert!(matches!(used, Err(Error::Conflict { .. })), "{used:?}");
    s.fleet
        .sites()
        .update(&s.owner, "berlin", None, &json!({"repository": null}))
        .await
        .unwrap();
    room.delete(&s.owner, "shops", None).await.unwrap();
});
