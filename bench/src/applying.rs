//! A site of 1,000 ConfigMaps, then of 50 virtual machines beside them: how fast it is applied, what it costs to hold.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Result, ensure};
use serde_json::Value;
use testkit::wait::{pass, wait_for};

use crate::{
    Context,
    host::{Host, KUSTOMIZATIONS, PATIENCE, SITE, SITE_NAME},
    measured::{Measured, milliseconds},
    usage,
};

const MAPS: usize = 1000;
const FILES: usize = 100;
const MACHINES: usize = 50;
const ROUNDS: usize = 5;
/// How often the cheap ones are measured.
const MANY: usize = 10;
/// How long the daemon is left alone, how often, to see what it uses: as long as it leaves Git alone, so that each time
/// has its one look at Git. A shorter time would have one or none, by chance.
const QUIET: (Duration, usize) = (Duration::from_secs(30), 3);

pub(crate) fn measure(context: &Context, measured: &mut Vec<Measured>) -> Result<()> {
    let wants = |name: &str| context.wants("applying", name);
    let host = Host::up(context)?;
    host.site.lab.publish_image(&context.image)?;
    let rounds = if wants("first-apply") { ROUNDS } else { 1 };
    let (mut times, mut pushes, mut used) = (Vec::new(), Vec::new(), f64::MAX);
    for round in 0..rounds {
        context.say(&format!(
            "  {MAPS} objects, first apply {} of {rounds}",
            round + 1
        ));
        maps(&host, round)?;
        let before = host.used()?;
        let (took, push) = host.apply()?;
        used = used.min(host.used()? - before);
        times.push(took);
        pushes.push(milliseconds(&push));
        let there = host.api.get("/api/v1/namespaces/bench/configmaps")?;
        let there = there["items"].as_array().map_or(0, Vec::len);
        ensure!(there == MAPS, "{there} ConfigMaps are there, not {MAPS}");
        if round + 1 < rounds {
            host.remove("maps")?;
            host.apply()?;
        }
    }
    if wants("first-apply") {
        pushes.sort_by(f64::total_cmp);
        let push = pushes.get(pushes.len() / 2).copied().unwrap_or_default();
        let note = format!(
            "{FILES} files; of it git push itself {push:.0} ms (median); the least processor time of the daemon {used:.0} ms"
        );
        measured.push(Measured::times("first-apply", &times, note));
    }
    if wants("unchanged") {
        context.say("  unchanged");
        measured.push(unchanged(&host)?);
    }
    if wants("push") {
        context.say("  one change, pushed");
        measured.push(push(&host)?);
    }
    if wants("memory") || wants("idle") {
        context.say(&format!("  {MACHINES} virtual machines, powered off"));
        machines(&host)?;
        at_rest(context, &host, measured)?;
    }
    host.site.lab.down()
}

/// The ConfigMaps of a round: none has the name of one of another round.
fn maps(host: &Host, round: usize) -> Result<()> {
    for file in 0..FILES {
        let mut text = String::new();
        for number in 0..MAPS / FILES {
            let value = "a line of some length, as settings have\n    ".repeat(10);
            let _ = write!(
                text,
                "---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: r{round}-f{file}-m{number}\n  namespace: bench\n\
                 data:\n  number: '{number}'\n  file: |\n    {value}\n"
            );
        }
        host.write(&format!("maps/file-{file}.yaml"), &text)?;
    }
    Ok(())
}

/// Asks for runs, as `flux reconcile` does, and takes each run's own time from the metrics.
fn unchanged(host: &Host) -> Result<Measured> {
    let (mut times, mut answers) = (Vec::new(), Vec::new());
    let mut watch = host.api.watch(KUSTOMIZATIONS)?;
    for number in 0.. {
        if times.len() == MANY {
            break;
        }
        ensure!(number < 3 * MANY, "other runs disturb the measurement");
        let before = host.api.runs("kustomization")?;
        let request = format!("bench-{number}");
        let start = tokio::time::Instant::now();
        host.api
            .annotate(SITE, "reconcile.fluxcd.io/requestedAt", &request)?;
        let ((), handled) = watch.until("the request, handled", PATIENCE, |_, object| {
            (object["metadata"]["name"] == SITE_NAME && object["status"]["lastHandledReconcileAt"] == request)
                .then_some(())
        })?;
        let (after, _) = wait_for("the run's metrics", PATIENCE, || {
            let now = host.api.runs("kustomization")?;
            Ok(if now.count > before.count {
                Ok(now)
            } else {
                Err("no run".to_owned())
            })
        })?;
        // One that came by itself, as those of the interval do, would be mixed in.
        if (after.count - before.count - 1.0).abs() < 0.5 {
            times.push((after.seconds - before.seconds) * 1000.0);
            answers.push(milliseconds(&(handled - start)));
        }
    }
    answers.sort_by(f64::total_cmp);
    let answer = answers.get(answers.len() / 2).copied().unwrap_or_default();
    let note = format!("from the request to its answer in the status {answer:.1} ms (median)");
    Ok(Measured::new("unchanged", times, note))
}

