//! Claims of the main job: Git in, a host that is so out.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::Instant;

use super::Found;
use crate::kubectl::Kubectl;
use crate::layout::{PROD, VLAN30};
use crate::process::Process;
use crate::site::{BOOT, SOON, Site};
use crate::tool;
use crate::wait::{wait_for, wait_until};

pub(super) fn api(site: &mut Site) -> Result<Found> {
    site.lab.start_host(1)?;
    site.wait_api().map(Found::timed)
}

pub(super) fn applied(site: &mut Site) -> Result<Found> {
    let commit = site.lab.push("Open the shop")?;
    site.wait_applied(&commit).map(Found::timed)
}

pub(super) fn ready_objects(site: &Site) -> Result<Duration> {
    site.wait_ready(&site.kubectl, "hostconfigurations,virtualmachines", BOOT)
}

pub(super) fn ready(site: &mut Site) -> Result<Found> {
    ready_objects(site).map(Found::timed)
}

pub(super) fn guest(site: &mut Site) -> Result<Found> {
    let begun = Instant::now();
    let address = site.address("shop", "web")?;
    ensure!(
        site.in_network(PROD, &address),
        "{address} is not of the network that port group prod is on"
    );
    let (guest, _) = site.wait_guest(&address, |_| Ok(()))?;
    ensure!(guest.hostname == "shop-web", "it calls itself {}", guest.hostname);
    Ok(Found::words(format!("{} at {address}", guest.hostname)).with_time(begun.elapsed()))
}

pub(super) fn cloud_init(site: &mut Site) -> Result<Found> {
    let address = site.address("shop", "web")?;
    let hello = site.page(&address, "/hello.txt")?;
    ensure!(hello == "The shop is open.\n", "the file says {hello:?}");
    let first = site.page(&address, "/first-start.txt")?;
    ensure!(
        first == "first start of shop-web\n",
        "the command wrote {first:?}"
    );
    Ok(Found::default())
}

pub(super) fn change(site: &mut Site) -> Result<Found> {
    let (from, to) = ("The shop is open.", "The shop is open until nine.");
    site.edit("web.yaml", from, to)?;
    let begun = Instant::now();
    site.lab.push("Set the hours")?;
    let pushed = begun.elapsed();
    wait_for("the change in the host's API", Duration::from_secs(5), || {
        let map = site.kubectl.get(["configmap", "-n", "shop", "web-cloud-init"])?;
        let text = map["data"]["user-data"].as_str().unwrap_or_default().to_owned();
        Ok(if text.contains(to) { Ok(()) } else { Err(text) })
    })?;
    Ok(Found::words(format!("push {:.2} s included", pushed.as_secs_f64())).with_time(begun.elapsed()))
}

const TILL: &str = r#"apiVersion: vmoperator.vmware.com/v1alpha1
kind: VirtualMachine
metadata:
  name: till
  namespace: tills
spec:
  className: till
  imageName: demo-guest.ova
  networkInterfaces:
    - network: tills
  vmMetadata:
    transport: ExtraConfig
    configMapName: till-data
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: till-data
  namespace: tills
data:
  userdata: |
    #cloud-config
    hostname: till-1
  networkconfig: |
    ethernets:
      id0:
        dhcp: "false"
        addresses: [10.30.0.50/24]
---
apiVersion: vmoperator.vmware.com/v1alpha1
kind: VirtualMachineClass
metadata:
  name: till
spec:
  hardware:
    cpus: 1
    memory: 192Mi
---
apiVersion: v1
kind: Namespace
metadata:
  name: tills
"#;

