//! The domain's running part: one state, one way to make it true, one task that watches reality.

mod checkpoint;
mod flows;
mod pass;
mod watcher;

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use kinds::network::{PortGroups, PortRequest};
use ovsdb::{Client, Snapshot};
use reconcile::{
    Key, Signal,
    section::{Applied, Problem, Section, SectionReport},
};
use serde_json::Value;
use telemetry::{Metrics, chain};
use tokio::{
    sync::{Mutex, watch},
    task::JoinHandle,
    time::Instant,
};

use crate::{
    apply::{OpenFlow, Supervisor, rename},
    base,
    desired::{Desired, NicDevices, Reading},
    observe::{Database, Kernel, KernelError, Neighbour, NeighbourError, NicNaming, Nics, Watcher, devices},
    plan::{flows::Flows, helpers, teaming::Lanes},
    report,
};

/// Where things are and how to do them.
#[derive(Clone, Debug)]
pub struct Config {
    /// The unix socket of the host's ovsdb-server.
    pub db_socket: PathBuf,
    /// The run directory of its ovs-vswitchd (`OVS_RUNDIR`).
    pub ovs_rundir: PathBuf,
    /// `system` (kernel) or `netdev` (userspace).
    pub datapath_type: String,
    /// The host's name: goes into MAC addresses that are made up.
    pub host_name: String,
    /// How NICs are named.
    pub nics: NicNaming,
    /// A directory for files that need not outlive a reboot.
    pub run_dir: PathBuf,
    /// `lldpd`, if link discovery is to work.
    pub lldpd: Option<PathBuf>,
    /// `busybox`, if addresses are to come by DHCP.
    pub busybox: Option<PathBuf>,
    /// How long a recovered link must hold before it is used (`Net.TeamPolicyUpDelay`).
    pub up_delay: Duration,
    /// How long the gateway may take to answer after a change of the way to it, before the change is undone.
    pub checkpoint: Duration,
}

impl Config {
    /// The usual choices for an OVS whose sockets are all in `ovs_rundir`, with files in `state_dir` and
    /// `run_dir`.
    pub fn new(
        ovs_rundir: impl Into<PathBuf>,
        state_dir: impl Into<PathBuf>,
        run_dir: impl Into<PathBuf>,
        host_name: &str,
    ) -> Self {
        let ovs_rundir = ovs_rundir.into();
        Self {
            db_socket: ovs_rundir.join("db.sock"),
            ovs_rundir,
            datapath_type: "system".into(),
            host_name: host_name.into(),
            nics: NicNaming::in_dir(&state_dir.into()),
            run_dir: run_dir.into(),
            lldpd: installed("/usr/sbin/lldpd"),
            busybox: installed("/usr/bin/busybox").or_else(|| installed("/bin/busybox")),
            up_delay: Duration::from_millis(100),
            checkpoint: Duration::from_secs(10),
        }
    }
}

fn installed(path: &str) -> Option<PathBuf> {
    Some(PathBuf::from(path)).filter(|p| p.exists())
}

/// The switches of a host.
pub struct VSwitch {
    inner: Arc<Inner>,
    watcher: JoinHandle<()>,
}

