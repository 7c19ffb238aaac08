//! A list and the watch from its revision together always show what a later list shows.

use std::{collections::BTreeMap, time::Duration};

use apiserver::{
    Api,
    api::{DeleteOptions, ListOptions, ObjectWatch, Patch, Target, WatchItem, WatchKind, WatchOptions},
};
use kinds::gvr;
use proptest::prelude::*;
use serde_json::{Value, json};
use store::Options;

use super::common::*;

#[derive(Clone, Debug)]
enum Step {
    /// Makes an object or gives it a label and a value.
    Write(u8, u8, u8),
    Delete(u8),
}

const SELECTORS: [(&str, &str); 6] = [
    ("", ""),
    ("app=l1", ""),
    ("app in (l1,l2),app!=l2", ""),
    ("!app", ""),
    ("", "metadata.name=c1"),
    ("app", "metadata.name!=c1"),
];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4u8, 0..4u8, 0..3u8).prop_map(|(name, label, value)| Step::Write(name, label, value)),
        1 => (0..4u8).prop_map(Step::Delete),
    ]
}

async fn carry_out(api: &Api, step: &Step) {
    let gvr = gvr::config_maps();
    match step {
        Step::Write(name, label, value) => {
            let (name, label) = (format!("c{name}"), (*label > 0).then(|| format!("l{label}")));
            let body = json!({"metadata": {"labels": {"app": label}}, "data": {"v": value.to_string()}});
            if let Err(status) = patch(api, &name, Patch::Merge(body.clone()), "test").await {
                assert!(status.is_not_found(), "{status}");
                let mut object = config_map(&name, body["data"].clone());
                if label.is_some() {
                    object["metadata"]["labels"] = body["metadata"]["labels"].clone();
                }
                create(api, &object).await.unwrap();
            }
        }
        Step::Delete(name) => {
            let name = format!("c{name}");
            let outcome = api
                .delete(
                    &admin(),
                    Target::new(&gvr, "ns", &name),
                    &DeleteOptions::default(),
                )
                .await;
            assert!(
                outcome.is_ok_and(|d| d.gone)
                    || api.get(&admin(), Target::new(&gvr, "ns", &name)).await.is_err()
            );
        }
    }
}

async fn listed(api: &Api, selector: (&str, &str)) -> (BTreeMap<String, Value>, u64) {
    let options = ListOptions {
        label_selector: selector.0.into(),
        field_selector: selector.1.into(),
        ..ListOptions::default()
    };
    let page = api
        .list(&admin(), &gvr::config_maps(), Some("ns"), &options)
        .await
        .unwrap();
    let named = page
        .items
        .into_iter()
        .map(|object| (kinds::object::name(&object).to_owned(), object));
    (named.collect(), page.revision)
}

async fn run(before: Vec<Step>, after: Vec<Step>) {
    // So few recent changes that some watches read the history.
    let api = api_with(Options {
        recent_count: 5,
        ..Options::default()
    });
    api.ensure_namespaces(&["ns"]).await.unwrap();
    for step in &before {
        carry_out(&api, step).await;
    }
    let mut starts = Vec::new();
    for selector in SELECTORS {
        starts.push(listed(&api, selector).await);
    }
    for step in &after {
        carry_out(&api, step).await;
    }
    for (selector, (mut state, revision)) in SELECTORS.into_iter().zip(starts) {
        let options = WatchOptions {
            label_selector: selector.0.into(),
            field_selector: selector.1.into(),
            resource_version: revision.to_string(),
            bookmarks: true,
            ..WatchOptions::default()
        };
        let mut watch = api
            .watch(&admin(), &gvr::config_maps(), Some("ns"), &options)
            .await
            .unwrap();
        let (expected, newest) = listed(&api, selector).await;
        let mut last = revision;
        let reached = |watch: &mut ObjectWatch| {
            let bookmark: Value = serde_json::from_slice(&watch.bookmark()?.object).unwrap();
            Some(kinds::object::revision(&bookmark))
        };
        // A level to wait for: the watch has given out everything when its bookmark names the newest revision.
        while reached(&mut watch).is_none_or(|revision| revision < newest) {
            let Some(item) = next_or_nothing(&mut watch).await else {
                continue;
            };
            let object: Value = serde_json::from_slice(&item.object).unwrap();
            let name = kinds::object::name(&object).to_owned();
            assert!(kinds::object::revision(&object) > last, "revisions rise");
            last = kinds::object::revision(&object);
            match item.kind {
                WatchKind::Added => assert!(state.insert(name, object).is_none(), "added twice"),
                WatchKind::Modified => assert!(state.insert(name, object).is_some(), "changed but not there"),
                WatchKind::Deleted => assert!(state.remove(&name).is_some(), "gone but not there"),
                WatchKind::Bookmark | WatchKind::Error => panic!("{object}"),
            }
        }
        assert_eq!(state, expected, "{selector:?}");
    }
}

/// The next event, or none when the watch only moved on: what a selection leaves out wakes nobody.
async fn next_or_nothing(watch: &mut ObjectWatch) -> Option<WatchItem> {
    tokio::time::timeout(Duration::from_millis(5), watch.next())
        .await
        .ok()
        .flatten()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn list_and_watch_agree(
        before in proptest::collection::vec(step(), 0..12),
        after in proptest::collection::vec(step(), 0..25),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(run(before, after));
    }
}
