use apiserver::{
    Api,
    api::{DeleteOptions, ObjectWatch, Patch, Target, WatchKind, WatchOptions},
};
use kinds::{Gvr, gvr};
use serde_json::{Value, json};
use store::Options;

use super::common::*;

async fn watch(api: &Api, gvr: &Gvr, options: WatchOptions) -> ObjectWatch {
    api.watch(&admin(), gvr, Some("ns"), &options).await.unwrap()
}

async fn next(watch: &mut ObjectWatch) -> (WatchKind, Value) {
    let item = watch.next().await.expect("an event");
    (item.kind, serde_json::from_slice(&item.object).unwrap())
}

/// Type and name of the next events.
async fn names(watch: &mut ObjectWatch, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    for _ in 0..count {
        let (kind, object) = next(watch).await;
        seen.push(format!(
            "{} {}",
            kind.as_str(),
            object["metadata"]["name"].as_str().unwrap_or("-")
        ));
    }
    seen
}

async fn label(api: &Api, name: &str, value: Value) {
    patch(
        api,
        name,
        Patch::Merge(json!({"metadata": {"labels": {"app": value}}})),
        "test",
    )
    .await
    .unwrap();
}

async fn delete(api: &Api, name: &str) {
    api.delete(
        &admin(),
        Target::new(&gvr::config_maps(), "ns", name),
        &DeleteOptions::default(),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn changes_from_a_revision() {
    let api = api().await;
    create(&api, &config_map("before", json!({}))).await.unwrap();
    let from = api.revision().to_string();
    let mut watch = watch(
        &api,
        &gvr::config_maps(),
        WatchOptions {
            resource_version: from,
            ..Default::default()
        },
    )
    .await;
    create(&api, &config_map("a", json!({}))).await.unwrap();
    label(&api, "a", "x".into()).await;
    let mut elsewhere = config_map("elsewhere", json!({}));
    elsewhere["metadata"]["namespace"] = "default".into();
    create(&api, &elsewhere).await.unwrap();
    delete(&api, "a").await;
    delete(&api, "before").await;
    assert_eq!(
        names(&mut watch, 4).await,
        ["ADDED a", "MODIFIED a", "DELETED a", "DELETED before"]
    );
}

#[tokio::test]
async fn entering_and_leaving_a_selection() {
    let api = api().await;
    let options = WatchOptions {
        label_selector: "app=web".into(),
        resource_version: api.revision().to_string(),
        ..Default::default()
    };
    let mut watch = watch(&api, &gvr::config_maps(), options).await;
    create(&api, &config_map("a", json!({}))).await.unwrap();
    label(&api, "a", "web".into()).await;
    patch(&api, "a", Patch::Merge(json!({"data": {"k": "v"}})), "test")
        .await
        .unwrap();
    label(&api, "a", "db".into()).await;
    let left = api.revision();
    label(&api, "a", "other".into()).await;
    label(&api, "a", "web".into()).await;
    delete(&api, "a").await;
    assert_eq!(names(&mut watch, 2).await, ["ADDED a", "MODIFIED a"]);
    let (kind, object) = next(&mut watch).await;
    assert_eq!(kind, WatchKind::Deleted);
    assert_eq!(
        object["metadata"]["labels"]["app"], "web",
        "as it was when it was in"
    );
    assert_eq!(
        object["metadata"]["resourceVersion"],
        left.to_string(),
        "with the revision of now"
    );
    assert_eq!(names(&mut watch, 2).await, ["ADDED a", "DELETED a"]);
}

#[tokio::test]
async fn fields_and_names_are_selected() {
    let api = api().await;
    let from = api.revision().to_string();
    let options = |fields: &str| WatchOptions {
        field_selector: fields.into(),
        resource_version: from.clone(),
        ..Default::default()
    };
    let mut by_name = watch(&api, &gvr::config_maps(), options("metadata.name=b")).await;
    let mut by_state = watch(
        &api,
        &gvr::virtual_machines(),
        options("spec.powerState!=poweredOn"),
    )
    .await;
    for name in ["a", "b"] {
        create(&api, &config_map(name, json!({}))).await.unwrap();
    }
    let mut vm = create(&api, &machine("vm")).await.unwrap().object;
    vm["spec"]["powerState"] = "poweredOff".into();
    update(&api, &vm).await.unwrap();
    assert_eq!(names(&mut by_name, 1).await, ["ADDED b"]);
    assert_eq!(names(&mut by_state, 1).await, ["ADDED vm"]);
}

/// `resourceVersion`, its match, `sendInitialEvents`, bookmarks; what comes, or the code of the refusal.
type Row<'a> = (&'a str, &'a str, Option<bool>, bool, Result<&'a [&'a str], u16>);

#[tokio::test]
async fn where_a_watch_starts() {
    let api = api().await;
    create(&api, &config_map("a", json!({}))).await.unwrap();
    create(&api, &config_map("b", json!({}))).await.unwrap();
    let then = api.revision().to_string();
    // resourceVersion, match, sendInitialEvents, bookmarks: the events before the next change.
    let all = ["ADDED a", "ADDED b"];
    let marked = ["ADDED a", "ADDED b", "BOOKMARK -"];
    let table: [Row<'_>; 12] = [
        ("", "", None, false, Ok(&all)),
        ("0", "", None, true, Ok(&all)),
        (&then, "", None, false, Ok(&[])),
        ("", "NotOlderThan", Some(true), true, Ok(&marked)),
        ("0", "NotOlderThan", Some(true), true, Ok(&marked)),
        (&then, "NotOlderThan", Some(true), true, Ok(&marked)),
        ("", "NotOlderThan", Some(false), true, Ok(&[])),
        (&then, "NotOlderThan", Some(false), true, Ok(&[])),
        ("", "", Some(true), true, Err(422)),
        ("", "Exact", Some(true), true, Err(422)),
        (&then, "NotOlderThan", None, true, Err(422)),
        ("x", "", None, true, Err(400)),
    ];
    for (number, (revision, how, initial, bookmarks, expected)) in table.into_iter().enumerate() {
        let options = WatchOptions {
            resource_version: revision.into(),
            resource_version_match: how.into(),
            send_initial_events: initial,
            bookmarks,
            ..WatchOptions::default()
        };
        let started = api
            .watch(&admin(), &gvr::config_maps(), Some("ns"), &options)
            .await;
        let mut watch = match (started, expected) {
            (Ok(watch), Ok(_)) => watch,
            (Err(status), Err(code)) => {
                assert_eq!(status.code, code, "row {number}");
                continue;
            }
            (Ok(_), Err(_)) => panic!("row {number} was not refused"),
            (Err(status), Ok(_)) => panic!("row {number}: {status}"),
        };
        let expected = expected.unwrap();
        label(&api, "a", number.to_string().into()).await;
        let seen = names(&mut watch, expected.len() + 1).await;
        assert_eq!(seen[..expected.len()], *expected, "row {number}");
        assert_eq!(seen[expected.len()], "MODIFIED a", "row {number}");
    }
}

#[tokio::test]
async fn bookmarks_name_the_revision_that_was_reached() {
    let api = api().await;
    create(&api, &config_map("a", json!({}))).await.unwrap();
    let options = WatchOptions {
        resource_version_match: "NotOlderThan".into(),
        send_initial_events: Some(true),
        bookmarks: true,
        ..WatchOptions::default()
    };
    let at = api.revision().to_string();
    let mut watch = watch(&api, &gvr::config_maps(), options).await;
    assert!(
        watch.bookmark().is_none(),
        "not before the initial events are out"
    );
    assert_eq!(names(&mut watch, 1).await, ["ADDED a"]);
    assert!(watch.bookmark().is_none());
    let (kind, end) = next(&mut watch).await;
    assert_eq!(kind, WatchKind::Bookmark);
    assert_eq!(
        end["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    assert_eq!(
        (
            &end["kind"],
            &end["apiVersion"],
            &end["metadata"]["resourceVersion"]
        ),
        (&"ConfigMap".into(), &"v1".into(), &at.into())
    );
    // Another resource's writes move it on; its own only when they were given out.
    create(&api, &machine("vm")).await.unwrap();
    let bookmark = watch.bookmark().unwrap();
    let bookmark: Value = serde_json::from_slice(&bookmark.object).unwrap();
    let reached = api.revision().to_string();
    assert_eq!(bookmark["metadata"]["resourceVersion"], reached);
    assert!(bookmark["metadata"].get("annotations").is_none());
    create(&api, &config_map("b", json!({}))).await.unwrap();
    let bookmark: Value = serde_json::from_slice(&watch.bookmark().unwrap().object).unwrap();
    assert_eq!(
        bookmark["metadata"]["resourceVersion"], reached,
        "b was not given out yet"
    );
    assert_eq!(names(&mut watch, 1).await, ["ADDED b"]);
    let bookmark: Value = serde_json::from_slice(&watch.bookmark().unwrap().object).unwrap();
    assert_eq!(
        bookmark["metadata"]["resourceVersion"],
        api.revision().to_string()
    );
}

#[tokio::test]
async fn no_bookmarks_for_those_who_asked_for_none() {
    let api = api().await;
    let mut watch = watch(
        &api,
        &gvr::config_maps(),
        WatchOptions {
            resource_version: "1".into(),
            ..Default::default()
        },
    )
    .await;
    assert!(watch.bookmark().is_none());
}

#[tokio::test]
async fn too_old_is_an_event_and_the_end() {
    let api = api_with(Options {
        history_count: 8,
        recent_count: 4,
        ..Options::default()
    });
    api.ensure_namespaces(&["ns"]).await.unwrap();
    create(&api, &config_map("c", json!({}))).await.unwrap();
    let from = WatchOptions {
        resource_version: api.revision().to_string(),
        ..WatchOptions::default()
    };
    let slow = watch(&api, &gvr::config_maps(), from.clone()).await;
    for n in 0..40 {
        label(&api, "c", n.to_string().into()).await;
    }
    let future = WatchOptions {
        resource_version: "100000".into(),
        ..WatchOptions::default()
    };
    for mut watch in [
        slow,
        watch(&api, &gvr::config_maps(), from).await,
        watch(&api, &gvr::config_maps(), future).await,
    ] {
        let (kind, status) = next(&mut watch).await;
        assert_eq!(kind, WatchKind::Error);
        assert_eq!(
            (&status["kind"], &status["code"], &status["reason"]),
            (&"Status".into(), &410.into(), &"Expired".into())
        );
        assert!(watch.next().await.is_none());
    }
}

#[tokio::test]
async fn many_initial_objects_come_in_pages() {
    let api = api().await;
    for n in 0..450 {
        create(&api, &config_map(&format!("c{n:03}"), json!({})))
            .await
            .unwrap();
    }
    let options = WatchOptions {
        send_initial_events: Some(true),
        bookmarks: true,
        resource_version_match: "NotOlderThan".into(),
        ..Default::default()
    };
    let mut watch = watch(&api, &gvr::config_maps(), options).await;
    // Changes during the initial events come after them.
    assert_eq!(names(&mut watch, 1).await, ["ADDED c000"]);
    delete(&api, "c449").await;
    let seen = names(&mut watch, 451).await;
    assert_eq!(
        (seen[448].as_str(), seen[449].as_str(), seen[450].as_str()),
        ("ADDED c449", "BOOKMARK -", "DELETED c449")
    );
}

#[tokio::test]
async fn watches_of_another_version_are_converted() {
    let api = api().await;
    let old = Gvr::new("source.toolkit.fluxcd.io/v1beta2", "gitrepositories");
    let mut watch = watch(
        &api,
        &old,
        WatchOptions {
            resource_version: api.revision().to_string(),
            ..Default::default()
        },
    )
    .await;
    let repository = json!({
        "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository",
        "metadata": {"name": "site", "namespace": "ns"}, "spec": {"url": "https://git.example/site", "interval": "1m"},
    });
    create(&api, &repository).await.unwrap();
    assert_eq!(
        next(&mut watch).await.1["apiVersion"],
        "source.toolkit.fluxcd.io/v1beta2"
    );
}
