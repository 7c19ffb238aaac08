//! Each verb and each refusal, watches and their ends, ephemeral objects.

use std::time::Duration;

use super::common::{all, create, key, text, value};
use jiff::SignedDuration;
use store::{Ephemeral, Error, ListQuery, Options, SqliteStore, Store};
use telemetry::Clock;

fn memory(change: impl FnOnce(&mut Options)) -> SqliteStore {
    let mut options = Options::default();
    change(&mut options);
    SqliteStore::in_memory_with(options).unwrap()
}

#[tokio::test]
async fn writes_are_refused_when_the_object_is_not_as_expected() {
    for resource in ["/configmaps", "/events"] {
        let store = SqliteStore::in_memory().unwrap();
        let a = key(resource, "ns", "a");
        assert!(matches!(store.update(&a, 1, value("x")).await, Err(Error::NotFound(k)) if k == a));
        assert!(matches!(
            store.delete(&a, 1, value("x")).await,
            Err(Error::NotFound(_))
        ));
        let made = create(&store, &a, "one").await.unwrap();
        assert!(made.revision >= 1);
    }
}

#[tokio::test]
async fn verbs_of_one_object() {
    for resource in ["/configmaps", "/events"] {
        let store = SqliteStore::in_memory().unwrap();
        let a = key(resource, "ns", "a");
        let made = create(&store, &a, "one").await.unwrap();
        assert!(matches!(create(&store, &a, "two").await, Err(Error::Exists(_))));
        let changed = store.update(&a, made.revision, value("two")).await.unwrap();
        assert!(changed.revision > made.revision);
        let lost = store.update(&a, made.revision, value("three")).await;
        assert!(matches!(lost, Err(Error::Conflict { expected, actual, .. })
                if expected == made.revision && actual == changed.revision));
        let got = store.get(&a).await.unwrap().unwrap();
        assert_eq!((got.revision, text(&got.value)), (changed.revision, "two".into()));
        assert!(matches!(
            store.delete(&a, made.revision, value("x")).await,
            Err(Error::Conflict { .. })
        ));
        let gone = store.delete(&a, changed.revision, value("last")).await.unwrap();
        assert_eq!(text(&gone.value), "last");
        assert!(store.get(&a).await.unwrap().is_none());
        assert_eq!(store.revision(), gone.revision);
    }
}

#[tokio::test]
async fn lists_page_by_namespace_and_name_and_keep_their_revision() {
    for resource in ["/configmaps", "/events"] {
        let store = SqliteStore::in_memory().unwrap();
        for (namespace, name) in [("b", "1"), ("a", "2"), ("a", "1"), ("c", "1"), ("a-b", "9")] {
            create(&store, &key(resource, namespace, name), name)
                .await
                .unwrap();
        }
        create(&store, &key("/other", "a", "1"), "x").await.unwrap();
        let first = store
            .list(ListQuery {
                limit: 2,
                ..all(resource)
            })
            .await
            .unwrap();
        let names = |page: &store::ListPage| -> Vec<String> {
            page.entries
                .iter()
                .map(|e| format!("{}/{}", e.key.namespace, e.key.name))
                .collect()
        };
        assert_eq!(names(&first), ["a/1", "a/2"]);
        assert_eq!((first.more, first.remaining), (true, Some(3)));
        // Changes after the first page do not show in the next.
        let gone = store.get(&key(resource, "b", "1")).await.unwrap().unwrap();
        store.delete(&gone.key, gone.revision, value("x")).await.unwrap();
        create(&store, &key(resource, "bb", "new"), "new").await.unwrap();
        let second = ListQuery {
            after: Some(("a".into(), "2".into())),
            at: Some(first.revision),
            ..all(resource)
        };
        let second = store.list(second).await.unwrap();
        assert_eq!(names(&second), ["a-b/9", "b/1", "c/1"]);
        assert_eq!((second.more, second.revision), (false, first.revision));
        assert_eq!(second.entries[1].revision, gone.revision);
        let one = store
            .list(ListQuery {
                namespace: Some("a".into()),
                limit: 1,
                ..all(resource)
            })
            .await
            .unwrap();
        assert_eq!((names(&one), one.remaining), (vec!["a/1".into()], Some(1)));
        let future = store
            .list(ListQuery {
                at: Some(99),
                ..all(resource)
            })
            .await;
        assert!(matches!(future, Err(Error::Future { asked: 99, .. })));
    }
}

