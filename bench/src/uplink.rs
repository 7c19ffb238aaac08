//! How long traffic is silent when the active uplink's link goes down and the standby takes over.

use std::{
    net::{SocketAddr, UdpSocket as StdSocket},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, setns};
use serde_json::json;
use testkit::{
    CLIENT,
    layout::{PROD, host_name},
    tool,
    wait::{pass, wait_for},
};
use tokio::{
    net::UdpSocket,
    runtime::Runtime,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    Context,
    host::{CONFIGURATIONS, Host, PATIENCE},
    measured::{Measured, milliseconds},
    network::configuration,
};

const ROUNDS: usize = 5;
/// With all links up, a longer silence than this says that the machine has no time for the lab: the round tells
/// nothing about the host, and another is made in its place, up to so many in all.
const DISTURBED: Duration = Duration::from_millis(20);
const MOST: usize = 20;
const PORT: u16 = 7007;
/// The last byte of the host's own address on the guests' network.
const LAST: u8 = 60;
/// How long to look before the link goes down, and after.
const BEFORE: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(2);

pub(crate) fn measure(context: &Context, measured: &mut Vec<Measured>) -> Result<()> {
    let host = Host::up(context)?;
    let layout = host.site.lab.layout.clone();
    let address = layout.address(PROD, LAST);
    let esx = json!({
        "network_vss": {"switches": [{
            "name": "vSwitch1", "bridge": {"nics": ["vmnic1", "vmnic2"]},
            "policy": {"nic_teaming": {
                "policy": "FAILOVER_EXPLICIT", "active_nics": ["vmnic1"], "standby_nics": ["vmnic2"],
                "rolling_order": false, "notify_switches": true,
            }},
            "port_groups": [{"name": "prod", "vlan_id": 0}],
        }]},
        "network": {"vmknics": [{
            "device": "vmk1", "port_group": "prod", "enabled": true,
            "ip": {"dhcp": false, "ipv4_address": address, "ipv4_subnet_mask": "255.255.255.0"},
        }]},
    });
    host.api.create(CONFIGURATIONS, &configuration("uplinks", &esx))?;
    host.wait_configuration("uplinks")?;
    let ends = [
        socket(&layout.namespace_path(&host_name(1)), &address)?,
        socket(&layout.namespace_path(CLIENT), &layout.address(PROD, 3))?,
    ];
    let (mut silences, mut disturbed) = (Vec::new(), Vec::new());
    while silences.len() < ROUNDS && silences.len() + disturbed.len() < MOST {
        context.say(&format!("  link down, {} of {ROUNDS}", silences.len() + 1));
        let probe = Probe::start(&context.runtime, &ends)?;
        probe.flows()?;
        carries(&host, "vmnic1")?;
        pass(BEFORE);
        let down = Instant::now();
        host.site.lab.link_down(1, 1)?;
        pass(AFTER);
        let arrivals = probe.stop();
        host.site.lab.link_up(1, 1)?;
        ensure!(
            arrivals
                .iter()
                .all(|one| one.last().is_some_and(|last| *last > down + AFTER / 2)),
            "there is no traffic on the standby uplink"
        );
        let longest = |counts: fn(Instant, Instant) -> bool| {
            let each = arrivals.iter().map(|one| silence(one, |at| counts(at, down)));
            each.max().unwrap_or_default()
        };
        if longest(|at, down| at < down) < DISTURBED {
            silences.push(longest(|at, down| at >= down));
        } else {
            disturbed.push(longest(|at, down| at >= down));
        }
    }
    ensure!(
        !silences.is_empty(),
        "the machine is too busy: with all links up, packets were late in each of {MOST} rounds"
    );
    let mut note = "the longer of both directions".to_owned();
    if let Some(worst) = disturbed.iter().max() {
        note = format!(
            "{note}; {} more rounds don't count, as packets were {} ms late and more before; their worst was {:.0} ms",
            disturbed.len(),
            DISTURBED.as_millis(),
            milliseconds(worst)
        );
    }
    measured.push(Measured::times("uplink-loss", &silences, note));
    host.site.lab.down()
}

/// The longest time between two arrivals of which the later one counts.
fn silence(arrivals: &[Instant], counts: impl Fn(Instant) -> bool) -> Duration {
    arrivals
        .windows(2)
        .filter_map(|pair| match pair {
            [earlier, later] if counts(*later) => Some(*later - *earlier),
            _ => None,
        })
        .max()
        .unwrap_or_default()
}

