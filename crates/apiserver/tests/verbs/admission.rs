use std::sync::{Arc, Mutex};

use apiserver::{
    Api, Caller, Client,
    admission::{Audit, Decision, FileAudit, GitOwned, Record},
    api::{DeleteOptions, Patch, Target, WriteOptions},
};
use kinds::gvr;
use serde_json::{Value, json};

use super::common::*;

#[derive(Default)]
struct Kept(Mutex<Vec<Record>>);

#[async_trait::async_trait]
impl Audit for Kept {
    async fn record(&self, record: Record) {
        self.0.lock().unwrap().push(record);
    }
}

fn glass_breaker() -> Caller {
    Caller {
        user: "selvedge-break-glass".into(),
        groups: vec!["system:masters".into(), "selvedge:break-glass".into()],
        ..Caller::default()
    }
}

fn owned(name: &str, data: Value) -> Value {
    let mut object = config_map(name, data);
    object["metadata"]["labels"] =
        json!({"kustomize.toolkit.fluxcd.io/name": "site", "kustomize.toolkit.fluxcd.io/namespace": "ns"});
    object["metadata"]["annotations"] = json!({"selvedge.dev/source-path": "site/config.yaml"});
    object
}

/// An API with a repository, a Kustomization and an object that it applied.
async fn site() -> (Api, Client, Arc<Kept>) {
    let audit = Arc::new(Kept::default());
    let api = api()
        .await
        .with_admission(Arc::new(GitOwned))
        .with_audit(audit.clone());
    let git = Client::new(api.clone(), "gitops");
    let repository = json!({
        "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository", "metadata": {"name": "site", "namespace": "ns"},
        "spec": {"url": "https://me:secret@git.example/shops.git", "interval": "1m"},
    });
    let kustomization = json!({
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization", "metadata": {"name": "site", "namespace": "ns"},
        "spec": {"interval": "1m", "path": "./site", "prune": true, "sourceRef": {"kind": "GitRepository", "name": "site"}},
    });
    git.apply(&repository, true, false).await.unwrap();
    git.apply(&kustomization, true, false).await.unwrap();
    let status = json!({"lastAppliedRevision": "main@sha1:0123456789abcdef0123456789abcdef01234567"});
    git.set_status(&gvr::kustomizations(), "ns", "site", status)
        .await
        .unwrap();
    git.apply(&owned("c", json!({"a": "git"})), true, false)
        .await
        .unwrap();
    (api, git, audit)
}

#[tokio::test]
async fn people_are_told_where_to_change_what_git_owns() {
    let (api, _, audit) = site().await;
    let gvr = gvr::config_maps();
    let target = Target::new(&gvr, "ns", "c");
    let change = Patch::Merge(json!({"data": {"a": "mine"}}));
    let says = "configmaps \"c\" is forbidden: Git owns it: change the file site/config.yaml in the repository \
        https://git.example/shops.git and push (applied now: commit main@sha1:0123456789abcdef0123456789abcdef01234567, by Kustomization ns/site)";
    let mut refusals = vec![
        refusal(api.patch(&admin(), target, change.clone(), &by("kubectl")).await),
        refusal(
            api.update(&admin(), target, config_map("c", json!({})), &by("kubectl"))
                .await,
        ),
        refusal(api.delete(&admin(), target, &DeleteOptions::default()).await),
        refusal(
            api.patch(
                &admin(),
                target,
                Patch::Apply(config_map("c", json!({"b": "x"}))),
                &by("kubectl"),
            )
            .await,
        ),
        refusal(
            api.patch(
                &admin(),
                target,
                Patch::Json(json!([{"op": "remove", "path": "/metadata/labels"}])),
                &by("kubectl"),
            )
            .await,
        ),
    ];
    let all = (Default::default(), DeleteOptions::default());
    refusals.push(refusal(
        api.delete_collection(&admin(), &gvr, Some("ns"), &all.0, &all.1)
            .await,
    ));
    for refused in &refusals {
        assert_eq!(
            (refused.0, refused.1.as_str(), refused.3.as_str()),
            (403, "Forbidden", says)
        );
        assert_eq!(refused.2, ["OwnedByGit"]);
    }
    let records = audit.0.lock().unwrap();
    assert_eq!(records.len(), refusals.len());
    assert!(
        records
            .iter()
            .all(|r| r.decision == Decision::Refused && r.user == "selvedge-admin" && r.name == "c")
    );
}

