//! What a running virtual machine tells by itself: QEMU's events, the guest agent, the addresses seen on its
//! taps, its readiness probe. Each change wakes the reconciler; nothing here decides anything.
//!
//! Inputs: QMP events, frames of the taps' packet sockets, the agent's socket, the probe's answer.
//! Output: a [`Sensed`] in a watch channel. Ends when QEMU's connection ends, or when dropped.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use qmp::{Agent, agent::GuestInterface};
use tokio::{
    net::TcpStream,
    sync::{broadcast::error::RecvError, mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::{
    desired::{Nic, Probe, ProbeKind},
    packet::{self, Learned},
    process,
    qemu::{AGENT_LABEL, AGENT_PORT},
    record::{self, Paths},
    sys,
};

/// Addresses kept for each card.
const MAX_LEARNED: usize = 8;
/// How long the agent may take for an answer.
const AGENT_LIMIT: Duration = Duration::from_secs(5);
/// The agent is asked again after this time without any sign, because some changes give none.
const AGENT_PERIOD: Duration = Duration::from_secs(120);
/// An address was seen; the guest needs a moment to finish its configuration.
const AGENT_SETTLE: Duration = Duration::from_millis(500);

/// How often the console's log is measured.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// What is known from watching.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sensed {
    /// What the guest agent says; none without an agent.
    pub(crate) agent: Option<AgentFacts>,
    /// Addresses learned on each card, newest first, by MAC address.
    pub(crate) learned: BTreeMap<String, Vec<Learned>>,
    /// The probe's last answer.
    pub(crate) probe: Option<Result<(), String>>,
    /// The reason of the last `SHUTDOWN` event.
    pub(crate) shutdown: Option<String>,
    /// The connection to QEMU has ended.
    pub(crate) ended: bool,
}

/// What the guest agent says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AgentFacts {
    pub(crate) host_name: String,
    pub(crate) interfaces: Vec<GuestInterface>,
}

/// Runs until dropped.
#[derive(Debug)]
pub(crate) struct Monitor {
    sensed: watch::Receiver<Sensed>,
    probe: watch::Sender<Option<Probe>>,
    task: AbortHandle,
}

/// Called after every change.
pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Monitor {
    /// Watches a QEMU.
    pub(crate) fn start(
        client: qmp::Client,
        events: qmp::client::Events,
        nics: &[Nic],
        paths: &Paths,
        wake: Wake,
    ) -> Self {
        // A guest that is adopted may not speak of its addresses again for hours.
        let known = Sensed {
            learned: record::read(&paths.addresses()).unwrap_or_default(),
            ..Sensed::default()
        };
        let (sender, sensed) = watch::channel(known);
        let (probe, probe_receiver) = watch::channel(None);
        let sensors = Sensors { sender, wake };
        let nics = nics.to_vec();
        let task =
            tokio::spawn(run(sensors, client, events, nics, paths.clone(), probe_receiver)).abort_handle();
        Self { sensed, probe, task }
    }

    /// What is known.
    pub(crate) fn sensed(&self) -> Sensed {
        self.sensed.borrow().clone()
    }

    /// QEMU's word for its end, once all events before the end have been read.
    pub(crate) async fn last_shutdown(&self) -> Option<String> {
        let mut sensed = self.sensed.clone();
        let _ = timeout(Duration::from_secs(1), sensed.wait_for(|sensed| sensed.ended)).await;
        self.sensed().shutdown
    }

    /// Sets the readiness probe.
    pub(crate) fn set_probe(&self, probe: Option<&Probe>) {
        self.probe.send_if_modified(|old| {
            let changed = old.as_ref() != probe;
            *old = probe.cloned();
            changed
        });
    }
}

#[derive(Clone)]
struct Sensors {
    sender: watch::Sender<Sensed>,
    wake: Wake,
}

impl Sensors {
    fn change(&self, change: impl FnOnce(&mut Sensed)) {
        let modified = self.sender.send_if_modified(|sensed| {
            let before = sensed.clone();
            change(sensed);
            *sensed != before
        });
        if modified {
            (self.wake)();
        }
    }
}

