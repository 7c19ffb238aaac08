//! The reconciler: one key is one virtual machine, and one run owns it from reading its object to writing its
//! status. It looks, plans and applies until there is nothing left to do, then reports.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use apiserver::Status;
use async_trait::async_trait;
use kinds::{
    Object, gvr,
    network::{PortGroups, PortRequest},
    object,
};
use reconcile::{Driver, Key, Options, Outcome, Queue, Reconciler, Signal, Wake};
use telemetry::{Clock, Metrics};
use tokio::sync::{OnceCell, watch};

use crate::{
    accelerator::{self, Accelerator, Choice},
    apply::Applier,
    cgroup::Cgroups,
    classes,
    desired::{self, Bootstrap, Desired, Inputs, Missing},
    images::Images,
    machine::Machine,
    monitor::{self, Sensed},
    objects::Objects,
    observe,
    plan::{self, Action, Guest, Hold, Observed, Step, condition},
    qemu::Installation,
    record::{self, Paths, Record},
    report::{self, Report},
};

mod inputs;

use inputs::References;

/// Holds a virtual machine's object until its parts are gone.
pub const FINALIZER: &str = "vmoperator.vmware.com/virtualmachine";
/// A plan that is not done after so many passes is looked at again later.
const MAX_PASSES: usize = 12;
const LATER: Duration = Duration::from_secs(30);

/// How virtual machines are run on this host.
#[derive(Clone, Debug)]
pub struct Config {
    /// Disks are in `vms/<namespace>/<name>` below it.
    pub state_dir: PathBuf,
    /// Sockets are in `vm/<hash>` below it. Must be at most 70 bytes long, because sockets' paths are limited.
    pub run_dir: PathBuf,
    /// `status.host`.
    pub host_name: String,
    /// KVM, TCG or whichever works.
    pub accelerator: Choice,
    /// QEMU's files.
    pub installation: Installation,
    /// Where control groups are mounted.
    pub cgroup_root: PathBuf,
    /// The parent of the control groups, below the root; empty for none.
    pub cgroup_name: String,
}

impl Config {
    /// The defaults, for a state and a run directory.
    pub fn new(
        state_dir: impl Into<PathBuf>,
        run_dir: impl Into<PathBuf>,
        host_name: impl Into<String>,
    ) -> Self {
        Self {
            state_dir: state_dir.into(),
            run_dir: run_dir.into(),
            host_name: host_name.into(),
            accelerator: Choice::Auto,
            installation: Installation::default(),
            cgroup_root: "/sys/fs/cgroup".into(),
            cgroup_name: "selvedge-vms".into(),
        }
    }
}

/// What all virtual machines of a host share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) installation: Installation,
    pub(crate) objects: Arc<dyn Objects>,
    pub(crate) images: Arc<dyn Images>,
    pub(crate) groups: watch::Receiver<Arc<PortGroups>>,
    pub(crate) clock: Clock,
    pub(crate) cgroups: Cgroups,
    ports: watch::Sender<Arc<Vec<PortRequest>>>,
    requested: Mutex<BTreeMap<Key, Vec<PortRequest>>>,
    signal: Signal,
    accelerator: OnceCell<Accelerator>,
}

impl Shared {
    pub(crate) async fn accelerator(&self) -> Accelerator {
        let choose = || {
            accelerator::choose(
                self.config.accelerator,
                &self.installation.program,
                &self.config.state_dir,
            )
        };
        *self.accelerator.get_or_init(choose).await
    }

    /// Wakes a virtual machine by `namespace/name`.
    pub(crate) fn wake(&self, owner: &str) -> monitor::Wake {
        let (namespace, name) = owner.split_once('/').unwrap_or(("", owner));
        self.wake_key(Key::new(namespace, name))
    }

    pub(crate) fn wake_key(&self, key: Key) -> monitor::Wake {
        let signal = self.signal.clone();
        Arc::new(move || signal.key(key.clone()))
    }

    /// Says which ports a virtual machine asks for.
    pub(crate) fn publish_ports(&self, key: &Key, ports: Vec<PortRequest>) {
        let mut requested = self.requested.lock().unwrap_or_else(PoisonError::into_inner);
        if ports.is_empty() {
            requested.remove(key)
        } else {
            requested.insert(key.clone(), ports)
        };
        let all: Vec<PortRequest> = requested.values().flatten().cloned().collect();
        self.ports.send_if_modified(|old| {
            let changed = **old != all;
            if changed {
                *old = Arc::new(all);
            }
            changed
        });
    }

