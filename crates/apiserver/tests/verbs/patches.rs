use apiserver::api::{Patch, Target, WriteOptions};
use kinds::gvr;
use serde_json::{Value, json};

use super::common::*;

#[tokio::test]
async fn each_kind_of_patch() {
    let api = api().await;
    create(&api, &config_map("c", json!({"a": "1", "b": "2"})))
        .await
        .unwrap();
    let table: [(Patch, Value); 4] = [
        (
            Patch::Json(
                json!([{"op": "test", "path": "/data/a", "value": "1"}, {"op": "replace", "path": "/data/a", "value": "j"}]),
            ),
            json!({"a": "j", "b": "2"}),
        ),
        (
            Patch::Merge(json!({"data": {"b": null, "c": "m"}})),
            json!({"a": "j", "c": "m"}),
        ),
        (
            Patch::Strategic(json!({"data": {"d": "s"}})),
            json!({"a": "j", "c": "m", "d": "s"}),
        ),
        (
            Patch::Strategic(json!({"data": {"$patch": "replace", "only": "x"}})),
            json!({"only": "x"}),
        ),
    ];
    for (body, expected) in table {
        let written = patch(&api, "c", body.clone(), "test").await.unwrap();
        assert_eq!(written.object["data"], expected, "{body:?}");
        assert!(written.changed && !written.created);
    }
    let again = patch(&api, "c", Patch::Merge(json!({"data": {"only": "x"}})), "other")
        .await
        .unwrap();
    assert!(!again.changed);
}

#[tokio::test]
async fn patches_that_are_refused() {
    let api = api().await;
    let made = create(&api, &config_map("c", json!({"a": "1"})))
        .await
        .unwrap()
        .object;
    let table = [
        ("none", Patch::Merge(json!({})), 404, "NotFound"),
        ("none", Patch::Json(json!([])), 404, "NotFound"),
        ("c", Patch::Json(json!({"no": "list"})), 400, "BadRequest"),
        (
            "c",
            Patch::Json(json!([{"op": "test", "path": "/data/a", "value": "2"}])),
            422,
            "Invalid",
        ),
        (
            "c",
            Patch::Json(json!([{"op": "remove", "path": "/data/none"}])),
            422,
            "Invalid",
        ),
        ("c", Patch::Merge(json!("text")), 400, "BadRequest"),
        ("c", Patch::Merge(json!({"kind": "Secret"})), 400, "BadRequest"),
        (
            "c",
            Patch::Merge(json!({"metadata": {"name": "other"}})),
            400,
            "BadRequest",
        ),
        (
            "c",
            Patch::Merge(json!({"metadata": {"resourceVersion": "1"}})),
            409,
            "Conflict",
        ),
        (
            "c",
            Patch::Merge(json!({"metadata": {"uid": "other"}})),
            409,
            "Conflict",
        ),
        ("c", Patch::Merge(json!({"data": {"a": 5}})), 422, "Invalid"),
        ("c", Patch::Strategic(json!([])), 400, "BadRequest"),
    ];
    for (name, body, code, reason) in table {
        let refused = refusal(patch(&api, name, body.clone(), "test").await);
        assert_eq!(
            (refused.0, refused.1.as_str()),
            (code, reason),
            "{body:?}: {}",
            refused.3
        );
    }
    assert_eq!(get(&api, &made).await.unwrap(), made);
    let revision = made["metadata"]["resourceVersion"].clone();
    let right = Patch::Merge(json!({"metadata": {"resourceVersion": revision}, "data": {"a": "2"}}));
    assert!(patch(&api, "c", right, "test").await.unwrap().changed);
}

