//! The OpenFlow tables of a vSwitch: pure, from ports and lanes to flows.
//!
//! A vSphere switch never learns: it knows its ports' MAC addresses. So these tables hold every local address,
//! and what is not local goes out by the sender's uplink, never to another port and never from uplink to
//! uplink: there can be no loop, no duplicate and no flooding to ports that are not meant.
//!
//! ```text
//!  0 classify   who sent it, may they; VLAN into reg3, lane into reg0, tag removed
//!               from a port ──▶ 20            from an uplink ──▶ 10
//! 10 reflect    our own frames that the physical switch sent back: drop; else ──▶ 12
//! 12 accept     the lanes that this uplink carries ──▶ 30, once for each
//! 20 local      known address: the port. Group address: all ports of the VLAN, then ──▶ 60.
//!               Else ──▶ 60. Always a copy to 21.      22: addresses that ports took themselves
//! 21 listen     promiscuous ports of the VLAN
//! 30 inbound    known address or group address, ports of this lane and VLAN only; copy to 31
//! 31 listen     promiscuous ports of this lane and VLAN.  32: addresses that ports took themselves
//! 50 trunk      to a port with VLAN 4095 (in reg5): tag as the VLAN says
//! 60 uplink     tag as the VLAN says; the lane's uplink.  61: of several, the one the addresses choose
//! ```
//!
//! reg3 is 0 for untagged, `0x1000 | VLAN` for tagged frames.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::desired::Security;

use super::teaming::{Lane, Lanes};

/// Flows: table, priority and match to actions, both as `ovs-ofctl` writes them.
pub type Flows = BTreeMap<String, String>;

/// A port that is not an uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPort {
    /// Its OpenFlow number.
    pub number: u32,
    /// Its MAC address.
    pub mac: String,
    /// 0, 1–4094, or 4095 for all.
    pub vlan_id: u16,
    /// Its lane.
    pub lane: Lane,
    /// What it may do.
    pub security: Security,
}

impl LocalPort {
    fn trunk(&self) -> bool {
        self.vlan_id == 4095
    }
}

const GROUP: &str = "dl_dst=01:00:00:00:00:00/01:00:00:00:00:00";
const UNICAST: &str = "dl_dst=00:00:00:00:00:00/01:00:00:00:00:00";
const READ_VLAN: &str = "move:OXM_OF_VLAN_VID[]->NXM_NX_REG3[0..11],load:1->NXM_NX_REG3[12],pop_vlan";
const WRITE_VLAN: &str = "push_vlan:0x8100,move:NXM_NX_REG3[0..11]->OXM_OF_VLAN_VID[]";
/// Bridge protocols end at the switch, in both directions: a guest can't shut a physical port or close a loop.
const BRIDGE_PROTOCOLS: [&str; 2] = [
    "dl_dst=01:80:c2:00:00:00/ff:ff:ff:ff:ff:f0",
    "dl_dst=01:00:0c:cc:cc:cc/ff:ff:ff:ff:ff:fe",
];

struct Builder<'a> {
    flows: Flows,
    ports: &'a [LocalPort],
    lanes: Vec<&'a Lane>,
}

/// The flows of a vSwitch. `uplinks` maps NICs to OpenFlow numbers; NICs that have none carry nothing.
#[must_use]
pub fn flows(ports: &[LocalPort], uplinks: &BTreeMap<String, u32>, lanes: &Lanes) -> Flows {
    let mut builder = Builder {
        flows: Flows::new(),
        ports,
        lanes: lanes.keys().collect(),
    };
    for protocol in BRIDGE_PROTOCOLS {
        builder.add(0, 200, protocol, "drop");
    }
    for port in ports {
        builder.classify(port);
        builder.add(10, 10, &format!("dl_src={}", port.mac), "drop");
    }
    builder.add(10, 0, "", "goto_table:12");
    builder.local();
    builder.inbound();
    builder.uplinks(uplinks, lanes);
    builder.flows
}

/// A port that may take other addresses is answered at them, for as long as it uses them.
fn learn() -> String {
    let entry = |table: u8, lane: &str| {
        format!(
            "learn(table={table},idle_timeout=300,priority=10,cookie={LEARNED},{lane}NXM_NX_REG3[],\
             NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],load:NXM_OF_IN_PORT[]->NXM_NX_REG5[0..15]),"
        )
    };
    entry(22, "") + &entry(32, "NXM_NX_REG0[],")
}