/// In the field's dialect: the machine before all that it needs, `network`, `userdata`, a class without a namespace,
/// an image by its bare name, a fixed address with `dhcp` as a text.
pub(super) fn port_group(site: &mut Site) -> Result<Found> {
    let cameras = r#"{"name": "cameras", "vlan_id": 20}"#;
    site.edit(
        "network.yaml",
        cameras,
        &format!("{cameras},\n                {{\"name\": \"tills\", \"vlan_id\": 30}}"),
    )?;
    fs::write(site.file("till.yaml"), TILL)?;
    let begun = Instant::now();
    let commit = site.lab.push("Add the tills")?;
    site.wait_applied(&commit)?;
    let address = site.address("tills", "till")?;
    ensure!(
        site.in_network(VLAN30, &address),
        "{address} is not of VLAN 30's network"
    );
    let (guest, _) = site.wait_guest(&address, |_| Ok(()))?;
    ensure!(guest.hostname == "till-1", "it calls itself {}", guest.hostname);
    ready_objects(site)?;
    Ok(Found::words(format!("{} at {address}", guest.hostname)).with_time(begun.elapsed()))
}

pub(super) fn isolated(site: &mut Site) -> Result<Found> {
    let address = site.address("shop", "web")?;
    let layout = &site.lab.layout;
    let who_has = |wanted: &str| {
        site.page_within(
            &address,
            &format!("/cgi-bin/neighbour?{wanted}"),
            Duration::from_secs(10),
        )
    };
    let neighbour = who_has(&layout.svc_address(PROD))?;
    ensure!(
        neighbour.trim().len() == 17,
        "its own network's server answers {neighbour:?}"
    );
    for (whose, wanted) in [
        ("the host", layout.host_address(1)),
        ("a machine of another VLAN", layout.svc_address(VLAN30)),
    ] {
        let answer = who_has(&wanted)?;
        ensure!(
            answer.trim().is_empty(),
            "{whose} answers the guest's ARP for {wanted} with {answer:?}"
        );
    }
    Ok(Found::words("by ARP, which nothing routes"))
}

pub(super) fn refused(site: &mut Site) -> Result<Found> {
    let commit = crate::services::git(&site.lab.layout.site(), ["rev-parse", "HEAD"])?;
    let attempts: [&[&str]; 3] = [
        &[
            "patch",
            "virtualmachine",
            "-n",
            "shop",
            "web",
            "--type=merge",
            "-p",
            r#"{"spec":{"powerState":"poweredOff"}}"#,
        ],
        &["delete", "virtualmachine", "-n", "shop", "web", "--wait=false"],
        &[
            "label",
            "hostconfiguration",
            "-n",
            "esx-system",
            "shop-network",
            "mine=yes",
        ],
    ];
    for attempt in attempts {
        let output = site.kubectl.output(attempt.iter().copied())?;
        let words = tool::complaint(&output);
        ensure!(
            !output.status.success(),
            "kubectl {} was allowed",
            attempt.join(" ")
        );
        for needed in [
            "http://git.lab/site.git",
            "shop-001",
            commit.trim().get(..7).unwrap_or_default(),
        ] {
            ensure!(
                words.contains(needed),
                "kubectl {} does not name {needed}: {words}",
                attempt.join(" ")
            );
        }
    }
    Ok(Found::words("patch, delete and label"))
}

pub(super) fn break_glass(site: &mut Site) -> Result<Found> {
    let glass = Kubectl::break_glass(&site.lab, 1);
    let patch = r#"{"data":{"user-data":"broken glass"}}"#;
    glass.run([
        "patch",
        "configmap",
        "-n",
        "shop",
        "web-cloud-init",
        "--type=merge",
        "-p",
        patch,
    ])?;
    // What a person does to see it put back now: ask for a run.
    site.request("kustomizations")?;
    let ((), took) = wait_for("Git's own text", SOON, || {
        let map = site.kubectl.get(["configmap", "-n", "shop", "web-cloud-init"])?;
        let text = map["data"]["user-data"].as_str().unwrap_or_default().to_owned();
        Ok(if text.contains("#cloud-config") {
            Ok(())
        } else {
            Err(text)
        })
    })?;
    Ok(Found::timed(took))
}

