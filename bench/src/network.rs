//! A vSwitch with 1,000 port groups.

use anyhow::Result;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    Context,
    host::{CONFIGURATIONS, Host, PATIENCE, wait_configuration},
    measured::Measured,
};
use testkit::wait::wait_for;

const GROUPS: usize = 1000;
const ROUNDS: usize = 5;
const MANY: usize = 10;

/// The body of a HostConfiguration.
pub(crate) fn configuration(name: &str, esx: &Value) -> Value {
    json!({
        "apiVersion": "esx.vmware.com/v1alpha1", "kind": "HostConfiguration",
        "metadata": {"name": name, "namespace": "esx-system"},
        "spec": {"layertype": "Incremental", "profile": json!({"esx": esx}).to_string()},
    })
}

pub(crate) fn measure(context: &Context, measured: &mut Vec<Measured>) -> Result<()> {
    let host = Host::up(context)?;
    let empty = json!({"network_vss": {"switches": [{"name": "vSwitch1", "bridge": {"nics": ["vmnic1", "vmnic2"]}}]}});
    host.api
        .create(CONFIGURATIONS, &configuration("switch", &empty))?;
    host.wait_configuration("switch")?;
    let groups: Vec<Value> = (0..GROUPS)
        .map(|number| json!({"name": format!("group-{number}"), "vlan_id": number}))
        .collect();
    let esx = json!({"network_vss": {"switches": [{"name": "vSwitch1", "port_groups": groups}]}});
    let (mut times, mut runs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        context.say(&format!("  {GROUPS} port groups, {} of {ROUNDS}", round + 1));
        let mut watch = host.api.watch(CONFIGURATIONS)?;
        let before = host.api.runs("hostconfig")?;
        let start = Instant::now();
        host.api.create(CONFIGURATIONS, &configuration("groups", &esx))?;
        times.push(wait_configuration(&mut watch, "groups")? - start);
        let after = wait_run(&host, before.count)?;
        runs.push((after.seconds - before.seconds) * 1000.0 / (after.count - before.count));
        if round + 1 < ROUNDS {
            host.api.delete(&format!("{CONFIGURATIONS}/groups"))?;
            watch.until("the port groups, gone", PATIENCE, |kind, object| {
                (kind == "DELETED" && object["metadata"]["name"] == "groups").then_some(())
            })?;
            settle(&host)?;
        }
    }
    runs.sort_by(f64::total_cmp);
    let run = runs.get(runs.len() / 2).copied().unwrap_or_default();
    measured.push(Measured::times(
        "port-groups",
        &times,
        format!("the reconciler's run of it {run:.0} ms (median)"),
    ));

    if context.wants("network", "port-groups-unchanged") {
        context.say("  unchanged");
        measured.push(unchanged(&host)?);
    }
    host.site.lab.down()
}

/// Runs that find nothing to do: a layer that says nothing is touched.
fn unchanged(host: &Host) -> Result<Measured> {
    host.api
        .create(CONFIGURATIONS, &configuration("nothing", &json!({})))?;
    host.wait_configuration("nothing")?;
    let mut times = Vec::new();
    for number in 0..MANY {
        settle(host)?;
        let before = host.api.runs("hostconfig")?;
        let path = format!("{CONFIGURATIONS}/nothing");
        host.api.annotate(&path, "bench", &number.to_string())?;
        let after = wait_run(host, before.count)?;
        times.push((after.seconds - before.seconds) * 1000.0 / (after.count - before.count));
    }
    Ok(Measured::new(
        "port-groups-unchanged",
        times,
        format!(
            "{GROUPS} port groups; the whole run: layers listed, the switch compared with them, nothing written"
        ),
    ))
}

/// Waits for the end of a run after `count` runs.
fn wait_run(host: &Host, count: f64) -> Result<crate::api::Runs> {
    let run = wait_for("a run of the host's configuration", PATIENCE, || {
        let now = host.api.runs("hostconfig")?;
        Ok(if now.count > count {
            Ok(now)
        } else {
            Err("no run".to_owned())
        })
    });
    run.map(|(now, _)| now)
}

/// Waits until no run has ended for a while.
fn settle(host: &Host) -> Result<()> {
    let mut last = (host.api.runs("hostconfig")?.count, Instant::now());
    wait_for("an idle reconciler", PATIENCE, || {
        let now = host.api.runs("hostconfig")?.count;
        if now > last.0 {
            last = (now, Instant::now());
        }
        Ok(if last.1.elapsed().as_millis() >= 300 {
            Ok(())
        } else {
            Err(format!("{now} runs"))
        })
    })
    .map(drop)
}
