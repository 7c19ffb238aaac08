//! Random writes against a model: every past state that is kept can be listed, page by page, and a watch from
//! any revision that is kept gives exactly the changes since.

use std::collections::BTreeMap;

use super::common::{all, key, text, value};
use proptest::prelude::*;
use store::{Ephemeral, Error, ListQuery, Options, SqliteStore, Store};

#[derive(Clone, Debug)]
enum Step {
    Write { resource: usize, name: u8 },
    Delete { resource: usize, name: u8 },
    Reopen,
    Maintain,
}

const RESOURCES: [&str; 3] = ["/configmaps", "/secrets", "/events"];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..3usize, 0..12u8).prop_map(|(resource, name)| Step::Write { resource, name }),
        5 => (0..3usize, 0..12u8).prop_map(|(resource, name)| Step::Delete { resource, name }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Maintain),
    ]
}

type Names = BTreeMap<(String, String), (u64, String)>;

/// What happened, by revision: the resource, the name, and the text (none for a deletion).
struct Happened {
    revision: u64,
    resource: usize,
    name: (String, String),
    text: Option<String>,
}

#[derive(Default)]
struct Model {
    log: Vec<Happened>,
    /// Ephemeral objects and changes before this revision were lost with a restart.
    restarted: u64,
}

impl Model {
    fn state(&self, resource: usize, at: u64) -> Names {
        let mut names = Names::new();
        let lost = if resource == 2 { self.restarted } else { 0 };
        for h in self
            .log
            .iter()
            .filter(|h| h.resource == resource && h.revision <= at && h.revision > lost)
        {
            match &h.text {
                Some(text) => names.insert(h.name.clone(), (h.revision, text.clone())),
                None => names.remove(&h.name),
            };
        }
        names
    }
}

fn name(number: u8) -> (String, String) {
    (format!("ns{}", number % 3), format!("n{}", number / 3))
}

fn options() -> Options {
    Options {
        recent_count: 12,
        history_count: 24,
        ephemeral: vec![Ephemeral {
            max_count: 1000,
            ..Ephemeral::events()
        }],
        ..Options::default()
    }
}

async fn listed(store: &SqliteStore, resource: &str, at: u64, limit: usize) -> Result<Names, Error> {
    let mut names = Names::new();
    let mut after = None;
    loop {
        let page = store
            .list(ListQuery {
                limit,
                after: after.take(),
                at: Some(at),
                ..all(resource)
            })
            .await?;
        assert_eq!(page.revision, at);
        for entry in page.entries {
            after = Some((entry.key.namespace.clone(), entry.key.name.clone()));
            names.insert(
                (entry.key.namespace, entry.key.name),
                (entry.revision, text(&entry.value)),
            );
        }
        if !page.more {
            return Ok(names);
        }
    }
}

async fn verify(store: &SqliteStore, model: &Model) {
    let newest = store.revision();
    for (number, resource) in RESOURCES.iter().enumerate() {
        assert_eq!(
            listed(store, resource, newest, 0).await.unwrap(),
            model.state(number, newest)
        );
        let mut kept = 0;
        for at in 0..=newest.min(200) {
            let at = newest - at;
            match listed(store, resource, at, 3).await {
                Ok(names) => {
                    assert_eq!(names, model.state(number, at), "{resource} at {at}");
                    kept += 1;
                }
                Err(Error::TooOld { .. }) => break,
                Err(error) => panic!("{error}"),
            }
            let Ok(mut watch) = store.watch(resource, at) else {
                break;
            };
            let lost = if number == 2 { model.restarted } else { 0 };
            for h in model
                .log
                .iter()
                .filter(|h| h.resource == number && h.revision > at.max(lost))
            {
                let change = watch.next().await.expect("a change that is kept");
                let had = model
                    .state(number, h.revision - 1)
                    .get(&h.name)
                    .map(|(_, text)| text.clone());
                assert_eq!(change.revision, h.revision);
                assert_eq!((change.key.namespace.clone(), change.key.name.clone()), h.name);
                assert_eq!(change.deleted, h.text.is_none());
                assert_eq!(change.previous.as_ref().map(|p| text(p)), had);
                assert_eq!(
                    text(&change.value),
                    h.text.clone().unwrap_or_else(|| "gone".into())
                );
            }
        }
        assert!(kept > 0);
    }
}

async fn run(steps: Vec<Step>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("site.db");
    let mut store = SqliteStore::open(&path, options()).unwrap();
    let mut model = Model::default();
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Write { resource, name: n } => {
                let (namespace, n) = name(n);
                let key = key(RESOURCES[resource], &namespace, &n);
                let content = number.to_string();
                let entry = match store.get(&key).await.unwrap() {
                    Some(old) => store.update(&key, old.revision, value(&content)).await.unwrap(),
                    None => store.create(&key, value(&content)).await.unwrap(),
                };
                let name = (namespace, n);
                model.log.push(Happened {
                    revision: entry.revision,
                    resource,
                    name,
                    text: Some(content),
                });
            }
            Step::Delete { resource, name: n } => {
                let (namespace, n) = name(n);
                let key = key(RESOURCES[resource], &namespace, &n);
                let Some(old) = store.get(&key).await.unwrap() else {
                    continue;
                };
                let entry = store.delete(&key, old.revision, value("gone")).await.unwrap();
                let name = (namespace, n);
                model.log.push(Happened {
                    revision: entry.revision,
                    resource,
                    name,
                    text: None,
                });
            }
            Step::Reopen => {
                let before = store.revision();
                drop(store);
                store = SqliteStore::open(&path, options()).unwrap();
                assert!(store.revision() >= before, "revisions never go backwards");
                model.restarted = store.revision();
            }
            Step::Maintain => {
                store.maintain().await.unwrap();
            }
        }
    }
    verify(&store, &model).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_the_model(steps in proptest::collection::vec(step(), 1..90)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}
