use std::{collections::BTreeMap, sync::Arc};

use apiserver::Api;
use kinds::{gvr, registry::Registry};
use store::SqliteStore;
use telemetry::Clock;

use super::*;

async fn client() -> Client {
    let store = Arc::new(SqliteStore::in_memory().unwrap());
    let api = Api::new(Arc::new(Registry::builtin()), store, Clock::system());
    api.ensure_namespaces(&["flux-system"]).await.unwrap();
    Client::new(api, gitops::MANAGER)
}

fn open(client: &Client, state: &Path, own: Option<BootstrapSource>) -> Assignments {
    Assignments::open(state, client.clone(), reconcile::queue().0, own, true)
}

fn kept(generation: u64, change: impl FnOnce(&mut Assignment)) -> Kept {
    let mut assignment = Assignment {
        tenant: "acme".into(),
        site: "shop".into(),
        host: "till".into(),
        labels: BTreeMap::from([("region/eu".into(), "west".into())]),
        source: Some(Source {
            url: "https://git.example/sites.git".into(),
            branch: "main".into(),
            path: "shop".into(),
            username: Some("u".into()),
            password: Some("very secret".into()),
            ..Source::default()
        }),
        target: Target::Pinned {
            commit: "a".repeat(40),
        },
        ..Assignment::default()
    };
    change(&mut assignment);
    Kept {
        host_id: "h1".into(),
        generation,
        assignment,
    }
}

async fn repository(client: &Client) -> serde_json::Value {
    let found = client
        .get(&gvr::git_repositories(), gitops::NAMESPACE, gitops::NAME)
        .await;
    found.unwrap().unwrap_or_default()
}

#[tokio::test]
async fn it_is_on_disk_and_in_force_and_again_after_a_restart() {
    let (dir, first) = (tempfile::tempdir().unwrap(), client().await);
    let assignments = open(&first, dir.path(), None);
    assert_eq!(assignments.take(kept(4, |_| {})).await, Taken::New);
    assert_eq!(assignments.take(kept(4, |_| {})).await, Taken::Known);
    let file = dir.path().join("orchestrator/assignment.json");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    // Another store, as if the power had gone before the objects were made.
    let second = client().await;
    let again = open(&second, dir.path(), None);
    again.enforce().await.unwrap();
    let repository = repository(&second).await;
    let commit = "a".repeat(40);
    assert_eq!(
        repository["spec"]["ref"],
        serde_json::json!({"branch": "main", "commit": commit})
    );
    assert_eq!(again.kept().await.unwrap().generation, 4);
    let facts = second
        .get(&gvr::config_maps(), gitops::NAMESPACE, gitops::VARIABLES)
        .await;
    let facts = facts.unwrap().unwrap();
    assert_eq!(facts["data"]["SELVEDGE_HOST"], "till");
    assert_eq!(facts["data"]["SELVEDGE_LABEL_REGION_EU"], "west");
}

#[tokio::test]
async fn an_older_one_never_overrides_a_newer_one() {
    let (dir, client) = (tempfile::tempdir().unwrap(), client().await);
    let assignments = open(&client, dir.path(), None);
    assert_eq!(assignments.take(kept(4, |_| {})).await, Taken::New);
    // As an orchestrator that was restored from a backup would send.
    for (generation, word) in [(3, "older"), (4, "higher")] {
        let other = kept(generation, |a| a.target = Target::Follow);
        let Taken::Refused(why) = assignments.take(other).await else {
            panic!("{generation} was taken")
        };
        assert!(why.contains(word), "{why}");
    }
    assert!(repository(&client).await["spec"]["ref"]["commit"].is_string());
    // Enrolled anew it has other generations.
    let anew = Kept {
        host_id: "h2".into(),
        ..kept(1, |a| a.target = Target::Follow)
    };
    assert_eq!(assignments.take(anew).await, Taken::New);
    assert!(repository(&client).await["spec"]["ref"]["commit"].is_null());
}

#[tokio::test]
async fn what_can_not_be_is_refused_and_the_one_before_stays() {
    let (dir, client) = (tempfile::tempdir().unwrap(), client().await);
    let assignments = open(&client, dir.path(), None);
    assert_eq!(assignments.take(kept(1, |_| {})).await, Taken::New);
    let mut generation = 1;
    let mut refused = async |word: &str, change: &dyn Fn(&mut Assignment)| {
        generation += 1;
        let Taken::Refused(why) = assignments.take(kept(generation, change)).await else {
            panic!("{word} was taken")
        };
        assert!(why.contains(word), "{why}");
        assert!(!why.contains("very secret"), "{why}");
    };
    refused("name of a variable", &|a| {
        a.variables.insert("a-b".into(), String::new());
    })
    .await;
    refused("source.url", &|a| {
        a.source.as_mut().unwrap().url = "ftp://x".into();
    })
    .await;
    refused("leaves the repository", &|a| {
        a.source.as_mut().unwrap().path = "../x".into();
    })
    .await;
    refused("interval", &|a| {
        a.source.as_mut().unwrap().interval = "often".into();
    })
    .await;
    let short = |a: &mut Assignment| a.target = Target::Pinned { commit: "abc".into() };
    refused("commit", &short).await;
    assert_eq!(assignments.kept().await.unwrap().generation, 1);
    assert_eq!(
        open(&client, dir.path(), None).kept().await.unwrap().generation,
        1
    );
}

