//! Virtual machines through the real API, its store and its watches, as the daemon puts them together.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::{path::PathBuf, sync::Arc, time::Duration};

use apiserver::{Api, Client, client::WatchEvent};
use async_trait::async_trait;
use kinds::{
    gvr,
    network::{PortGroup, PortGroups},
    registry::Registry,
};
use serde_json::{Value, json};
use store::{SqliteStore, Store};
use telemetry::{Clock, Metrics};
use tokio::{sync::watch, time::timeout};
use vm::{Config, Image, ImageDisk, ImageError, Images, Vms, accelerator::Choice};

/// One image: a disk whose boot sector stands still.
struct Disk(PathBuf);

#[async_trait]
impl Images for Disk {
    async fn ensure(&self, _: &str, _: &watch::Sender<String>) -> Result<Image, ImageError> {
        let disk = ImageDisk {
            path: self.0.clone(),
            format: "raw".into(),
            bytes: 1 << 20,
        };
        Ok(Image {
            disks: vec![disk],
            digest: "sha256:0".into(),
            efi: false,
        })
    }
}

async fn until(client: &Client, wanted: impl Fn(&Value) -> bool) -> Value {
    let found = timeout(Duration::from_secs(30), async {
        let list = client.list(&gvr::virtual_machines(), None).await.unwrap();
        let mut watch = client
            .watch(&gvr::virtual_machines(), None, list.revision)
            .await
            .unwrap();
        let mut vm = list.items.into_iter().next().unwrap_or_default();
        while !wanted(&vm) {
            vm = match watch.next().await.unwrap() {
                WatchEvent::Applied(object) => object,
                WatchEvent::Deleted(_) => Value::Null,
            };
        }
        vm
    });
    match found.await {
        Ok(vm) => vm,
        Err(_) => panic!(
            "never so: {:#}",
            client.list(&gvr::virtual_machines(), None).await.unwrap().items[0]
        ),
    }
}

fn condition<'a>(vm: &'a Value, kind: &str) -> &'a Value {
    let list = vm["status"]["conditions"].as_array().into_iter().flatten();
    list.into_iter()
        .find(|c| c["type"] == kind)
        .unwrap_or(&Value::Null)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_the_api_to_a_guest_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("still.img");
    let mut sector = vec![0; 1 << 20];
    sector[..4].copy_from_slice(&[0xfa, 0xf4, 0xeb, 0xfc]);
    sector[510..512].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(&image, sector).unwrap();

    let store: Arc<dyn Store> = Arc::new(SqliteStore::in_memory().unwrap());
    let api = Api::new(Arc::new(Registry::builtin()), store, Clock::system());
    let client = Client::new(api, "vm-controller");
    let mut config = Config::new(dir.path().join("state"), dir.path().join("run"), "host-1");
    config.accelerator = Choice::Tcg;
    config.cgroup_name = String::new();
    let group = PortGroup {
        name: "VM Network".into(),
        switch: "vSwitch0".into(),
        vlan_id: 0,
        mtu: 1500,
    };
    let groups = watch::Sender::new(Arc::new(PortGroups::from([(group.name.clone(), group)])));
    let (ports, requested) = watch::channel(Arc::default());
    let (signal, queue) = reconcile::queue();
    let images = Arc::new(Disk(image));
    let vms = Vms::new(
        config,
        client.clone(),
        images,
        groups.subscribe(),
        ports,
        Clock::system(),
        signal,
    );
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let driver = tokio::spawn(vms.driver(queue, &client, &Metrics::new()).run(async {
        let _ = stopped.await;
    }));

    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    client.create(&namespace).await.unwrap();
    let vm = json!({"apiVersion": "vmoperator.vmware.com/v1alpha1", "kind": "VirtualMachine",
        "metadata": {"name": "till", "namespace": "shop"},
        "spec": {"className": "tiny", "imageName": "still.ova", "colour": "red", "vmMetadata": {"secretName": "init", "transport": "CloudInit"},
            "networkInterfaces": [{"network": "VM Network"}]}});
    client.create(&vm).await.unwrap();
    until(&client, |vm| {
        condition(vm, "VirtualMachinePrereqReady")["reason"] == "VirtualMachineClassNotFound"
    })
    .await;
    let class = json!({"apiVersion": "vmoperator.vmware.com/v1alpha1", "kind": "VirtualMachineClass",
        "metadata": {"name": "tiny", "namespace": "shop"}, "spec": {"hardware": {"cpus": 1, "memory": "16Mi"}}});
    client.create(&class).await.unwrap();
    until(&client, |vm| {
        condition(vm, "VirtualMachinePrereqReady")["reason"] == "VirtualMachineMetadataNotFound"
    })
    .await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "init", "namespace": "shop"},
        "stringData": {"user-data": "#cloud-config\nhostname: till\n"}});
    client.create(&secret).await.unwrap();
    let vm = until(&client, |vm| condition(vm, "Ready")["reason"] == "Running").await;
    assert!(
        vm["status"]["warnings"][0]
            .as_str()
            .unwrap()
            .contains("spec.colour"),
        "{:#}",
        vm["status"]
    );
    assert_eq!(requested.borrow().len(), 1);
    let cd = std::fs::read(dir.path().join("state/vms/shop/till/seed.iso")).unwrap();
    assert!(cd.windows(14).any(|bytes| bytes == b"hostname: till"));
    let errors: Vec<String> = Registry::builtin()
        .by_kind("vmoperator.vmware.com", "VirtualMachine")
        .unwrap()
        .validate(&vm)
        .iter()
        .map(|error| format!("{}: {}", error.path, error.message))
        .collect();
    assert_eq!(errors, Vec::<String>::new(), "the status fits its schema");

    client
        .delete(&gvr::virtual_machines(), "shop", "till")
        .await
        .unwrap();
    until(&client, Value::is_null).await;
    assert!(!dir.path().join("state/vms/shop").exists());
    let events = client.list(&gvr::events(), None).await.unwrap().items;
    let reasons: Vec<&str> = events
        .iter()
        .filter_map(|event| event["reason"].as_str())
        .collect();
    assert!(
        reasons.contains(&"Started") && reasons.contains(&"PoweredOff"),
        "{reasons:?}"
    );
    drop(stop);
    driver.await.unwrap();
}
