//! What people look at with kubectl.

use serde_json::Value;

use super::site::{CONFIG_MAP, MACHINE, Site, has_kubectl, has_new_kubectl};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discovery() {
    if !has_new_kubectl() {
        return;
    }
    let site = Site::start().await;
    let kubectl = site.kubectl();
    let version: Value = serde_json::from_str(&kubectl.run(&["version", "-o", "json"]).await.ok()).unwrap();
    let git_version = version["serverVersion"]["gitVersion"].as_str().unwrap();
    assert!(
        git_version.starts_with("v1.34.") && git_version.contains("+selvedge"),
        "{git_version}"
    );
    let versions = kubectl.run(&["api-versions"]).await.ok();
    for expected in [
        "v1",
        "coordination.k8s.io/v1",
        "esx.vmware.com/v1alpha1",
        "vmoperator.vmware.com/v1alpha1",
    ] {
        assert!(versions.lines().any(|line| line == expected), "{versions}");
    }
    let resources = kubectl.run(&["api-resources", "-o", "wide"]).await.ok();
    let row = |name: &str| {
        let row = resources
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")))
            .unwrap_or_else(|| panic!("{resources}"));
        row.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        row("virtualmachines")[1..5],
        ["vm", "vmoperator.vmware.com/v1alpha1", "true", "VirtualMachine"]
    );
    assert_eq!(row("namespaces")[1..5], ["ns", "v1", "false", "Namespace"]);
    assert_eq!(
        row("secrets").last().unwrap(),
        "create,delete,deletecollection,get,list,patch,update,watch"
    );
    let only = kubectl
        .run(&["api-resources", "--api-group=esx.vmware.com", "-o", "name"])
        .await
        .ok();
    assert_eq!(only, "hostconfigurations.esx.vmware.com\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_in_every_form() {
    if !has_kubectl() {
        return;
    }
    let site = Site::start().await;
    let kubectl = site.kubectl();
    kubectl.feed(&["create", "-f", "-"], CONFIG_MAP).await.ok();
    kubectl.feed(&["create", "-f", "-"], MACHINE).await.ok();
    let table = kubectl.run(&["get", "cm"]).await.ok();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0], ["NAME", "DATA", "AGE"]);
    assert_eq!(rows[1][..2], ["app", "2"]);
    let narrow = kubectl.run(&["get", "vm", "-A"]).await.ok();
    let wide = kubectl.run(&["get", "vm", "-A", "-o", "wide"]).await.ok();
    assert!(
        narrow.starts_with("NAMESPACE") && !narrow.contains("demo.ova"),
        "{narrow}"
    );
    assert!(wide.contains("demo.ova"), "{wide}");
    let yaml = kubectl.run(&["get", "cm", "app", "-o", "yaml"]).await.ok();
    assert!(
        yaml.contains("colour: red") && yaml.contains("resourceVersion:"),
        "{yaml}"
    );
    let jsonpath = kubectl
        .run(&["get", "vm", "web", "-o", "jsonpath={.spec.className}"])
        .await
        .ok();
    assert_eq!(jsonpath, "small");
    let custom = kubectl
        .run(&[
            "get",
            "cm,vm",
            "-o",
            "custom-columns=K:.kind,N:.metadata.name",
            "--no-headers",
        ])
        .await
        .ok();
    let rows: Vec<Vec<&str>> = custom
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows, [["ConfigMap", "app"], ["VirtualMachine", "web"]]);
    let sorted = kubectl
        .run(&["get", "ns", "--sort-by=.metadata.name", "-o", "name"])
        .await
        .ok();
    assert_eq!(sorted, "namespace/default\n");
    let missing = kubectl.run(&["get", "cm", "absent"]).await.fails();
    assert_eq!(
        missing,
        "Error from server (NotFound): configmaps \"absent\" not found\n"
    );
    assert!(
        kubectl
            .run(&["get", "pods"])
            .await
            .fails()
            .contains("the server doesn't have a resource type \"pods\"")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn describe_and_explain() {
    if !has_new_kubectl() {
        return;
    }
    let site = Site::start().await;
    let kubectl = site.kubectl();
    kubectl.feed(&["create", "-f", "-"], MACHINE).await.ok();
    let described = kubectl.run(&["describe", "vm", "web"]).await.ok();
    assert!(
        described.contains("Class Name:") && described.contains("Events:"),
        "{described}"
    );
    let explained = kubectl.run(&["explain", "vm.spec"]).await.ok();
    assert!(
        explained.contains("KIND:       VirtualMachine") && explained.contains("className\t<string>"),
        "{explained}"
    );
    let all = kubectl
        .run(&["explain", "virtualmachines", "--recursive"])
        .await
        .ok();
    assert!(
        all.contains("networkName\t<string>") && all.contains("managedFields\t<[]Object>"),
        "{all}"
    );
    let metadata = kubectl.run(&["explain", "ns.metadata.labels"]).await.ok();
    assert!(
        metadata.contains("FIELD: labels <map[string]string>"),
        "{metadata}"
    );
    for kind in site.api.registry().iter() {
        for version in &kind.versions {
            let api_version = kinds::Gvr {
                group: kind.group.clone(),
                version: version.name.clone(),
                plural: String::new(),
            };
            let api_version = format!("--api-version={}", api_version.api_version());
            kubectl.run(&["explain", &kind.plural, &api_version]).await.ok();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn selectors_and_pages() {
    if !has_kubectl() {
        return;
    }
    let site = Site::start().await;
    let kubectl = site.kubectl();
    let many: String = (0..25)
        .map(|n| {
            let tier = if n % 5 == 0 { "gold" } else { "tin" };
            format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m{n:02}, labels: {{tier: {tier}}}}}\n")
        })
        .collect();
    kubectl.feed(&["create", "-f", "-"], &many).await.ok();
    let count = |out: String| out.lines().count();
    assert_eq!(
        count(
            kubectl
                .run(&["get", "cm", "-o", "name", "--chunk-size=4"])
                .await
                .ok()
        ),
        25
    );
    assert_eq!(
        count(
            kubectl
                .run(&["get", "cm", "--chunk-size=10", "--no-headers"])
                .await
                .ok()
        ),
        25
    );
    assert_eq!(
        count(
            kubectl
                .run(&["get", "cm", "-o", "name", "-l", "tier=gold"])
                .await
                .ok()
        ),
        5
    );
    assert_eq!(
        count(
            kubectl
                .run(&[
                    "get",
                    "cm",
                    "-o",
                    "name",
                    "-l",
                    "tier in (gold, none), !x",
                    "--chunk-size=2"
                ])
                .await
                .ok()
        ),
        5
    );
    assert_eq!(
        kubectl
            .run(&["get", "cm", "-o", "name", "--field-selector", "metadata.name=m07"])
            .await
            .ok(),
        "configmap/m07\n"
    );
    assert_eq!(
        count(
            kubectl
                .run(&[
                    "get",
                    "cm",
                    "-o",
                    "name",
                    "--field-selector",
                    "metadata.name!=m07"
                ])
                .await
                .ok()
        ),
        24
    );
    let refused = kubectl
        .run(&["get", "cm", "--field-selector", "data.x=1"])
        .await
        .fails();
    assert!(refused.contains("field label not supported"), "{refused}");
    assert_eq!(
        count(
            kubectl
                .run(&["delete", "cm", "-l", "tier=gold", "-o", "name"])
                .await
                .ok()
        ),
        5
    );
    kubectl.run(&["delete", "cm", "--all"]).await.ok();
    assert_eq!(kubectl.run(&["get", "cm", "-o", "name"]).await.ok(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watching() {
    if !has_kubectl() {
        return;
    }
    let site = Site::start().await;
    let kubectl = site.kubectl();
    kubectl.feed(&["create", "-f", "-"], CONFIG_MAP).await.ok();
    let mut table = kubectl.start(&["get", "cm", "-w"]);
    table.line_with("app").await;
    let mut events = kubectl.start(&["get", "cm", "-w", "--output-watch-events", "-l", "app=web"]);
    let mut only = kubectl.start(&[
        "get",
        "cm",
        "-w",
        "--watch-only",
        "-o",
        "jsonpath={.metadata.name}={.data.colour}{\"\\n\"}",
    ]);
    // It has started when something that is changed again and again arrives.
    let mut colour = 0;
    loop {
        colour += 1;
        kubectl
            .run(&[
                "patch",
                "cm",
                "app",
                "-p",
                &format!("{{\"data\":{{\"colour\":\"c{colour}\"}}}}"),
            ])
            .await
            .ok();
        let line = tokio::time::timeout(std::time::Duration::from_millis(500), only.line_with("app=c")).await;
        if line.is_ok() {
            break;
        }
    }
    assert!(events.line_with("app").await.starts_with("ADDED"));
    kubectl
        .run(&["create", "cm", "later", "--from-literal=a=b"])
        .await
        .ok();
    assert_eq!(
        table.line_with("later").await.split_whitespace().nth(1),
        Some("1")
    );
    kubectl.run(&["label", "cm", "app", "app-"]).await.ok();
    assert!(events.line_with("DELETED").await.contains("app"));
    only.line_with("later").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_a_condition_and_for_deletion() {
    if !has_new_kubectl() {
        return;
    }
    let site = Site::start().await;
    let kubectl = site.kubectl();
    kubectl.feed(&["create", "-f", "-"], MACHINE).await.ok();
    let mut waiting = kubectl.start(&["wait", "--for=condition=Ready", "vm/web", "--timeout=30s"]);
    let ready = r#"{"status":{"conditions":[{"type":"Ready","status":"True","reason":"Test","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}"#;
    kubectl
        .run(&[
            "patch",
            "vm",
            "web",
            "--subresource=status",
            "--type=merge",
            "-p",
            ready,
        ])
        .await
        .ok();
    waiting
        .line_with("virtualmachine.vmoperator.vmware.com/web condition met")
        .await;
    assert!(waiting.child.wait().await.unwrap().success());
    let table = kubectl.run(&["get", "vm", "web", "--no-headers"]).await.ok();
    assert!(table.contains("True"), "{table}");
    let mut gone = kubectl.start(&["wait", "--for=delete", "vm/web", "--timeout=30s"]);
    kubectl.run(&["delete", "vm", "web"]).await.ok();
    assert!(
        tokio::time::timeout(super::site::PATIENCE, gone.child.wait())
            .await
            .unwrap()
            .unwrap()
            .success()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_whoami_and_raw() {
    if !has_new_kubectl() {
        return;
    }
    let site = Site::start().await;
    let kubectl = site.kubectl();
    kubectl.feed(&["create", "-f", "-"], MACHINE).await.ok();
    let gvr = kinds::Gvr::new("vmoperator.vmware.com/v1alpha1", "virtualmachines");
    let machine = site.client().get(&gvr, "default", "web").await.unwrap().unwrap();
    site.client()
        .event(
            &machine,
            apiserver::client::EventType::Warning,
            "Tested",
            "all is well",
        )
        .await;
    let events = kubectl.run(&["events"]).await.ok();
    assert!(
        events.contains("Tested") && events.contains("VirtualMachine/web"),
        "{events}"
    );
    let events = kubectl.run(&["get", "events", "--no-headers"]).await.ok();
    assert!(events.contains("all is well"), "{events}");
    let described = kubectl.run(&["describe", "vm", "web"]).await.ok();
    assert!(described.contains("Tested"), "{described}");
    let for_it = kubectl
        .run(&["events", "--for", "vm/web", "--types=Warning"])
        .await
        .ok();
    assert!(for_it.contains("Tested"), "{for_it}");
    assert_eq!(
        kubectl.run(&["auth", "can-i", "create", "configmaps"]).await.ok(),
        "yes\n"
    );
    assert!(
        kubectl
            .run(&["auth", "whoami"])
            .await
            .ok()
            .contains("selvedge-admin")
    );
    assert_eq!(kubectl.run(&["get", "--raw", "/readyz"]).await.ok(), "ok");
    assert!(
        kubectl
            .run(&["get", "--raw", "/metrics"])
            .await
            .ok()
            .contains("selvedge_api_requests_total")
    );
}
