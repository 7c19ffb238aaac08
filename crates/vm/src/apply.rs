//! Carries steps out. Makes no choices. Each step can be done twice, and can be cut off anywhere: what exists
//! is written down before it is used, and taken away before the note about it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use kinds::network::PortRequest;
use qmp::client::Events;
use reconcile::Key;
use tokio::process::Command;

use crate::{
    desired::{Desired, Firmware, Nic},
    driver::Shared,
    images::Image,
    machine::Machine,
    monitor::Monitor,
    observe,
    plan::{Action, Guest, Observed, Step},
    process::{self, Running},
    qemu,
    record::{self, DiskRecord, Launch, Paths, Record, Stop},
};

mod files;
mod suspend;

use files::{make_tap, remove_file, remove_state, remove_tap};
use suspend::job;

/// The snapshot that holds a suspended guest.
const SNAPSHOT: &str = "selvedge-suspended";

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Process(#[from] process::Error),
    #[error("QEMU refused")]
    Qmp(#[from] qmp::Error),
    #[error("{what} {path}")]
    File {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("can't make tap {name}")]
    Tap { name: String, source: io::Error },
    #[error("qemu-img failed for {path}: {output}")]
    ImageTool { path: PathBuf, output: String },
    #[error("the guest's state could not be written or read: {0}")]
    Snapshot(String),
    #[error("the API refused")]
    Api(#[source] apiserver::Status),
    #[error("there is no QEMU")]
    NoQemu,
    #[error("its record is gone")]
    NoRecord,
}

fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::File { what, path, source }
}

/// One virtual machine while steps are carried out on it.
pub(crate) struct Applier<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) machine: &'a mut Machine,
    pub(crate) key: &'a Key,
    pub(crate) paths: &'a Paths,
    pub(crate) desired: &'a Desired,
    pub(crate) observed: &'a Observed,
    /// The UID that its names come from.
    pub(crate) identity: &'a str,
    /// The CD that it should have.
    pub(crate) cd: Option<&'a [u8]>,
}