/// A socket inside a network namespace: it stays there, whoever uses it.
fn socket(namespace: &Path, address: &str) -> Result<StdSocket> {
    let namespace =
        std::fs::File::open(namespace).with_context(|| format!("there is no {}", namespace.display()))?;
    let address: SocketAddr = format!("{address}:{PORT}").parse()?;
    // A thread's namespace is its own, and this one ends here.
    let made = std::thread::spawn(move || -> Result<StdSocket> {
        setns(&namespace, CloneFlags::CLONE_NEWNET).context("can't enter a network namespace")?;
        let socket = StdSocket::bind(address).with_context(|| format!("can't use the address {address}"))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    match made.join() {
        Ok(result) => result,
        Err(_) => anyhow::bail!("the thread that makes a socket panicked"),
    }
}

/// Waits until a NIC carries the traffic: whatever makes that choice, its counter tells.
fn carries(host: &Host, nic: &str) -> Result<()> {
    let mut last = u64::MAX;
    wait_for(&format!("{nic} as the active uplink"), PATIENCE, || {
        let file = format!("/sys/class/net/{nic}/statistics/tx_packets");
        let sent = tool::run(host.site.lab.inside(&host_name(1), "cat").arg(file))?;
        let sent: u64 = sent.trim().parse()?;
        // A few are the host's own; between two looks the probe sends more.
        let enough = sent.saturating_sub(last) >= 10;
        last = sent;
        Ok(if enough {
            Ok(())
        } else {
            Err(format!("it has sent {sent} packets"))
        })
    })
    .map(drop)
}

/// A packet each millisecond, both ways.
struct Probe {
    tasks: Vec<JoinHandle<()>>,
    /// When packets came, at each end.
    arrivals: [Arc<Mutex<Vec<Instant>>>; 2],
}

impl Probe {
    fn start(runtime: &Runtime, ends: &[StdSocket; 2]) -> Result<Self> {
        let _inside = runtime.enter();
        let [one, other] = ends;
        let mut probe = Self {
            tasks: Vec::new(),
            arrivals: [Arc::default(), Arc::default()],
        };
        for (from, to, arrivals) in [(one, other, &probe.arrivals[1]), (other, one, &probe.arrivals[0])] {
            let target = to.local_addr()?;
            let sender = UdpSocket::from_std(from.try_clone()?)?;
            let receiver = UdpSocket::from_std(to.try_clone()?)?;
            probe.tasks.push(runtime.spawn(async move {
                let mut ticks = interval(Duration::from_millis(1));
                ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
                loop {
                    ticks.tick().await;
                    // One that can't be sent is one that does not arrive.
                    let _ = sender.send_to(&[0; 64], target).await;
                }
            }));
            let arrivals = arrivals.clone();
            probe.tasks.push(runtime.spawn(async move {
                let mut packet = [0; 64];
                loop {
                    if receiver.recv_from(&mut packet).await.is_ok() {
                        let now = Instant::now();
                        arrivals.lock().unwrap_or_else(PoisonError::into_inner).push(now);
                    }
                }
            }));
        }
        Ok(probe)
    }

    /// Waits until packets come at both ends.
    fn flows(&self) -> Result<()> {
        wait_for("traffic over the active uplink", PATIENCE, || {
            let counts = self.counts();
            Ok(if counts.iter().all(|count| *count > 100) {
                Ok(())
            } else {
                Err(format!("{counts:?} packets came"))
            })
        })
        .map(drop)
    }

    fn counts(&self) -> [usize; 2] {
        [&self.arrivals[0], &self.arrivals[1]]
            .map(|one| one.lock().unwrap_or_else(PoisonError::into_inner).len())
    }

    /// Ends it; when packets came.
    fn stop(mut self) -> [Vec<Instant>; 2] {
        self.tasks.drain(..).for_each(|task| task.abort());
        self.arrivals
            .clone()
            .map(|one| one.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silence_is_the_one_before_a_packet_that_counts() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let arrivals = [at(0), at(50), at(51), at(81), at(82)];
        assert_eq!(silence(&arrivals, |_| true), Duration::from_millis(50));
        assert_eq!(
            silence(&arrivals, |when| when >= at(60)),
            Duration::from_millis(30)
        );
        assert_eq!(silence(&[], |_| true), Duration::ZERO);
    }
}
