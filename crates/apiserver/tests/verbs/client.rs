use apiserver::{
    Client,
    client::{Applied, EventType, WatchEvent},
};
use kinds::{gvr, object};
use serde_json::{Value, json};

use super::common::*;

#[tokio::test]
async fn objects_come_and_go() {
    let api = api().await;
    let client = Client::new(api.clone(), "test");
    let gvr = gvr::config_maps();
    assert!(client.get(&gvr, "ns", "c").await.unwrap().is_none());
    let (applied, made) = client
        .apply(&config_map("c", json!({"a": "1"})), false, false)
        .await
        .unwrap();
    assert_eq!(applied, Applied::Created);
    let revision = api.revision();
    let (applied, same) = client
        .apply(&config_map("c", json!({"a": "1"})), false, false)
        .await
        .unwrap();
    assert_eq!(
        (applied, same == made, api.revision()),
        (Applied::Unchanged, true, revision)
    );
    let (applied, _) = client
        .apply(&config_map("c", json!({"a": "2"})), false, true)
        .await
        .unwrap();
    assert_eq!(
        (applied, api.revision()),
        (Applied::Changed, revision),
        "a dry run"
    );
    let (applied, changed) = client
        .apply(&config_map("c", json!({"a": "2"})), false, false)
        .await
        .unwrap();
    assert_eq!(applied, Applied::Changed);
    assert_eq!(client.get(&gvr, "ns", "c").await.unwrap().unwrap(), changed);
    let list = client.list(&gvr, None).await.unwrap();
    assert_eq!((list.items.len(), list.revision), (1, api.revision()));
    assert_eq!(changed["metadata"]["managedFields"][0]["manager"], "test");
    client.delete(&gvr, "ns", "c").await.unwrap();
    client.delete(&gvr, "ns", "c").await.unwrap();
    assert!(client.update(&changed).await.unwrap_err().is_not_found());
    assert!(client.create(&config_map("c", json!({}))).await.is_ok());
    assert!(
        client
            .create(&config_map("c", json!({})))
            .await
            .unwrap_err()
            .is_already_exists()
    );
}

#[tokio::test]
async fn what_is_not_served_is_not_merely_missing() {
    let api = api().await;
    let client = Client::new(api, "test");
    let pods = kinds::Gvr::new("v1", "pods");
    assert_eq!(client.get(&pods, "ns", "p").await.unwrap_err().code, 404);
    assert_eq!(client.delete(&pods, "ns", "p").await.unwrap_err().code, 404);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "ns"}});
    assert!(
        client
            .apply(&pod, false, false)
            .await
            .unwrap_err()
            .message
            .contains("v1 Pod is not served")
    );
    let nowhere =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "p", "namespace": "nowhere"}});
    assert_eq!(
        client.apply(&nowhere, false, false).await.unwrap_err().message,
        "namespaces \"nowhere\" not found"
    );
}

#[tokio::test]
async fn conflicts_name_the_managers() {
    let api = api().await;
    create(&api, &config_map("c", json!({"a": "theirs"})))
        .await
        .unwrap();
    let client = Client::new(api, "gitops");
    let status = client
        .apply(&config_map("c", json!({"a": "ours"})), false, false)
        .await
        .unwrap_err();
    assert!(status.is_conflict());
    assert_eq!(
        client
            .apply(&config_map("c", json!({"a": "ours"})), true, false)
            .await
            .unwrap()
            .0,
        Applied::Changed
    );
}