    /// Lets an object go.
    pub(crate) async fn release(&self, key: &Key) -> Result<(), Status> {
        self.objects
            .set_finalizer(&key.namespace, &key.name, FINALIZER, false)
            .await
    }
}

/// The virtual machines of this host.
pub struct Vms {
    shared: Arc<Shared>,
    machines: Mutex<BTreeMap<Key, Arc<tokio::sync::Mutex<Machine>>>>,
    references: References,
}

impl Vms {
    /// The virtual machines of this host. Must be called inside a tokio runtime.
    ///
    /// The ports that virtual machines had before are published before this returns, so that the switch, when it
    /// is started after it, takes none away. `signal` must be that of the driver that runs this reconciler.
    #[must_use]
    pub fn new(
        config: Config,
        client: apiserver::Client,
        images: Arc<dyn Images>,
        groups: watch::Receiver<Arc<PortGroups>>,
        ports: watch::Sender<Arc<Vec<PortRequest>>>,
        clock: Clock,
        signal: Signal,
    ) -> Arc<Self> {
        Self::with_objects(config, Arc::new(client), images, groups, ports, clock, signal)
    }

    pub(crate) fn with_objects(
        config: Config,
        objects: Arc<dyn Objects>,
        images: Arc<dyn Images>,
        groups: watch::Receiver<Arc<PortGroups>>,
        ports: watch::Sender<Arc<Vec<PortRequest>>>,
        clock: Clock,
        signal: Signal,
    ) -> Arc<Self> {
        let shared = Arc::new(Shared {
            installation: config.installation.clone(),
            cgroups: Cgroups::new(&config.cgroup_root, &config.cgroup_name),
            config,
            objects,
            images,
            groups: groups.clone(),
            clock,
            ports,
            requested: Mutex::default(),
            signal: signal.clone(),
            accelerator: OnceCell::new(),
        });
        for record in record::all(&shared.config.state_dir) {
            shared.publish_ports(&Key::new(record.namespace, record.name), record.ports);
        }
        tokio::spawn(follow_groups(groups, signal));
        // The first start should not wait for the probe.
        let probe = shared.clone();
        tokio::spawn(async move { probe.accelerator().await });
        Arc::new(Self {
            shared,
            machines: Mutex::default(),
            references: References::default(),
        })
    }

    /// The driver for these virtual machines: it watches them and what they refer to. `queue` must be the one that
    /// the signal given to [`Vms::new`] fills.
    #[must_use]
    pub fn driver(self: &Arc<Self>, queue: Queue, client: &apiserver::Client, metrics: &Metrics) -> Driver {
        let options = Options::default();
        let mut driver = Driver::new(self.clone(), queue, options, metrics, self.shared.clock.clone())
            .watches(client, gvr::virtual_machines(), Wake::own);
        for resource in [gvr::virtual_machine_classes(), gvr::config_maps(), gvr::secrets()] {
            let (vms, plural) = (self.clone(), resource.plural.clone());
            driver = driver.watches(client, resource, move |object| {
                let users = vms
                    .references
                    .users(&plural, object::namespace(object), object::name(object));
                if users.is_empty() {
                    Wake::Nothing
                } else {
                    Wake::Keys(users)
                }
            });
        }
        driver
    }

    fn machine(&self, key: &Key) -> Arc<tokio::sync::Mutex<Machine>> {
        let mut machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        machines.entry(key.clone()).or_default().clone()
    }

    fn forget(&self, key: &Key) {
        self.references.set(key, Vec::new());
        self.machines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }

