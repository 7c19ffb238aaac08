//! Sites: their life, and lists in pages.

use std::collections::BTreeSet;

use fleet::{Error, Query};
use serde_json::json;

use crate::support::both;

both!(a_site_lives, |s| {
    let site = s.site("berlin", "region=eu").await;
    assert_eq!((site.generation, site.reason.as_str()), (1, "it has no host yet"));
    let sites = s.fleet.sites();
    let patch = json!({"location": {"lat": 52.5, "lon": 13.4, "timezone": "Europe/Berlin"}, "labels": {"tier": "lab"}});
    let site = sites.update(&s.owner, "berlin", Some(1), &patch).await.unwrap();
    assert_eq!(site.labels.len(), 2);
    assert_eq!((site.generation, site.location.lat), (2, Some(52.5)));
    let stale = sites
        .update(&s.owner, "berlin", Some(1), &json!({"path": "a"}))
        .await;
    assert!(
        matches!(stale, Err(Error::Precondition { actual: 2, .. })),
        "{stale:?}"
    );
    // Nothing new is nothing written.
    let same = sites
        .update(&s.owner, &site.id, None, &json!({"labels": {"tier": "lab"}}))
        .await
        .unwrap();
    assert_eq!(same.generation, 2);
    for (bad, field) in [
        (
            json!({"location": {"timezone": "Mars/Olympus"}}),
            "location.timezone",
        ),
        (json!({"location": {"lat": 91.0}}), "location.lat"),
        (json!({"labels": {"a b": "c"}}), "labels.a b"),
        (json!({"path": "../x"}), "path"),
        (json!({"branch": "--upload-pack=x"}), "branch"),
        (json!({"repository": "none"}), "repository"),
        (json!({"policy": "none"}), "policy"),
        (json!({"variables": {"A-B": "c"}}), "variables.A-B"),
        (json!({"state": "healthy"}), "body"),
        (json!({"name": "paris"}), "name"),
    ] {
        match sites.update(&s.owner, "berlin", None, &bad).await {
            Err(Error::Invalid { field: at, .. }) => assert_eq!(at, field),
            other => panic!("{bad}: {other:?}"),
        }
    }
    let geo = sites.geo(&s.owner, &Query::default()).await.unwrap();
    assert_eq!((geo.len(), geo[0].2), (1, 52.5));
    sites.delete(&s.owner, "berlin", None).await.unwrap();
    assert!(matches!(
        sites.get(&s.owner, "berlin").await,
        Err(Error::NotFound { .. })
    ));
});

both!(pages_stay_right_while_rows_come_and_go, |s| {
    for n in 0..57 {
        s.site(&format!("site-{n:03}"), &format!("n={}", n % 3)).await;
        s.later(1);
    }
    for sort in ["name", "-name", "state", "-state", "updatedAt", "-updatedAt"] {
        let mut query = Query {
            limit: 10,
            sort: Some(sort.to_owned()),
            ..Query::default()
        };
        let mut seen = Vec::new();
        loop {
            let page = s.fleet.sites().list(&s.owner, &query).await.unwrap();
            assert_eq!(page.total, 57, "{sort}");
            seen.extend(page.items.into_iter().map(|site| site.name));
            match page.next {
                Some(next) => query.cursor = Some(next),
                None => break,
            }
        }
        let unique: BTreeSet<_> = seen.iter().collect();
        assert_eq!((seen.len(), unique.len()), (57, 57), "{sort}");
        if sort == "-name" {
            assert_eq!(seen[0], "site-056");
        }
    }
    // The row that a cursor stands on goes; the next page begins where it stood.
    let mut query = Query {
        limit: 10,
        ..Query::default()
    };
    let first = s.fleet.sites().list(&s.owner, &query).await.unwrap();
    s.fleet.sites().delete(&s.owner, "site-009", None).await.unwrap();
    query.cursor = first.next;
    let second = s.fleet.sites().list(&s.owner, &query).await.unwrap();
    assert_eq!(second.items[0].name, "site-010");
    // A cursor of another order is refused, as is any other text.
    query.sort = Some("state".to_owned());
    assert!(matches!(
        s.fleet.sites().list(&s.owner, &query).await,
        Err(Error::Invalid { .. })
    ));
    // Filters.
    let count = |query: Query| {
        let (fleet, owner) = (s.fleet.clone(), s.owner.clone());
        async move { fleet.sites().list(&owner, &query).await.unwrap().total }
    };
    let of = |selector: &str| Query {
        selector: Some(selector.to_owned()),
        ..Query::default()
    };
    assert_eq!(count(of("n=0")).await, 18);
    assert_eq!(count(of("n in (1,2)")).await, 38);
    assert_eq!(count(of("n!=0,site!=x")).await, 38);
    assert_eq!(count(of("!n")).await, 0);
    let text = |q: &str| Query {
        q: Some(q.to_owned()),
        ..Query::default()
    };
    assert_eq!(count(text("SITE-01")).await, 10);
    assert_eq!(count(text("n=1 site-0")).await, 19);
    assert_eq!(count(text("100%_\\")).await, 0);
});