#[tokio::test]
async fn what_stays_free() {
    let (api, git, audit) = site().await;
    // The daemon itself, and objects that nobody owns.
    git.apply(&owned("c", json!({"a": "newer"})), true, false)
        .await
        .unwrap();
    create(&api, &config_map("own", json!({}))).await.unwrap();
    // A dry run, with a warning: kubectl diff works.
    let gvr = gvr::config_maps();
    let dry = WriteOptions {
        dry_run: true,
        ..by("kubectl")
    };
    let target = Target::new(&gvr, "ns", "c");
    let diff = api
        .patch(&admin(), target, Patch::Merge(json!({"data": {"a": "x"}})), &dry)
        .await
        .unwrap();
    assert!(
        diff.warnings[0].starts_with("dry run only; the write itself would be refused: Git owns it"),
        "{:?}",
        diff.warnings
    );
    // A write that changes nothing.
    let same = api
        .patch(
            &admin(),
            target,
            Patch::Merge(json!({"data": {"a": "newer"}})),
            &by("kubectl"),
        )
        .await;
    assert!(!same.unwrap().changed);
    assert!(audit.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn people_may_ask_for_a_run_and_nothing_else() {
    let (api, git, _) = site().await;
    let mut kustomization = git
        .get(&gvr::kustomizations(), "ns", "site")
        .await
        .unwrap()
        .unwrap();
    kustomization["metadata"]["labels"] =
        json!({"kustomize.toolkit.fluxcd.io/name": "site", "kustomize.toolkit.fluxcd.io/namespace": "ns"});
    git.update(&kustomization).await.unwrap();
    let gvr = gvr::kustomizations();
    let target = Target::new(&gvr, "ns", "site");
    let ask = |also: Value| {
        let mut patch = json!({"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": "now"}}});
        merge::json::merge_patch(&mut patch, &also);
        Patch::Merge(patch)
    };
    assert!(
        api.patch(&admin(), target, ask(json!({})), &by("kubectl"))
            .await
            .unwrap()
            .changed
    );
    let refused = refusal(
        api.patch(
            &admin(),
            target,
            ask(json!({"spec": {"suspend": true}})),
            &by("kubectl"),
        )
        .await,
    );
    assert_eq!(refused.0, 403);
    let refused = refusal(
        api.patch(
            &admin(),
            target,
            ask(json!({"metadata": {"annotations": {"b": "c"}}})),
            &by("kubectl"),
        )
        .await,
    );
    assert_eq!(refused.0, 403);
    let status = Patch::Merge(json!({"status": {"lastAttemptedRevision": "x"}}));
    assert!(
        api.patch(&admin(), target.status(), status, &by("kubectl"))
            .await
            .unwrap()
            .changed
    );
}

#[tokio::test]
async fn the_mark_of_git_is_not_for_people() {
    let (api, git, _) = site().await;
    assert_eq!(refusal(create(&api, &owned("mine", json!({}))).await).0, 403);
    create(&api, &config_map("mine", json!({}))).await.unwrap();
    let refused = refusal(update(&api, &owned("mine", json!({}))).await);
    assert!(refused.3.contains("mark what Git owns"), "{}", refused.3);
    // A mark of a Kustomization that is gone binds nobody.
    git.delete(&gvr::kustomizations(), "ns", "site").await.unwrap();
    update(&api, &owned("mine", json!({"a": "b"}))).await.unwrap();
}

