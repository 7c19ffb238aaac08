//! What people change with kubectl.

use serde_json::Value;

use super::site::{CONFIG_MAP, MACHINE, Site, has_kubectl, has_new_kubectl, script};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_side_apply_and_diff() {
    if !has_kubectl() {
        return;
    }
    let site = Site::start().await;
    let kubectl = site.kubectl();
    let both = format!("{CONFIG_MAP}---\n{MACHINE}");
    let first = kubectl.feed(&["apply", "-f", "-"], &both).await.ok();
    assert_eq!(
        first,
        "configmap/app created\nvirtualmachine.vmoperator.vmware.com/web created\n"
    );
    assert_eq!(kubectl.feed(&["diff", "-f", "-"], &both).await.ok(), "");
    let second = kubectl.feed(&["apply", "-f", "-"], &both).await.ok();
    assert_eq!(
        second,
        "configmap/app unchanged\nvirtualmachine.vmoperator.vmware.com/web unchanged\n"
    );
    let changed = both
        .replace("colour: red, ", "")
        .replace("poweredOn", "poweredOff");
    let diff = kubectl.feed(&["diff", "-f", "-"], &changed).await;
    assert_eq!(diff.code, 1, "{diff:?}");
    assert!(
        diff.out.contains("-  colour: red") && diff.out.contains("+  powerState: poweredOff"),
        "{diff:?}"
    );
    let dry = kubectl
        .feed(&["apply", "--dry-run=server", "-f", "-"], &changed)
        .await
        .ok();
    assert!(dry.contains("configmap/app configured (server dry run)"), "{dry}");
    let third = kubectl.feed(&["apply", "-f", "-"], &changed).await.ok();
    assert_eq!(
        third,
        "configmap/app configured\nvirtualmachine.vmoperator.vmware.com/web configured\n"
    );
    let data = kubectl
        .run(&["get", "cm", "app", "-o", "jsonpath={.data}"])
        .await
        .ok();
    assert_eq!(data, r#"{"size":"1"}"#);
    assert_eq!(kubectl.feed(&["diff", "-f", "-"], &changed).await.ok(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_side_apply_and_its_conflicts() {
    if !has_new_kubectl() {
        return;
    }
    let site = Site::start().await;
    let kubectl = site.kubectl();
    let apply = ["apply", "--server-side", "-f", "-"];
    assert_eq!(
        kubectl.feed(&apply, CONFIG_MAP).await.ok(),
        "configmap/app serverside-applied\n"
    );
    assert_eq!(
        kubectl.feed(&apply, CONFIG_MAP).await.ok(),
        "configmap/app serverside-applied\n"
    );
    let blue = CONFIG_MAP.replace("red", "blue");
    let other = ["apply", "--server-side", "--field-manager=other", "-f", "-"];
    let conflict = kubectl.feed(&other, &blue).await.fails();
    assert!(
        conflict.contains("conflict with \"kubectl\"") && conflict.contains(".data.colour"),
        "{conflict}"
    );
    let force = [
        "apply",
        "--server-side",
        "--field-manager=other",
        "--force-conflicts",
        "-f",
        "-",
    ];
    kubectl.feed(&force, &blue).await.ok();
    assert_eq!(
        kubectl
            .run(&["get", "cm", "app", "-o", "jsonpath={.data.colour}"])
            .await
            .ok(),
        "blue"
    );
    let managers = kubectl
        .run(&[
            "get",
            "cm",
            "app",
            "--show-managed-fields",
            "-o",
            "jsonpath={.metadata.managedFields[*].manager}",
        ])
        .await
        .ok();
    let mut managers: Vec<&str> = managers.split(' ').collect();
    managers.sort_unstable();
    assert_eq!(managers, ["kubectl", "other"]);
    let diff = kubectl
        .feed(
            &["diff", "--server-side", "--field-manager=other", "-f", "-"],
            &blue,
        )
        .await;
    assert_eq!((diff.code, diff.out.as_str()), (0, ""), "{diff:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_side_then_server_side() {
    if !has_kubectl() {
        return;
    }
    let site = Site::start().await;
    let kubectl = site.kubectl();
    kubectl.feed(&["apply", "-f", "-"], CONFIG_MAP).await.ok();
    // kubectl makes the fields its own then; changing them is no conflict any more.
    kubectl
        .feed(&["apply", "--server-side", "-f", "-"], CONFIG_MAP)
        .await
        .ok();
    kubectl
        .feed(
            &["apply", "--server-side", "-f", "-"],
            &CONFIG_MAP.replace("red", "blue"),
        )
        .await
        .ok();
    let map: Value =
        serde_json::from_str(&kubectl.run(&["get", "cm", "app", "-o", "json"]).await.ok()).unwrap();
    assert_eq!(map["data"]["colour"], "blue");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patches_labels_and_annotations() {
    if !has_kubectl() {
        return;
    }
    let site = Site::start().await;
    let kubectl = site.kubectl();
    kubectl.feed(&["create", "-f", "-"], CONFIG_MAP).await.ok();
    let patch = async |kind: &str, patch: &str| {
        let said = kubectl
            .run(&["patch", "cm", "app", "--type", kind, "-p", patch])
            .await;
        (said.code, said.out + &said.err)
    };
    let changed = (0, "configmap/app patched\n".to_owned());
    assert_eq!(patch("strategic", r#"{"data":{"a":"1"}}"#).await, changed);
    assert_eq!(
        patch("merge", r#"{"data":{"b":"2","colour":null}}"#).await,
        changed
    );
    assert_eq!(
        patch(
            "json",
            r#"[{"op":"test","path":"/data/a","value":"1"},{"op":"add","path":"/data/c","value":"3"}]"#
        )
        .await,
        changed
    );
    assert_eq!(
        patch("merge", r#"{"data":{"b":"2"}}"#).await.1,
        "configmap/app patched (no change)\n"
    );
    let failed = patch("json", r#"[{"op":"test","path":"/data/a","value":"9"}]"#).await;
    assert_ne!(failed.0, 0, "{failed:?}");
    let data = kubectl
        .run(&["get", "cm", "app", "-o", "jsonpath={.data}"])
        .await
        .ok();
    assert_eq!(
        serde_json::from_str::<Value>(&data).unwrap(),
        serde_json::json!({"a": "1", "b": "2", "c": "3", "size": "1"})
    );
    kubectl
        .run(&["label", "cm", "app", "tier=gold", "app-"])
        .await
        .ok();
    kubectl
        .run(&["annotate", "cm", "app", "example.com/note=hello there"])
        .await
        .ok();
    let metadata = kubectl
        .run(&[
            "get",
            "cm",
            "app",
            "-o",
            "jsonpath={.metadata.labels}{.metadata.annotations}",
        ])
        .await
        .ok();
    assert_eq!(metadata, r#"{"tier":"gold"}{"example.com/note":"hello there"}"#);
    let refused = kubectl.run(&["label", "cm", "app", "tier=tin"]).await.fails();
    assert!(refused.contains("already has a value"), "{refused}");
    kubectl
        .run(&["label", "cm", "app", "tier=tin", "--overwrite"])
        .await
        .ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn protobuf_bodies() {
    if !has_kubectl() {
        return;
    }
    let site = Site::start().await;
    let kubectl = site.kubectl();
    assert_eq!(
        kubectl.run(&["create", "namespace", "shop"]).await.ok(),
        "namespace/shop created\n"
    );
    let file = site.dir.path().join("binary");
    std::fs::write(&file, [0, 159, 146, 150]).unwrap();
    let file = format!("--from-file=bytes={}", file.display());
    kubectl
        .run(&[
            "create",
            "configmap",
            "c",
            "-n",
            "shop",
            "--from-literal=a=b",
            &file,
        ])
        .await
        .ok();
    kubectl
        .run(&[
            "create",
            "secret",
            "generic",
            "s",
            "-n",
            "shop",
            "--from-literal=password=secret",
        ])
        .await
        .ok();
    kubectl
        .run(&[
            "create",
            "secret",
            "docker-registry",
            "d",
            "-n",
            "shop",
            "--docker-username=u",
            "--docker-password=p",
        ])
        .await
        .ok();
    let map: Value = serde_json::from_str(
        &kubectl
            .run(&["get", "cm", "c", "-n", "shop", "-o", "json"])
            .await
            .ok(),
    )
    .unwrap();
    assert_eq!(
        (&map["data"]["a"], &map["binaryData"]["bytes"]),
        (&"b".into(), &"AJ+Slg==".into())
    );
    let secret = kubectl
        .run(&[
            "get",
            "secret",
            "s",
            "-n",
            "shop",
            "-o",
            "jsonpath={.type} {.data.password}",
        ])
        .await
        .ok();
    assert_eq!(secret, "Opaque c2VjcmV0");
    let twice = kubectl.run(&["create", "namespace", "shop"]).await.fails();
    assert_eq!(
        twice,
        "Error from server (AlreadyExists): namespaces \"shop\" already exists\n"
    );
    let token = kubectl
        .run(&["create", "configmap", "c", "-n", "absent"])
        .await
        .fails();
    assert!(token.contains("namespaces \"absent\" not found"), "{token}");
    kubectl.run(&["delete", "namespace", "shop"]).await.ok();
    assert_eq!(
        kubectl.run(&["get", "ns", "-o", "name"]).await.ok(),
        "namespace/default\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edit_and_replace() {
    if !has_kubectl() {
        return;
    }
    let site = Site::start().await;
    let kubectl = site.kubectl();
    kubectl.feed(&["create", "-f", "-"], CONFIG_MAP).await.ok();
    let editor = script(
        site.dir.path(),
        "editor",
        "sed -i 's/colour: red/colour: green/' \"$1\"",
    );
    let mut edit = kubectl.command(&["edit", "cm", "app"]);
    edit.env("EDITOR", &editor);
    assert_eq!(kubectl.said(edit, "").await.ok(), "configmap/app edited\n");
    assert_eq!(
        kubectl
            .run(&["get", "cm", "app", "-o", "jsonpath={.data.colour}"])
            .await
            .ok(),
        "green"
    );
    let old = kubectl.run(&["get", "cm", "app", "-o", "yaml"]).await.ok();
    let new = old.replace("green", "yellow");
    assert_eq!(
        kubectl.feed(&["replace", "-f", "-"], &new).await.ok(),
        "configmap/app replaced\n"
    );
    // The revision in it is no longer the stored one.
    let stale = kubectl.feed(&["replace", "-f", "-"], &old).await.fails();
    assert!(
        stale.contains("(Conflict)") && stale.contains("the object has been modified"),
        "{stale}"
    );
    assert_eq!(
        kubectl
            .feed(&["replace", "--force", "-f", "-"], CONFIG_MAP)
            .await
            .ok(),
        "configmap \"app\" deleted\nconfigmap/app replaced\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_waits_for_finalizers() {
    if !has_kubectl() {
        return;
    }
    let site = Site::start().await;
    let kubectl = site.kubectl();
    kubectl
        .feed(
            &["create", "-f", "-"],
            &CONFIG_MAP.replace("labels:", "finalizers: [example.com/held], labels:"),
        )
        .await
        .ok();
    let mut deleting = kubectl.start(&["delete", "cm", "app"]);
    deleting.line_with("deleted").await;
    let at = kubectl
        .run(&["get", "cm", "app", "-o", "jsonpath={.metadata.deletionTimestamp}"])
        .await
        .ok();
    assert!(!at.is_empty());
    kubectl
        .run(&[
            "patch",
            "cm",
            "app",
            "--type=merge",
            "-p",
            r#"{"metadata":{"finalizers":null}}"#,
        ])
        .await
        .ok();
    assert!(
        tokio::time::timeout(super::site::PATIENCE, deleting.child.wait())
            .await
            .unwrap()
            .unwrap()
            .success()
    );
    kubectl.run(&["get", "cm", "app"]).await.fails();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said() {
    if !has_new_kubectl() {
        return;
    }
    let site = Site::start().await;
    let kubectl = site.kubectl();
    let wrong = MACHINE.replace("poweredOn", "spinning");
    let refused = kubectl.feed(&["apply", "-f", "-"], &wrong).await.fails();
    assert!(
        refused.contains("spec.powerState") && refused.contains("is invalid"),
        "{refused}"
    );
    let unknown = MACHINE.replace("  className:", "  shoeSize: 43\n  className:");
    let said = kubectl.feed(&["apply", "-f", "-"], &unknown).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.err.contains("Warning: ") && said.err.contains("spec.shoeSize"),
        "{said:?}"
    );
    let twice = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"t"},"data":{"a":"1","a":"2"}}"#;
    let said = kubectl
        .feed(
            &[
                "create",
                "--raw",
                "/api/v1/namespaces/default/configmaps",
                "-f",
                "-",
            ],
            twice,
        )
        .await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.err.contains("duplicate field \"data.a\""), "{said:?}");
}
