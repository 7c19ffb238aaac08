//! What a person does with a fleet in a browser: see it all, use a machine's console and screen, switch its power.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{Found, newest_rollout};
use crate::fleet::{Fleet, SITES};
use crate::orchestrator::{OWNER, PASSWORD};
use crate::site::{BOOT, SOON, items};
use crate::tool;
use crate::wait::wait_for;

/// A virtual machine that no repository knows.
const OWN: &str = "\
apiVersion: vmoperator.vmware.com/v1alpha1
kind: VirtualMachine
metadata:
  name: till
  namespace: shop
spec:
  className: small
  imageName: images.lab:8000/demo-guest.ova
  powerState: poweredOn
";

pub(super) fn own_machine(fleet: &mut Fleet) -> Result<Found> {
    let kubeconfig = fleet.kubeconfig(SITES[1])?;
    let file = fleet.lab.layout.state().join("till.yaml");
    fs::write(&file, OWN)?;
    tool::run(fleet.kubectl(&kubeconfig).arg("apply").arg("-f").arg(&file))?;
    let (_, took) = wait_for("its QEMU", BOOT, || {
        let found = fleet.lab.qemu(2, "shop", "till");
        Ok(match found.len() {
            1 => Ok(()),
            other => Err(format!("{other} run")),
        })
    })?;
    Ok(Found::timed(took))
}

/// What the browser did to the two machines.
pub(super) fn powered(fleet: &mut Fleet) -> Result<Found> {
    let kubeconfig = fleet.kubeconfig(SITES[1])?;
    let entries = fleet.cli.json(["audit"])?;
    let switched = items(&entries)
        .iter()
        .filter(|entry| entry["action"] == "vm.power")
        .count();
    ensure!(switched >= 3, "power was switched {switched} times");
    let of = |name: &str| {
        let mut get = fleet.kubectl(&kubeconfig);
        get.args(["get", "virtualmachine", "-n", "shop", name, "-o", "json"]);
        tool::run(&mut get).and_then(|text| Ok(serde_json::from_str::<Value>(&text)?))
    };
    let (own, web) = (of("till")?, of("web")?);
    ensure!(
        own["metadata"]["generation"].as_i64() >= Some(3),
        "nobody changed it: {}",
        own["metadata"]
    );
    let state = |vm: &Value| {
        vm["status"]["powerState"]
            .as_str()
            .unwrap_or_default()
            .to_lowercase()
    };
    ensure!(state(&own) == "poweredon", "it is {}", own["status"]);
    ensure!(state(&web) == "poweredon", "Git's is {}", web["status"]);
    let mut delete = fleet.kubectl(&kubeconfig);
    delete.args(["delete", "virtualmachine", "-n", "shop", "till", "--timeout=60s"]);
    tool::run(&mut delete)?;
    let ((), took) = wait_for("the end of its QEMU", BOOT, || {
        Ok(if fleet.lab.qemu(2, "shop", "till").is_empty() {
            Ok(())
        } else {
            Err("it runs".to_owned())
        })
    })?;
    Ok(Found::words(format!(
        "and deleted in {:.1} s",
        took.as_secs_f64()
    )))
}

pub(super) fn browser(fleet: &mut Fleet) -> Result<Found> {
    let web = |what: &str| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/web");
        let mut run = Command::new(script);
        run.arg(what)
            .env("BASE_URL", fleet.lab.layout.orchestrator_url())
            .env("SELVEDGE_USER", OWNER)
            .env("SELVEDGE_PASSWORD", PASSWORD);
        run
    };
    let text = tool::run(&mut web("e2e"))?;
    if let Some(folder) = std::env::var_os("SELVEDGE_PICTURES") {
        // A fleet in which something goes on: a commit is at the first wave, and the second waits for a person.
        fleet.edit("base/web.yaml", "Good evening", "Good night")?;
        let commit = fleet.lab.push("Greet at night")?;
        fleet.wait_healthy(&SITES[..1], &commit, SOON)?;
        let id = newest_rollout(fleet, &commit, "awaitingApproval")?;
        fs::create_dir_all(&folder)?;
        tool::run(web("pictures").env("PICTURES", fs::canonicalize(folder)?))?;
        fleet.cli.run(["rollout", "approve", &id])?;
        fleet.wait_healthy(&SITES, &commit, SOON)?;
    }
    let last = text
        .lines()
        .rev()
        .find(|line| line.contains("passed"))
        .unwrap_or_default()
        .trim();
    ensure!(!last.is_empty(), "no test was run: {text}");
    Ok(Found::words(last))
}
