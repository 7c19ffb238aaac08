//! A host of its own for each test: a thread in a new network and mount namespace, with its own OVS. Namespaces
//! end with their last process, so a test that panics leaves nothing behind.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    fs,
    future::Future,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use kinds::network::{PortGroups, PortRequest};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use reconcile::section::{Section, SectionReport};
use serde_json::Value;
use telemetry::Metrics;
use tokio::sync::watch;
use vswitch::{Config, VSwitch};

/// Runs a test in namespaces of its own.
pub(crate) fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).unwrap();
        run("ip link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a command in the namespace of the test; it must succeed.
pub(crate) fn run(line: &str) -> String {
    let (good, text) = try_run(line);
    assert!(good, "{line}: {text}");
    text
}

pub(crate) fn try_run(line: &str) -> (bool, String) {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

/// A child that dies with the test.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn start(command: &str, arguments: &[&str]) -> Self {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--pdeathsig", "KILL", command]).args(arguments);
        let child = setpriv
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A network namespace with one network card, the far end of a veth pair: a guest, or something behind the
/// physical switch.
pub(crate) struct Peer {
    holder: Process,
}

impl Peer {
    /// `device` is the near end; the far end is `eth0` with `mac`.
    pub(crate) fn new(device: &str, mac: &str) -> Self {
        let peer = Self::empty();
        peer.card(device, "eth0", mac);
        peer
    }

    pub(crate) fn empty() -> Self {
        let holder = Process::start("unshare", &["-n", "sleep", "1000"]);
        let pid = holder.0.id();
        let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
        wait_until("the namespace", || {
            let sleeping = fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.trim() == "sleep");
            sleeping && fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|ns| ns != own)
        });
        let peer = Self { holder };
        peer.run("ip link set lo up");
        peer
    }

    pub(crate) fn card(&self, device: &str, inner: &str, mac: &str) {
        let pid = self.holder.0.id();
        run(&format!(
            "ip link add {device} type veth peer name {inner} address {mac} netns {pid}"
        ));
        run(&format!("ip link set {device} up"));
        self.run(&format!("ip link set {inner} up"));
        // The switch in user space would pass on checksums that a real NIC fills in.
        self.run(&format!("ethtool -K {inner} tx off"));
    }

    pub(crate) fn enter(&self, line: &str) -> String {
        format!("nsenter -n -t {} {line}", self.holder.0.id())
    }

    pub(crate) fn run(&self, line: &str) -> String {
        run(&self.enter(line))
    }

    pub(crate) fn address(&self, address: &str) {
        self.run(&format!("ip address add {address} dev eth0"));
    }

    /// Whether an address answers. The number of answers must be the number of questions: a duplicate fails.
    pub(crate) fn reaches(&self, address: &str) -> bool {
        let (good, text) = try_run(&self.enter(&format!("ping -n -c 3 -i 0.05 -W 1 {address}")));
        assert!(!text.contains("DUP!"), "{text}");
        good
    }

    /// Whether an address never answers, asked a few times over a third of a second.
    pub(crate) fn never_reaches(&self, address: &str) -> bool {
        !try_run(&self.enter(&format!("ping -n -c 4 -i 0.05 -W 0.2 {address}"))).0
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(tokio::time::Instant::now() < until, "waited too long for {what}");
        std::thread::yield_now();
    }
}

/// Waits for a level without blocking the runtime.
pub(crate) async fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited too long for {what}");
}

/// OVS, and what a switch is started with.
pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) vswitchd: Option<Process>,
    _database: Process,
    pub(crate) ports: watch::Sender<Arc<Vec<PortRequest>>>,
    pub(crate) groups: watch::Receiver<Arc<PortGroups>>,
    groups_sender: watch::Sender<Arc<PortGroups>>,
    _queue: reconcile::Queue,
    signal: reconcile::Signal,
}

impl Host {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let database = Process::start_database(dir.path());
        let (signal, queue) = reconcile::queue();
        let (groups_sender, groups) = watch::channel(Arc::default());
        let mut host = Self {
            _database: database,
            vswitchd: None,
            ports: watch::channel(Arc::default()).0,
            groups,
            groups_sender,
            _queue: queue,
            signal,
            dir,
        };
        // The socket is there a moment before anybody listens on it.
        let init = format!(
            "ovs-vsctl --timeout=10 --db=unix:{} --no-wait init",
            host.path("db.sock").display()
        );
        wait_until("the database", || try_run(&init).0);
        host.start_vswitchd();
        host
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn start_vswitchd(&mut self) {
        self.vswitchd = None;
        let dir = self.dir.path();
        let process = Process::start(
            "env",
            &[
                &format!("OVS_RUNDIR={}", dir.display()),
                "ovs-vswitchd",
                &format!("unix:{}", self.path("db.sock").display()),
                &format!("--pidfile={}", self.path("ovs-vswitchd.pid").display()),
                &format!("--log-file={}", self.path("ovs-vswitchd.log").display()),
            ],
        );
        let pid = process.0.id();
        self.vswitchd = Some(process);
        let ctl = self.path(&format!("ovs-vswitchd.{pid}.ctl"));
        wait_until("vswitchd", || ctl.exists());
    }

