use apiserver::{
    Caller,
    api::{Target, WriteOptions},
};
use kinds::{gvr, object};
use serde_json::{Value, json};

use super::common::*;

#[tokio::test]
async fn a_new_object_gets_what_only_the_server_sets() {
    let api = api().await;
    let mut vm = machine("vm");
    vm["metadata"]["uid"] = "mine".into();
    vm["metadata"]["creationTimestamp"] = "2000-01-01T00:00:00Z".into();
    vm["metadata"]["deletionTimestamp"] = "2000-01-01T00:00:00Z".into();
    vm["status"] = json!({"phase": "Created"});
    let made = create(&api, &vm).await.unwrap();
    assert!(made.created && made.changed);
    let metadata = &made.object["metadata"];
    assert_eq!(metadata["creationTimestamp"], NOW);
    assert_eq!(metadata["generation"], 1);
    assert_eq!(metadata["uid"].as_str().unwrap().len(), 36);
    assert_eq!(metadata["resourceVersion"], api.revision().to_string());
    assert!(metadata.get("deletionTimestamp").is_none());
    assert_eq!(metadata["managedFields"][0]["manager"], "test");
    assert_eq!(metadata["managedFields"][0]["operation"], "Update");
    assert!(made.object.get("status").is_none(), "the status has its own door");
    assert_eq!(
        get(&api, &vm).await.unwrap(),
        made.object,
        "what was answered is what is stored"
    );

    let config = create(&api, &config_map("c", json!({"a": "b"})))
        .await
        .unwrap()
        .object;
    assert!(
        config["metadata"].get("generation").is_none(),
        "nothing counts the changes of a ConfigMap"
    );
}

#[tokio::test]
async fn names_are_generated() {
    let api = api().await;
    let mut object = config_map("", json!({}));
    object["metadata"]["generateName"] = "made-".into();
    object["metadata"].as_object_mut().unwrap().remove("name");
    let (a, b) = (
        create(&api, &object).await.unwrap().object,
        create(&api, &object).await.unwrap().object,
    );
    let name = object::name(&a);
    assert!(name.starts_with("made-") && name.len() == 10, "{name}");
    assert_ne!(name, object::name(&b));
}

#[tokio::test]
async fn creates_that_are_refused() {
    let api = api().await;
    create(&api, &config_map("there", json!({}))).await.unwrap();
    let change = |change: fn(&mut Value)| {
        let mut object = config_map("c", json!({"a": "b"}));
        change(&mut object);
        object
    };
    let table = [
        (
            change(|o| o["metadata"]["name"] = "there".into()),
            409,
            "AlreadyExists",
            "configmaps \"there\" already exists",
        ),
        (
            change(|o| o["metadata"]["namespace"] = "nowhere".into()),
            404,
            "NotFound",
            "namespaces \"nowhere\" not found",
        ),
        (
            change(|o| o["metadata"]["resourceVersion"] = "7".into()),
            400,
            "BadRequest",
            "resourceVersion should not be set",
        ),
        (
            change(|o| o["metadata"]["name"] = "Not_A_Name".into()),
            422,
            "Invalid",
            "ConfigMap \"Not_A_Name\" is invalid: metadata.name",
        ),
        (
            change(|o| o["metadata"]["name"] = Value::Null),
            422,
            "Invalid",
            "metadata.name",
        ),
        (change(|o| o["data"] = json!({"a": 5})), 422, "Invalid", "data.a"),
        (
            change(|o| o["metadata"]["labels"] = json!({"-": "x"})),
            422,
            "Invalid",
            "metadata.labels",
        ),
    ];
    for (object, code, reason, says) in table {
        let refused = refusal(create(&api, &object).await);
        assert_eq!(
            (refused.0, refused.1.as_str()),
            (code, reason),
            "{object} {}",
            refused.3
        );
        assert!(refused.3.contains(says), "{}", refused.3);
    }
    // The body is of another kind, version or namespace than the path says.
    let caller = admin();
    let gvr = gvr::config_maps();
    let target = Target::new(&gvr, "ns", "");
    for (object, says) in [
        (
            change(|o| o["kind"] = "Secret".into()),
            "kind in the data (Secret) does not match",
        ),
        (
            change(|o| o["apiVersion"] = "v2".into()),
            "API version in the data (v2) does not match",
        ),
        (
            change(|o| o["metadata"]["namespace"] = "default".into()),
            "namespace of the provided object does not match",
        ),
        (json!([]), "does not match"),
    ] {
        let refused = refusal(api.create(&caller, target, object, &by("test")).await);
        assert_eq!((refused.0, refused.1.as_str()), (400, "BadRequest"));
        assert!(refused.3.contains(says), "{}", refused.3);
    }
    let unknown = kinds::Gvr::new("v1", "pods");
    let refused = refusal(api.get(&caller, Target::new(&unknown, "ns", "p")).await);
    assert_eq!(
        (refused.0, refused.3.as_str()),
        (404, "the server could not find the requested resource")
    );
}

