//! A lab: brought up, described on disk, taken down whatever happens.

mod programs;
mod registry;

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

pub use self::programs::Programs;
pub use self::registry::{down, list};
use crate::layout::{Layout, MGMT, NETWORKS, RUN, check_name, host_name};
use crate::process::{Process, kill_all};
use crate::wait::wait_until;
use crate::{CLIENT, SVC, SWITCH, host, netns, orchestrator, ovs, services};

/// What kind of lab is wanted.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name, unique on the machine; one that is left over under this name is taken down first.
    pub name: String,
    /// How many hosts.
    pub hosts: u8,
    /// How many NICs each has.
    pub nics: u8,
    /// Each host's folder in the repository; `{host}` stands for its name.
    pub site_path: String,
    /// Whether there is an orchestrator, which tells the hosts what they are; else they read [`Options::site_path`]
    /// of the lab's own Git server.
    pub orchestrator: bool,
    /// Our own programs.
    pub programs: Programs,
}

impl Options {
    /// One host with three NICs, which reads the folder of the example site.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            hosts: 1,
            nics: 3,
            site_path: "./shop-001".to_owned(),
            orchestrator: false,
            programs: Programs::find(),
        }
    }
}

/// A process that the lab started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The node that it runs in.
    pub node: String,
    /// What it is.
    pub name: String,
    /// Which it is.
    pub process: Process,
}

/// What `lab.json` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Description {
    index: u8,
    hosts: u8,
    nics: u8,
    site_path: String,
    #[serde(default)]
    orchestrator: bool,
    programs: Programs,
    processes: Vec<Record>,
}

/// A lab that runs. Dropped, it is taken down, unless [`Lab::keep`] was called; when the process that made it is
/// killed, a guard process takes it down.
#[derive(Debug)]
pub struct Lab {
    /// Names, directories, addresses.
    pub layout: Layout,
    /// How many hosts it has.
    pub hosts: u8,
    /// How many NICs each has.
    pub nics: u8,
    pub(crate) site_path: String,
    /// Whether it has an orchestrator.
    pub orchestrator: bool,
    pub(crate) programs: Programs,
    processes: Vec<Record>,
    children: Vec<Child>,
    guard: Option<(Child, ChildStdin)>,
    ours: bool,
}

impl Lab {
    /// Brings a lab up: switch, servers, and hosts with their NICs plugged in, not started yet.
    ///
    /// # Errors
    /// When some part of it cannot be made; what was made is removed.
    pub fn up(options: &Options) -> Result<Self> {
        down(&options.name)?;
        let layout = registry::reserve(options)?;
        let mut lab = Self {
            layout,
            hosts: options.hosts,
            nics: options.nics,
            site_path: options.site_path.clone(),
            orchestrator: options.orchestrator,
            programs: options.programs.clone(),
            processes: Vec::new(),
            children: Vec::new(),
            guard: None,
            ours: true,
        };
        lab.save()?;
        lab.arm()?;
        lab.build()
            .with_context(|| format!("cannot bring up lab {}", options.name))?;
        Ok(lab)
    }

    /// A lab that another process brought up. Dropping this value leaves the lab as it is.
    ///
    /// # Errors
    /// When there is no such lab.
    pub fn open(name: &str) -> Result<Self> {
        check_name(name)?;
        let file = Path::new(RUN).join(name).join("lab.json");
        let text = fs::read(&file).with_context(|| format!("there is no lab {name}"))?;
        let known: Description =
            serde_json::from_slice(&text).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(Self {
            layout: Layout::new(name, known.index)?,
            hosts: known.hosts,
            nics: known.nics,
            site_path: known.site_path,
            orchestrator: known.orchestrator,
            programs: known.programs,
            processes: known.processes,
            children: Vec::new(),
            guard: None,
            ours: false,
        })
    }

    /// Lets the lab outlive this process.
    ///
    /// # Errors
    /// When the guard cannot be told.
    pub fn keep(mut self) -> Result<()> {
        if let Some((mut child, mut stdin)) = self.guard.take() {
            stdin.write_all(b"keep").context("cannot tell the guard to go")?;
            drop(stdin);
            child.wait().context("the guard does not end")?;
        }
        self.ours = false;
        Ok(())
    }

    /// Takes the lab down and says what could not be removed.
    ///
    /// # Errors
    /// When something is left.
    pub fn down(mut self) -> Result<()> {
        self.ours = false;
        self.remove()
    }

    /// The processes that the lab started, whether they still run or not.
    #[must_use]
    pub fn processes(&self) -> &[Record] {
        &self.processes
    }

    /// A process that the lab started and that runs.
    #[must_use]
    pub fn process(&self, node: &str, name: &str) -> Option<&Process> {
        let mine = self
            .processes
            .iter()
            .rev()
            .find(|record| record.node == node && record.name == name)?;
        mine.process.runs().then_some(&mine.process)
    }

    /// Where a process of the lab logs to.
    #[must_use]
    pub fn log(&self, node: &str, name: &str) -> PathBuf {
        self.layout
            .node_state(node)
            .join("log")
            .join(format!("{name}.log"))
    }

    /// A command inside a node.
    #[must_use]
    pub fn inside(&self, node: &str, program: &str) -> Command {
        ovs::with_environment(&self.layout, node, netns::inside(&self.layout, node, program))
    }

    /// The names of its hosts.
    #[must_use]
    pub fn host_names(&self) -> Vec<String> {
        (1..=self.hosts).map(host_name).collect()
    }

