use std::time::Duration;

use apiserver::api::{DeleteOptions, ListOptions, Target};
use kinds::{gvr, object};
use serde_json::{Value, json};

use super::common::*;

#[tokio::test]
async fn an_object_is_deleted_once() {
    let api = api().await;
    let made = create(&api, &config_map("c", json!({}))).await.unwrap().object;
    let gvr = gvr::config_maps();
    let target = Target::new(&gvr, "ns", "c");
    let dry = DeleteOptions {
        dry_run: true,
        ..DeleteOptions::default()
    };
    assert!(api.delete(&admin(), target, &dry).await.unwrap().gone);
    let deleted = api
        .delete(&admin(), target, &DeleteOptions::default())
        .await
        .unwrap();
    assert!(deleted.gone);
    assert_eq!(
        deleted.answer(),
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {"name": "c", "kind": "configmaps", "uid": made["metadata"]["uid"]}})
    );
    assert_eq!(
        deleted.object["metadata"]["resourceVersion"],
        api.revision().to_string()
    );
    assert_eq!(refusal(api.delete(&admin(), target, &dry).await).0, 404);
}

#[tokio::test]
async fn preconditions_must_hold() {
    let api = api().await;
    let made = create(&api, &config_map("c", json!({}))).await.unwrap().object;
    let uid = made["metadata"]["uid"].as_str().map(ToOwned::to_owned);
    let revision = made["metadata"]["resourceVersion"]
        .as_str()
        .map(ToOwned::to_owned);
    let gvr = gvr::config_maps();
    let target = Target::new(&gvr, "ns", "c");
    for (uid, revision, says) in [
        (
            Some("x".to_owned()),
            None,
            "UID in precondition: x, UID in object meta",
        ),
        (None, Some("1".to_owned()), "ResourceVersion in precondition: 1"),
        (
            uid.clone(),
            Some("1".to_owned()),
            "ResourceVersion in precondition: 1",
        ),
    ] {
        let options = DeleteOptions {
            uid,
            resource_version: revision,
            ..DeleteOptions::default()
        };
        let refused = refusal(api.delete(&admin(), target, &options).await);
        assert_eq!((refused.0, refused.1.as_str()), (409, "Conflict"));
        assert!(refused.3.contains(says), "{}", refused.3);
    }
    let policy = DeleteOptions {
        propagation_policy: Some("Sideways".into()),
        ..DeleteOptions::default()
    };
    assert_eq!(refusal(api.delete(&admin(), target, &policy).await).0, 400);
    let options = DeleteOptions {
        uid,
        resource_version: revision,
        propagation_policy: Some("Foreground".into()),
        grace_period_seconds: Some(0),
        ..DeleteOptions::default()
    };
    assert!(api.delete(&admin(), target, &options).await.unwrap().gone);
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let api = api().await;
    let mut vm = machine("vm");
    vm["metadata"]["finalizers"] = json!(["selvedge.dev/a", "selvedge.dev/b"]);
    create(&api, &vm).await.unwrap();
    let gvr = gvr::virtual_machines();
    let target = Target::new(&gvr, "ns", "vm");
    let held = api
        .delete(&admin(), target, &DeleteOptions::default())
        .await
        .unwrap();
    assert!(!held.gone);
    assert_eq!(held.answer(), &held.object);
    assert_eq!(held.object["metadata"]["deletionTimestamp"], NOW);
    assert_eq!(held.object["metadata"]["generation"], 2);
    let revision = api.revision();
    assert!(
        !api.delete(&admin(), target, &DeleteOptions::default())
            .await
            .unwrap()
            .gone
    );
    assert_eq!(api.revision(), revision, "deleting once more changes nothing");

    let mut vm = held.object;
    vm["metadata"]["finalizers"] = json!(["selvedge.dev/a", "selvedge.dev/b", "selvedge.dev/new"]);
    assert_eq!(
        refusal(update(&api, &vm).await).2,
        ["FieldValueForbidden metadata.finalizers"]
    );
    vm["metadata"]["finalizers"] = json!(["selvedge.dev/b"]);
    vm["metadata"]["deletionTimestamp"] = Value::Null;
    let vm = update(&api, &vm).await.unwrap().object;
    assert_eq!(
        vm["metadata"]["deletionTimestamp"], NOW,
        "a deletion can't be taken back"
    );
    let mut watch = api
        .watch(
            &admin(),
            &gvr,
            None,
            &apiserver::api::WatchOptions {
                resource_version: api.revision().to_string(),
                ..Default::default()
            },
        )
        .await
        .unwrap();
    let mut last = vm;
    last["metadata"]["finalizers"] = json!([]);
    update(&api, &last).await.unwrap();
    assert_eq!(refusal(get(&api, &last).await).0, 404);
    assert_eq!(
        watch.next().await.unwrap().kind,
        apiserver::api::WatchKind::Deleted
    );
}