impl Drop for VSwitch {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

struct Inner {
    config: Config,
    client: Client,
    snapshots: watch::Receiver<Option<Snapshot>>,
    netlink: rtnetlink::Handle,
    openflow: OpenFlow,
    ports: watch::Receiver<Arc<Vec<PortRequest>>>,
    groups: watch::Sender<Arc<PortGroups>>,
    signal: Signal,
    metrics: report::Measures,
    /// When to look again for a link that has to hold for a while.
    wake: watch::Sender<Option<Instant>>,
    state: Mutex<State>,
}

/// A configuration that cut the host off and was undone.
struct Rejected {
    desired: Arc<Desired>,
    why: Problem,
    tries: u32,
    /// When to try it again. Never, if there was another that is in force now. The first one of a daemon's life has
    /// nothing before it to go back to but a bare host; it was good before a reboot, and what did not answer may only
    /// have been slower than the host, as a physical switch that learns where the host is after a power cut.
    again: Option<Instant>,
}

/// The longest time between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// What is kept between passes. Losing it costs nothing but a comparison of all flows.
#[derive(Default)]
struct State {
    /// The profile that was last read, and what it says.
    read: Option<Read>,
    /// What was last asked for with a good profile.
    desired: Option<Arc<Desired>>,
    /// What was last made true: a difference from it is drift.
    applied: Option<Wish>,
    /// A configuration that cut the host off and was undone.
    rejected: Option<Rejected>,
    /// The port groups that were last published: of these switches, those whose bridge is there.
    published: Option<(Arc<Desired>, Vec<bool>)>,
    /// The flows that each bridge was given.
    installed: BTreeMap<String, Installed>,
    /// Since when each uplink works or does not.
    links: BTreeMap<String, (bool, Instant)>,
    /// `lldpd` and DHCP clients.
    helpers: Supervisor,
    /// Whether the virtual machines' wishes are known. Before that the ports that are there stay.
    requests_known: bool,
    /// Changes that no report has told yet.
    untold: Vec<Applied>,
}

/// What was read of a profile. It says the same as long as the profile and the NICs are the same.
struct Read {
    profile: Arc<Value>,
    nics: NicDevices,
    result: Result<Reading, Vec<Problem>>,
}

/// All that is to be made true. Two of them compare quickly when they share what they are made of.
#[derive(Clone, Default, PartialEq, Eq)]
struct Wish {
    desired: Arc<Desired>,
    requests: Arc<Vec<PortRequest>>,
}

#[derive(Default)]
struct Installed {
    /// The bridge's row; another row is another bridge.
    uuid: String,
    flows: Flows,
    lanes: Lanes,
    /// Somebody changed the flows: all are to be given again.
    lost: bool,
}

impl VSwitch {
    /// Connects to the switch database and starts watching it, the kernel's links and the port requests. Sockets
    /// belong to the network namespace of the calling thread. `metrics` comes with this domain's prefix. `signal` is that of the reconciler that calls
    /// [`Section::reconcile`]; it is given when a change was made or is needed that nobody asked for.
    ///
    /// # Errors
    /// No netlink socket.
    pub async fn start(
        config: Config,
        metrics: &Metrics,
        ports: watch::Receiver<Arc<Vec<PortRequest>>>,
        groups: watch::Sender<Arc<PortGroups>>,
        signal: Signal,
    ) -> Result<Self, KernelError> {
        let (netlink, events) = Watcher::new()?;
        if config.nics.rename {
            let kernel = Kernel::read(&netlink, &[]).await?;
            let renamed = match config.nics.read(&kernel) {
                Ok(nics) => rename(&nics, &kernel).await.map_err(|e| chain(&e).to_string()),
                Err(error) => Err(error.to_string()),
            };
            // A NIC is as good under its old name.
            if let Err(error) = renamed {
                tracing::warn!(error, "NICs keep the kernel's names");
            }
        }
        let client = Client::spawn(ovsdb::Config::new(&config.db_socket));
        let snapshots = client.monitor("Open_vSwitch", Database::monitor()).await;
        let inner = Arc::new(Inner {
            openflow: OpenFlow::new(&config.ovs_rundir),
            config,
            client,
            snapshots,
            netlink,
            ports,
            groups,
            signal,
            metrics: report::Measures::new(metrics),
            wake: watch::channel(None).0,
            state: Mutex::default(),
        });
        let watcher = tokio::spawn(watcher::run(inner.clone(), events));
        Ok(Self { inner, watcher })
    }

    /// Waits until the switch database was read for the first time.
    pub async fn ready(&self) {
        let _ = self.inner.snapshots.clone().wait_for(Option::is_some).await;
    }

    /// The host's NICs, for `selvedge nic list`.
    ///
    /// # Errors
    /// The kernel can't be asked, or a new number can't be written down.
    pub async fn nics(&self) -> Result<Nics, NicError> {
        self.inner.nics(&Kernel::read(&self.inner.netlink, &[]).await?)
    }

    /// What is at the other end of the uplinks, as link discovery knows it.
    ///
    /// # Errors
    /// `lldpcli` failed. Without link discovery there are none.
    pub async fn neighbours(&self) -> Result<Vec<Neighbour>, NeighbourError> {
        let socket = helpers::lldpd_socket(&self.inner.config.run_dir);
        if socket.exists() {
            Neighbour::read(&socket).await
        } else {
            Ok(Vec::new())
        }
    }