#[tokio::test]
async fn a_namespace_with_what_git_owns_is_not_deleted_by_people() {
    let (api, git, _) = site().await;
    let gvr = gvr::namespaces();
    let target = Target::new(&gvr, "", "ns");
    let refused = refusal(api.delete(&admin(), target, &DeleteOptions::default()).await);
    assert_eq!(refused.0, 403);
    assert!(
        refused
            .3
            .contains("Git owns what is in it, such as configmaps \"c\""),
        "{}",
        refused.3
    );
    git.delete(&gvr::config_maps(), "ns", "c").await.unwrap();
    api.delete(&admin(), target, &DeleteOptions::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn break_glass_may_and_is_recorded() {
    let (api, _, audit) = site().await;
    let gvr = gvr::config_maps();
    let target = Target::new(&gvr, "ns", "c");
    let change = Patch::Merge(json!({"data": {"a": "emergency"}}));
    let dry = WriteOptions {
        dry_run: true,
        ..by("kubectl")
    };
    api.patch(&glass_breaker(), target, change.clone(), &dry)
        .await
        .unwrap();
    assert!(audit.0.lock().unwrap().is_empty(), "a dry run is no write");
    api.patch(&glass_breaker(), target, change, &by("kubectl"))
        .await
        .unwrap();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "ns"}, "stringData": {"k": "hidden"}});
    api.create(
        &glass_breaker(),
        Target::new(&gvr::secrets(), "ns", ""),
        secret,
        &by("kubectl"),
    )
    .await
    .unwrap();
    api.delete(&glass_breaker(), target, &DeleteOptions::default())
        .await
        .unwrap();
    let records = audit.0.lock().unwrap();
    assert_eq!(records.len(), 3);
    let (changed, secret, deleted) = (&records[0], &records[1], &records[2]);
    assert_eq!(
        (changed.decision, changed.verb, changed.resource.as_str()),
        (Decision::BreakGlass, "patch", "v1/configmaps")
    );
    assert_eq!(changed.old.as_ref().unwrap()["data"]["a"], "git");
    assert_eq!(changed.new.as_ref().unwrap()["data"]["a"], "emergency");
    assert!(
        changed.new.as_ref().unwrap()["metadata"]
            .get("managedFields")
            .is_none()
    );
    assert_eq!(secret.new.as_ref().unwrap()["data"]["k"], "(not shown)");
    assert!(secret.old.is_none() && deleted.new.is_none() && deleted.old.is_some());
    assert_eq!(changed.time, NOW);
}

#[tokio::test]
async fn the_audit_file_is_bounded_and_survives() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let api = api()
        .await
        .with_audit(Arc::new(FileAudit::open(&path, 3000, 2).unwrap()));
    let gvr = gvr::config_maps();
    for n in 0..30 {
        let object = config_map(&format!("c{n}"), json!({"n": n.to_string()}));
        api.create(
            &glass_breaker(),
            Target::new(&gvr, "ns", ""),
            object,
            &by("kubectl"),
        )
        .await
        .unwrap();
    }
    // The same refusal again and again is one line.
    let bob = Caller {
        user: "bob".into(),
        groups: Vec::new(),
        ..Caller::default()
    };
    for _ in 0..50 {
        let _ = api
            .delete(&bob, Target::new(&gvr, "ns", "c1"), &DeleteOptions::default())
            .await;
    }
    api.clock().advance(jiff::SignedDuration::from_secs(61));
    let _ = api
        .delete(&bob, Target::new(&gvr, "ns", "c1"), &DeleteOptions::default())
        .await;
    let mut files: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    files.sort();
    assert_eq!(files.len(), 3, "{files:?}");
    let mut lines = Vec::new();
    for file in [&files[2], &files[1], &files[0]] {
        let text = std::fs::read_to_string(file).unwrap();
        assert!(text.len() <= 3000);
        lines.extend(
            text.lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap())
                .collect::<Vec<_>>(),
        );
    }
    let refusals: Vec<_> = lines
        .iter()
        .filter(|line| line["decision"] == "refused")
        .collect();
    assert_eq!(refusals.len(), 2);
    assert_eq!(refusals[1]["repeated"], 49);
    assert_eq!(
        lines.iter().rfind(|l| l["decision"] == "breakGlass").unwrap()["name"],
        "c29"
    );
    // It goes on where it was.
    let again = FileAudit::open(&path, 3000, 2).unwrap();
    let before = std::fs::read_to_string(&path).unwrap().lines().count();
    let api = api.with_audit(Arc::new(again));
    api.delete(
        &glass_breaker(),
        Target::new(&gvr, "ns", "c1"),
        &DeleteOptions::default(),
    )
    .await
    .unwrap();
    assert_eq!(
        std::fs::read_to_string(&path).unwrap().lines().count(),
        before + 1
    );
}