#[tokio::test]
async fn a_selection_is_deleted() {
    let api = api().await;
    for n in 0..7 {
        let mut object = config_map(&format!("c{n}"), json!({}));
        object["metadata"]["labels"] = json!({"odd": (n % 2).to_string()});
        create(&api, &object).await.unwrap();
    }
    let gvr = gvr::config_maps();
    let list = ListOptions {
        label_selector: "odd=1".into(),
        limit: 2,
        ..ListOptions::default()
    };
    let count = api
        .delete_collection(&admin(), &gvr, Some("ns"), &list, &DeleteOptions::default())
        .await
        .unwrap();
    assert_eq!(count, 3);
    assert_eq!(
        names(&api, &gvr, &ListOptions::default()).await.unwrap(),
        ["c0", "c2", "c4", "c6"]
    );
}

#[tokio::test]
async fn a_namespace_goes_with_what_is_in_it() {
    let api = api().await;
    create(&api, &config_map("c", json!({}))).await.unwrap();
    let mut vm = machine("vm");
    vm["metadata"]["finalizers"] = json!(["selvedge.dev/vm"]);
    create(&api, &vm).await.unwrap();
    let gvr = gvr::namespaces();
    let target = Target::new(&gvr, "", "ns");
    let ns = api
        .delete(&admin(), target, &DeleteOptions::default())
        .await
        .unwrap();
    assert_eq!(
        (ns.gone, &ns.object["status"]["phase"]),
        (false, &"Terminating".into())
    );

    let refused = refusal(create(&api, &config_map("late", json!({}))).await);
    assert_eq!(
        (refused.0, refused.2),
        (403, vec!["NamespaceTerminating metadata.namespace".to_owned()])
    );
    assert!(
        refused
            .3
            .contains("unable to create new content in namespace ns because it is being terminated")
    );

    // The machine waits for its finalizer; what it may need to end well waits with it.
    assert!(!api.end_namespaces().await.unwrap());
    assert!(object::is_deleting(&get(&api, &vm).await.unwrap()));
    assert!(get(&api, &config_map("c", json!({}))).await.is_ok());
    let waits = api.get(&admin(), target).await.unwrap();
    assert!(
        waits["status"]["conditions"][0]["message"]
            .as_str()
            .unwrap()
            .contains("virtualmachines.vmoperator.vmware.com has 1")
    );
    assert_eq!(waits["status"]["phase"], "Terminating");

    let mut vm = get(&api, &vm).await.unwrap();
    vm["metadata"]["finalizers"] = json!([]);
    update(&api, &vm).await.unwrap();
    assert!(api.end_namespaces().await.unwrap());
    assert_eq!(refusal(api.get(&admin(), target).await).0, 404);
    assert_eq!(refusal(get(&api, &config_map("c", json!({}))).await).0, 404);
    api.ensure_namespaces(&["ns", "default"]).await.unwrap();
    create(&api, &config_map("again", json!({}))).await.unwrap();
}

#[tokio::test]
async fn the_task_that_ends_namespaces_is_woken() {
    let api = api().await;
    create(&api, &config_map("c", json!({}))).await.unwrap();
    let task = tokio::spawn({
        let api = api.clone();
        async move { api.run_namespaces().await }
    });
    let gvr = gvr::namespaces();
    let after = apiserver::api::WatchOptions {
        resource_version: api.revision().to_string(),
        ..Default::default()
    };
    let mut watch = api.watch(&admin(), &gvr, None, &after).await.unwrap();
    api.delete(&admin(), Target::new(&gvr, "", "ns"), &DeleteOptions::default())
        .await
        .unwrap();
    let gone = async { while watch.next().await.unwrap().kind != apiserver::api::WatchKind::Deleted {} };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
    task.abort();
}

#[tokio::test]
async fn some_namespaces_stay() {
    let api = api().await;
    let gvr = gvr::namespaces();
    let target = Target::new(&gvr, "", "default");
    let refused = refusal(api.delete(&admin(), target, &DeleteOptions::default()).await);
    assert_eq!(
        refused.3,
        "namespaces \"default\" is forbidden: this namespace may not be deleted"
    );
}