#[tokio::test]
async fn host_toml_wins_and_without_both_nothing_is_fetched() {
    let (dir, client) = (tempfile::tempdir().unwrap(), client().await);
    let own = BootstrapSource {
        url: "https://mine.example/site.git".into(),
        ..BootstrapSource::default()
    };
    let both = open(&client, dir.path(), Some(own));
    assert_eq!(
        both.take(kept(1, |a| drop(
            a.variables.insert("CITY".into(), "Bonn".into())
        )))
        .await,
        Taken::New
    );
    assert_eq!(both.origin().await, SourceFrom::HostToml);
    assert_eq!(
        repository(&client).await["spec"]["url"],
        "https://mine.example/site.git"
    );
    let variables = client
        .get(&gvr::config_maps(), gitops::NAMESPACE, gitops::VARIABLES)
        .await;
    assert_eq!(variables.unwrap().unwrap()["data"]["CITY"], "Bonn");

    // [source] is taken out of host.toml: the assignment counts.
    let assigned = open(&client, dir.path(), None);
    assigned.enforce().await.unwrap();
    assert_eq!(assigned.origin().await, SourceFrom::Assignment);
    assert_eq!(
        repository(&client).await["spec"]["url"],
        "https://git.example/sites.git"
    );

    // The site loses its repository at the orchestrator.
    assert_eq!(assigned.take(kept(2, |a| a.source = None)).await, Taken::New);
    assert_eq!(assigned.origin().await, SourceFrom::Nowhere);
    assert_eq!(repository(&client).await["spec"]["suspend"], true);
    assert_eq!(assigned.take(kept(3, |_| {})).await, Taken::New);
    assert!(repository(&client).await["spec"]["suspend"].is_null());

    // [orchestrator] goes too: what it assigned no longer counts, and what is there stays.
    let alone = Assignments::open(dir.path(), client.clone(), reconcile::queue().0, None, false);
    alone.enforce().await.unwrap();
    assert_eq!(repository(&client).await["spec"]["suspend"], true);
    assert_eq!(
        repository(&client).await["spec"]["url"],
        "https://git.example/sites.git"
    );
}

#[test]
fn a_damaged_file_counts_as_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("assignment.json");
    assert_eq!(read(&file), None);
    std::fs::write(&file, b"{\"hostId\": \"x\", \"gener").unwrap();
    assert_eq!(read(&file), None);
}

#[tokio::test]
async fn under_a_policy_nothing_moves_before_it_is_approved() {
    let (dir, client) = (tempfile::tempdir().unwrap(), client().await);
    let assignments = open(&client, dir.path(), None);
    let nothing = |a: &mut Assignment| {
        a.target = Target::Pinned {
            commit: String::new(),
        }
    };
    // A host that has nothing yet fetches nothing.
    assert_eq!(assignments.take(kept(1, nothing)).await, Taken::New);
    assert_eq!(repository(&client).await["spec"]["suspend"], true);
    // One that followed its branch stays where that was.
    assert_eq!(
        assignments.take(kept(2, |a| a.target = Target::Follow)).await,
        Taken::New
    );
    assert!(repository(&client).await["spec"]["suspend"].is_null());
    let here = "c".repeat(40);
    let status = serde_json::json!({"artifact": {"revision": format!("main@sha1:{here}"), "lastUpdateTime": "2026-01-01T00:00:00Z"}});
    client
        .set_status(&gvr::git_repositories(), gitops::NAMESPACE, gitops::NAME, status)
        .await
        .unwrap();
    assert_eq!(assignments.take(kept(3, nothing)).await, Taken::New);
    assert_eq!(repository(&client).await["spec"]["ref"]["commit"], here.as_str());
    // The commit of another repository is none of this one.
    let moved = |a: &mut Assignment| {
        nothing(a);
        a.source.as_mut().unwrap().url = "https://git.example/other.git".into();
    };
    assert_eq!(assignments.take(kept(4, moved)).await, Taken::New);
    assert_eq!(repository(&client).await["spec"]["suspend"], true);
}