async fn run(
    sensors: Sensors,
    client: qmp::Client,
    mut events: qmp::client::Events,
    nics: Vec<Nic>,
    paths: Paths,
    probe: watch::Receiver<Option<Probe>>,
) {
    // What the agent's task is told: open, closed, or look again.
    let (kick, kicks) = mpsc::channel(8);
    let mut tasks = JoinSet::new();
    for nic in nics {
        tasks.spawn(learn(sensors.clone(), nic, paths.addresses(), kick.clone()));
    }
    tasks.spawn(ask_agent(sensors.clone(), paths.agent(), kicks));
    tasks.spawn(keep_probing(sensors.clone(), paths.agent(), probe));
    tasks.spawn(trim_log(paths));
    // After an adoption the port may be open already; no event tells.
    if client.query_frontend_open(AGENT_LABEL).await.unwrap_or(false) {
        let _ = kick.try_send(Kick::Open);
    }
    loop {
        match events.recv().await {
            Ok(event) => match event.name.as_str() {
                "SHUTDOWN" => {
                    let reason = event.data["reason"].as_str().unwrap_or("unknown").to_owned();
                    sensors.change(|sensed| sensed.shutdown = Some(reason));
                }
                "VSERPORT_CHANGE" if event.data["id"] == AGENT_PORT => {
                    let open = event.data["open"] == true;
                    let _ = kick.send(if open { Kick::Open } else { Kick::Closed }).await;
                }
                "STOP" | "RESUME" | "SUSPEND" | "WAKEUP" | "BLOCK_IO_ERROR" | "GUEST_PANICKED" => {
                    (sensors.wake)();
                }
                _ => {}
            },
            Err(RecvError::Lagged(_)) => (sensors.wake)(),
            Err(RecvError::Closed) => break,
        }
    }
    sensors.change(|sensed| sensed.ended = true);
}

/// Keeps the console's log within its bound. A guest can fill it at any time, and nothing tells when.
async fn trim_log(paths: Paths) {
    loop {
        sleep(LOG_PERIOD).await;
        if let Err(error) = process::trim_console_log(&paths) {
            tracing::warn!(log = %paths.console_log().display(), %error, "can't be cut");
        }
    }
}

/// Learns a card's addresses from its tap.
async fn learn(sensors: Sensors, nic: Nic, kept: PathBuf, kick: mpsc::Sender<Kick>) {
    let socket = nix::net::if_::if_nametoindex(nic.tap.as_str())
        .map_err(std::io::Error::from)
        .and_then(sys::address_talk)
        .and_then(sys::waitable);
    let (socket, Some(mac)) = (
        match socket {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(tap = nic.tap, %error, "addresses can't be learned on it");
                return;
            }
        },
        packet::mac(&nic.mac),
    ) else {
        return;
    };
    let mut frame = [0; 1600];
    loop {
        let Ok(mut ready) = socket.readable().await else {
            return;
        };
        let read = ready.try_io(|fd| nix::unistd::read(fd, &mut frame).map_err(Into::into));
        match read {
            Ok(Ok(length)) => {
                if let Some(learned) = packet::learn(&frame[..length], mac) {
                    let mut new = false;
                    sensors.change(|sensed| {
                        new = remember(sensed.learned.entry(nic.mac.clone()).or_default(), learned);
                    });
                    if new {
                        keep(&sensors, &kept);
                        let _ = kick.try_send(Kick::Look);
                    }
                }
            }
            // The tap went down or away; it comes back with the next start.
            Ok(Err(error)) if error.raw_os_error() == Some(libc::ENETDOWN) => {}
            Ok(Err(error)) => {
                tracing::debug!(tap = nic.tap, %error, "no more addresses are learned on it");
                return;
            }
            Err(_) => {}
        }
    }
}

/// Notes what was learned beside QEMU's sockets, for the next process of ours; it goes when the guest stops.
fn keep(sensors: &Sensors, file: &Path) {
    let learned = sensors.sender.borrow().learned.clone();
    if let Err(error) = record::write_json(file, &learned) {
        tracing::debug!(file = %file.display(), %error, "learned addresses are not kept over a restart");
    }
}