    async fn run(&self, key: &Key) -> Result<Outcome, Status> {
        let shared = &self.shared;
        let Some(paths) = Paths::new(&shared.config.state_dir, &shared.config.run_dir, key) else {
            tracing::warn!(%key, "the name can't be a directory's; nothing is done");
            return Ok(Outcome::Done);
        };
        let vms = gvr::virtual_machines();
        let Some(vm) = shared.objects.get(&vms, &key.namespace, &key.name).await? else {
            if paths.record().exists() {
                // The finalizer was taken away by force, or the store was lost: nothing tells that the disks
                // may go. An object of the same name takes them over.
                tracing::warn!(%key, directory = %paths.state.display(), "a virtual machine without an object is left as it is");
            } else {
                self.forget(key);
            }
            return Ok(Outcome::Done);
        };
        let deleting = object::is_deleting(&vm);
        if deleting && !report::has_finalizer(&vm, FINALIZER) {
            return Ok(Outcome::Done);
        }
        let known: Option<Record> = record::read(&paths.record());
        let identity = known
            .as_ref()
            .map_or_else(|| object::uid(&vm).to_owned(), |record| record.identity.clone());
        // Before they are read, so that a change in between wakes it.
        self.references.set(key, inputs::references(&vm));
        let class = shared.class(&vm).await?;
        let bootstrap = shared.bootstrap(&vm).await?;
        let mut desired = desired::of(Inputs {
            vm: &vm,
            identity: &identity,
            class: class.as_ref(),
            bootstrap,
        });
        if !deleting && !desired.worker && !report::has_finalizer(&vm, FINALIZER) {
            shared
                .objects
                .set_finalizer(&key.namespace, &key.name, FINALIZER, true)
                .await?;
        }
        let cd = media(&mut desired);

        let machine = self.machine(key);
        let mut machine = machine.lock().await;
        let mut turn = Turn {
            shared,
            key,
            paths: &paths,
            vm: &vm,
            identity: &identity,
            desired: &desired,
            cd: cd.as_deref(),
        };
        let end = turn.passes(&mut machine).await;
        if end.released {
            drop(machine);
            self.forget(key);
            return Ok(Outcome::Done);
        }
        turn.report(&machine, &end).await?;
        Ok(match (end.error, end.again) {
            (Some(error), _) => Outcome::Failed(error),
            (None, Some(wait)) => Outcome::Again(wait),
            (None, None) => Outcome::Done,
        })
    }
}

/// The CD for the guest. What was set right goes to the notes; what can't be made is missing.
fn media(desired: &mut Desired) -> Option<Vec<u8>> {
    match seed::Media::new(desired.seed.as_ref()?) {
        Ok(media) => {
            desired.notes.extend(media.notes.iter().cloned());
            Some(media.iso())
        }
        Err(error) => {
            let message = format!("spec.vmMetadata: {}", telemetry::chain(&error));
            desired.missing.push(Missing {
                reason: "VirtualMachineMetadataInvalid",
                message,
            });
            None
        }
    }
}

/// Port groups that come, go or change concern every virtual machine.
async fn follow_groups(mut groups: watch::Receiver<Arc<PortGroups>>, signal: Signal) {
    while groups.changed().await.is_ok() {
        signal.all();
    }
}

/// One run for one virtual machine.
struct Turn<'a> {
    shared: &'a Shared,
    key: &'a Key,
    paths: &'a Paths,
    vm: &'a Object,
    identity: &'a str,
    desired: &'a Desired,
    cd: Option<&'a [u8]>,
}

/// How the passes of a run ended.
struct End {
    observed: Observed,
    holds: Vec<Hold>,
    again: Option<Duration>,
    error: Option<String>,
    released: bool,
}

