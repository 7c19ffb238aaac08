//! The host's own source as an orchestrator assigns it: variables, a pinned commit, another repository, none.

use std::collections::BTreeMap;

use gitops::{BootstrapSource, Origin};
use kinds::flux::GitRef;
use serde_json::json;

use super::common::{Repo, Site, config_map};

fn assigned(repo: &Repo) -> BootstrapSource {
    BootstrapSource {
        url: repo.url(),
        path: "./site".into(),
        interval: "1h".into(),
        origin: Origin::Assignment,
        ..BootstrapSource::default()
    }
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
}

const NAME: &str = "selvedge-site";

#[tokio::test(flavor = "multi_thread")]
async fn variables_reach_the_folder_and_scripts_stay_whole_without_any() {
    let repo = Repo::new();
    let text = config_map("a", "${CITY:=none} ${PIN} ${SELVEDGE_HOST}");
    let commit = repo.write("site/a.yaml", &text).push();
    let site = Site::start().await;
    let facts = BootstrapSource {
        facts: pairs(&[("SELVEDGE_HOST", "till-1")]),
        ..assigned(&repo)
    };
    assert!(gitops::bootstrap(&site.client, &facts).await.unwrap());
    site.applied(NAME, &commit).await;
    let value = |object: serde_json::Value| object["data"]["k"].as_str().unwrap().to_owned();
    assert_eq!(
        value(site.config_map("a").await.unwrap()),
        "${CITY:=none} ${PIN} ${SELVEDGE_HOST}"
    );

    let all = BootstrapSource {
        variables: pairs(&[("CITY", "Bonn")]),
        secret_variables: pairs(&[("PIN", "1234")]),
        ..facts
    };
    assert!(gitops::bootstrap(&site.client, &all).await.unwrap());
    site.wait("ConfigMap", "default", "a", "substituted", |o| {
        o["data"]["k"] == "Bonn 1234 till-1"
    })
    .await;
    assert!(
        !gitops::bootstrap(&site.client, &all).await.unwrap(),
        "nothing changed"
    );
    let secret = site
        .get("Secret", "flux-system", gitops::VARIABLES)
        .await
        .unwrap();
    assert_eq!(secret["data"], json!({"PIN": "MTIzNA=="}));
    let open = site
        .get("ConfigMap", "flux-system", gitops::VARIABLES)
        .await
        .unwrap();
    assert!(!open.to_string().contains("1234"), "{open}");

    gitops::bootstrap(&site.client, &assigned(&repo)).await.unwrap();
    assert!(
        site.get("Secret", "flux-system", gitops::VARIABLES)
            .await
            .is_none()
    );
    assert!(
        site.get("ConfigMap", "flux-system", gitops::VARIABLES)
            .await
            .is_none()
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_commit_stays_and_goes_where_it_is_told() {
    let repo = Repo::new();
    let first = repo.write("site/a.yaml", &config_map("a", "1")).push();
    let second = repo.write("site/a.yaml", &config_map("a", "2")).push();
    let third = repo.write("site/a.yaml", &config_map("a", "3")).push();
    let site = Site::start().await;
    let pinned = |commit: &str| BootstrapSource {
        reference: GitRef {
            branch: Some("main".into()),
            commit: Some(commit.into()),
            ..GitRef::default()
        },
        ..assigned(&repo)
    };
    // Not the head of the branch, on a server that gives out only heads unless asked otherwise.
    for commit in [&second, &third, &first] {
        gitops::bootstrap(&site.client, &pinned(commit)).await.unwrap();
        site.applied(NAME, commit).await;
    }
    // A push moves nothing, however often it is looked.
    let fourth = repo.write("site/a.yaml", &config_map("a", "4")).push();
    site.fetch_now();
    let object = site.applied(NAME, &first).await;
    assert!(!object["status"].to_string().contains(&fourth));
    assert_eq!(site.config_map("a").await.unwrap()["data"]["k"], "1");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_moves_to_where_nothing_can_be_had_keeps_what_it_has() {
    let repo = Repo::new();
    repo.write("other/b.yaml", &config_map("b", "1"));
    let commit = repo.write("site/a.yaml", &config_map("a", "1")).push();
    let site = Site::start().await;
    gitops::bootstrap(&site.client, &assigned(&repo)).await.unwrap();
    site.applied(NAME, &commit).await;
    // The new folder happens to be in the old repository too: it is not what is meant.
    let moved = BootstrapSource {
        url: "file:///nowhere/at/all.git".into(),
        path: "./other".into(),
        ..assigned(&repo)
    };
    gitops::bootstrap(&site.client, &moved).await.unwrap();
    let why = site
        .ready_is("Kustomization", NAME, "False", "ArtifactFailed")
        .await;
    assert!(
        why.contains("/nowhere/at/all.git") && why.contains("stays in force"),
        "{why}"
    );
    assert!(site.config_map("a").await.is_some());
    assert!(site.config_map("b").await.is_none());
    let object = site.get("Kustomization", "flux-system", NAME).await.unwrap();
    assert!(
        object["status"]["lastAppliedRevision"]
            .as_str()
            .unwrap()
            .ends_with(&commit)
    );
    // Back to where it was.
    gitops::bootstrap(&site.client, &assigned(&repo)).await.unwrap();
    site.applied(NAME, &commit).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_nobody_names_any_more_is_not_fetched_and_its_objects_stay() {
    let repo = Repo::new();
    let first = repo.write("site/a.yaml", &config_map("a", "1")).push();
    let site = Site::start().await;
    assert!(!gitops::suspend(&site.client).await.unwrap(), "there is none yet");
    gitops::bootstrap(&site.client, &assigned(&repo)).await.unwrap();
    site.applied(NAME, &first).await;

    assert!(gitops::suspend(&site.client).await.unwrap());
    let why = site.ready_is("GitRepository", NAME, "True", "Suspended").await;
    assert!(why.contains(&first) && why.contains("stays in force"), "{why}");
    let second = repo.write("site/a.yaml", &config_map("a", "2")).push();
    site.fetch_now();
    // What somebody changes is put right as before.
    let mut object = site.config_map("a").await.unwrap();
    object["data"]["k"] = "mine".into();
    site.write_as(&super::common::break_glass(), &object).await;
    site.wait("ConfigMap", "default", "a", "as the first commit says", |o| {
        o["data"]["k"] == "1"
    })
    .await;

    gitops::bootstrap(&site.client, &assigned(&repo)).await.unwrap();
    site.applied(NAME, &second).await;
    site.stop().await;
}
