//! Switches, port groups, uplink teaming, security, link discovery: the vSphere standard switch on Open vSwitch.
//!
//! ```text
//!  profile {"esx": …} ─▶ desired ─┐
//!  ports  (watch, from vm) ───────┤
//!  OVSDB monitor ─▶ observe ──────┼─▶ plan ─▶ apply: one OVSDB transaction, flows, addresses ─▶ observe again
//!  netlink ─▶ observe ────────────┘                                                              │
//!  groups (watch, to vm) ◀───────────────────────────────────────────────────────────────────────┤
//!  SectionReport (to hostconfig) ◀── report ◀────────────────────────────────────────────────────┘
//! ```
//!
//! [`VSwitch`] is the part that runs. `hostconfig` calls it as a [`reconcile::section::Section`] with the merged
//! profile. Its own task runs the same pass when reality changes:
//!
//! | what is watched | how | what for |
//! |---|---|---|
//! | rows of the switch database | OVSDB monitor | somebody ran `ovs-vsctl`; a tap got its OpenFlow number |
//! | links and addresses | netlink groups | failover; an address that was taken away |
//! | vswitchd | end of a connection to its control socket | a new one has no flows |
//! | flows | `ovs-ofctl monitor` for each bridge | somebody ran `ovs-ofctl` |
//! | port requests | `watch` channel | virtual machines come and go |
//!
//! A pass takes the last good profile and the port requests, reads everything that is true now, plans, and carries the
//! plan out. Only what the profile says is remembered: it is read again when the profile or the host's NICs change.
//! It never retries inside: the next event, or `hostconfig`'s next call, is the retry. What it changed without
//! being asked is drift; it is told in the next report, for which the reconciler is signalled.
//!
//! # What a vSwitch is in Open vSwitch
//!
//! A bridge with `fail_mode=secure`, named like the vSwitch if a network device can have that name. Its uplinks
//! are plain ports. There is no OVS bond and no `NORMAL` action: neither has port groups with a teaming policy
//! of their own, standby uplinks, or a switch that does not flood. The OpenFlow tables (see [`plan::flows`]) hold
//! the ports' own MAC addresses, as a vSphere switch does, and send everything else out by the sender's uplink.
//!
//! | profile | here |
//! |---|---|
//! | `LOADBALANCE_SRCID`, `_SRCMAC` | ports are spread over as many lanes as there are active NICs, by a hash of the device's name or MAC address; a lane is on one NIC |
//! | `LOADBALANCE_IP` | each packet by a hash of its addresses, over all working NICs; the physical side is a static aggregation |
//! | `FAILOVER_EXPLICIT` | one lane, on the first NIC in order that works |
//! | `standby_nics` | each replaces one failed active NIC, in order; when they run out the others share |
//! | `rolling_order` | a lane stays on its NIC while that works, also over a restart of the daemon |
//! | `notify_switches` | a reverse ARP for each MAC address that moved; without it, frames are accepted on every uplink of the team, because the physical switch goes on using the old one |
//! | `forged_transmits: false` | another source address, or another sender address in ARP, is dropped |
//! | `mac_changes: true` | with forged transmits, addresses that a port takes are learned for 5 minutes |
//! | `allow_promiscuous` | a copy of every frame of the VLAN |
//! | `vlan_id` | written and read by the flows; the `tag` column is for people and tools |
//! | `num_ports` | virtual machines' ports and vmknics beyond it are not attached |
//!
//! Group frames and unicast come in only by the uplink that the receiver's lane is on, so nothing is received
//! twice, and frames that the physical switch sends back are dropped. Bridge protocols (STP, CDP, LLDP) of guests
//! end here. A link that comes back has to hold for [`Config::up_delay`] before it is used.
//!
//! Not enforced yet, and listed in the report: `traffic_shaping`, beacon probing, IPv6 of vmknics.
//!
//! # Marks
//!
//! Everything made here has `external_ids:selvedge-*`; what has not is never changed. A foreign bridge or port
//! with a name that is needed is a problem in the report. Flows have the cookie [`plan::flows::COOKIE`].
//!
//! # The host's own address
//!
//! `vmkN` is an internal port. With a static address, that address and the routes over it move from the NIC in
//! one run of `ip -batch`, after the flows are there. A change of the configuration of a host whose gateway
//! answers before is kept only if it answers afterwards ([`Config::checkpoint`]); else the switches, addresses
//! and routes of before come back, and the same configuration is refused until it changes.
//!
//! With the userspace datapath the kernel sees the uplinks' frames too. So that it does not answer beside
//! `vmkN`, uplinks get strict reverse path filtering, no ARP answers and no IPv6.
//!
//! With `dhcp`, `busybox udhcpc` runs for the interface. The NIC's address serves until it has its own.
//!
//! # Link discovery
//!
//! One `lldpd` speaks on the uplinks, with LISTEN, ADVERTISE, BOTH or NONE for each. CDP is spoken when a vSwitch
//! asks for it; LLDP then goes along, because lldpd does not speak CDP alone. [`VSwitch::neighbours`] asks it.
//!
//! | room | |
//! |---|---|
//! | [`desired`] | the profile in this domain's words, checked |
//! | [`observe`] | database, kernel, NICs and their names |
//! | [`plan`] | steps, lanes and flows; pure |
//! | [`apply`] | transaction, `ovs-ofctl`, `ip` |
//! | `report` | results, metrics |

pub mod apply;
mod base;
pub mod desired;
pub mod observe;
mod offline;
pub mod plan;
mod report;
mod switch;

pub use base::base_profile;
pub use offline::validate;
pub use switch::{Config, NicError, VSwitch};