#[tokio::test]
async fn details_name_the_object_as_clients_expect() {
    let api = api().await;
    let vm = machine("vm");
    let status = get(&api, &vm).await.unwrap_err();
    assert_eq!(
        status.message,
        "virtualmachines.vmoperator.vmware.com \"vm\" not found"
    );
    assert_eq!(
        status.details,
        json!({"name": "vm", "group": "vmoperator.vmware.com", "kind": "virtualmachines"})
    );
    let mut bad = vm;
    bad["spec"]["powerState"] = "sideways".into();
    let status = create(&api, &bad).await.unwrap_err();
    assert_eq!(status.details["kind"], "VirtualMachine");
    assert_eq!(status.details["causes"][0]["field"], "spec.powerState");
    assert!(
        status
            .message
            .starts_with("VirtualMachine.vmoperator.vmware.com \"vm\" is invalid: spec.powerState")
    );
    let value = status.to_value();
    assert_eq!(
        (value["code"].clone(), value["status"].clone()),
        (422.into(), "Failure".into())
    );
}

#[tokio::test]
async fn an_update_holds_the_revision_against_the_stored_one() {
    let api = api().await;
    let first = create(&api, &config_map("c", json!({"a": "1"})))
        .await
        .unwrap()
        .object;
    let mut second = first.clone();
    second["data"]["a"] = "2".into();
    let second = update(&api, &second).await.unwrap().object;
    // Whoever still has the first loses.
    let mut late = first.clone();
    late["data"]["a"] = "3".into();
    let refused = refusal(update(&api, &late).await);
    assert_eq!((refused.0, refused.1.as_str()), (409, "Conflict"));
    assert_eq!(
        refused.3,
        "Operation cannot be fulfilled on configmaps \"c\": the object has been modified; please apply your changes to the latest version and try again"
    );
    // Without a revision, or with 0, whatever is there is replaced.
    for revision in [Value::Null, "0".into(), "".into()] {
        late["metadata"]["resourceVersion"] = revision.clone();
        late["data"]["a"] = format!("by {revision}").into();
        assert!(update(&api, &late).await.unwrap().changed, "{revision}");
    }
    late["metadata"]["resourceVersion"] = "x".into();
    assert_eq!(
        refusal(update(&api, &late).await).2,
        ["FieldValueInvalid metadata.resourceVersion"]
    );
    late["metadata"]["resourceVersion"] = Value::Null;
    late["metadata"]["uid"] = "another".into();
    assert_eq!(refusal(update(&api, &late).await).0, 409);
    assert_eq!(refusal(update(&api, &config_map("none", json!({}))).await).0, 404);
    assert_eq!(second["metadata"]["uid"], first["metadata"]["uid"]);
}

#[tokio::test]
async fn a_write_that_changes_nothing_writes_nothing() {
    let api = api().await;
    let made = create(&api, &machine("vm")).await.unwrap().object;
    let revision = api.revision();
    api.clock().advance(jiff::SignedDuration::from_secs(100));
    for object in [made.clone(), machine("vm")] {
        let again = update(&api, &object).await.unwrap();
        assert!(!again.changed);
        assert_eq!(
            again.object["metadata"]["resourceVersion"],
            made["metadata"]["resourceVersion"]
        );
    }
    assert_eq!(api.revision(), revision);
}