pub(super) fn own_objects(site: &mut Site) -> Result<Found> {
    let kubectl = &site.kubectl;
    kubectl.run(["create", "namespace", "mine"])?;
    kubectl.run(["create", "configmap", "-n", "mine", "note", "--from-literal=a=b"])?;
    kubectl.run([
        "create",
        "secret",
        "generic",
        "-n",
        "mine",
        "word",
        "--from-literal=a=b",
    ])?;
    kubectl.run(["label", "configmap", "-n", "mine", "note", "kept=yes"])?;
    kubectl.run(["describe", "virtualmachine", "-n", "shop", "web"])?;
    kubectl.run(["explain", "virtualmachine.spec.networkInterfaces"])?;
    let map = kubectl.get(["configmap", "-n", "mine", "note"])?;
    ensure!(
        map["data"]["a"] == "b" && map["metadata"]["labels"]["kept"] == "yes",
        "it became {map}"
    );
    kubectl.run(["delete", "namespace", "mine", "--wait=true", "--timeout=10s"])?;
    let left = kubectl.output(["get", "configmap", "-n", "mine", "note"])?;
    ensure!(!left.status.success(), "the ConfigMap outlived its namespace");
    Ok(Found::words("create, label, describe, explain, delete"))
}

/// The one QEMU of a virtual machine.
pub(super) fn only_qemu(site: &Site, namespace: &str, name: &str) -> Result<Process> {
    match &site.qemu(namespace, name)[..] {
        [one] => Ok(one.clone()),
        other => bail!("{namespace}/{name} has {} QEMU processes", other.len()),
    }
}

pub(super) fn power(site: &mut Site) -> Result<Found> {
    let address = site.address("shop", "web")?;
    let (before, _) = site.wait_guest(&address, |_| Ok(()))?;
    site.edit("web.yaml", "powerState: poweredOn", "powerState: poweredOff")?;
    let begun = Instant::now();
    site.lab.push("Close the shop")?;
    // The guest is asked first (trySoft), and shuts itself down.
    wait_until("the end of its QEMU", BOOT, || {
        site.qemu("shop", "web").is_empty()
    })?;
    let off = begun.elapsed();
    wait_for("its power state", SOON, || {
        let vm = site.kubectl.get(["virtualmachine", "-n", "shop", "web"])?;
        Ok(if vm["status"]["powerState"] == "poweredOff" {
            Ok(())
        } else {
            Err(vm["status"].to_string())
        })
    })?;
    site.edit("web.yaml", "powerState: poweredOff", "powerState: poweredOn")?;
    site.lab.push("Open the shop again")?;
    wait_until("its QEMU", SOON, || site.qemu("shop", "web").len() == 1)?;
    let again = site.wait_guest(&address, |guest| {
        if guest.boots > before.boots {
            Ok(())
        } else {
            Err(format!("start number {}", guest.boots))
        }
    })?;
    ensure!(
        again.0.instance_id == before.instance_id,
        "its instance changed to {}",
        again.0.instance_id
    );
    Ok(Found::words(format!(
        "off after {:.1} s, start number {}",
        off.as_secs_f64(),
        again.0.boots
    )))
}

pub(super) fn removed(site: &mut Site) -> Result<Found> {
    let ports = site.guest_ports()?.len();
    fs::remove_file(site.file("till.yaml"))?;
    let begun = Instant::now();
    site.lab.push("Remove the tills")?;
    wait_for("its end", SOON, || {
        let object = site
            .kubectl
            .output(["get", "virtualmachine", "-n", "tills", "till"])?;
        let (qemu, left) = (site.qemu("tills", "till").len(), site.guest_ports()?.len());
        let gone = !object.status.success()
            && tool::complaint(&object).contains("not found")
            && qemu == 0
            && left + 1 == ports;
        Ok(if gone {
            Ok(())
        } else {
            Err(format!(
                "{qemu} QEMU, {left} of {ports} ports, {}",
                tool::complaint(&object)
            ))
        })
    })?;
    let took = begun.elapsed();
    let state = site.lab.layout.node_state("host1").join("state");
    let disks = tool::tool(
        "find",
        [
            state.to_str().context("a path that is not UTF-8")?,
            "-path",
            "*/vms/*",
            "-name",
            "till*",
        ],
    )?;
    ensure!(disks.trim().is_empty(), "on disk there are still {disks}");
    let web = site.kubectl.get(["virtualmachine", "-n", "shop", "web"])?;
    crate::kubectl::ready(&web).map_err(anyhow::Error::msg)?;
    Ok(Found::timed(took))
}
