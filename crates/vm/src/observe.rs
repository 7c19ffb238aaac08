//! What is true now, read from the system. Changes nothing.

use std::path::Path;

use qmp::RunState;

use crate::{
    desired::Desired,
    driver::Shared,
    machine::Machine,
    monitor::Monitor,
    plan::{Guest, Observed},
    process::{self, Found},
    record::{self, Launch, Paths},
    sys,
};

/// What is true of one virtual machine now. `cd` is the CD that it should have.
pub(crate) async fn observe(
    shared: &Shared,
    machine: &mut Machine,
    paths: &Paths,
    desired: &Desired,
    cd: Option<&[u8]>,
) -> Observed {
    let record = record::read::<record::Record>(&paths.record());
    let (image, image_wait) = machine.image.state();
    let nics = desired
        .hardware
        .iter()
        .flat_map(|hardware| &hardware.nics)
        .map(|nic| &nic.tap);
    let ports = record
        .iter()
        .flat_map(|record| &record.ports)
        .map(|port| &port.interface);
    let mut taps: Vec<(String, u32)> = Vec::new();
    for name in nics.chain(ports) {
        if !taps.iter().any(|(known, _)| known == name)
            && let Ok(mtu) = sys::interface_mtu(name)
        {
            taps.push((name.clone(), mtu));
        }
    }
    let guest = guest(shared, machine, paths).await;
    Observed {
        record,
        image,
        image_wait,
        guest,
        taps,
        cd_current: is_current(&paths.cd(), cd),
        saved: paths.saved().exists(),
        port_groups: shared.groups.borrow().clone(),
        start_wait: machine.starts.wait(),
        disk_wait: machine.disk_wait(),
    }
}

fn is_current(path: &Path, wanted: Option<&[u8]>) -> bool {
    match wanted {
        None => !path.exists(),
        Some(bytes) => std::fs::read(path).is_ok_and(|file| file == bytes),
    }
}

/// What QEMU does. One that runs and is not connected to (this process is new) is adopted.
async fn guest(shared: &Shared, machine: &mut Machine, paths: &Paths) -> Guest {
    if let Some((running, _)) = &machine.running
        && running.client.is_closed()
    {
        machine.lost().await;
    }
    let launch = record::read::<Launch>(&paths.launch());
    if machine.running.is_none() {
        // Without the note nothing was started; with it there may be a QEMU.
        let Some(launch) = launch.clone() else {
            return Guest::Gone;
        };
        match process::find(paths).await {
            Found::Nothing => return Guest::Dead(launch),
            Found::Silent => return Guest::Unreachable,
            Found::Running(running, events) => {
                tracing::info!(vm = launch.owner, "adopted a running QEMU");
                let monitor = Monitor::start(
                    running.client.clone(),
                    events,
                    &launch.hardware.nics,
                    paths,
                    shared.wake(&launch.owner),
                );
                machine.running = Some((running, monitor));
                machine.started();
            }
        }
    }
    let Some((running, _)) = &machine.running else {
        return Guest::Gone;
    };
    match (running.client.query_status().await, launch) {
        (Ok(status), Some(launch)) => Guest::Alive(status.state, launch),
        // It answers, but what it was started with is lost: it can't be told from what it should be.
        (Ok(_), None) => Guest::Unreachable,
        (Err(qmp::Error::Closed), launch) => {
            machine.lost().await;
            launch.map_or(Guest::Gone, Guest::Dead)
        }
        (Err(error), _) => {
            tracing::warn!(run = %paths.run.display(), error = %telemetry::chain(&error), "QEMU does not answer");
            Guest::Unreachable
        }
    }
}

/// Whether the guest stands still because a disk failed.
pub(crate) fn disk_failed(guest: &Guest) -> bool {
    matches!(guest, Guest::Alive(RunState::IoError, _))
}