/// One ConfigMap of the 1,000 changes.
fn push(host: &Host) -> Result<Measured> {
    let (mut times, mut pushes) = (Vec::new(), Vec::new());
    for number in 0..MANY {
        let value = format!("change {number}");
        let text = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: changing, namespace: bench}}\ndata: {{value: {value}}}\n"
        );
        host.write("changing.yaml", &text)?;
        let mut watch = host.api.watch("/api/v1/namespaces/bench/configmaps")?;
        let pushed = host.push()?;
        let ((), seen) = watch.until("the change in the API", PATIENCE, |_, object| {
            (object["metadata"]["name"] == "changing" && object["data"]["value"] == value).then_some(())
        })?;
        times.push(seen - pushed.start);
        pushes.push(milliseconds(&(pushed.end - pushed.start)));
    }
    pushes.sort_by(f64::total_cmp);
    let note = format!(
        "beside 1,000 other objects; of it git push itself {:.0} ms (median)",
        pushes.get(pushes.len() / 2).copied().unwrap_or_default()
    );
    Ok(Measured::times("push", &times, note))
}

fn machines(host: &Host) -> Result<()> {
    let mut text = String::from(
        "apiVersion: vmoperator.vmware.com/v1alpha1\nkind: VirtualMachineClass\nmetadata: {name: small, namespace: bench}\n\
         spec: {hardware: {cpus: 1, memory: 256Mi}}\n",
    );
    for number in 0..MACHINES {
        let _ = write!(
            text,
            "---\napiVersion: vmoperator.vmware.com/v1alpha1\nkind: VirtualMachine\nmetadata: {{name: vm-{number}, namespace: bench}}\n\
             spec:\n  className: small\n  imageName: images.lab:8000/demo-guest.ova\n  powerState: poweredOff\n  \
             networkInterfaces: [{{networkName: VM Network}}]\n"
        );
    }
    host.write("machines.yaml", &text)?;
    host.apply()?;
    let mut watch = host
        .api
        .watch("/apis/vmoperator.vmware.com/v1alpha1/namespaces/bench/virtualmachines")?;
    let mut made = std::collections::HashSet::new();
    watch.until("50 virtual machines, made", 2 * PATIENCE, |_, object| {
        if is_made(object) {
            made.insert(object["metadata"]["name"].to_string());
        }
        (made.len() == MACHINES).then_some(())
    })?;
    Ok(())
}

fn is_made(machine: &Value) -> bool {
    machine["status"]["phase"] == "Created" && machine["status"]["powerState"] == "poweredOff"
}

/// What the daemon uses when nobody asks anything of it but its own clocks.
fn at_rest(context: &Context, host: &Host, measured: &mut Vec<Measured>) -> Result<()> {
    let pid = host.pid()?;
    // What the last change set in motion comes to an end.
    pass(Duration::from_secs(10));
    let (mut resident, mut shares, mut own) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..QUIET.1 {
        context.say(&format!(
            "  at rest for {} s, {} of {}",
            QUIET.0.as_secs(),
            round + 1,
            QUIET.1
        ));
        let before = usage::processor(pid)?;
        pass(QUIET.0);
        let after = usage::processor(pid)?;
        let share = |time: Duration| time.as_secs_f64() / QUIET.0.as_secs_f64() * 100.0;
        own.push(share(after.0 - before.0));
        shares.push(share((after.0 + after.1).saturating_sub(before.0 + before.1)));
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        resident.push(usage::memory(pid)?.resident as f64 / 1e6);
    }
    let memory = usage::memory(pid)?;
    let [own_memory, peak] = [memory.own, memory.peak].map(|bytes| bytes.div_ceil(1_000_000));
    let note =
        format!("resident; {own_memory} MB of it its own, the rest pages of files; its peak was {peak} MB");
    measured.push(Measured::new("memory", resident, note));
    let own = own.into_iter().fold(0.0, f64::max);
    let note = format!("the daemon alone {own:.2} %; it looks at Git every 30 s here");
    measured.push(Measured::new("idle", shares, note));
    Ok(())
}
