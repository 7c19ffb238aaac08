//! The lab: a site and its surroundings on one Linux machine, with the real tools, for demonstrations and tests.
//!
//! ```text
//!                     ┌ svc ───────────────┐  ┌ client ─────────┐
//!  developer's shell  │ dnsmasq (DHCP, DNS)│  │ curl, ping from │
//!   svlabN 10.90.N.1  │ Git    :80         │  │ a guest's       │
//!        │            │ images :8000       │  │ networks        │
//!        │            └─┬────┬────┬────┬───┘  └┬────┬────┬────┬─┘
//!  ┌ sw ─┴──────────────┴mgmt┴prod┴v20─┴v30────┴────┴────┴────┴──────┐
//!  │ the physical switch: an Open vSwitch of its own, access and     │
//!  │ trunk ports                                                     │
//!  └──┬─────────────────┬─────────────────┬──────────────────────────┘
//!  vmnic0: mgmt untagged│ vmnic1, 2, …:   │ prod untagged, the others tagged
//!  ┌ host1 ─────────────┴─────────────────┴┐
//!  │ ovsdb-server, ovs-vswitchd (userspace)│  ┌ host2 … ┐
//!  │ selvedge-host, QEMU                   │  └─────────┘
//!  └───────────────────────────────────────┘
//! ```
//!
//! Each box is a network namespace; each cable a veth pair. [`Lab::up`] makes it, [`Lab::start_host`] turns a host
//! on, [`Lab::push`] pushes the site repository. A test then waits with [`wait::wait_for`] for a level it can see from
//! outside ([`kubectl`], a guest's answer), and may pull cables ([`Lab::link_down`]), kill the daemon
//! ([`Lab::kill_daemon`]) or [`Lab::reboot`] the host.
//!
//! ```text
//! (nothing) ── up ──▶ running ── down, Drop, or the guard process when its maker was killed ──▶ (nothing)
//!                        │
//!                      keep ──▶ running without its maker ── selvedge-lab down ──▶ (nothing)
//! ```
//!
//! It reads and writes `/run/selvedge-lab/NAME` (sockets, `lab.json` with number and processes) and
//! `/var/lib/selvedge-lab/NAME` (what a host's disk has, repositories, images, logs). Every process carries
//! `SELVEDGE_LAB=NAME` in its environment or is inside one of the lab's namespaces; that is how it is found again.
//! [`trace::Trace`] checks that nothing is left.
//!
//! [`smoke`] has the claims that `make smoke` checks, [`demo`] what `make demo` shows; both use the same code.
//! This crate waits and runs programs in the calling thread: it is a test's tool, not a part of the daemon.

pub mod cli;
pub mod demo;
pub mod fleet;
pub mod host;
pub mod kubectl;
pub mod lab;
pub mod layout;
pub mod loopback;
pub mod netns;
pub mod orchestrator;
pub mod ovs;
pub mod postgres;
pub mod process;
pub mod serve;
pub mod services;
pub mod simulate;
pub mod site;
pub mod smoke;
pub mod tool;
pub mod trace;
pub mod wait;

pub use lab::{Lab, Options, Programs};

/// The node that is the physical switch.
pub const SWITCH: &str = "sw";
/// The node of the orchestrator, in labs that have one.
pub const HUB: &str = "hub";
/// The node with the site's servers.
pub const SVC: &str = "svc";
/// The node from which guests are reached.
pub const CLIENT: &str = "client";