    fn build(&mut self) -> Result<()> {
        let layout = self.layout.clone();
        netns::add(&layout, SWITCH, "127.0.0.1")?;
        self.start_ovs(SWITCH)?;
        ovs::physical_switch(&layout)?;

        netns::add(&layout, SVC, "127.0.0.1")?;
        netns::add(&layout, CLIENT, &layout.svc_address(crate::layout::PROD))?;
        // Each of their interfaces stands for a machine of its own.
        netns::answer_for_own_addresses(&layout, SVC)?;
        netns::answer_for_own_addresses(&layout, CLIENT)?;
        for network in NETWORKS {
            for (node, last) in [(SVC, 2), (CLIENT, 3)] {
                let port = format!("{node}-{}", network.name);
                netns::cable(&layout, &port, Some(node), network.name)?;
                ovs::physical_port(&layout, &port, network.vlan, &[])?;
                let address = format!("{}/24", layout.address(network, last));
                netns::ip(
                    &layout,
                    Some(node),
                    ["address", "add", &address, "dev", network.name],
                )?;
            }
        }
        let shell = layout.shell_interface();
        netns::cable(&layout, "shell", None, &shell)?;
        ovs::physical_port(&layout, "shell", MGMT.vlan, &[])?;
        netns::ip(
            &layout,
            None,
            [
                "address",
                "add",
                &format!("{}/24", layout.shell_address()),
                "dev",
                &shell,
            ],
        )?;

        if self.orchestrator {
            orchestrator::plug(&layout)?;
            self.start_proxy()?;
        }
        services::prepare_repository(&layout)?;
        self.start_services()?;
        (1..=self.hosts).try_for_each(|number| host::plug(&layout, number, self.nics))
    }

    pub(crate) fn start_ovs(&mut self, node: &str) -> Result<()> {
        let layout = self.layout.clone();
        let [(server_name, server), (switch_name, switch)] = ovs::commands(&layout, node)?;
        self.start(node, server_name, server)?;
        ovs::initialise(&layout, node)?;
        self.start(node, switch_name, switch)?;
        let ready = layout.ovs_run(node).join("ovs-vswitchd.pid");
        wait_until("ovs-vswitchd", Duration::from_secs(10), || ready.exists()).map(drop)
    }

    /// Starts a process of the lab, which outlives this one if the lab is kept.
    pub(crate) fn start(&mut self, node: &str, name: &str, mut command: Command) -> Result<()> {
        let log = self.log(node, name);
        fs::create_dir_all(log.parent().context("a log has a directory")?)?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        // Its own group: Ctrl-C at the terminal is for us, who then take everything down in order.
        let command = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name} of {node}"))?;
        let process = Process::of(child.id().cast_signed())
            .with_context(|| format!("{name} of {node} ended at once"))?;
        self.children.push(child);
        self.processes.retain(|record| record.process.runs());
        self.processes.push(Record {
            node: node.to_owned(),
            name: name.to_owned(),
            process,
        });
        self.save()
    }

    /// `kill -9` of a process that the lab started.
    ///
    /// # Errors
    /// When it does not run, or does not end.
    pub fn kill(&mut self, node: &str, name: &str) -> Result<()> {
        let process = self
            .process(node, name)
            .with_context(|| format!("{name} of {node} does not run"))?
            .clone();
        process.signal(Signal::SIGKILL)?;
        wait_until("its end", Duration::from_secs(10), || !process.runs())?;
        self.forget()
    }

    pub(crate) fn kill_where(&mut self, what: &str, find: impl FnMut() -> Vec<Process>) -> Result<()> {
        kill_all(find).with_context(|| format!("cannot stop {what}"))?;
        self.forget()
    }

    /// Forgets processes that are gone.
    fn forget(&mut self) -> Result<()> {
        self.children
            .retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
        self.processes.retain(|record| record.process.runs());
        self.save()
    }

    fn save(&self) -> Result<()> {
        let file = self.layout.run().join("lab.json");
        let known = Description {
            index: self.layout.index,
            hosts: self.hosts,
            nics: self.nics,
            site_path: self.site_path.clone(),
            orchestrator: self.orchestrator,
            programs: self.programs.clone(),
            processes: self.processes.clone(),
        };
        let part = file.with_extension("part");
        fs::write(&part, serde_json::to_vec_pretty(&known)?)?;
        fs::rename(&part, &file).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Starts the guard: it takes the lab down when its input ends before it was told to go.
    fn arm(&mut self) -> Result<()> {
        let mut guard = Command::new(self.programs.lab()?)
            .args(["guard", "--name", &self.layout.name])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start the lab's guard")?;
        let stdin = guard.stdin.take().context("the guard has no input")?;
        self.guard = Some((guard, stdin));
        Ok(())
    }

    fn remove(&mut self) -> Result<()> {
        let result = down(&self.layout.name);
        for mut child in self.children.drain(..) {
            let _ = child.wait();
        }
        if let Some((mut guard, stdin)) = self.guard.take() {
            drop(stdin);
            let _ = guard.wait();
        }
        result
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = self.remove()
        {
            eprintln!("lab {}: {error:#}", self.layout.name);
        }
    }
}

/// What the guard process does: waits for the end of its input, and takes the lab down unless that was announced.
///
/// # Errors
/// When something of the lab is left.
pub fn guard(name: &str) -> Result<()> {
    let mut told = Vec::new();
    // An error is an end too.
    let _ = std::io::stdin().read_to_end(&mut told);
    if told.is_empty() { down(name) } else { Ok(()) }
}
