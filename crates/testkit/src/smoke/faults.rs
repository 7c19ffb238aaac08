//! Claims of what happens when something goes wrong.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::Found;
use super::main_job::{only_qemu, ready_objects};
use crate::kubectl::Kubectl;
use crate::layout::host_name;
use crate::ovs;
use crate::site::{BOOT, SOON, Site, items};
use crate::wait::{wait_for, wait_until};

pub(super) fn broken_file(site: &mut Site) -> Result<Found> {
    let address = site.address("shop", "web")?;
    let broken = site.file("broken.yaml");
    fs::write(
        &broken,
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: broken\n namespace: shop\n",
    )?;
    site.lab.push("Break something")?;
    let begun = Instant::now();
    let (words, _) = wait_for("a status that names the file and the line", SOON, || {
        let list = site.kubectl.get(["kustomizations", "--all-namespaces"])?;
        let words: String = items(&list)
            .iter()
            .filter_map(|item| crate::kubectl::ready(item).err())
            .collect();
        let named = words.contains("broken.yaml")
            && ["line 5", ":5:", "5:"].iter().any(|place| words.contains(place));
        Ok(if named { Ok(words) } else { Err(words) })
    })?;
    let took = begun.elapsed();
    site.wait_guest(&address, |_| Ok(()))?;
    only_qemu(site, "shop", "web")?;
    fs::remove_file(&broken)?;
    let commit = site.lab.push("Mend it")?;
    site.wait_applied(&commit)?;
    let line = words
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(160)
        .collect::<String>();
    Ok(Found::words(line).with_time(took))
}

pub(super) fn deleted_port(site: &mut Site) -> Result<Found> {
    let (bridge, port) = site
        .guest_ports()?
        .into_iter()
        .next()
        .context("no virtual machine has a port")?;
    ovs::vsctl(&site.lab.layout, &host_name(1), ["del-port", &bridge, &port])?;
    let took = wait_until("the port", Duration::from_secs(5), || {
        site.guest_ports()
            .is_ok_and(|ports| ports.contains(&(bridge.clone(), port.clone())))
    })?;
    ensure!(
        took < Duration::from_secs(1),
        "it took {:.2} s",
        took.as_secs_f64()
    );
    wait_for("an event about it", SOON, || {
        let list = site.kubectl.get(["events", "--all-namespaces"])?;
        let told = items(&list).iter().any(|event| event.to_string().contains(&port));
        Ok(if told {
            Ok(())
        } else {
            Err(format!("{} events, none names {port}", items(&list).len()))
        })
    })?;
    let address = site.address("shop", "web")?;
    site.wait_guest(&address, |_| Ok(()))?;
    Ok(Found::words(port).with_time(took))
}

pub(super) fn killed_qemu(site: &mut Site) -> Result<Found> {
    let address = site.address("shop", "web")?;
    let (before, _) = site.wait_guest(&address, |_| Ok(()))?;
    let qemu = only_qemu(site, "shop", "web")?;
    qemu.signal(Signal::SIGKILL)?;
    let ((), took) = wait_for("another QEMU", SOON, || {
        let running = site.qemu("shop", "web");
        Ok(if running.len() == 1 && running.first() != Some(&qemu) {
            Ok(())
        } else {
            Err(format!("{} processes", running.len()))
        })
    })?;
    wait_for("an event about it", SOON, || {
        Ok(if site.has_event("web", &["warning"])? {
            Ok(())
        } else {
            Err("no warning about web".to_owned())
        })
    })?;
    site.wait_guest(&address, |guest| {
        if guest.boots > before.boots {
            Ok(())
        } else {
            Err(format!("it is at start number {}", guest.boots))
        }
    })?;
    Ok(Found::timed(took))
}

pub(super) fn killed_daemon(site: &mut Site) -> Result<Found> {
    let address = site.address("shop", "web")?;
    let qemu = only_qemu(site, "shop", "web")?;
    let (before, _) = site.wait_guest(&address, |_| Ok(()))?;
    site.lab.kill_daemon(1)?;
    ensure!(qemu.runs(), "QEMU went with the daemon");
    let (alone, _) = site.wait_guest(&address, |_| Ok(()))?;
    ensure!(alone.boots == before.boots, "the guest was restarted");
    site.lab.start_daemon(1)?;
    let took = site.wait_api()?;
    ready_objects(site)?;
    // The daemon acts on a change now, so it knows the machine; and it is the one that ran before.
    site.edit("web.yaml", "until nine", "until ten")?;
    let commit = site.lab.push("Change the hours")?;
    site.wait_applied(&commit)?;
    ensure!(only_qemu(site, "shop", "web")? == qemu, "QEMU was started anew");
    Ok(Found::words(format!("QEMU {} all the while", qemu.pid)).with_time(took))
}

pub(super) fn lost_uplink(site: &mut Site) -> Result<Found> {
    let address = site.address("shop", "web")?;
    site.wait_guest(&address, |_| Ok(()))?;
    site.lab.link_down(1, 1)?;
    let begun = Instant::now();
    let answered = site.wait_guest(&address, |_| Ok(()));
    let took = begun.elapsed();
    // Then the other way round, so that both are known to carry.
    site.lab.link_up(1, 1)?;
    answered.context("on the standby uplink")?;
    wait_until("the first uplink in use again", SOON, || {
        site.lab.link_down(1, 2).is_ok() && site.page(&address, "/").is_ok()
    })?;
    site.lab.link_up(1, 2)?;
    Ok(Found::timed(took))
}

pub(super) fn dark_reboot(site: &mut Site) -> Result<Found> {
    site.lab.links(1, false)?;
    site.lab.reboot(1)?;
    let begun = Instant::now();
    let host = Kubectl::on_host(&site.lab, 1);
    wait_for("the API, asked on the host itself", SOON, || {
        let output = host.output(["get", "--raw", "/readyz"])?;
        Ok(if output.status.success() {
            Ok(())
        } else {
            Err(crate::tool::complaint(&output))
        })
    })?;
    let up = begun.elapsed();
    wait_until("the virtual machines' QEMU processes", BOOT, || {
        site.qemu("shop", "web").len() == 1 && site.qemu("tills", "till").len() == 1
    })?;
    let machines = begun.elapsed();
    site.wait_ready(&host, "hostconfigurations,virtualmachines", BOOT)?;
    ensure!(
        site.guest_ports()?.len() == 2,
        "the guests' ports are {:?}",
        site.guest_ports()?
    );
    Ok(Found::words(format!(
        "API after {:.1} s, machines started after {:.1} s",
        up.as_secs_f64(),
        machines.as_secs_f64()
    )))
}

pub(super) fn after_dark(site: &mut Site) -> Result<Found> {
    site.lab.links(1, true)?;
    let begun = Instant::now();
    site.wait_api()?;
    site.edit("web.yaml", "until ten", "until eleven")?;
    let commit = site.lab.push("Change the hours again")?;
    site.wait_applied(&commit)?;
    let took = begun.elapsed();
    for (namespace, name) in [("shop", "web"), ("tills", "till")] {
        let address = site.address(namespace, name)?;
        site.wait_guest(&address, |_| Ok(()))?;
    }
    Ok(Found::timed(took))
}