#[tokio::test]
async fn the_status_is_written_only_when_it_differs() {
    let api = api().await;
    let client = Client::new(api.clone(), "vm");
    let gvr = gvr::virtual_machines();
    assert!(
        !client
            .set_status(&gvr, "ns", "vm", json!({"phase": "Created"}))
            .await
            .unwrap(),
        "gone is fine"
    );
    create(&api, &machine("vm")).await.unwrap();
    assert!(
        client
            .set_status(&gvr, "ns", "vm", json!({"phase": "Created"}))
            .await
            .unwrap()
    );
    let revision = api.revision();
    assert!(
        !client
            .set_status(&gvr, "ns", "vm", json!({"phase": "Created"}))
            .await
            .unwrap()
    );
    assert_eq!(api.revision(), revision);
    let writers: Vec<_> = (0..10)
        .map(|n| {
            let (client, gvr) = (client.clone(), gvr.clone());
            tokio::spawn(async move {
                client
                    .set_status(
                        &gvr,
                        "ns",
                        "vm",
                        json!({"phase": "Created", "host": n.to_string()}),
                    )
                    .await
                    .unwrap();
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(
        client
            .set_status(&gvr, "ns", "vm", json!({"phase": 5}))
            .await
            .unwrap_err()
            .code,
        422
    );
}

#[tokio::test]
async fn finalizers_are_set_and_taken_away() {
    let api = api().await;
    let client = Client::new(api.clone(), "vm");
    let gvr = gvr::virtual_machines();
    client
        .set_finalizer(&gvr, "ns", "vm", "selvedge.dev/vm", true)
        .await
        .unwrap();
    create(&api, &machine("vm")).await.unwrap();
    client
        .set_finalizer(&gvr, "ns", "vm", "selvedge.dev/vm", true)
        .await
        .unwrap();
    let revision = api.revision();
    client
        .set_finalizer(&gvr, "ns", "vm", "selvedge.dev/vm", true)
        .await
        .unwrap();
    assert_eq!(api.revision(), revision);
    client.delete(&gvr, "ns", "vm").await.unwrap();
    let held = client.get(&gvr, "ns", "vm").await.unwrap().unwrap();
    assert!(object::is_deleting(&held));
    assert_eq!(
        client
            .set_finalizer(&gvr, "ns", "vm", "selvedge.dev/late", true)
            .await
            .unwrap_err()
            .code,
        422
    );
    client
        .set_finalizer(&gvr, "ns", "vm", "selvedge.dev/vm", false)
        .await
        .unwrap();
    assert!(client.get(&gvr, "ns", "vm").await.unwrap().is_none());
    client
        .set_finalizer(&gvr, "ns", "vm", "selvedge.dev/vm", false)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_watch_goes_on_from_a_list() {
    let api = api().await;
    let client = Client::new(api.clone(), "test");
    let gvr = gvr::config_maps();
    let list = client.list(&gvr, Some("ns")).await.unwrap();
    let mut watch = client.watch(&gvr, Some("ns"), list.revision).await.unwrap();
    client
        .apply(&config_map("c", json!({"a": "1"})), false, false)
        .await
        .unwrap();
    client
        .apply(&config_map("c", json!({"a": "2"})), false, false)
        .await
        .unwrap();
    client.delete(&gvr, "ns", "c").await.unwrap();
    for expected in ["1", "2"] {
        let Some(WatchEvent::Applied(object)) = watch.next().await else {
            panic!("an applied object")
        };
        assert_eq!(object["data"]["a"], expected);
    }
    assert!(matches!(watch.next().await, Some(WatchEvent::Deleted(o)) if object::name(&o) == "c"));
    let mut future = client.watch(&gvr, None, 1_000_000).await.unwrap();
    assert!(future.next().await.is_none(), "list again");
}

#[tokio::test]
async fn events_that_repeat_are_counted() {
    let api = api().await;
    let client = Client::new(api.clone(), "vm");
    let vm = create(&api, &machine("vm")).await.unwrap().object;
    client.event(&vm, EventType::Normal, "Started", "it runs").await;
    api.clock().advance(jiff::SignedDuration::from_secs(30));
    client.event(&vm, EventType::Normal, "Started", "it runs").await;
    client
        .event(&vm, EventType::Warning, "Failed", "it does not run")
        .await;
    let events = client.list(&gvr::events(), Some("ns")).await.unwrap().items;
    assert_eq!(events.len(), 2);
    let started = events.iter().find(|e| e["reason"] == "Started").unwrap();
    assert_eq!(
        (&started["count"], &started["type"]),
        (&2.into(), &"Normal".into())
    );
    assert_eq!(
        (&started["firstTimestamp"], &started["lastTimestamp"]),
        (&NOW.into(), &"2026-01-02T03:04:35Z".into())
    );
    assert_eq!(started["involvedObject"]["uid"], vm["metadata"]["uid"]);
    assert_eq!(started["source"]["component"], "selvedge.dev/vm");
    // Of cluster scope: in the namespace `default`.
    let ns: Value = client.get(&gvr::namespaces(), "", "ns").await.unwrap().unwrap();
    client.event(&ns, EventType::Normal, "Made", "it is there").await;
    assert_eq!(
        client
            .list(&gvr::events(), Some("default"))
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    // No object floods the others out.
    for n in 0..100 {
        client
            .event(&vm, EventType::Normal, "Flood", &format!("number {n}"))
            .await;
    }
    let events = client.list(&gvr::events(), Some("ns")).await.unwrap().items;
    assert_eq!(events.len(), 26, "25 at once and one more after half a minute");
}