fn vlan_register(vlan_id: u16) -> u32 {
    if vlan_id == 0 {
        0
    } else {
        0x1000 | u32::from(vlan_id)
    }
}

impl Builder<'_> {
    fn add(&mut self, table: u8, priority: u16, matching: &str, actions: &str) {
        let comma = if matching.is_empty() { "" } else { "," };
        self.flows.insert(
            format!("table={table},priority={priority}{comma}{matching}"),
            actions.into(),
        );
    }

    fn lane_number(&self, lane: &Lane) -> usize {
        // 0 is what reg0 is before it is set.
        self.lanes.iter().position(|l| *l == lane).map_or(0, |n| n + 1)
    }

    fn classify(&mut self, port: &LocalPort) {
        let lane = self.lane_number(&port.lane);
        let untagged = if port.trunk() {
            0
        } else {
            vlan_register(port.vlan_id)
        };
        let set = format!("load:{lane}->NXM_NX_REG0[],load:{untagged:#x}->NXM_NX_REG3[]");
        let mut vlans = vec![
            ("vlan_vid=0", format!("{set},goto_table:20")),
            ("vlan_vid=0x1000/0x1fff", format!("pop_vlan,{set},goto_table:20")),
        ];
        if port.trunk() {
            vlans.push((
                "vlan_vid=0x1000/0x1000",
                format!("load:{lane}->NXM_NX_REG0[],{READ_VLAN},goto_table:20"),
            ));
        }
        for (vlan, accept) in vlans {
            let (number, mac) = (port.number, &port.mac);
            // A tag of VLAN 0 is a priority, not a VLAN: it must win over "any tag".
            let more = u16::from(vlan.ends_with("0x1fff"));
            if port.security.forged_transmits {
                // A port that hears everything needs no entry to be reached.
                let learns = port.security.mac_changes && !port.security.allow_promiscuous;
                let learn = if learns { learn() } else { String::new() };
                let source = format!("in_port={number},{vlan}");
                let other = accept.replace("goto_table:20", &format!("{learn}goto_table:20"));
                self.add(0, 80 + more, &source, &other);
                self.add(0, 90 + more, &format!("{source},dl_src={mac}"), &accept);
            } else {
                let source = format!("in_port={number},{vlan},dl_src={mac}");
                self.add(0, 110 + more, &format!("arp,{source},arp_sha={mac}"), &accept);
                self.add(0, 100 + more, &format!("arp,{source}"), "drop");
                self.add(0, 90 + more, &source, &accept);
            }
        }
    }

    /// Actions that bring a frame to ports: access ports first, then trunks.
    fn deliver<'p>(ports: impl Iterator<Item = &'p LocalPort>) -> String {
        let (trunks, access): (Vec<_>, Vec<_>) = ports.partition(|p| p.trunk());
        let mut actions = String::new();
        for port in access {
            let _ = write!(actions, "output:{},", port.number);
        }
        for port in trunks {
            let _ = write!(actions, "load:{}->NXM_NX_REG5[],resubmit(,50),", port.number);
        }
        actions
    }

    /// The ports that are in a VLAN; without one, those that are in every VLAN.
    fn members(&self, vlan_id: Option<u16>, promiscuous: bool) -> impl Iterator<Item = &LocalPort> {
        self.ports.iter().filter(move |p| {
            p.security.allow_promiscuous == promiscuous && (p.trunk() || Some(p.vlan_id) == vlan_id)
        })
    }

    fn vlans(&self) -> Vec<Option<u16>> {
        let mut vlans: Vec<_> = self
            .ports
            .iter()
            .filter(|p| !p.trunk())
            .map(|p| Some(p.vlan_id))
            .collect();
        vlans.sort_unstable();
        vlans.dedup();
        vlans.push(None);
        vlans
    }

    /// Tables 20 and 21: frames of local ports.
    fn local(&mut self) {
        for port in self.ports.iter().filter(|p| !p.security.allow_promiscuous) {
            let (priority, vlan) = match port.trunk() {
                true => (19, String::new()),
                false => (20, format!("reg3={:#x},", vlan_register(port.vlan_id))),
            };
            let actions = Self::deliver(std::iter::once(port)) + "goto_table:21";
            self.add(20, priority, &format!("{vlan}dl_dst={}", port.mac), &actions);
        }
        for port in self
            .ports
            .iter()
            .filter(|p| p.security.allow_promiscuous && !p.trunk())
        {
            let vlan = vlan_register(port.vlan_id);
            self.add(
                20,
                20,
                &format!("reg3={vlan:#x},dl_dst={}", port.mac),
                "goto_table:21",
            );
        }
        for vlan_id in self.vlans() {
            let (more, vlan) = match vlan_id {
                Some(id) => (1, format!("reg3={:#x}", vlan_register(id))),
                None => (0, String::new()),
            };
            let comma = if vlan.is_empty() { "" } else { "," };
            let all = Self::deliver(self.members(vlan_id, false));
            self.add(
                20,
                10 + more,
                &format!("{vlan}{comma}{GROUP}"),
                &format!("{all}resubmit(,21),goto_table:60"),
            );
            let listeners = Self::deliver(self.members(vlan_id, true));
            if let Some(actions) = listeners.strip_suffix(',') {
                self.add(21, 10 + more, &vlan, actions);
            }
        }
        self.add(
            20,
            0,
            "",
            "resubmit(,21),load:0->NXM_NX_REG5[],resubmit(,22),goto_table:25",
        );
        self.add(25, 10, "reg5=0", "goto_table:60");
        self.add(25, 0, "", "output:NXM_NX_REG5[]");
    }

    /// Tables 30 and 31: frames from uplinks, by the lane that let them in.
    fn inbound(&mut self) {
        let lanes: Vec<&Lane> = self.lanes.clone();
        for (index, lane) in lanes.into_iter().enumerate() {
            let number = index + 1;
            let in_lane = |p: &&LocalPort| p.lane == *lane;
            for port in self
                .ports
                .iter()
                .filter(in_lane)
                .filter(|p| !p.security.allow_promiscuous)
            {
                let (priority, vlan) = match port.trunk() {
                    true => (19, String::new()),
                    false => (20, format!("reg3={:#x},", vlan_register(port.vlan_id))),
                };
                let actions = Self::deliver(std::iter::once(port)) + "resubmit(,31)";
                self.add(
                    30,
                    priority,
                    &format!("reg0={number},{vlan}dl_dst={}", port.mac),
                    &actions,
                );
            }
            for vlan_id in self.vlans() {
                let (more, vlan) = match vlan_id {
                    Some(id) => (1, format!(",reg3={:#x}", vlan_register(id))),
                    None => (0, String::new()),
                };
                let all = Self::deliver(self.members(vlan_id, false).filter(in_lane));
                let listeners = Self::deliver(self.members(vlan_id, true).filter(in_lane));
                if !all.is_empty() {
                    self.add(
                        30,
                        10 + more,
                        &format!("reg0={number}{vlan},{GROUP}"),
                        &(all + "resubmit(,31)"),
                    );
                }
                if let Some(actions) = listeners.strip_suffix(',') {
                    self.add(31, 10 + more, &format!("reg0={number}{vlan}"), actions);
                }
            }
        }
        self.add(
            30,
            0,
            "",
            "resubmit(,31),load:0->NXM_NX_REG5[],resubmit(,32),resubmit(,35)",
        );
        self.add(35, 10, "reg5=0", "drop");
        self.add(35, 0, "", "output:NXM_NX_REG5[]");
        for port in self.ports.iter().filter(|p| p.trunk() && p.security.mac_changes) {
            for table in [25, 35] {
                self.add(table, 5, &format!("reg5={}", port.number), "goto_table:50");
            }
        }
        if self.ports.iter().any(LocalPort::trunk) {
            self.add(50, 10, "reg3=0", "output:NXM_NX_REG5[]");
            self.add(50, 0, "", &format!("{WRITE_VLAN},output:NXM_NX_REG5[],pop_vlan"));
        }
    }

    /// Tables 0, 12, 60 and 61: uplinks.
    fn uplinks(&mut self, uplinks: &BTreeMap<String, u32>, lanes: &Lanes) {
        for (nic, port) in uplinks {
            self.add(0, 100, &format!("in_port={port},vlan_vid=0"), "goto_table:10");
            self.add(
                0,
                101,
                &format!("in_port={port},vlan_vid=0x1000/0x1fff"),
                "pop_vlan,goto_table:10",
            );
            let tagged = format!("in_port={port},vlan_vid=0x1000/0x1000");
            self.add(0, 100, &tagged, &format!("{READ_VLAN},goto_table:10"));
            let mut group = String::new();
            let mut unicast = String::new();
            for (lane, carriers) in lanes {
                let enter = format!("load:{}->NXM_NX_REG0[],resubmit(,30),", self.lane_number(lane));
                let carried = carriers.contains(nic);
                // Without a notification the physical switch may go on sending to the uplink of before.
                let stale = !lane.team.notify_switches && lane.team.has(nic);
                if carried {
                    group += &enter;
                }
                if carried || stale {
                    unicast += &enter;
                }
            }
            for (kind, actions) in [(GROUP, group), (UNICAST, unicast)] {
                if let Some(actions) = actions.strip_suffix(',') {
                    self.add(12, 10, &format!("in_port={port},{kind}"), actions);
                }
            }
        }
        for (lane, carriers) in lanes {
            let number = self.lane_number(lane);
            let ports: Vec<u32> = carriers
                .iter()
                .filter_map(|nic| uplinks.get(nic))
                .copied()
                .collect();
            match ports.as_slice() {
                [] => {}
                [port] => {
                    self.add(
                        60,
                        11,
                        &format!("reg0={number},reg3=0"),
                        &format!("output:{port}"),
                    );
                    self.add(
                        60,
                        10,
                        &format!("reg0={number}"),
                        &format!("{WRITE_VLAN},output:{port}"),
                    );
                }
                several => {
                    let count = several.len();
                    let choose = format!("multipath(symmetric_l3,50,modulo_n,{count},0,NXM_NX_REG6[0..15])");
                    self.add(
                        60,
                        10,
                        &format!("reg0={number}"),
                        &format!("{choose},goto_table:61"),
                    );
                    for (k, port) in several.iter().enumerate() {
                        let chosen = format!("reg0={number},reg6={k}");
                        self.add(61, 11, &format!("{chosen},reg3=0"), &format!("output:{port}"));
                        self.add(61, 10, &chosen, &format!("{WRITE_VLAN},output:{port}"));
                    }
                }
            }
        }
    }
}