impl Applier<'_> {
    /// Carries one step out.
    pub(crate) async fn apply(&mut self, step: &Step) -> Result<(), Error> {
        match &step.action {
            Action::Remember => self.remember(),
            Action::FetchImage => {
                let wake = self.shared.wake_key(self.key.clone());
                self.machine
                    .image
                    .begin(self.shared.images.clone(), self.desired.image.clone(), wake)
                    .await;
                Ok(())
            }
            Action::MakeDisks(image) => self.make_disks(image).await,
            Action::AddDisk(wish) => self.add_disk(&wish.name, wish.bytes.unwrap_or_default()).await,
            Action::GrowDisk { index, bytes } => self.grow_disk(*index, *bytes).await,
            Action::WriteCd => self.write_cd(),
            Action::MakeTap { name, mtu } => make_tap(name, *mtu),
            Action::RemoveTap(name) => remove_tap(name),
            Action::RequestPorts(nics) => self.request_ports(nics),
            Action::Bury { .. } => Ok(process::clear(self.paths)?),
            Action::Start {
                firmware,
                restart,
                resume,
            } => self.start(*firmware, *restart, *resume).await,
            Action::Continue => {
                if observe::disk_failed(&self.observed.guest) {
                    self.machine.disk_tried();
                }
                Ok(self.qemu()?.client.cont().await?)
            }
            Action::AskShutdown(stop) => self.ask_shutdown(*stop).await,
            Action::ForgetStop => self.set_stop(None),
            Action::Quit => {
                self.note_end()?;
                let paths = self.paths;
                self.qemu()?.quit(paths).await?;
                self.machine.running = None;
                Ok(())
            }
            Action::Kill => {
                process::kill(self.paths).await?;
                self.machine.running = None;
                Ok(())
            }
            Action::Suspend => self.suspend().await,
            Action::DiscardSaved => self.discard_saved().await,
            Action::Remove => self.remove(),
            Action::Release => self.shared.release(self.key).await.map_err(Error::Api),
        }
    }

    fn qemu(&self) -> Result<&Running, Error> {
        self.machine
            .running
            .as_ref()
            .map(|(running, _)| running)
            .ok_or(Error::NoQemu)
    }

    /// Changes the record on disk.
    fn change_record(&self, change: impl FnOnce(&mut Record)) -> Result<(), Error> {
        let path = self.paths.record();
        // Steps of one pass may each change it, so it is read anew.
        let mut record: Record = record::read(&path).ok_or(Error::NoRecord)?;
        change(&mut record);
        record::write_json(&path, &record).map_err(file("can't write", &path))
    }

    fn remember(&self) -> Result<(), Error> {
        let record = Record {
            namespace: self.key.namespace.clone(),
            name: self.key.name.clone(),
            identity: self.identity.into(),
            image: self.desired.image.clone(),
            digest: String::new(),
            firmware: Firmware::Bios,
            disks: Vec::new(),
            ports: Vec::new(),
            last_restart: None,
        };
        process::make_private(&self.paths.state)?;
        let path = self.paths.record();
        record::write_json(&path, &record).map_err(file("can't write", &path))
    }

    async fn image_tool(&self, path: &Path, arguments: &[&str]) -> Result<(), Error> {
        let tool = &self.shared.installation.image_tool;
        let output = Command::new(tool)
            .args(arguments)
            .kill_on_drop(true)
            .output()
            .await;
        let output = output.map_err(file("can't run", tool))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr)
            .trim()
            .replace('\n', " | ");
        Err(Error::ImageTool {
            path: path.into(),
            output: said.chars().take(600).collect(),
        })
    }

    /// Makes a disk file and sees to it that it is on the disk before a record speaks of it.
    async fn create_disk(
        &self,
        path: &Path,
        backing: Option<(&Path, &str)>,
        bytes: u64,
    ) -> Result<(), Error> {
        let (name, size) = (path.display().to_string(), bytes.to_string());
        let base = backing.map(|(path, format)| (path.display().to_string(), format));
        let mut arguments = vec!["create", "-q", "-f", "qcow2"];
        if let Some((base, format)) = &base {
            arguments.extend(["-b", base, "-F", format]);
        }
        arguments.extend([name.as_str(), size.as_str()]);
        self.image_tool(path, &arguments).await?;
        fs::File::open(path)
            .and_then(|disk| disk.sync_all())
            .map_err(file("can't write", path))
    }

    async fn make_disks(&mut self, image: &Image) -> Result<(), Error> {
        let mut disks = Vec::new();
        for (index, disk) in image.disks.iter().enumerate() {
            let wish = self
                .desired
                .disks
                .iter()
                .find(|wish| wish.index == Some(index))
                .and_then(|wish| wish.bytes);
            let bytes = wish.unwrap_or(0).max(disk.bytes);
            self.create_disk(&self.paths.disk(index), Some((&disk.path, &disk.format)), bytes)
                .await?;
            let grown = bytes > disk.bytes;
            disks.push(DiskRecord {
                volume: String::new(),
                backing: Some(disk.path.clone()),
                bytes,
                grown,
            });
        }
        self.change_record(|record| {
            record.disks = disks;
            record.digest.clone_from(&image.digest);
            record.firmware = if image.efi { Firmware::Efi } else { Firmware::Bios };
        })?;
        self.machine.image.forget();
        Ok(())
    }

    async fn add_disk(&self, volume: &str, bytes: u64) -> Result<(), Error> {
        let record: Record = record::read(&self.paths.record()).ok_or(Error::NoRecord)?;
        self.create_disk(&self.paths.disk(record.disks.len()), None, bytes)
            .await?;
        let disk = DiskRecord {
            volume: volume.into(),
            backing: None,
            bytes,
            grown: false,
        };
        self.change_record(|record| record.disks.push(disk))
    }

    async fn grow_disk(&self, index: usize, bytes: u64) -> Result<(), Error> {
        let path = self.paths.disk(index);
        match &self.observed.guest {
            // A disk that was added since the start is not in this QEMU.
            Guest::Alive(_, launch) if index < launch.disks => {
                self.qemu()?
                    .client
                    .block_resize(&format!("disk{index}"), bytes)
                    .await?;
            }
            _ => {
                let (name, size) = (path.display().to_string(), bytes.to_string());
                self.image_tool(&path, &["resize", "-q", "-f", "qcow2", &name, &size])
                    .await?;
            }
        }
        self.change_record(|record| {
            if let Some(disk) = record.disks.get_mut(index) {
                disk.bytes = bytes;
                disk.grown = true;
            }
        })
    }

    fn write_cd(&self) -> Result<(), Error> {
        let path = self.paths.cd();
        match self.cd {
            Some(bytes) => record::write(&path, bytes).map_err(file("can't write", &path)),
            None => remove_file(&path),
        }
    }

    fn request_ports(&self, nics: &[Nic]) -> Result<(), Error> {
        let owner = self.key.to_string();
        let request = |nic: &Nic| PortRequest {
            interface: nic.tap.clone(),
            port_group: nic.port_group.clone(),
            mac: nic.mac.clone(),
            owner: owner.clone(),
        };
        let ports: Vec<PortRequest> = nics.iter().map(request).collect();
        self.change_record(|record| record.ports.clone_from(&ports))?;
        self.shared.publish_ports(self.key, ports);
        Ok(())
    }

    async fn start(&mut self, firmware: Firmware, restart: bool, resume: bool) -> Result<(), Error> {
        let record: Record = record::read(&self.paths.record()).ok_or(Error::NoRecord)?;
        let hardware = self.desired.hardware.clone().ok_or(Error::NoRecord)?;
        let now = self.shared.clock.now();
        let accelerator = self.shared.accelerator().await;
        let fresh = Launch {
            owner: self.key.to_string(),
            hardware,
            disks: record.disks.len(),
            cd: self.cd.is_some(),
            firmware,
            accelerator: accelerator.name().into(),
            started_at: now,
            stop: None,
        };
        // A suspended guest goes on in the machine that it was suspended in.
        let saved = if resume {
            record::read::<Launch>(&self.paths.saved())
        } else {
            None
        };
        let launch = saved
            .map(|saved| Launch {
                started_at: now,
                stop: None,
                ..saved
            })
            .unwrap_or(fresh);
        self.make_nvram(&launch).await?;
        let shared = self.shared;
        let started = process::start(
            &launch,
            self.paths,
            &shared.installation,
            &shared.cgroups,
            &self.desired.limits,
        )
        .await;
        let (running, events) = match started {
            Ok(started) => started,
            Err(error) => {
                // Nothing runs; the note about it would be taken for a guest that has ended.
                process::clear(self.paths)?;
                return Err(error.into());
            }
        };
        if resume {
            if let Err(error) = job(&running, "snapshot-load", &launch).await {
                // Better suspended still than a guest that boots on disks that it has in mid-use.
                running.quit(self.paths).await?;
                process::clear(self.paths)?;
                return Err(error);
            }
            remove_file(&self.paths.saved())?;
        }
        if restart {
            self.change_record(|record| record.last_restart = Some(now))?;
        }
        running.client.cont().await?;
        if resume {
            // The guest runs; a snapshot that stays only costs room.
            if let Err(error) = job(&running, "snapshot-delete", &launch).await {
                tracing::warn!(vm = launch.owner, error = %telemetry::chain(&error), "a used snapshot stays");
            }
        }
        self.watch(running, events, &launch.hardware.nics);
        self.machine.started();
        Ok(())
    }

    fn watch(&mut self, running: Running, events: Events, nics: &[Nic]) {
        let wake = self.shared.wake_key(self.key.clone());
        let monitor = Monitor::start(running.client.clone(), events, nics, self.paths, wake);
        monitor.set_probe(self.desired.probe.as_ref());
        self.machine.running = Some((running, monitor));
    }

    /// The firmware's variables: those of the firmware at first, the guest's own from then on.
    async fn make_nvram(&self, launch: &Launch) -> Result<(), Error> {
        let path = self.paths.nvram();
        let Some((_, variables)) = qemu::firmware_files(&self.shared.installation, launch.firmware) else {
            return Ok(());
        };
        if path.exists() {
            return Ok(());
        }
        let new = path.with_extension("new");
        let (from, to) = (variables.display().to_string(), new.display().to_string());
        self.image_tool(&path, &["convert", "-f", "raw", "-O", "qcow2", &from, &to])
            .await?;
        fs::rename(&new, &path).map_err(file("can't write", &path))
    }

    /// Writes down that the end that comes was asked for, before it comes.
    fn note_end(&self) -> Result<(), Error> {
        let hard = Stop {
            at: self.shared.clock.now(),
            mode: crate::desired::Mode::Hard,
        };
        match &self.observed.guest {
            Guest::Alive(_, launch) if launch.stop.is_none() => self.set_stop(Some(hard)),
            _ => Ok(()),
        }
    }

    fn set_stop(&self, stop: Option<Stop>) -> Result<(), Error> {
        let path = self.paths.launch();
        let Some(mut launch) = record::read::<Launch>(&path) else {
            return Ok(());
        };
        launch.stop = stop;
        record::write_json(&path, &launch).map_err(file("can't write", &path))
    }

    async fn ask_shutdown(&self, stop: Stop) -> Result<(), Error> {
        self.set_stop(Some(stop))?;
        // Both ways: the agent where there is one, the button for everybody else. A guest takes the second as
        // the same wish.
        let running = self.qemu()?;
        if running
            .client
            .query_frontend_open(qemu::AGENT_LABEL)
            .await
            .unwrap_or(false)
        {
            let ask = async {
                let mut agent =
                    qmp::Agent::connect(&self.paths.agent(), std::time::Duration::from_secs(2)).await?;
                agent.shutdown().await
            };
            match ask.await {
                Ok(()) => return Ok(()),
                Err(error) => tracing::debug!(error = %telemetry::chain(&error), "the agent did not take it"),
            }
        }
        Ok(running.client.system_powerdown().await?)
    }

    fn remove(&mut self) -> Result<(), Error> {
        self.shared.publish_ports(self.key, Vec::new());
        self.machine.image = crate::machine::Fetch::default();
        self.machine.running = None;
        let record: Option<Record> = record::read(&self.paths.record());
        let ports = record
            .iter()
            .flat_map(|record| &record.ports)
            .map(|port| port.interface.clone());
        let nics = self
            .desired
            .hardware
            .iter()
            .flat_map(|hardware| &hardware.nics)
            .map(|nic| nic.tap.clone());
        for tap in ports.chain(nics) {
            remove_tap(&tap)?;
        }
        process::clear(self.paths)?;
        self.shared.cgroups.remove(&self.paths.id);
        remove_state(self.paths)
    }
}
