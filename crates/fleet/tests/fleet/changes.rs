//! The change log: nothing missed, nothing shown to whom it is not for.

use std::time::Duration;

use fleet::{Caller, Error, Kind, Op, Role, Scope};
use serde_json::json;

use crate::support::{On, Setup, both, make_tenant, options};

async fn next(watcher: &mut fleet::changes::Subscription) -> Vec<fleet::changes::Change> {
    tokio::time::timeout(Duration::from_secs(20), watcher.next())
        .await
        .expect("nothing came")
        .unwrap()
}

both!(a_watcher_sees_what_it_may, |s| {
    s.site("berlin", "region=eu").await;
    s.site("tokyo", "region=asia").await;
    let other = make_tenant(&s.fleet, "other").await;
    let eve = Caller::user(&other.id, "eve", Role::Owner, Scope::All);
    let viewer = Caller::user(
        &s.tenant.id,
        "vic",
        Role::Viewer,
        Scope::Site("berlin".to_owned()),
    );
    let start = s.fleet.changes().newest().await.unwrap();
    let mut all = s.fleet.changes().subscribe(&s.owner, None).await.unwrap();
    let mut some = s.fleet.changes().subscribe(&viewer, None).await.unwrap();
    let mut none = s.fleet.changes().subscribe(&eve, None).await.unwrap();

    s.fleet
        .sites()
        .update(&s.owner, "tokyo", None, &json!({"displayName": "T"}))
        .await
        .unwrap();
    s.fleet
        .sites()
        .update(&s.owner, "berlin", None, &json!({"displayName": "B"}))
        .await
        .unwrap();
    let mut seen = next(&mut all).await;
    while seen.len() < 2 {
        seen.extend(next(&mut all).await);
    }
    let names: Vec<_> = seen.iter().map(|change| change.name.as_str()).collect();
    assert_eq!(names, ["tokyo", "berlin"]);
    assert_eq!(seen[1].object["displayName"], "B");
    let seen = next(&mut some).await;
    assert_eq!(
        (seen.len(), seen[0].name.as_str(), seen[0].op),
        (1, "berlin", Op::Upsert)
    );
    let nothing = tokio::time::timeout(Duration::from_millis(300), none.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");

    // From where it was it goes on, told the newest state once.
    for n in 0..5 {
        let patch = json!({"displayName": format!("B{n}")});
        s.fleet
            .sites()
            .update(&s.owner, "berlin", None, &patch)
            .await
            .unwrap();
    }
    let mut resumed = s.fleet.changes().subscribe(&s.owner, Some(start)).await.unwrap();
    let seen = next(&mut resumed).await;
    assert_eq!(seen.iter().filter(|change| change.kind == Kind::Site).count(), 2);
    assert_eq!(seen.last().unwrap().object["displayName"], "B4");
    assert!(seen.last().unwrap().seq > start);
    s.fleet.sites().delete(&s.owner, "berlin", None).await.unwrap();
    let seen = next(&mut resumed).await;
    assert_eq!((seen[0].op, seen[0].name.as_str()), (Op::Delete, "berlin"));

    // What is no longer kept, or not yet there (a restore), is begun anew.
    s.later(2 * 3600);
    s.fleet.changes().prune().await.unwrap();
    s.site("oslo", "").await;
    let old = s.fleet.changes().subscribe(&s.owner, Some(start)).await;
    assert!(matches!(old, Err(Error::TooOld { .. })));
    let future = s.fleet.changes().subscribe(&s.owner, Some(1_000_000)).await;
    assert!(matches!(future, Err(Error::TooOld { .. })));
});

both!(many_writers_and_no_gap, |s| {
    let mut tail = s.fleet.changes().tail(&[], None).await.unwrap();
    let start = tail.position();
    let writers = (0..4).map(|w| {
        let (fleet, owner) = (s.fleet.clone(), s.owner.clone());
        tokio::spawn(async move {
            for n in 0..25 {
                let spec = fleet::model::SiteSpec {
                    name: format!("site-{w}-{n}"),
                    ..fleet::model::SiteSpec::default()
                };
                fleet.sites().create(&owner, &spec).await.unwrap();
            }
        })
    });
    let writers = tokio::spawn(futures::future::join_all(writers));
    let mut seen = Vec::new();
    while seen.len() < 100 {
        let rows = tokio::time::timeout(Duration::from_secs(30), tail.next())
            .await
            .unwrap()
            .unwrap();
        seen.extend(rows.into_iter().map(|row| row.seq));
    }
    for result in writers.await.unwrap() {
        result.unwrap();
    }
    let expected: Vec<i64> = (start + 1..=start + 100).collect();
    assert_eq!(seen, expected);
    let whole = s.fleet.audit().verify(&s.owner).await.unwrap();
    assert_eq!((whole.lines, whole.broken_at), (101, None));
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_hears_of_it() {
    let s = Setup::new(On::Postgres).await;
    let other = fleet::Fleet::open(&s.url, s.keys(), &s.clock, options())
        .await
        .unwrap();
    let listening = {
        let other = other.clone();
        tokio::spawn(async move { other.changes().listen().await })
    };
    let mut watcher = other.changes().subscribe(&s.owner, None).await.unwrap();
    s.site("berlin", "").await;
    assert_eq!(next(&mut watcher).await[0].name, "berlin");
    listening.abort();
}