#[tokio::test]
async fn the_generation_counts_changes_of_what_is_wanted() {
    let api = api().await;
    let mut vm = create(&api, &machine("vm")).await.unwrap().object;
    vm["metadata"]["labels"] = json!({"a": "b"});
    vm["metadata"]["generation"] = 99.into();
    vm = update(&api, &vm).await.unwrap().object;
    assert_eq!(vm["metadata"]["generation"], 1, "labels are not counted");
    vm["spec"]["powerState"] = "poweredOff".into();
    vm = update(&api, &vm).await.unwrap().object;
    assert_eq!(vm["metadata"]["generation"], 2);
    vm["status"] = json!({"phase": "Created"});
    vm["spec"]["powerState"] = "poweredOn".into();
    let gvr = gvr::virtual_machines();
    let target = Target::new(&gvr, "ns", "vm");
    let after = api
        .update(&admin(), target.status(), vm.clone(), &by("vm"))
        .await
        .unwrap()
        .object;
    assert_eq!(after["metadata"]["generation"], 2, "the status is not counted");
    assert_eq!(after["status"]["phase"], "Created");
    assert_eq!(
        after["spec"]["powerState"], "poweredOff",
        "a write of the status changes nothing else"
    );
    // And the other way round.
    let mut vm = after;
    vm["status"] = json!({"phase": "Deleting"});
    vm["metadata"]["labels"]["c"] = "d".into();
    let after = update(&api, &vm).await.unwrap().object;
    assert_eq!(after["status"]["phase"], "Created");
    let managers: Vec<_> = after["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| (m["manager"].as_str().unwrap(), m["subresource"].as_str()))
        .collect();
    assert!(managers.contains(&("vm", Some("status"))), "{managers:?}");
    let missing = refusal(
        api.update(
            &admin(),
            Target::new(&gvr::config_maps(), "ns", "c").status(),
            json!({}),
            &by("x"),
        )
        .await,
    );
    assert_eq!(missing.0, 404, "a ConfigMap has no status");
}

#[tokio::test]
async fn unknown_fields_are_kept_with_a_warning() {
    let api = api().await;
    let mut vm = machine("vm");
    vm["spec"]["fromTheFuture"] = json!({"x": 1});
    let made = create(&api, &vm).await.unwrap();
    assert_eq!(made.warnings, ["unknown field \"spec.fromTheFuture\""]);
    assert_eq!(get(&api, &vm).await.unwrap()["spec"]["fromTheFuture"]["x"], 1);
    let mut changed = made.object;
    changed["spec"]["powerState"] = "poweredOff".into();
    let quiet = WriteOptions {
        ignore_unknown: true,
        ..by("test")
    };
    let gvr = gvr::virtual_machines();
    let written = api
        .update(&admin(), Target::new(&gvr, "ns", "vm"), changed, &quiet)
        .await
        .unwrap();
    assert!(written.warnings.is_empty());
}

#[tokio::test]
async fn a_dry_run_goes_all_the_way_but_one_step() {
    let api = api().await;
    let dry = WriteOptions {
        dry_run: true,
        ..by("test")
    };
    let gvr = gvr::config_maps();
    let there = create(&api, &config_map("there", json!({"a": "b"})))
        .await
        .unwrap()
        .object;
    let revision = api.revision();
    let target = Target::new(&gvr, "ns", "");
    let made = api
        .create(&admin(), target, config_map("new", json!({})), &dry)
        .await
        .unwrap();
    assert!(made.created && made.object["metadata"]["uid"].is_string());
    assert!(made.object["metadata"].get("resourceVersion").is_none());
    assert_eq!(
        refusal(
            api.create(&admin(), target, config_map("there", json!({})), &dry)
                .await
        )
        .0,
        409
    );
    assert_eq!(
        refusal(
            api.create(&admin(), target, config_map("B_D", json!({})), &dry)
                .await
        )
        .0,
        422
    );
    let mut changed = there.clone();
    changed["data"]["a"] = "c".into();
    let changed = api
        .update(&admin(), Target::new(&gvr, "ns", "there"), changed, &dry)
        .await
        .unwrap();
    assert!(changed.changed);
    assert_eq!(changed.object["data"]["a"], "c");
    assert_eq!(api.revision(), revision);
    assert_eq!(get(&api, &there).await.unwrap(), there);
}

#[tokio::test]
async fn strangers_may_nothing() {
    let api = api().await;
    let bob = Caller {
        user: "bob".into(),
        groups: vec!["system:authenticated".into()],
        ..Caller::default()
    };
    let gvr = gvr::config_maps();
    let target = Target::new(&gvr, "ns", "c");
    let refused = refusal(api.get(&bob, target).await);
    assert_eq!((refused.0, refused.1.as_str()), (403, "Forbidden"));
    assert_eq!(
        refused.3,
        "configmaps \"c\" is forbidden: User \"bob\" cannot get resource \"configmaps\" in API group \"\" in the namespace \"ns\""
    );
    assert_eq!(
        refusal(api.list(&bob, &gvr, None, &Default::default()).await).0,
        403
    );
    assert_eq!(
        api.watch(&bob, &gvr, None, &Default::default())
            .await
            .err()
            .unwrap()
            .code,
        403
    );
    assert_eq!(
        refusal(api.update(&bob, target, json!({}), &by("x")).await).0,
        403
    );
    assert_eq!(
        refusal(api.delete(&bob, target, &Default::default()).await).0,
        403
    );
    assert_eq!(
        refusal(
            api.delete_collection(&bob, &gvr, Some("ns"), &Default::default(), &Default::default())
                .await
        )
        .0,
        403
    );
}

#[tokio::test]
async fn of_two_updaters_that_read_the_same_one_conflicts() {
    let api = api().await;
    create(&api, &config_map("c", json!({"n": "0"}))).await.unwrap();
    let (mut conflicts, mut wins) = (0, 0);
    for round in 0..20 {
        let read = get(&api, &config_map("c", json!({}))).await.unwrap();
        let writers = (0..2).map(|writer| {
            let (api, mut object) = (api.clone(), read.clone());
            object["data"]["n"] = format!("{round}-{writer}").into();
            tokio::spawn(async move { update(&api, &object).await })
        });
        for writer in writers.collect::<Vec<_>>() {
            match writer.await.unwrap() {
                Ok(_) => wins += 1,
                Err(status) => {
                    assert!(status.is_conflict(), "{status}");
                    conflicts += 1;
                }
            }
        }
    }
    assert_eq!((wins, conflicts), (20, 20));
}

#[tokio::test]
async fn versions_are_views_of_one_object() {
    let api = api().await;
    let repository = json!({
        "apiVersion": "source.toolkit.fluxcd.io/v1beta2", "kind": "GitRepository",
        "metadata": {"name": "site", "namespace": "ns"}, "spec": {"url": "https://git.example/site", "interval": "1m"},
    });
    let made = create(&api, &repository).await.unwrap().object;
    assert_eq!(made["apiVersion"], "source.toolkit.fluxcd.io/v1beta2");
    let gvr = gvr::git_repositories();
    let new = api.get(&admin(), Target::new(&gvr, "ns", "site")).await.unwrap();
    assert_eq!(new["apiVersion"], "source.toolkit.fluxcd.io/v1");
    assert_eq!(
        new["metadata"]["resourceVersion"],
        made["metadata"]["resourceVersion"]
    );
    let old_gvr = kinds::Gvr::new("source.toolkit.fluxcd.io/v1beta2", "gitrepositories");
    let raw = api
        .list_raw(&admin(), &old_gvr, None, &Default::default())
        .await
        .unwrap();
    let raw: Value = serde_json::from_slice(&raw.items[0]).unwrap();
    assert_eq!(raw["apiVersion"], "source.toolkit.fluxcd.io/v1beta2");
    assert_eq!(raw, made);
}

#[tokio::test]
async fn events_have_two_views() {
    let api = api().await;
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "ns"},
        "regarding": {"kind": "VirtualMachine", "name": "vm", "namespace": "ns"}, "note": "it runs", "reason": "Started",
        "type": "Normal", "eventTime": "2026-01-02T03:04:05.000000Z", "reportingController": "x", "reportingInstance": "y", "action": "Start",
    });
    create(&api, &event).await.unwrap();
    let core = api
        .get(&admin(), Target::new(&gvr::events(), "ns", "e"))
        .await
        .unwrap();
    assert_eq!(
        (core["involvedObject"]["name"].as_str(), core["message"].as_str()),
        (Some("vm"), Some("it runs"))
    );
    let new = kinds::Gvr::new("events.k8s.io/v1", "events");
    let options = apiserver::api::ListOptions {
        field_selector: "regarding.name=vm".into(),
        ..Default::default()
    };
    let listed = api.list(&admin(), &new, None, &options).await.unwrap();
    assert_eq!(listed.items[0]["note"], "it runs");
    let options = apiserver::api::ListOptions {
        field_selector: "involvedObject.name=vm,involvedObject.namespace=ns".into(),
        ..Default::default()
    };
    assert_eq!(
        api.list(&admin(), &gvr::events(), None, &options)
            .await
            .unwrap()
            .items
            .len(),
        1
    );
}

#[tokio::test]
async fn what_could_not_be_read_again_is_not_stored() {
    let api = api().await;
    create(&api, &machine("vm")).await.unwrap();
    let gvr = gvr::virtual_machines();
    let target = Target::new(&gvr, "ns", "vm");
    // Depth and size are bounded long before they hurt.
    for (operation, code) in [
        (json!({"op": "copy", "from": "/spec/x", "path": "/spec/x/y"}), 400),
        (
            json!({"op": "add", "path": "/spec/big", "value": "x".repeat(4 << 20)}),
            413,
        ),
    ] {
        let mut operations = vec![json!({"op": "add", "path": "/spec/x", "value": {"y": {}}})];
        operations.extend(std::iter::repeat_n(operation, 110));
        let patch = apiserver::api::Patch::Json(operations.into());
        let refused = refusal(api.patch(&admin(), target, patch, &by("test")).await);
        assert!([code, 413].contains(&refused.0), "{}", refused.3);
    }
    assert!(get(&api, &machine("vm")).await.is_ok());
}