    pub(crate) fn vsctl(&self, line: &str) -> String {
        run(&format!(
            "ovs-vsctl --timeout=10 --db=unix:{} {line}",
            self.path("db.sock").display()
        ))
    }

    pub(crate) fn ofctl(&self, line: &str) -> String {
        run(&format!(
            "OVS_RUNDIR={} ovs-ofctl -O OpenFlow14 {line}",
            self.dir.path().display()
        ))
    }

    pub(crate) async fn switch(&self) -> VSwitch {
        self.switch_with(|_| {}).await
    }

    pub(crate) async fn switch_with(&self, change: impl FnOnce(&mut Config)) -> VSwitch {
        let (ports, groups) = (self.ports.subscribe(), self.groups_sender.clone());
        let mut config = configuration(self.dir.path());
        change(&mut config);
        start(config, ports, groups, self.signal.clone()).await
    }

    /// The number of database transactions so far, our own and others'.
    pub(crate) fn configuration(&self) -> String {
        self.vsctl("get Open_vSwitch . next_cfg").trim().to_owned()
    }

    pub(crate) fn attach(&self, wishes: &[(&str, &str, &str)]) {
        self.ports.send_replace(Arc::new(requests(wishes)));
    }

    /// Waits until these ports have flows.
    pub(crate) async fn attached(&self, bridge: &str, macs: &[&str]) {
        wait_for("the ports' flows", || {
            let rundir = self.dir.path().display();
            let (_, flows) = try_run(&format!(
                "OVS_RUNDIR={rundir} ovs-ofctl -O OpenFlow14 dump-flows {bridge} table=10"
            ));
            macs.iter().all(|mac| flows.contains(&format!("dl_src={mac}")))
        })
        .await;
    }
}

impl Process {
    fn start_database(dir: &Path) -> Self {
        let schema = "/usr/share/openvswitch/vswitch.ovsschema";
        run(&format!(
            "ovsdb-tool create {} {schema}",
            dir.join("conf.db").display()
        ));
        let socket = dir.join("db.sock");
        let process = Self::start(
            "ovsdb-server",
            &[
                &format!("--remote=punix:{}", socket.display()),
                &format!("--unixctl={}", dir.join("ovsdb.ctl").display()),
                &dir.join("conf.db").display().to_string(),
            ],
        );
        wait_until("the database", || socket.exists());
        process
    }
}

/// Reconciles.
pub(crate) async fn attempt(switch: &VSwitch, profile: &Value) -> SectionReport {
    switch.reconcile(&Arc::new(profile.clone())).await
}

/// Reconciles; there must be no problems.
pub(crate) async fn reconcile(switch: &VSwitch, profile: &Value) -> SectionReport {
    let report = attempt(switch, profile).await;
    assert_eq!(report.problems, []);
    report
}

/// Port requests from device, port group and MAC address.
pub(crate) fn requests(wishes: &[(&str, &str, &str)]) -> Vec<PortRequest> {
    let request = |(interface, group, mac): &(&str, &str, &str)| PortRequest {
        interface: (*interface).into(),
        port_group: (*group).into(),
        mac: (*mac).into(),
        owner: format!("default/{interface}"),
    };
    wishes.iter().map(request).collect()
}

fn configuration(dir: &Path) -> Config {
    let mut config = Config::new(dir, dir.join("state"), dir.join("run"), "host1");
    config.datapath_type = "netdev".into();
    config.checkpoint = Duration::from_secs(2);
    config
}

async fn start(
    config: Config,
    ports: watch::Receiver<Arc<Vec<PortRequest>>>,
    groups: watch::Sender<Arc<PortGroups>>,
    signal: reconcile::Signal,
) -> VSwitch {
    let switch = VSwitch::start(config, &Metrics::new(), ports, groups, signal)
        .await
        .unwrap();
    switch.ready().await;
    switch
}

/// A switch on an OVS that another process started; what must live as long is given along.
pub(crate) async fn switch_in(
    dir: &Path,
    requests: Vec<PortRequest>,
) -> (VSwitch, (watch::Sender<Arc<Vec<PortRequest>>>, reconcile::Queue)) {
    let (signal, queue) = reconcile::queue();
    let (sender, ports) = watch::channel(Arc::new(requests));
    (
        start(
            configuration(dir),
            ports,
            watch::channel(Arc::default()).0,
            signal,
        )
        .await,
        (sender, queue),
    )
}