#[tokio::test]
async fn a_watch_gives_every_change_once_in_order() {
    for resource in ["/configmaps", "/events"] {
        let store = SqliteStore::in_memory().unwrap();
        let a = key(resource, "ns", "a");
        let made = create(&store, &a, "one").await.unwrap();
        let mut watch = store.watch(resource, 0).unwrap();
        let changed = store.update(&a, made.revision, value("two")).await.unwrap();
        create(&store, &key("/other", "", "b"), "x").await.unwrap();
        let gone = store.delete(&a, changed.revision, value("last")).await.unwrap();

        let change = watch.next().await.unwrap();
        assert_eq!(
            (change.revision, change.deleted, change.previous.is_none()),
            (made.revision, false, true)
        );
        assert_eq!(watch.progress(), made.revision);
        let change = watch.next().await.unwrap();
        assert_eq!(
            (change.revision, text(&change.value)),
            (changed.revision, "two".into())
        );
        assert_eq!(text(change.previous.as_ref().unwrap()), "one");
        let change = watch.next().await.unwrap();
        assert_eq!((change.revision, change.deleted), (gone.revision, true));
        assert_eq!(text(&change.value), "last");
        let other = create(&store, &key("/other", "", "c"), "x").await.unwrap();
        assert_eq!(
            watch.progress(),
            other.revision,
            "another resource's writes move an idle watch on"
        );
        store.close().await;
        assert!(watch.next().await.is_none());
        assert!(matches!(create(&store, &a, "x").await, Err(Error::Closed)));
    }
}

#[tokio::test]
async fn a_watch_that_waits_is_woken_and_loses_nothing_when_dropped_before_it_is_ready() {
    let store = SqliteStore::in_memory().unwrap();
    let mut watch = store.watch("/configmaps", store.revision()).unwrap();
    for i in 0..20 {
        tokio::select! {
            biased;
            _ = watch.next() => panic!("nothing has changed"),
            () = tokio::task::yield_now() => {}
        }
        let made = create(&store, &key("/configmaps", "", &i.to_string()), "x")
            .await
            .unwrap();
        assert_eq!(watch.next().await.unwrap().revision, made.revision);
    }
}

#[tokio::test]
async fn a_slow_watcher_reads_on_from_the_history() {
    let store = memory(|o| o.recent_count = 4);
    let a = key("/configmaps", "", "a");
    let mut entry = create(&store, &a, "0").await.unwrap();
    let mut watch = store.watch("/configmaps", 0).unwrap();
    for i in 1..300 {
        entry = store
            .update(&a, entry.revision, value(&i.to_string()))
            .await
            .unwrap();
        create(&store, &key("/other", "", &i.to_string()), "x")
            .await
            .unwrap();
    }
    for i in 0..300 {
        let change = watch.next().await.unwrap();
        assert_eq!(text(&change.value), i.to_string());
        assert_eq!(
            change.previous.as_ref().map(|p| text(p)),
            (i > 0).then(|| (i - 1).to_string())
        );
    }
    assert_eq!(watch.progress(), store.revision());
}

#[tokio::test]
async fn what_is_no_longer_kept_is_too_old() {
    let store = memory(|o| {
        o.recent_count = 4;
        o.history_count = 16;
        o.ephemeral = vec![Ephemeral {
            max_count: 3,
            ..Ephemeral::events()
        }];
    });
    let a = key("/configmaps", "", "a");
    let mut entry = create(&store, &a, "0").await.unwrap();
    let mut slow = store.watch("/configmaps", 0).unwrap();
    let mut quiet = store.watch("/secrets", 0).unwrap();
    for i in 1..100 {
        entry = store
            .update(&a, entry.revision, value(&i.to_string()))
            .await
            .unwrap();
    }
    assert!(slow.next().await.is_none(), "fell behind the history");
    assert!(matches!(
        store.watch("/configmaps", 1),
        Err(Error::TooOld { asked: 1, .. })
    ));
    assert!(matches!(
        store
            .list(store::ListQuery {
                at: Some(1),
                ..all("/configmaps")
            })
            .await,
        Err(Error::TooOld { .. })
    ));
    assert!(matches!(
        store.watch("/configmaps", 1000),
        Err(Error::Future { asked: 1000, .. })
    ));
    let secret = create(&store, &key("/secrets", "", "s"), "x").await.unwrap();
    assert_eq!(
        quiet.next().await.unwrap().revision,
        secret.revision,
        "a watch whose resource was quiet goes on"
    );
    let usage = store.maintain().await.unwrap();
    assert!(usage.history_count <= 18, "{usage:?}");
    assert!(usage.oldest > 80, "{usage:?}");

    // Ephemeral changes are in memory only.
    let mut events = store.watch("/events", store.revision()).unwrap();
    for i in 0..10 {
        create(&store, &key("/events", "", &i.to_string()), "x")
            .await
            .unwrap();
    }
    assert!(events.next().await.is_none());
    assert_eq!(
        store.list(all("/events")).await.unwrap().entries.len(),
        3,
        "the newest stay"
    );
}