#[tokio::test]
async fn patches_that_meet_are_made_again() {
    let api = api().await;
    create(&api, &config_map("c", json!({}))).await.unwrap();
    let writers: Vec<_> = (0..16)
        .map(|n| {
            let api = api.clone();
            tokio::spawn(async move {
                patch(
                    &api,
                    "c",
                    Patch::Merge(json!({"data": {format!("k{n}"): "v"}})),
                    "test",
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
        get(&api, &config_map("c", json!({}))).await.unwrap()["data"]
            .as_object()
            .unwrap()
            .len(),
        16
    );
}

#[tokio::test]
async fn an_apply_creates_changes_and_leaves_alone() {
    let api = api().await;
    let made = patch(
        &api,
        "c",
        Patch::Apply(config_map("c", json!({"a": "1", "b": "1"}))),
        "one",
    )
    .await
    .unwrap();
    assert!(made.created);
    assert_eq!(made.object["metadata"]["managedFields"][0]["operation"], "Apply");
    let revision = api.revision();
    api.clock().advance(jiff::SignedDuration::from_secs(60));
    let again = patch(
        &api,
        "c",
        Patch::Apply(config_map("c", json!({"a": "1", "b": "1"}))),
        "one",
    )
    .await
    .unwrap();
    assert!(!again.created && !again.changed);
    assert_eq!(again.object, made.object);
    assert_eq!(api.revision(), revision);
    // What is no longer applied goes; another's fields stay.
    patch(&api, "c", Patch::Apply(config_map("c", json!({"c": "2"}))), "two")
        .await
        .unwrap();
    let less = patch(&api, "c", Patch::Apply(config_map("c", json!({"a": "1"}))), "one")
        .await
        .unwrap();
    assert_eq!(less.object["data"], json!({"a": "1", "c": "2"}));
}

#[tokio::test]
async fn an_apply_conflicts_unless_forced() {
    let api = api().await;
    create(&api, &config_map("c", json!({"a": "1", "b": "1", "c": "1"})))
        .await
        .unwrap();
    let refused = refusal(patch(&api, "c", Patch::Apply(config_map("c", json!({"a": "2"}))), "git").await);
    assert_eq!((refused.0, refused.1.as_str()), (409, "Conflict"));
    assert_eq!(refused.2, ["FieldManagerConflict .data.a"]);
    assert_eq!(
        refused.3,
        format!("Apply failed with 1 conflict: conflict with \"test\" using v1 at {NOW}: .data.a")
    );
    let refused = refusal(
        patch(
            &api,
            "c",
            Patch::Apply(config_map("c", json!({"a": "2", "b": "2"}))),
            "git",
        )
        .await,
    );
    assert_eq!(
        refused.3,
        format!(
            "Apply failed with 2 conflicts: conflicts with \"test\" using v1 at {NOW}:\n- .data.a\n- .data.b"
        )
    );
    assert_eq!(refused.2.len(), 2);
    let force = WriteOptions {
        force: true,
        ..by("git")
    };
    let gvr = gvr::config_maps();
    let target = Target::new(&gvr, "ns", "c");
    let body = Patch::Apply(config_map("c", json!({"a": "2"})));
    let forced = api.patch(&admin(), target, body, &force).await.unwrap();
    assert_eq!(forced.object["data"], json!({"a": "2", "b": "1", "c": "1"}));
}

#[tokio::test]
async fn applies_that_are_refused() {
    let api = api().await;
    let apply = |body: Value, manager: &'static str| {
        let api = api.clone();
        async move { refusal(patch(&api, "c", Patch::Apply(body), manager).await) }
    };
    let refused = apply(config_map("c", json!({})), "").await;
    assert_eq!(
        (refused.0, refused.2),
        (422, vec!["FieldValueRequired fieldManager".to_owned()])
    );
    let mut body = config_map("c", json!({}));
    body["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    assert_eq!(apply(body, "m").await.0, 422);
    let mut body = config_map("c", json!({}));
    body["metadata"]["uid"] = "some".into();
    assert_eq!(apply(body, "m").await.0, 409);
    let mut body = config_map("c", json!({}));
    body["metadata"]["resourceVersion"] = "5".into();
    assert_eq!(apply(body, "m").await.0, 409);
    assert_eq!(apply(json!({"kind": "ConfigMap"}), "m").await.0, 400);
    assert_eq!(
        apply(config_map("d", json!({})), "m").await.0,
        400,
        "another name than in the path"
    );
    let gvr = gvr::config_maps();
    let nowhere = Target::new(&gvr, "nowhere", "c");
    let mut body = config_map("c", json!({}));
    body["metadata"].as_object_mut().unwrap().remove("namespace");
    let refused = refusal(api.patch(&admin(), nowhere, Patch::Apply(body), &by("m")).await);
    assert_eq!(refused.3, "namespaces \"nowhere\" not found");
}

#[tokio::test]
async fn applies_of_one_new_object_at_once_all_end_well() {
    let api = api().await;
    let writers: Vec<_> = (0..8)
        .map(|n| {
            let api = api.clone();
            tokio::spawn(async move {
                let body = Patch::Apply(config_map("c", json!({format!("k{n}"): "v"})));
                patch(&api, "c", body, &format!("m{n}")).await.unwrap();
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let object = get(&api, &config_map("c", json!({}))).await.unwrap();
    assert_eq!(object["data"].as_object().unwrap().len(), 8);
    assert_eq!(object["metadata"]["managedFields"].as_array().unwrap().len(), 8);
}

#[tokio::test]
async fn a_secret_given_as_text_is_unchanged_when_applied_again() {
    let api = api().await;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "ns"}, "stringData": {"k": "v"},
    });
    let gvr = gvr::secrets();
    let target = Target::new(&gvr, "ns", "s");
    let made = api
        .patch(&admin(), target, Patch::Apply(secret.clone()), &by("git"))
        .await
        .unwrap();
    assert_eq!(made.object["data"]["k"], "dg==");
    api.clock().advance(jiff::SignedDuration::from_secs(60));
    let again = api
        .patch(&admin(), target, Patch::Apply(secret), &by("git"))
        .await
        .unwrap();
    assert!(!again.changed, "{again:?}");
}

#[tokio::test]
async fn the_status_is_applied_through_its_own_door() {
    let api = api().await;
    create(&api, &machine("vm")).await.unwrap();
    let gvr = gvr::virtual_machines();
    let target = Target::new(&gvr, "ns", "vm");
    let mut body = machine("vm");
    body["spec"]["powerState"] = "poweredOff".into();
    body["status"] = json!({"phase": "Created"});
    let written = api
        .patch(&admin(), target.status(), Patch::Apply(body.clone()), &by("vm"))
        .await
        .unwrap();
    assert_eq!(written.object["status"]["phase"], "Created");
    assert_eq!(written.object["spec"]["powerState"], "poweredOn");
    assert!(
        !api.patch(&admin(), target.status(), Patch::Apply(body), &by("vm"))
            .await
            .unwrap()
            .changed
    );
    let merge = Patch::Merge(json!({"status": {"phase": "Deleting"}, "spec": {"powerState": "poweredOff"}}));
    let ignored = api
        .patch(&admin(), target, merge.clone(), &by("t"))
        .await
        .unwrap();
    assert_eq!(
        (
            &ignored.object["status"]["phase"],
            &ignored.object["spec"]["powerState"]
        ),
        (&"Created".into(), &"poweredOff".into())
    );
    let taken = api
        .patch(&admin(), target.status(), merge, &by("t"))
        .await
        .unwrap();
    assert_eq!(taken.object["status"]["phase"], "Deleting");
    let missing = Target::new(&gvr, "ns", "none").status();
    let mut body = machine("none");
    body["status"] = json!({"phase": "Created"});
    assert_eq!(
        refusal(api.patch(&admin(), missing, Patch::Apply(body), &by("vm")).await).0,
        404
    );
}

#[tokio::test]
async fn kubectl_may_move_from_client_side_to_server_side_apply() {
    let api = api().await;
    let last = config_map("c", json!({"a": "1"})).to_string();
    let mut object = config_map("c", json!({"a": "1", "b": "1"}));
    object["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": last});
    let gvr = gvr::config_maps();
    let target = Target::new(&gvr, "ns", "");
    api.create(&admin(), target, object, &by("kubectl-client-side-apply"))
        .await
        .unwrap();
    // What the annotation does not name was not kubectl's.
    let foreign = Patch::Apply(config_map("c", json!({"b": "2"})));
    assert_eq!(patch(&api, "c", foreign, "kubectl").await.unwrap_err().code, 409);
    let own = || Patch::Apply(config_map("c", json!({"a": "2"})));
    assert_eq!(patch(&api, "c", own(), "another").await.unwrap_err().code, 409);
    let written = patch(&api, "c", own(), "kubectl").await.unwrap();
    assert_eq!(written.object["data"]["a"], "2");
}
