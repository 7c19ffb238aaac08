//! From a push to objects and back: apply, prune, drift, order, errors, restarts.

use std::sync::Arc;

use crate::common::{Repo, Site, break_glass, config_map, gvr};
use apiserver::Client;
use serde_json::json;
use store::{SqliteStore, Store};

async fn site_of(repo: &Repo) -> Site {
    let site = Site::start().await;
    site.source(&repo.url(), json!({})).await;
    site.kustomization("site", json!({})).await;
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_becomes_objects_and_a_removal_removes_them() {
    let repo = Repo::new();
    repo.write("a.yaml", &config_map("a", "1"))
        .write("sub/b.yaml", &config_map("b", "1"));
    repo.write("notes.yaml", "just: text\n");
    // The namespace comes later in the same commit, and in a later file.
    repo.write(
        "0.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: early, namespace: shop}\n",
    );
    repo.write(
        "z.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n",
    );
    let first = repo.push();
    let site = site_of(&repo).await;
    let object = site.applied("site", &first).await;
    assert_eq!(
        object["status"]["lastAppliedRevision"],
        format!("main@sha1:{first}")
    );
    let ids: Vec<&str> = object["status"]["inventory"]["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["id"].as_str().unwrap())
        .collect();
    assert_eq!(
        ids,
        [
            "_shop__Namespace",
            "default_a__ConfigMap",
            "default_b__ConfigMap",
            "shop_early__ConfigMap"
        ]
    );
    assert!(
        object["status"]["warnings"][0]
            .as_str()
            .unwrap()
            .starts_with("notes.yaml: skipped"),
        "{}",
        object["status"]
    );
    let a = site.config_map("a").await.unwrap();
    assert_eq!(a["data"]["k"], "1");
    assert_eq!(
        a["metadata"]["labels"]["kustomize.toolkit.fluxcd.io/name"],
        "site"
    );
    assert_eq!(a["metadata"]["annotations"]["selvedge.dev/source-path"], "a.yaml");
    assert_eq!(
        a["metadata"]["managedFields"][0]["manager"],
        "kustomize-controller"
    );
    let repository = site.get("GitRepository", "flux-system", "site").await.unwrap();
    assert_eq!(
        repository["status"]["artifact"]["revision"],
        format!("main@sha1:{first}")
    );

    repo.write("a.yaml", &config_map("a", "2")).remove("sub/b.yaml");
    let second = repo.push();
    site.fetch_now();
    site.applied("site", &second).await;
    assert_eq!(site.config_map("a").await.unwrap()["data"]["k"], "2");
    assert!(site.config_map("b").await.is_none());
    let said: Vec<String> = site
        .events("Applied")
        .await
        .iter()
        .map(|e| e["message"].as_str().unwrap().to_owned())
        .collect();
    assert!(said.iter().any(|m| m.contains("4 created")), "{said:?}");
    assert!(
        said.iter()
            .any(|m| m.contains("1 changed: ConfigMap default/a; 1 deleted: ConfigMap default/b")),
        "{said:?}"
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_commit_changes_nothing_and_says_where() {
    let repo = Repo::new();
    repo.write("a.yaml", &config_map("a", "1"));
    let good = repo.push();
    let site = site_of(&repo).await;
    site.applied("site", &good).await;
    repo.write("a.yaml", &config_map("a", "2"));
    repo.write(
        "b.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: [b\n",
    );
    repo.write(
        "c.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Not_A_Name}\n",
    );
    repo.write("h.yaml", "apiVersion: esx.vmware.com/v1alpha1\nkind: HostConfiguration\nmetadata: {name: h}\nspec:\n  layertype: Incremental\n  profile: |\n    {\n      \"esx\": {\n    }\n");
    repo.push();
    site.fetch_now();
    let message = site
        .ready_is("Kustomization", "site", "False", "BuildFailed")
        .await;
    assert!(message.contains("b.yaml:"), "{message}");
    assert_eq!(site.config_map("a").await.unwrap()["data"]["k"], "1");
    repo.remove("b.yaml");
    let third = repo.push();
    site.fetch_now();
    let object = site
        .wait("Kustomization", "flux-system", "site", "looked at again", |o| {
            o["status"]["lastAttemptedRevision"]
                .as_str()
                .unwrap_or_default()
                .ends_with(&third)
        })
        .await;
    let errors = object["status"]["errors"].as_array().unwrap();
    let places: Vec<String> = errors
        .iter()
        .map(|e| {
            format!(
                "{}:{}:{} {}",
                e["file"].as_str().unwrap(),
                e["line"],
                e["column"],
                e["field"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        places,
        ["c.yaml:3:12 metadata.name", "h.yaml:9:6 spec.profile"],
        "{errors:?}"
    );
    assert_eq!(
        object["status"]["lastAppliedRevision"],
        format!("main@sha1:{good}")
    );

    repo.remove("c.yaml").remove("h.yaml");
    let cured = repo.push();
    site.fetch_now();
    let object = site.applied("site", &cured).await;
    assert!(object["status"].get("errors").is_none());
    assert_eq!(site.config_map("a").await.unwrap()["data"]["k"], "2");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_write_is_taken_back_at_once() {
    let repo = Repo::new();
    repo.write("a.yaml", &config_map("a", "1"))
        .write("b.yaml", &config_map("b", "1"));
    let commit = repo.push();
    let site = site_of(&repo).await;
    site.applied("site", &commit).await;
    // As a person with the break-glass identity does it.
    let mut a = site.config_map("a").await.unwrap();
    a["data"] = json!({"k": "wrong", "more": "x"});
    a["metadata"]["labels"]["mine"] = json!("x");
    site.write_as(&break_glass(), &a).await;
    let a = site
        .wait("ConfigMap", "default", "a", "as in Git", |o| {
            o["data"] == json!({"k": "1"})
        })
        .await;
    assert!(a["metadata"]["labels"].get("mine").is_none(), "{a}");
    let event = site.wait_event("DriftCorrected").await;
    assert!(event["message"].as_str().unwrap().contains("a.yaml:1"), "{event}");
    site.client
        .delete(&gvr("ConfigMap"), "default", "b")
        .await
        .unwrap();
    site.wait("ConfigMap", "default", "b", "back", |o| o["data"]["k"] == "1")
        .await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_that_are_not_served_are_named_and_hold_up_nothing() {
    let repo = Repo::new();
    repo.write("a.yaml", &config_map("a", "1"));
    repo.write(
        "d.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\n",
    );
    let commit = repo.push();
    let site = site_of(&repo).await;
    let object = site.applied("site", &commit).await;
    assert!(
        crate::common::message(&object).contains("Deployment shop/web (apps/v1, d.yaml:1)"),
        "{object}"
    );
    assert_eq!(
        object["status"]["notServed"][0],
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "shop", "name": "web", "source": "d.yaml:1"})
    );
    assert!(site.config_map("a").await.is_some());
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_starts_without_network_is_complete() {
    let repo = Repo::new();
    repo.write("a.yaml", &config_map("a", "1"));
    let commit = repo.push();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::in_memory().unwrap());
    let site = Site::start_with(tempfile::tempdir().unwrap(), store.clone()).await;
    site.source(&repo.url(), json!({})).await;
    site.kustomization("site", json!({})).await;
    site.applied("site", &commit).await;
    let dir = site.stop().await;
    std::fs::rename(repo.bare(), repo.root().join("away")).unwrap();
    // As if a part of what is applied had been lost.
    let api = apiserver::Api::new(
        Arc::new(kinds::registry::Registry::builtin()),
        store.clone(),
        telemetry::Clock::system(),
    );
    Client::new(api, "test")
        .delete(&gvr("ConfigMap"), "default", "a")
        .await
        .unwrap();
    let site = Site::start_with(dir, store).await;
    site.ready_is("GitRepository", "site", "False", "GitOperationFailed")
        .await;
    site.wait("ConfigMap", "default", "a", "back", |o| o["data"]["k"] == "1")
        .await;
    site.applied("site", &commit).await;
    let repository = site.get("GitRepository", "flux-system", "site").await.unwrap();
    assert_eq!(
        repository["status"]["artifact"]["revision"],
        format!("main@sha1:{commit}")
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dependencies_variables_and_nested_kustomizations() {
    let repo = Repo::new();
    let kustomization = |name: &str, more: &str| {
        format!(
            "apiVersion: kustomize.toolkit.fluxcd.io/v1beta2\nkind: Kustomization\nmetadata: {{name: {name}, namespace: flux-system}}\nspec:\n  interval: 10m\n  prune: true\n  path: ./{name}\n  sourceRef: {{kind: GitRepository, name: site}}\n{more}"
        )
    };
    repo.write("cluster/apps.yaml", &kustomization("apps", "  dependsOn: [{name: base}]\n  postBuild:\n    substitute: {color: red}\n    substituteFrom: [{kind: ConfigMap, name: vars}, {kind: Secret, name: none, optional: true}]\n"));
    repo.write("cluster/base.yaml", &kustomization("base", ""));
    repo.write("cluster/vars.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: vars, namespace: flux-system}\ndata: {color: blue, size: \"7\"}\n");
    repo.write("base/a.yaml", &config_map("from-base", "$${x} ${y}"));
    repo.write(
        "apps/a.yaml",
        &config_map("from-apps", "${color} ${size} ${none:=d} $${x}"),
    );
    let commit = repo.push();
    let site = Site::start().await;
    site.source(&repo.url(), json!({})).await;
    site.kustomization("site", json!({"path": "cluster"})).await;
    site.applied("site", &commit).await;
    site.applied("apps", &commit).await;
    assert_eq!(
        site.config_map("from-apps").await.unwrap()["data"]["k"],
        "red 7 d ${x}"
    );
    assert_eq!(
        site.config_map("from-base").await.unwrap()["data"]["k"],
        "$${x} ${y}"
    );
    // Gone from Git, with its finalizer: what it applied goes with it.
    repo.remove("cluster/apps.yaml");
    let next = repo.push();
    site.fetch_now();
    site.applied("site", &next).await;
    site.wait(
        "ConfigMap",
        "default",
        "from-apps",
        "gone",
        serde_json::Value::is_null,
    )
    .await;
    site.wait(
        "Kustomization",
        "flux-system",
        "apps",
        "gone",
        serde_json::Value::is_null,
    )
    .await;
    assert!(site.config_map("from-base").await.is_some());
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_health() {
    let repo = Repo::new();
    repo.write("vm.yaml", "apiVersion: vmoperator.vmware.com/v1alpha1\nkind: VirtualMachine\nmetadata: {name: vm}\nspec: {className: c, imageName: x, powerState: poweredOn}\n");
    let commit = repo.push();
    let site = Site::start().await;
    site.source(&repo.url(), json!({})).await;
    site.kustomization("site", json!({"wait": true, "timeout": "1m"}))
        .await;
    let message = site
        .ready_is("Kustomization", "site", "Unknown", "Progressing")
        .await;
    assert!(message.contains("VirtualMachine default/vm"), "{message}");
    let status = json!({"conditions": [{"type": "Ready", "status": "True", "reason": "Ok", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    site.client
        .set_status(&gvr("VirtualMachine"), "default", "vm", status)
        .await
        .unwrap();
    site.applied("site", &commit).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_ignored_and_suspended() {
    let repo = Repo::new();
    repo.write("keep.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: keep, annotations: {kustomize.toolkit.fluxcd.io/prune: disabled}}\n");
    repo.write("once.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: once, annotations: {kustomize.toolkit.fluxcd.io/ssa: IfNotPresent}}\ndata: {k: \"1\"}\n");
    let first = repo.push();
    let site = site_of(&repo).await;
    site.applied("site", &first).await;
    repo.remove("keep.yaml");
    repo.write("once.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: once, annotations: {kustomize.toolkit.fluxcd.io/ssa: IfNotPresent}}\ndata: {k: \"2\"}\n");
    let second = repo.push();
    site.fetch_now();
    let object = site.applied("site", &second).await;
    assert!(site.config_map("keep").await.is_some());
    assert_eq!(site.config_map("once").await.unwrap()["data"]["k"], "1");
    assert_eq!(
        object["status"]["inventory"]["entries"].as_array().unwrap().len(),
        1
    );
    site.kustomization("site", json!({"suspend": true})).await;
    repo.write("new.yaml", &config_map("new", "1"));
    let third = repo.push();
    site.fetch_now();
    site.wait("GitRepository", "flux-system", "site", "fetched", |o| {
        o["status"]["artifact"]["revision"]
            .as_str()
            .unwrap_or_default()
            .ends_with(&third)
    })
    .await;
    site.kustomization("site", json!({"suspend": false})).await;
    site.applied("site", &third).await;
    assert!(site.config_map("new").await.is_some());
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_have_stays_with_one_when_the_other_lets_go() {
    let repo = Repo::new();
    repo.write("sites/a.yaml", &config_map("a", "1"));
    repo.write("elsewhere/c.yaml", &config_map("c", "1"));
    let commit = repo.push();
    let site = site_of(&repo).await;
    let uid = |object: serde_json::Value| object["metadata"]["uid"].clone();
    let owner = |object: &serde_json::Value| object["metadata"]["labels"][kinds::flux::OWNER_NAME].clone();
    let has = |o: &serde_json::Value, id: &str| {
        o["status"]["inventory"]["entries"]
            .as_array()
            .is_some_and(|entries| entries.iter().any(|entry| entry["id"] == id))
    };
    let ours = "default_a__ConfigMap";
    site.kustomization("site", json!({"path": "./sites"})).await;
    site.applied("site", &commit).await;
    let before = uid(site.config_map("a").await.unwrap());
    // It stands still, so that the labels stay those of the second one.
    site.kustomization("site", json!({"path": "./sites", "suspend": true}))
        .await;
    site.kustomization("second", json!({"path": "./sites"})).await;
    site.wait("Kustomization", "flux-system", "second", "applied", |o| {
        has(o, ours)
    })
    .await;
    assert_eq!(owner(&site.config_map("a").await.unwrap()), "second");

    // It looks elsewhere: what it had is not its alone.
    site.kustomization("second", json!({"path": "./elsewhere"})).await;
    site.wait("Kustomization", "flux-system", "second", "elsewhere", |o| {
        has(o, "default_c__ConfigMap") && !has(o, ours)
    })
    .await;
    assert_eq!(uid(site.config_map("a").await.unwrap()), before);

    // It goes as a whole, having had it again.
    site.kustomization("second", json!({"path": "./sites"})).await;
    site.wait("Kustomization", "flux-system", "second", "back", |o| {
        has(o, ours) && !has(o, "default_c__ConfigMap")
    })
    .await;
    site.delete_kustomization("second").await;
    site.wait(
        "Kustomization",
        "flux-system",
        "second",
        "gone",
        serde_json::Value::is_null,
    )
    .await;
    assert_eq!(uid(site.config_map("a").await.unwrap()), before);
    site.kustomization("site", json!({"path": "./sites", "suspend": false}))
        .await;
    let back = site
        .wait("ConfigMap", "default", "a", "owned by the first", |o| {
            owner(o) == "site"
        })
        .await;
    assert_eq!(uid(back), before);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_something_is_wanted_in_stays() {
    let repo = Repo::new();
    repo.write(
        "ns.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n",
    );
    repo.write(
        "a.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: shop}\n",
    );
    let first = repo.push();
    let site = site_of(&repo).await;
    site.applied("site", &first).await;
    let before = site.get("ConfigMap", "shop", "a").await.unwrap();
    repo.remove("ns.yaml");
    repo.push();
    site.fetch_now();
    let object = site
        .wait("Kustomization", "flux-system", "site", "refused", |o| {
            crate::common::message(o).contains("is wanted in it")
        })
        .await;
    let said = crate::common::message(&object);
    assert!(
        said.contains("Namespace shop") && said.contains("a.yaml:1"),
        "{said}"
    );
    let after = site.get("ConfigMap", "shop", "a").await.unwrap();
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert!(after["metadata"]["deletionTimestamp"].is_null());
    // Without the object both go.
    repo.remove("a.yaml");
    repo.write("b.yaml", &config_map("b", "1"));
    let third = repo.push();
    site.fetch_now();
    site.applied("site", &third).await;
    assert!(site.get("ConfigMap", "shop", "a").await.is_none());
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_was_emptied_deletes_nothing() {
    let repo = Repo::new();
    repo.write("a.yaml", &config_map("a", "1"));
    let first = repo.push();
    let site = site_of(&repo).await;
    site.applied("site", &first).await;
    repo.remove("a.yaml");
    repo.write("notes.txt", "moved elsewhere");
    repo.push();
    site.fetch_now();
    let message = site
        .ready_is("Kustomization", "site", "False", "BuildFailed")
        .await;
    assert!(message.contains("nothing is deleted"), "{message}");
    assert!(site.config_map("a").await.is_some());
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_meant_for_another_cluster_is_not_applied_here() {
    let repo = Repo::new();
    repo.write("a.yaml", &config_map("a", "1"));
    let first = repo.push();
    let site = site_of(&repo).await;
    site.applied("site", &first).await;
    site.kustomization("site", json!({"kubeConfig": {"secretRef": {"name": "other"}}}))
        .await;
    repo.write("b.yaml", &config_map("b", "1"));
    let second = repo.push();
    site.fetch_now();
    let message = site
        .ready_is("Kustomization", "site", "False", "BuildFailed")
        .await;
    assert!(message.contains("spec.kubeConfig"), "{message}");
    site.wait("GitRepository", "flux-system", "site", "fetched", |o| {
        o["status"]["artifact"]["revision"]
            .as_str()
            .unwrap_or_default()
            .ends_with(&second)
    })
    .await;
    assert!(site.config_map("b").await.is_none());
    site.kustomization("site", json!({})).await;
    site.applied("site", &second).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_runs_at_once_and_is_acknowledged() {
    let repo = Repo::new();
    repo.write("a.yaml", &config_map("a", "1"));
    let first = repo.push();
    let site = site_of(&repo).await;
    site.applied("site", &first).await;
    repo.write("a.yaml", &config_map("a", "2"));
    let second = repo.push();
    for kind in ["GitRepository", "Kustomization"] {
        let mut object = site.get(kind, "flux-system", "site").await.unwrap();
        object["metadata"]["annotations"]["reconcile.fluxcd.io/requestedAt"] = json!("now");
        site.client.update(&object).await.unwrap();
    }
    site.applied("site", &second).await;
    for kind in ["GitRepository", "Kustomization"] {
        site.wait(kind, "flux-system", "site", "acknowledged", |o| {
            o["status"]["lastHandledReconcileAt"] == "now"
        })
        .await;
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_own_source_and_who_may_write() {
    let repo = Repo::new();
    repo.write("site/a.yaml", &config_map("a", "1"));
    let commit = repo.push();
    let site = Site::start().await;
    let source = gitops::BootstrapSource {
        url: repo.url(),
        path: "./site".into(),
        interval: "1h".into(),
        secret: vec![("username".into(), b"me".to_vec())],
        ..gitops::BootstrapSource::default()
    };
    gitops::bootstrap(&site.client, &source).await.unwrap();
    site.applied("selvedge-site", &commit).await;
    // Again with nothing secret, as after an edit of host.toml.
    gitops::bootstrap(
        &site.client,
        &gitops::BootstrapSource {
            secret: Vec::new(),
            ..source
        },
    )
    .await
    .unwrap();
    assert!(site.get("Secret", "flux-system", "selvedge-site").await.is_none());
    let admin = apiserver::Caller {
        user: "selvedge-admin".into(),
        groups: vec!["system:masters".into()],
        ..apiserver::Caller::default()
    };
    for (kind, namespace, name) in [
        ("ConfigMap", "default", "a"),
        ("Kustomization", "flux-system", "selvedge-site"),
    ] {
        let mut object = site.get(kind, namespace, name).await.unwrap();
        object["metadata"]["labels"]["mine"] = json!("x");
        let refused = site.try_write_as(&admin, &object).await.unwrap_err();
        assert_eq!(refused.code, 403, "{refused}");
        assert!(
            refused.message.contains(&repo.url()) && refused.message.contains(&commit),
            "{refused}"
        );
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_repository_is_fetched_anew() {
    let repo = Repo::new();
    let first = repo.write("a.yaml", &config_map("a", "1")).push();
    let site = site_of(&repo).await;
    site.applied("site", &first).await;
    // As a power cut leaves it on a file system that lies: the pack is there and its content is not.
    let packs = site
        .dir
        .path()
        .join("state/git/flux-system_site.git/objects/pack");
    for entry in std::fs::read_dir(&packs).unwrap().flatten() {
        if entry.path().extension().is_some_and(|e| e == "pack") {
            let size = entry.metadata().unwrap().len();
            std::fs::remove_file(entry.path()).unwrap();
            std::fs::write(entry.path(), vec![0; usize::try_from(size).unwrap()]).unwrap();
        }
    }
    // Another path is another build of the same commit.
    repo.write("b.yaml", &config_map("b", "1"));
    site.kustomization("site", json!({"path": "."})).await;
    let next = repo.push();
    site.fetch_now();
    site.applied("site", &next).await;
    assert!(site.config_map("b").await.is_some());
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_secret_come_and_go() {
    let repo = Repo::new();
    let secret = |text: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\ndata: {{c: Yw==}}\nstringData: {text}\n"
        )
    };
    let first = repo.write("s.yaml", &secret("{a: x, b: y}")).push();
    let site = site_of(&repo).await;
    site.applied("site", &first).await;
    let object = site.get("Secret", "default", "s").await.unwrap();
    assert_eq!(object["data"], json!({"a": "eA==", "b": "eQ==", "c": "Yw=="}));
    let second = repo.write("s.yaml", &secret("{a: z}")).push();
    site.fetch_now();
    site.applied("site", &second).await;
    let object = site.get("Secret", "default", "s").await.unwrap();
    assert_eq!(object["data"], json!({"a": "eg==", "c": "Yw=="}));
    site.stop().await;
}