impl Turn<'_> {
    /// Looks, plans and applies until there is nothing left to do.
    async fn passes(&mut self, machine: &mut Machine) -> End {
        let mut last: Vec<Step> = Vec::new();
        for _ in 0..MAX_PASSES {
            let observed = observe::observe(self.shared, machine, self.paths, self.desired, self.cd).await;
            let mut plan = plan::plan(self.desired, &observed, self.shared.clock.now());
            if let Some(error) = &machine.start_error
                && let Some(hold) = plan.holds.iter_mut().find(|hold| hold.reason == "BackOff")
            {
                hold.progressing = false;
                hold.reason = "StartFailed";
                hold.message = format!("{error}; {}", hold.message);
            }
            let end = |observed, again, error| End {
                observed,
                holds: plan.holds.clone(),
                again,
                error,
                released: false,
            };
            if plan.steps.is_empty() {
                return end(observed, plan.again, None);
            }
            if plan.steps == last {
                // What was done had no effect that can be seen.
                return end(observed, Some(LATER), None);
            }
            for step in &plan.steps {
                tracing::info!(key = %self.key, action = ?step.action, reason = step.reason, "step");
                if let Err(error) = self.step(machine, &observed, step).await {
                    let error = format!("{}", telemetry::chain(&error));
                    if matches!(step.action, Action::Start { .. }) {
                        let wait = machine.ended();
                        self.event(true, "StartFailed", &error).await;
                        machine.start_error = Some(error.clone());
                        let mut ended = end(observed, Some(wait), None);
                        ended.holds.push(failed("StartFailed", error));
                        return ended;
                    }
                    let mut ended = end(observed, None, Some(error.clone()));
                    ended.holds.push(failed("StepFailed", error));
                    return ended;
                }
                if step.action == Action::Release {
                    return End {
                        released: true,
                        ..end(observed, None, None)
                    };
                }
            }
            last = plan.steps;
        }
        let observed = observe::observe(self.shared, machine, self.paths, self.desired, self.cd).await;
        End {
            observed,
            holds: Vec::new(),
            again: Some(LATER),
            error: None,
            released: false,
        }
    }

    async fn step(
        &self,
        machine: &mut Machine,
        observed: &Observed,
        step: &Step,
    ) -> Result<(), crate::apply::Error> {
        let mut applier = Applier {
            shared: self.shared,
            machine: &mut *machine,
            key: self.key,
            paths: self.paths,
            desired: self.desired,
            observed,
            identity: self.identity,
            cd: self.cd,
        };
        applier.apply(step).await?;
        match &step.action {
            Action::Bury { expected: false } => {
                let wait = machine.ended();
                let how = machine.last_shutdown.take();
                let message = format!(
                    "{}; it is started again in {} s",
                    ended_how(how.as_deref()),
                    wait.as_secs()
                );
                self.event(true, "Ended", &message).await;
            }
            Action::Start { restart: true, .. } => self.event(false, "Restarted", &step.reason).await,
            Action::Start { resume: true, .. } => {
                self.event(false, "Resumed", "the suspended guest goes on").await;
            }
            Action::Start { .. } => self.event(false, "Started", &step.reason).await,
            Action::Quit => self.event(false, "PoweredOff", &step.reason).await,
            Action::AskShutdown(_) => self.event(false, "ShuttingDown", &step.reason).await,
            Action::Suspend => self.event(false, "Suspended", &step.reason).await,
            Action::Kill => self.event(true, "Killed", &step.reason).await,
            Action::GrowDisk { .. } => self.event(false, "DiskGrown", &step.reason).await,
            _ => {}
        }
        Ok(())
    }

    async fn event(&self, warning: bool, reason: &str, message: &str) {
        self.shared.objects.event(self.vm, warning, reason, message).await;
    }

    async fn report(&self, machine: &Machine, end: &End) -> Result<(), Status> {
        let sensed = match &machine.running {
            Some((_, monitor)) => {
                monitor.set_probe(self.desired.probe.as_ref());
                monitor.sensed()
            }
            None => Sensed::default(),
        };
        if let Guest::Alive(_, launch) = &end.observed.guest {
            self.shared
                .cgroups
                .set(&self.paths.id, &self.desired.limits, launch.hardware.memory_mib);
        }
        let mut warnings = report::unknown_fields(self.shared.objects.unknown_fields(self.vm));
        warnings.extend(self.desired.notes.iter().cloned());
        warnings.extend(self.shared.cgroups.note());
        let report = Report {
            vm: self.vm,
            identity: self.identity,
            host: &self.shared.config.host_name,
            desired: self.desired,
            observed: &end.observed,
            holds: &end.holds,
            sensed: &sensed,
            warnings,
            now: &self.shared.clock.now_rfc3339(),
        };
        self.shared
            .objects
            .set_status(&self.key.namespace, &self.key.name, report.status())
            .await
    }
}

fn failed(reason: &'static str, message: String) -> Hold {
    Hold {
        condition: condition::POWER,
        reason,
        message,
        progressing: false,
        blocks: true,
    }
}

/// QEMU's word for the end, for people. Without one it was killed, or crashed.
fn ended_how(shutdown: Option<&str>) -> String {
    match shutdown {
        Some("guest-shutdown") => "the guest has switched itself off, but powerState is poweredOn".into(),
        Some("guest-panic") => "the guest has crashed".into(),
        Some("host-signal") => "QEMU was ended by a signal".into(),
        Some(other) => format!("QEMU has ended ({other})"),
        None => "QEMU was killed or has crashed".into(),
    }
}

#[async_trait]
impl Reconciler for Vms {
    fn name(&self) -> &'static str {
        "vm"
    }

    async fn keys(&self) -> Vec<Key> {
        match self.shared.objects.virtual_machines().await {
            Ok(vms) => vms.iter().map(Key::of).collect(),
            Err(error) => {
                tracing::warn!(%error, "can't list virtual machines");
                Vec::new()
            }
        }
    }

    async fn reconcile(&self, key: &Key) -> Outcome {
        self.run(key)
            .await
            .unwrap_or_else(|error| Outcome::Failed(error.to_string()))
    }
}

#[cfg(test)]
mod tests;
