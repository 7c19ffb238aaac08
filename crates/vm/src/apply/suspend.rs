//! A guest's state on disk: a snapshot inside its first disk, and a note of the machine that it belongs to.

use serde_json::json;

use super::{Applier, Error, SNAPSHOT, file, files::remove_file};
use crate::{
    desired::Firmware,
    plan::Guest,
    process::Running,
    record::{self, Launch},
};

impl Applier<'_> {
    pub(super) async fn suspend(&mut self) -> Result<(), Error> {
        let Guest::Alive(_, launch) = &self.observed.guest else {
            return Err(Error::NoQemu);
        };
        let running = self.qemu()?;
        running.client.stop().await?;
        // What an earlier try left is in the way.
        let _ = job(running, "snapshot-delete", launch).await;
        if let Err(error) = job(running, "snapshot-save", launch).await {
            // Better a guest that runs than one that is lost.
            running.client.cont().await?;
            return Err(error);
        }
        record::write_json(&self.paths.saved(), launch).map_err(file("can't write", self.paths.saved()))?;
        self.note_end()?;
        self.qemu()?.quit(self.paths).await?;
        self.machine.running = None;
        Ok(())
    }

    pub(super) async fn discard_saved(&self) -> Result<(), Error> {
        let launch: Option<Launch> = record::read(&self.paths.saved());
        remove_file(&self.paths.saved())?;
        if let Guest::Alive(_, launch) = &self.observed.guest {
            // Without its note the snapshot is never loaded; it only costs room.
            let _ = job(self.qemu()?, "snapshot-delete", launch).await;
            return Ok(());
        }
        for index in 0..launch.map_or(0, |launch| launch.disks) {
            let path = self.paths.disk(index);
            let name = path.display().to_string();
            self.image_tool(&path, &["snapshot", "-q", "-d", SNAPSHOT, &name])
                .await?;
        }
        Ok(())
    }
}

/// Runs one of QEMU's snapshot jobs to its end.
pub(super) async fn job(running: &Running, command: &str, launch: &Launch) -> Result<(), Error> {
    let mut nodes: Vec<String> = (0..launch.disks).map(|index| format!("disk{index}")).collect();
    let mut arguments = json!({"job-id": command, "tag": SNAPSHOT});
    if command != "snapshot-delete" {
        arguments["vmstate"] = json!("disk0");
    }
    if launch.firmware != Firmware::Bios {
        nodes.push("variables".into());
    }
    arguments["devices"] = json!(nodes);
    let mut events = running.client.events();
    running.client.execute(command, arguments).await?;
    // Writing gigabytes takes as long as it takes; the end of QEMU ends the stream.
    loop {
        match events.recv().await {
            Ok(event)
                if event.name == "JOB_STATUS_CHANGE"
                    && event.data["id"] == command
                    && event.data["status"] == "concluded" =>
            {
                break;
            }
            Ok(_) => {}
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return Err(qmp::Error::Closed.into()),
        }
    }
    let jobs = running
        .client
        .execute("query-jobs", serde_json::Value::Null)
        .await?;
    let error = jobs
        .as_array()
        .into_iter()
        .flatten()
        .find(|job| job["id"] == command)
        .and_then(|job| job["error"].as_str());
    let result = error.map_or(Ok(()), |error| Err(Error::Snapshot(error.into())));
    running
        .client
        .execute("job-dismiss", json!({"id": command}))
        .await?;
    result
}