/// Puts a newly seen address first. Whether the list changed.
fn remember(list: &mut Vec<Learned>, learned: Learned) -> bool {
    match list.iter_mut().find(|known| known.ip == learned.ip) {
        Some(known) => {
            let new = learned.prefix.is_some() && known.prefix != learned.prefix;
            known.prefix = learned.prefix.or(known.prefix);
            new
        }
        None => {
            list.insert(0, learned);
            list.truncate(MAX_LEARNED);
            true
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kick {
    Open,
    Closed,
    Look,
}

/// Asks the guest agent when it appears, when an address was seen, and once in a while.
async fn ask_agent(sensors: Sensors, socket: PathBuf, mut kicks: mpsc::Receiver<Kick>) {
    let mut open = false;
    loop {
        match timeout(AGENT_PERIOD, kicks.recv()).await {
            Ok(None) => return,
            Ok(Some(Kick::Open)) => open = true,
            Ok(Some(Kick::Closed)) => open = false,
            Ok(Some(Kick::Look)) if open => sleep(AGENT_SETTLE).await,
            Ok(Some(Kick::Look)) | Err(_) => {}
        }
        let facts = if open { facts(&socket).await } else { None };
        sensors.change(|sensed| sensed.agent = facts);
    }
}

async fn facts(socket: &std::path::Path) -> Option<AgentFacts> {
    let ask = async {
        let mut agent = Agent::connect(socket, AGENT_LIMIT).await?;
        let interfaces = agent.network_interfaces().await?;
        // Older agents do not know the host name.
        let host_name = agent.host_name().await.unwrap_or_default();
        Ok::<_, qmp::Error>(AgentFacts {
            host_name,
            interfaces,
        })
    };
    ask.await
        .inspect_err(|error| tracing::debug!(%error, "the guest agent does not answer"))
        .ok()
}

/// Runs the readiness probe, whichever it is at the moment.
async fn keep_probing(sensors: Sensors, agent: PathBuf, mut probe: watch::Receiver<Option<Probe>>) {
    loop {
        let Some(wanted) = probe.borrow_and_update().clone() else {
            sensors.change(|sensed| sensed.probe = None);
            if probe.changed().await.is_err() {
                return;
            }
            continue;
        };
        let answer = tokio::select! {
            answer = try_probe(&sensors, &agent, &wanted) => answer,
            changed = probe.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        sensors.change(|sensed| sensed.probe = Some(answer));
        tokio::select! {
            () = sleep(Duration::from_secs(wanted.period)) => {}
            changed = probe.changed() => if changed.is_err() { return },
        }
    }
}

async fn try_probe(sensors: &Sensors, agent: &std::path::Path, probe: &Probe) -> Result<(), String> {
    let limit = Duration::from_secs(probe.timeout);
    match &probe.kind {
        ProbeKind::Heartbeat => match Agent::connect(agent, limit).await {
            Ok(_) => Ok(()),
            Err(_) => Err("the guest agent does not answer".into()),
        },
        ProbeKind::Tcp { host, port } => {
            let first = || sensors.sender.borrow().first_address().map(|ip| ip.to_string());
            let Some(host) = host.clone().or_else(first) else {
                return Err("the address of the guest is not known yet".into());
            };
            match timeout(limit, TcpStream::connect((host.as_str(), *port))).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(format!("can't connect to {host} port {port}: {error}")),
                Err(_) => Err(format!(
                    "no connection to {host} port {port} within {} s",
                    probe.timeout
                )),
            }
        }
    }
}

impl Sensed {
    /// The addresses of a card: what the agent says, else what was learned. Link-local ones last.
    pub(crate) fn addresses(&self, mac: &str) -> Vec<Learned> {
        let of_agent = self
            .agent
            .iter()
            .flat_map(|agent| &agent.interfaces)
            .filter(|card| card.mac == mac);
        let mut list: Vec<Learned> = of_agent
            .flat_map(|card| &card.addresses)
            .filter(|(ip, _)| !ip.is_loopback())
            .map(|(ip, prefix)| Learned {
                ip: *ip,
                prefix: Some(*prefix),
            })
            .collect();
        if list.is_empty() {
            list = self.learned.get(mac).cloned().unwrap_or_default();
        }
        list.sort_by_key(|address| match address.ip {
            std::net::IpAddr::V4(ip) => u8::from(ip.is_link_local()) * 2,
            std::net::IpAddr::V6(ip) => 1 + u8::from(ip.is_unicast_link_local()) * 2,
        });
        list
    }

    /// The first address of any card, in no particular order of cards.
    fn first_address(&self) -> Option<std::net::IpAddr> {
        let cards = self
            .agent
            .iter()
            .flat_map(|agent| &agent.interfaces)
            .map(|card| &card.mac);
        let macs: Vec<&String> = cards.chain(self.learned.keys()).collect();
        macs.into_iter()
            .filter(|mac| !mac.is_empty())
            .find_map(|mac| self.addresses(mac).first().map(|a| a.ip))
    }
}

#[cfg(test)]
mod tests;