#[tokio::test]
async fn events_expire_and_their_watchers_see_it() {
    let clock = Clock::fixed("2026-01-01T00:00:00Z".parse().unwrap());
    let store = memory(|o| o.clock = clock.clone());
    create(&store, &key("/events", "", "old"), "x").await.unwrap();
    clock.advance(SignedDuration::from_mins(40));
    create(&store, &key("/events", "", "new"), "x").await.unwrap();
    create(&store, &key("coordination.k8s.io/leases", "", "lease"), "x")
        .await
        .unwrap();
    let mut watch = store.watch("/events", store.revision()).unwrap();
    clock.advance(SignedDuration::from_mins(21));
    store.maintain().await.unwrap();
    let change = watch.next().await.unwrap();
    assert!(change.deleted);
    assert_eq!(change.key.name, "old");
    let stamped: serde_json::Value = serde_json::from_slice(&change.value).unwrap();
    assert_eq!(
        stamped["metadata"]["resourceVersion"],
        change.revision.to_string()
    );
    assert_eq!(store.list(all("/events")).await.unwrap().entries.len(), 1);
    clock.advance(SignedDuration::from_mins(1000));
    store.maintain().await.unwrap();
    assert_eq!(store.list(all("/events")).await.unwrap().entries.len(), 0);
    assert_eq!(
        store
            .list(all("coordination.k8s.io/leases"))
            .await
            .unwrap()
            .entries
            .len(),
        1
    );
}

#[tokio::test]
async fn a_full_ephemeral_resource_that_may_not_evict_refuses() {
    let store = memory(|o| {
        o.ephemeral = vec![Ephemeral {
            max_count: 2,
            ..Ephemeral::leases()
        }];
    });
    let lease = |name: &str| key("coordination.k8s.io/leases", "", name);
    create(&store, &lease("a"), "x").await.unwrap();
    let b = create(&store, &lease("b"), "x").await.unwrap();
    assert!(matches!(
        create(&store, &lease("c"), "x").await,
        Err(Error::Full { limit: 2, .. })
    ));
    store.update(&b.key, b.revision, value("y")).await.unwrap();
}

#[tokio::test]
async fn many_writers_of_one_object_conflict_but_lose_nothing() {
    let store = std::sync::Arc::new(SqliteStore::in_memory().unwrap());
    let a = key("/configmaps", "", "a");
    create(&store, &a, "0").await.unwrap();
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let (store, a) = (store.clone(), a.clone());
            tokio::spawn(async move {
                for _ in 0..20 {
                    loop {
                        let now = store.get(&a).await.unwrap().unwrap();
                        let next: u64 = text(&now.value).parse::<u64>().unwrap() + 1;
                        match store.update(&a, now.revision, value(&next.to_string())).await {
                            Ok(_) => break,
                            Err(Error::Conflict { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(text(&store.get(&a).await.unwrap().unwrap().value), "160");
}

#[tokio::test]
async fn a_maker_that_panics_fails_its_own_write_only() {
    let store = SqliteStore::in_memory().unwrap();
    for resource in ["/configmaps", "/events"] {
        let a = key(resource, "", "a");
        let failed = store.create(&a, Box::new(|_| panic!("on purpose"))).await;
        assert!(matches!(failed, Err(Error::Database(_))));
        create(&store, &a, "x").await.unwrap();
    }
}

#[tokio::test]
async fn unused_pages_are_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        history_count: 8,
        ..Options::default()
    };
    let store = SqliteStore::open(directory.path().join("site.db"), options).unwrap();
    let big = "x".repeat(100_000);
    let mut entries = Vec::new();
    for i in 0..60 {
        entries.push(
            create(&store, &key("/configmaps", "", &i.to_string()), &big)
                .await
                .unwrap(),
        );
    }
    let full = store.maintain().await.unwrap();
    for entry in entries {
        store.delete(&entry.key, entry.revision, value("")).await.unwrap();
    }
    for i in 0..20 {
        create(&store, &key("/configmaps", "", &i.to_string()), "small")
            .await
            .unwrap();
    }
    let after = store.maintain().await.unwrap();
    assert!(after.file_bytes < full.file_bytes / 2, "{full:?} {after:?}");
    store.check().await.unwrap();
}

#[tokio::test]
async fn waiting_for_a_change_takes_no_time_of_its_own() {
    let store = SqliteStore::in_memory().unwrap();
    let mut watch = store.watch("/configmaps", 0).unwrap();
    let nothing = tokio::time::timeout(Duration::from_millis(20), watch.next()).await;
    assert!(nothing.is_err());
}
