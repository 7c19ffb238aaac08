//! Bringing the flows of every bridge up to date.

use std::collections::BTreeMap;

use reconcile::section::Problem;
use telemetry::chain;
use tokio::time::Instant;

use super::{Inner, Installed, State};
use crate::{
    apply::OfctlError,
    desired::{Desired, Switch, TeamPolicy},
    observe::{Bridge, Kernel, Observed},
    plan::{
        Attachment,
        flows::{LocalPort, announcement, difference, file, flows},
        teaming::{Lanes, assign},
    },
    report::problem,
};

impl Inner {
    /// Computes and installs the flows of all bridges of ours.
    pub(super) async fn flows(
        &self,
        state: &mut State,
        desired: &Desired,
        attachments: &[Attachment],
        observed: &Observed,
    ) -> Vec<Problem> {
        let usable = self.usable(state, desired, &observed.kernel);
        let mut problems = Vec::new();
        let names: Vec<&str> = desired.switches.iter().map(|s| s.bridge.as_str()).collect();
        state.installed.retain(|name, _| names.contains(&name.as_str()));
        for switch in &desired.switches {
            let bridge = observed.database.bridges.get(&switch.bridge);
            let Some(bridge) = bridge.filter(|b| b.switch().is_some()) else {
                continue;
            };
            let mine: Vec<&Attachment> = attachments.iter().filter(|a| a.bridge == switch.bridge).collect();
            let old = state
                .installed
                .remove(&switch.bridge)
                .filter(|old| old.uuid == bridge.uuid);
            match self.install(switch, bridge, &mine, &usable, old).await {
                Ok(installed) => {
                    state.installed.insert(switch.bridge.clone(), installed);
                }
                Err(error) => {
                    let path = format!("esx.network_vss.switches[{}]", switch.name);
                    problems.push(Problem {
                        path,
                        ..problem("FlowsFailed", chain(&error).to_string())
                    });
                }
            }
        }
        problems
    }

    async fn install(
        &self,
        switch: &Switch,
        bridge: &Bridge,
        attachments: &[&Attachment],
        usable: &BTreeMap<String, bool>,
        old: Option<Installed>,
    ) -> Result<Installed, OfctlError> {
        let number = |name: &str| bridge.ports.get(name).and_then(crate::observe::Port::ofport);
        let uplinks: BTreeMap<String, u32> = switch
            .uplinks
            .iter()
            .filter_map(|u| Some((u.nic.clone(), number(&u.device)?)))
            .collect();
        let before = match &old {
            Some(old) => old.lanes.clone(),
            None => self.remembered(switch, &uplinks).await,
        };
        let lanes = assign(
            switch,
            &|nic| usable.get(nic) == Some(&true) && uplinks.contains_key(nic),
            &before,
        );
        let locals: Vec<LocalPort> = attachments
            .iter()
            .filter_map(|a| {
                Some(LocalPort {
                    number: number(&a.interface)?,
                    mac: a.mac.clone(),
                    vlan_id: a.vlan_id,
                    lane: a.lane.clone(),
                    security: a.security,
                })
            })
            .collect();
        let new = flows(&locals, &uplinks, &lanes);
        let known = |port: &LocalPort| {
            let key = format!("table=10,priority=10,dl_src={}", port.mac);
            old.as_ref().is_some_and(|old| old.flows.contains_key(&key))
        };
        let news = locals
            .iter()
            .filter(|port| !known(port) || lanes.get(&port.lane) != before.get(&port.lane));
        let mut announcements = announce(news, &uplinks, &lanes);
        match &old {
            Some(old) if !old.lost => {
                let mut bundle = difference(&old.flows, &new);
                bundle.append(&mut announcements);
                if !bundle.is_empty() {
                    self.openflow.bundle(&switch.bridge, &bundle).await?;
                    self.metrics.flow_changes.inc_by(bundle.len() as u64);
                }
            }
            _ => {
                self.openflow.replace(&switch.bridge, &file(&new)).await?;
                if !announcements.is_empty() {
                    self.openflow.bundle(&switch.bridge, &announcements).await?;
                }
            }
        }
        if old.as_ref().is_some_and(|old| old.lanes != lanes) {
            tracing::info!(switch = switch.name, lanes = ?lanes.values().collect::<Vec<_>>(), "uplinks changed");
        }
        Ok(Installed {
            uuid: bridge.uuid.clone(),
            flows: new,
            lanes,
            lost: false,
        })
    }

    /// The lanes as the bridge's flows have them: a rolling order outlives a restart of the daemon.
    async fn remembered(&self, switch: &Switch, uplinks: &BTreeMap<String, u32>) -> Lanes {
        if !switch.port_groups.iter().any(|g| g.team.rolling_order) {
            return Lanes::new();
        }
        let Ok(dump) = self.openflow.dump(&switch.bridge, 60).await else {
            return Lanes::new();
        };
        let all = assign(switch, &|_| true, &Lanes::new());
        all.into_keys()
            .enumerate()
            .filter_map(|(index, lane)| {
                let ours = format!("reg0={:#x}", index + 1);
                let line = dump
                    .lines()
                    .find(|l| l.split([',', ' ']).any(|w| w == ours) && l.contains("reg3=0"))?;
                let port: u32 = line.rsplit_once("output:")?.1.trim().parse().ok()?;
                let nic = uplinks.iter().find(|(_, number)| **number == port)?.0.clone();
                Some((lane, vec![nic]))
            })
            .collect()
    }

    /// Which NICs may be used: those whose link is there, and has been for a while if it was gone.
    fn usable(&self, state: &mut State, desired: &Desired, kernel: &Kernel) -> BTreeMap<String, bool> {
        let now = Instant::now();
        let mut wake: Option<Instant> = None;
        let mut usable = BTreeMap::new();
        let uplinks: Vec<_> = desired.switches.iter().flat_map(|s| &s.uplinks).collect();
        state
            .links
            .retain(|device, _| uplinks.iter().any(|u| u.device == *device));
        for uplink in uplinks {
            let running = kernel.running(&uplink.device);
            // A link that is seen for the first time is taken as it is.
            let long_ago = now.checked_sub(self.config.up_delay).unwrap_or(now);
            let seen = state
                .links
                .entry(uplink.device.clone())
                .or_insert((running, long_ago));
            if seen.0 != running {
                *seen = (running, now);
            }
            let from = seen.1 + self.config.up_delay;
            if running && from > now {
                wake = Some(wake.map_or(from, |w| w.min(from)));
            }
            usable.insert(uplink.nic.clone(), running && from <= now);
        }
        self.wake
            .send_if_modified(|old| std::mem::replace(old, wake) != wake);
        usable
    }
}

/// Packets that tell the physical switches where ports are now.
fn announce<'a>(
    ports: impl Iterator<Item = &'a LocalPort>,
    uplinks: &BTreeMap<String, u32>,
    lanes: &Lanes,
) -> Vec<String> {
    ports
        .filter(|p| p.lane.team.notify_switches && p.lane.team.policy != TeamPolicy::IpHash)
        .filter_map(|port| {
            let uplink = uplinks.get(lanes.get(&port.lane)?.first()?)?;
            let packet = announcement(&port.mac, port.vlan_id);
            Some(format!(
                "packet-out in_port={},packet={packet},actions=output:{uplink}",
                port.number
            ))
        })
        .collect()
}
