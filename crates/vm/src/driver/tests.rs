//! Virtual machines on a real QEMU.

use std::time::Duration;

use serde_json::json;

mod lab;

use lab::{Lab, MIB, condition, exists, files, held, there};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_virtual_machine_from_its_object_to_a_running_guest_and_away() {
    let lab = Lab::new();
    let begin = tokio::time::Instant::now();
    lab.create(
        "till",
        "polite",
        json!({"networkInterfaces": [{"network": "VM Network"}, {"ethernetCardType": "e1000"}]}),
    );
    let vm = lab.until_running("till").await;
    eprintln!("from object to Ready: {:?}", begin.elapsed());
    assert!(held(&vm));
    let status = &vm["status"];
    assert_eq!(
        (&status["phase"], &status["powerState"], &status["host"]),
        (&json!("Created"), &json!("poweredOn"), &json!("host-1"))
    );
    assert_eq!(status["uniqueID"], vm["metadata"]["uid"]);
    assert_eq!(status["networkInterfaces"][1]["connected"], true);
    let ports = lab.ports.borrow().clone();
    assert_eq!(ports.len(), 2);
    assert_eq!(
        (ports[0].port_group.as_str(), ports[0].owner.as_str()),
        ("VM Network", "shop/till")
    );
    assert_eq!(
        status["networkInterfaces"][0]["macAddress"],
        ports[0].mac.as_str()
    );
    assert!(ports.iter().all(|port| exists(&port.interface)));
    let paths = lab.paths("till");
    for socket in [paths.console(), paths.vnc(), paths.agent(), paths.qmp()] {
        assert!(there(&socket), "{}", socket.display());
    }
    // The guest itself speaks.
    let spoken = async {
        while !std::fs::read_to_string(paths.console_log()).is_ok_and(|log| log.contains("UP")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), spoken)
        .await
        .unwrap();

    std::fs::write(paths.state.join("notes.txt"), "somebody else's").unwrap();
    lab.delete("till");
    lab.until("till", serde_json::Value::is_null).await;
    assert_eq!(files(&paths.state), [paths.state.join("notes.txt")]);
    assert!(!there(&paths.run));
    assert!(lab.ports.borrow().is_empty() && ports.iter().all(|port| !exists(&port.interface)));
    assert_eq!(lab.qemus(), Vec::<i32>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_named_and_cured_when_it_appears() {
    let lab = Lab::new();
    let spec = json!({"className": "later", "vmMetadata": {"configMapName": "init", "transport": "CloudInit"}, "colour": "red",
        "networkInterfaces": [{"networkName": "Tills"}]});
    lab.create("till", "absent.ova", spec);
    let message = lab
        .until_reason("till", "VirtualMachinePrereqReady", "VirtualMachineClassNotFound")
        .await;
    assert!(
        message.contains("\"later\"") && message.contains("shop and default"),
        "{message}"
    );
    lab.class("later", "16Mi");
    let message = lab
        .until_reason(
            "till",
            "VirtualMachinePrereqReady",
            "VirtualMachineMetadataNotFound",
        )
        .await;
    assert!(message.contains("ConfigMap \"init\""), "{message}");
    lab.put("configmaps", json!({"kind": "ConfigMap", "metadata": {"name": "init", "namespace": "shop"}, "data": {"user-data": "#!"}}));
    let message = lab
        .until_reason("till", "VirtualMachinePrereqReady", "VirtualMachineImageNotFound")
        .await;
    assert!(message.contains("absent.ova"), "{message}");
    let message = lab
        .until_reason("till", "VirtualMachineNetworkReady", "PortGroupNotFound")
        .await;
    assert!(
        message.contains("\"Tills\"") && message.contains("\"VM Network\""),
        "{message}"
    );
    let vm = lab.until("till", |vm| vm["status"]["warnings"].is_array()).await;
    assert!(
        vm["status"]["warnings"][0]
            .as_str()
            .unwrap()
            .contains("spec.colour")
    );
    assert_eq!(vm["status"]["phase"], "Creating");
    assert_eq!(condition(&vm, "VirtualMachineNetworkReady", "severity"), "Error");
    assert_eq!(lab.qemus(), Vec::<i32>::new());

    lab.groups.send_modify(|groups| {
        let mut group = groups["VM Network"].clone();
        (group.name, group.mtu) = ("Tills".into(), 9000);
        std::sync::Arc::make_mut(groups).insert("Tills".into(), group);
    });
    let image = lab.files.images.lock().unwrap()["polite"].clone();
    lab.files
        .images
        .lock()
        .unwrap()
        .insert("absent.ova".into(), image);
    // The image is tried again after a back-off of five seconds.
    lab.until_running("till").await;
    assert!(there(lab.paths("till").cd()) && lab.launch("till").cd);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_qemu_is_started_again_and_the_event_says_so() {
    let lab = Lab::new();
    lab.create("till", "deaf", json!({}));
    lab.until_running("till").await;
    let pid = lab.pid("till");
    let kill = |pid| {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    };
    let begin = tokio::time::Instant::now();
    kill(pid);
    lab.until("till", |vm| condition(vm, "Ready", "reason") == "BackOff")
        .await;
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "seen after {:?}",
        begin.elapsed()
    );
    lab.until_running("till").await;
    assert!(begin.elapsed() >= Duration::from_secs(1) && lab.pid("till") != pid);
    assert_eq!(
        lab.events("Ended"),
        ["QEMU was killed or has crashed; it is started again in 1 s"]
    );
    // The second time in a row it waits longer.
    kill(lab.pid("till"));
    lab.until("till", |_| lab.events("Ended").len() == 2).await;
    assert!(lab.events("Ended")[1].ends_with("in 2 s"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_switches_itself_off_is_started_again() {
    let lab = Lab::new();
    lab.create("till", "shy", json!({}));
    lab.until("till", |_| lab.events("Started").len() >= 2).await;
    assert!(
        lab.events("Ended")[0].starts_with("the guest has switched itself off"),
        "{:?}",
        lab.events("Ended")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_daemon_adopts_what_runs_and_sees_it_end() {
    let mut lab = Lab::new();
    lab.create("till", "deaf", json!({"networkInterfaces": [{}]}));
    lab.until_running("till").await;
    let (pid, ports) = (lab.pid("till"), lab.ports.borrow().clone());
    lab.kill();
    assert_eq!(lab.qemus(), [pid]);
    lab.site.events.lock().unwrap().clear();
    lab.start();
    assert_eq!(
        *lab.ports.borrow(),
        ports,
        "published before anything else happens"
    );
    lab.until_running("till").await;
    // A change shows that the new one is in charge, and that the old QEMU is the one that is told.
    lab.change("till", json!({"powerState": "poweredOff"}));
    lab.until("till", |vm| vm["status"]["powerState"] == "poweredOff")
        .await;
    assert_eq!(lab.qemus(), Vec::<i32>::new());
    assert_eq!(lab.events("Started"), Vec::<String>::new());

    // One that ended while nobody looked is started again.
    lab.change("till", json!({"powerState": "poweredOn"}));
    lab.until_running("till").await;
    let pid = lab.pid("till");
    lab.kill();
    let process = crate::sys::process_open(pid).unwrap();
    crate::sys::process_kill(&process).unwrap();
    while lab.qemus().contains(&pid) {
        tokio::task::yield_now().await;
    }
    lab.start();
    lab.until("till", |_| lab.events("Started").len() == 2).await;
    assert_eq!(lab.events("Ended").len(), 1);
    lab.until_running("till").await;
    assert_ne!(lab.pid("till"), pid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soft_power_off_asks_the_guest_and_try_soft_loses_patience() {
    let lab = Lab::new();
    lab.create("polite", "polite", json!({"powerOffMode": "soft"}));
    lab.create("deaf", "deaf", json!({"powerOffMode": "trySoft"}));
    lab.until_running("polite").await;
    lab.until_running("deaf").await;
    let log = lab.paths("polite").console_log();
    while !std::fs::read_to_string(&log).is_ok_and(|log| log.contains("UP")) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    lab.change("polite", json!({"powerState": "poweredOff"}));
    lab.change("deaf", json!({"powerState": "poweredOff"}));
    let vm = lab
        .until("polite", |vm| vm["status"]["powerState"] == "poweredOff")
        .await;
    assert_eq!(condition(&vm, "Ready", "reason"), "PoweredOff");
    assert_eq!(lab.events("Ended"), Vec::<String>::new());
    lab.until_reason("deaf", "Ready", "GuestShutdown").await;
    assert_eq!(lab.qemus().len(), 1);
    lab.clock.advance(jiff::SignedDuration::from_secs(299));
    lab.signal();
    lab.until_reason("deaf", "Ready", "GuestShutdown").await;
    lab.clock.advance(jiff::SignedDuration::from_secs(1));
    lab.signal();
    lab.until("deaf", |vm| vm["status"]["powerState"] == "poweredOff")
        .await;
    assert_eq!(lab.qemus(), Vec::<i32>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_is_done_once_and_takes_a_changed_class_with_it() {
    let lab = Lab::new();
    lab.create("till", "deaf", json!({}));
    lab.until_running("till").await;
    let pid = lab.pid("till");
    lab.class("tiny", "24Mi");
    let vm = lab
        .until("till", |vm| condition(vm, "RestartRequired", "status") == "True")
        .await;
    assert!(condition(&vm, "RestartRequired", "message").contains("memory"));
    lab.clock.advance(jiff::SignedDuration::from_secs(60));
    lab.change("till", json!({"nextRestartTime": "2026-01-02T03:05:00Z"}));
    let vm = lab
        .until("till", |vm| {
            vm["status"]["lastRestartTime"].is_string() && condition(vm, "Ready", "reason") == "Running"
        })
        .await;
    assert_eq!(vm["status"]["lastRestartTime"], "2026-01-02T03:05:05Z");
    assert_eq!(condition(&vm, "RestartRequired", "status"), "");
    assert_ne!(lab.pid("till"), pid);
    assert_eq!(lab.launch("till").hardware.memory_mib, 24);
    assert_eq!((lab.events("Restarted").len(), lab.events("Ended").len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_guest_is_on_disk_and_goes_on_where_it_was() {
    let mut lab = Lab::new();
    lab.create(
        "till",
        "polite",
        json!({"volumes": [{"name": "data", "vSphereVolume": {"capacity": {"ephemeral-storage": "1Mi"}}}]}),
    );
    lab.until_running("till").await;
    let log = lab.paths("till").console_log();
    let lines = || {
        std::fs::read_to_string(&log)
            .unwrap_or_default()
            .matches("UP")
            .count()
    };
    while lines() == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    lab.change("till", json!({"powerState": "suspended"}));
    let vm = lab.until_reason("till", "Ready", "Suspended").await;
    assert!(vm.contains("suspended"));
    assert_eq!(lab.qemus(), Vec::<i32>::new());
    // A restart of the host in between: the run directory is empty then.
    lab.kill();
    std::fs::remove_dir_all(&lab.config.run_dir).unwrap();
    lab.start();
    lab.change("till", json!({"powerState": "poweredOn"}));
    lab.until("till", |vm| condition(vm, "Ready", "reason") == "Running")
        .await;
    assert_eq!(
        lab.events("Resumed").len(),
        1,
        "{:?}",
        lab.site.events.lock().unwrap()
    );
    assert!(!there(lab.paths("till").saved()));
    // It did not boot anew, and it still hears the button.
    assert_eq!(lines(), 1);
    lab.change(
        "till",
        json!({"powerState": "poweredOff", "powerOffMode": "soft"}),
    );
    lab.until_reason("till", "Ready", "PoweredOff").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_grow_and_never_shrink() {
    let lab = Lab::new();
    let volumes = |boot: &str, data: &str| {
        json!({"volumes": [
            {"name": "boot", "vSphereVolume": {"deviceKey": 2000, "capacity": {"ephemeral-storage": boot}}},
            {"name": "data", "vSphereVolume": {"capacity": {"ephemeral-storage": data}}},
            {"name": "claim", "persistentVolumeClaim": {"claimName": "c"}}]})
    };
    lab.create("till", "deaf", volumes("512Ki", "1Mi"));
    let message = lab
        .until_reason("till", "VirtualMachineStorageReady", "ImageLargerThanDisk")
        .await;
    assert!(
        message.contains("\"boot\"") && message.contains(&MIB.to_string()),
        "{message}"
    );
    lab.change("till", volumes("4Mi", "2Mi"));
    let vm = lab.until_running("till").await;
    assert!(vm["status"]["warnings"].to_string().contains("claim"));
    assert_eq!(lab.launch("till").disks, 2);
    // While it runs, too.
    lab.change("till", volumes("8Mi", "2Mi"));
    lab.until("till", |_| {
        lab.events("DiskGrown").iter().any(|e| e.contains("8388608"))
    })
    .await;
    let output = std::process::Command::new("qemu-img")
        .args(["info", "-U", "--output=json"])
        .arg(lab.paths("till").disk(0))
        .output();
    let info: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    assert_eq!(info["virtual-size"], 8 * MIB);
    lab.change("till", volumes("1Mi", "2Mi"));
    let message = lab
        .until_reason("till", "VirtualMachineStorageReady", "DiskCannotShrink")
        .await;
    assert!(message.contains("8388608"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_worker_is_named_as_not_supported_and_nothing_is_started() {
    let lab = Lab::new();
    let class = json!({"kind": "VirtualMachineClass", "metadata": {"name": "best-effort-ec-small", "namespace": "default"},
        "spec": {"controllerName": "vmoperator.vmware.com/ecworker", "hardware": {"cpus": 2, "memory": "8Gi"}}});
    lab.put("virtualmachineclasses", class);
    lab.create(
        "ec-worker",
        "ec-wrkr.ova",
        json!({"className": "best-effort-ec-small", "vmMetadata": {"transport": "CloudInit"}}),
    );
    let vm = lab
        .until("ec-worker", |vm| {
            condition(vm, "Supported", "reason") == "NotYetSupported"
        })
        .await;
    assert_eq!(condition(&vm, "Ready", "status"), "");
    assert!(!there(&lab.paths("ec-worker").state) && !held(&vm));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_the_daemon_is_ended_the_next_one_ends_right() {
    let mut lab = Lab::new();
    for round in 0..12u64 {
        lab.create(
            "till",
            "deaf",
            json!({"networkInterfaces": [{}], "vmMetadata": {"transport": "CloudInit"}}),
        );
        // Cut off at points spread over the whole way to a running guest.
        tokio::time::sleep(Duration::from_millis(round * 17)).await;
        lab.kill();
        lab.start();
        lab.until_running("till").await;
        assert_eq!(lab.qemus().len(), 1, "round {round}");
        lab.delete("till");
        tokio::time::sleep(Duration::from_millis(round * 3)).await;
        lab.kill();
        lab.start();
        lab.until("till", serde_json::Value::is_null).await;
        assert_eq!(lab.qemus(), Vec::<i32>::new(), "round {round}");
        assert!(
            !there(&lab.paths("till").state) && lab.ports.borrow().is_empty(),
            "round {round}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn efi_variables_are_the_guests_own_and_survive_a_suspension() {
    let lab = Lab::new();
    let mut image = lab.files.images.lock().unwrap()["polite"].clone();
    image.efi = true;
    lab.files.images.lock().unwrap().insert("efi".into(), image);
    lab.class("roomy", "128Mi");
    lab.create("till", "efi", json!({"className": "roomy"}));
    lab.until_running("till").await;
    assert!(there(lab.paths("till").nvram()));
    lab.change("till", json!({"powerState": "suspended"}));
    lab.until_reason("till", "Ready", "Suspended").await;
    lab.change("till", json!({"powerState": "poweredOn"}));
    lab.until_running("till").await;
    assert_eq!(lab.events("Resumed").len(), 1);
    // A suspended guest that is powered off begins anew.
    lab.change("till", json!({"powerState": "suspended"}));
    lab.until_reason("till", "Ready", "Suspended").await;
    lab.change("till", json!({"powerState": "poweredOff"}));
    lab.until_reason("till", "Ready", "PoweredOff").await;
    lab.change("till", json!({"powerState": "poweredOn"}));
    lab.until_running("till").await;
    assert_eq!(lab.events("Resumed").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_of_the_class_are_enforced_where_the_kernel_can() {
    let lab = Lab::new();
    let class = json!({"kind": "VirtualMachineClass", "metadata": {"name": "half", "namespace": "default"}, "spec": {
        "hardware": {"cpus": 1, "memory": "16Mi"}, "policies": {"resources": {"limits": {"cpu": "500m", "memory": "16Mi"}}}}});
    lab.put("virtualmachineclasses", class);
    lab.create("till", "deaf", json!({"className": "half"}));
    let vm = lab.until_running("till").await;
    let (root, name, id) = (
        &lab.config.cgroup_root,
        &lab.config.cgroup_name,
        lab.paths("till").id,
    );
    let read =
        |tree: &str, file: &str| std::fs::read_to_string(root.join(tree).join(name).join(&id).join(file));
    let quota = read("", "cpu.max").or_else(|_| read("cpu", "cpu.cfs_quota_us"));
    match quota {
        Ok(quota) => {
            assert!(quota.starts_with("50000"), "{quota}");
            let members = read("", "cgroup.procs")
                .or_else(|_| read("cpu", "cgroup.procs"))
                .unwrap();
            assert!(members.lines().any(|pid| pid == lab.pid("till").to_string()));
        }
        Err(_) => assert!(
            vm["status"]["warnings"].to_string().contains("not enforced"),
            "{vm:#}"
        ),
    }
}