    /// The base layer of this host as it is now: the profile of `esx-base-profile`. To be asked once, on a fresh
    /// host, and kept.
    ///
    /// # Errors
    /// The kernel can't be asked, or a new number can't be written down.
    pub async fn base_profile(&self) -> Result<Value, NicError> {
        let kernel = Kernel::read(&self.inner.netlink, &[]).await?;
        let nics = self.inner.nics(&kernel)?;
        Ok(base::base_profile(&nics, &kernel))
    }
}

/// Why the NICs are not known.
#[derive(Debug, thiserror::Error)]
pub enum NicError {
    /// The kernel can't be asked.
    #[error("cannot read the host's links")]
    Kernel(#[from] KernelError),
    /// A new NIC's number can't be written down.
    #[error("cannot keep the NICs' numbers")]
    Numbers(#[from] io::Error),
}

impl Inner {
    fn nics(&self, kernel: &Kernel) -> Result<Nics, NicError> {
        let mut nics = self.config.nics.read(kernel)?;
        let database = self
            .snapshots
            .borrow()
            .as_ref()
            .and_then(Database::read)
            .unwrap_or_default();
        for nic in &mut nics {
            let port = database.port(&nic.device);
            nic.switch = port.and_then(|(_, bridge, _)| bridge.switch().map(Into::into));
        }
        Ok(nics)
    }

    fn helper_programs(&self) -> helpers::Programs<'_> {
        helpers::Programs {
            lldpd: self.config.lldpd.as_deref(),
            busybox: self.config.busybox.as_deref(),
            run_dir: &self.config.run_dir,
            host_name: &self.config.host_name,
        }
    }

    /// Asks for a run of the reconciler, so that it reports.
    fn tell(&self) {
        self.signal.key(Key::new("", "host"));
    }

    async fn reconcile(&self, profile: &Arc<Value>) -> SectionReport {
        let kernel = Kernel::read(&self.netlink, &[]).await;
        let nics = kernel
            .map_err(NicError::from)
            .and_then(|kernel| Ok(self.config.nics.read(&kernel)?));
        let nics = match nics {
            Ok(nics) => devices(&nics),
            Err(error) => return report::failed("HostUnreadable", &error),
        };
        let mut state = self.state.lock().await;
        let mut report = SectionReport::default();
        match state.read(profile, nics, &self.config.host_name) {
            Ok(reading) => match state.refused(&reading.desired) {
                Some(why) => report.problems.push(why),
                None => {
                    state.desired = Some(reading.desired.clone());
                    report.problems = self.pass(&mut state).await;
                    report.not_enforced = reading.not_enforced;
                    let missing = helpers::missing(&reading.desired, &self.helper_programs());
                    report.not_enforced.extend(missing);
                    report.not_enforced.sort();
                }
            },
            Err(problems) => report.problems = problems,
        }
        report.changes = std::mem::take(&mut state.untold);
        report
    }
}

impl State {
    /// What a profile says on a host with these NICs.
    fn read(
        &mut self,
        profile: &Arc<Value>,
        nics: NicDevices,
        host_name: &str,
    ) -> Result<Reading, Vec<Problem>> {
        self.read
            .take_if(|read| read.profile != *profile || read.nics != nics);
        let read = self.read.get_or_insert_with(|| Read {
            result: Desired::read(profile, &nics, host_name),
            profile: profile.clone(),
            nics,
        });
        read.result.clone()
    }

    /// Why a configuration is not tried now. When another one is wanted, that is forgotten.
    fn refused(&mut self, desired: &Arc<Desired>) -> Option<Problem> {
        self.rejected.take_if(|rejected| rejected.desired != *desired);
        let rejected = self.rejected.as_ref()?;
        let due = rejected.again.is_some_and(|again| again <= Instant::now());
        (!due).then(|| rejected.why.clone())
    }

    /// Notes that a configuration cut the host off. `pause` is the time until a second try, if there is one.
    fn reject(&mut self, desired: &Arc<Desired>, why: Problem, pause: Duration) {
        let tries = self.rejected.take().map_or(0, |before| before.tries);
        let pause = pause.saturating_mul(1 << tries.min(16)).min(LONGEST_PAUSE);
        self.rejected = Some(Rejected {
            desired: desired.clone(),
            why,
            tries: tries + 1,
            again: self.applied.is_none().then(|| Instant::now() + pause),
        });
    }
}

#[async_trait]
impl Section for VSwitch {
    fn name(&self) -> &'static str {
        "vswitch"
    }

    fn claims(&self) -> &'static [&'static str] {
        &["network_vss", "network.vmknics"]
    }

    async fn reconcile(&self, profile: &Arc<Value>) -> SectionReport {
        self.inner.reconcile(profile).await
    }
}