/// What changes one set of flows into another, as lines of an `ovs-ofctl bundle`.
#[must_use]
pub fn difference(old: &Flows, new: &Flows) -> Vec<String> {
    let gone = old
        .keys()
        .filter(|key| !new.contains_key(*key))
        .map(|key| format!("flow delete_strict {key}"));
    let added = new
        .iter()
        .filter(|(key, actions)| old.get(*key) != Some(*actions))
        .map(|(key, actions)| format!("flow add cookie={COOKIE},{key},actions={actions}"));
    gone.chain(added).collect()
}

/// All flows, as the lines of a file for `ovs-ofctl replace-flows`.
#[must_use]
pub fn file(flows: &Flows) -> String {
    flows
        .iter()
        .map(|(key, actions)| format!("cookie={COOKIE},{key},actions={actions}\n"))
        .collect()
}

/// The mark on flows that the switch adds by itself.
pub const LEARNED: &str = "0x5e1d";

/// The mark on our flows.
pub const COOKIE: &str = "0x5e1ed6e";

/// A reverse ARP announcement of `mac`, as hexadecimal text: it tells physical switches where the address is.
#[must_use]
pub fn announcement(mac: &str, vlan_id: u16) -> String {
    let mac: String = mac.chars().filter(|c| *c != ':').collect();
    let tag = if (1..4095).contains(&vlan_id) {
        format!("8100{vlan_id:04x}")
    } else {
        String::new()
    };
    // Hardware Ethernet, protocol IPv4, operation 3 (request reverse), no addresses; padded to the minimum.
    let body = format!("0001080006040003{mac}00000000{mac}00000000");
    format!("ffffffffffff{mac}{tag}8035{body}{}", "00".repeat(18))
}

impl crate::desired::Team {
    /// Whether a NIC is one of the team's.
    #[must_use]
    pub fn has(&self, nic: &str) -> bool {
        self.active.iter().chain(&self.standby).any(|n| n == nic)
    }
}
