//! What traffic loses when the active uplink's link goes down and the standby takes over.
//!
//! ```text
//!  host                                                     client
//!  vmk1 ─ port group prod    ─ vmnic1 (goes down), vmnic2 ─ prod      measured: a packet each millisecond, both ways
//!  vmk2 ─ port group control ─ vmnic2                     ─ vlan20    control: the same, not touched
//! ```
//!
//! The figure is the time for which packets were sent that never arrived: the longer of both directions. The control
//! goes through the same switches at the same time, over the uplink that stays: what it loses, and how late its
//! packets are, is the machine's doing. No round is left out.
//!
//! The lab's switches forward in user space, in competition with everything else on the machine. On a host they do so
//! in the kernel, or on cores of their own; so they have a real-time priority here, as the senders do. The daemon, whose
//! reaction is measured, has none.

mod loss;
mod stream;

use std::{net::UdpSocket, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use testkit::{
    CLIENT, SWITCH,
    layout::{PROD, VLAN20, host_name},
    tool,
    wait::{pass, wait_for},
};

use self::{
    loss::Fate,
    stream::{Stream, hurry, now, socket},
};
use crate::{
    Context,
    host::{CONFIGURATIONS, Host, PATIENCE},
    measured::{Measured, milliseconds, percentile},
    network::configuration,
};

const ROUNDS: usize = 20;
/// How long to look before the link goes down, and after.
const BEFORE: Duration = Duration::from_millis(500);
const AFTER: Duration = Duration::from_secs(1);
/// The last byte of the host's addresses, and of the client's.
const OURS: u8 = 60;
const CLIENTS: u8 = 3;
const PORT: u16 = 7007;
/// Below the senders, above everything else.
const PRIORITY: &str = "40";

/// Sockets at the host and at the client.
type Ends = [UdpSocket; 2];

pub(crate) fn measure(context: &Context, measured: &mut Vec<Measured>) -> Result<()> {
    let host = Host::up(context)?;
    let layout = host.site.lab.layout.clone();
    let vmknic = |device: &str, group: &str, network| {
        let address = layout.address(network, OURS);
        json!({
            "device": device, "port_group": group, "enabled": true,
            "ip": {"dhcp": false, "ipv4_address": address, "ipv4_subnet_mask": "255.255.255.0"},
        })
    };
    let esx = json!({
        "network_vss": {"switches": [{
            "name": "vSwitch1", "bridge": {"nics": ["vmnic1", "vmnic2"]},
            "policy": {"nic_teaming": {
                "policy": "FAILOVER_EXPLICIT", "active_nics": ["vmnic1"], "standby_nics": ["vmnic2"],
                "rolling_order": false, "notify_switches": true,
            }},
            "port_groups": [
                {"name": "prod", "vlan_id": 0},
                {"name": "control", "vlan_id": VLAN20.vlan, "policy": {"nic_teaming": {
                    "active_nics": ["vmnic2"], "standby_nics": [],
                }}},
            ],
        }]},
        "network": {"vmknics": [vmknic("vmk1", "prod", PROD), vmknic("vmk2", "control", VLAN20)]},
    });
    host.api.create(CONFIGURATIONS, &configuration("uplinks", &esx))?;
    host.wait_configuration("uplinks")?;
    for node in [SWITCH, &host_name(1)] {
        let switch = host.site.lab.process(node, "ovs-vswitchd");
        let switch = switch.with_context(|| format!("{node} has no ovs-vswitchd"))?;
        hurry(&["--all-tasks"], switch.pid, PRIORITY)?;
    }
    let ends = |network| -> Result<Ends> {
        let end = |node: &str, last: u8| {
            let address = format!("{}:{PORT}", layout.address(network, last));
            socket(&layout.namespace_path(node), &address)
        };
        Ok([end(&host_name(1), OURS)?, end(CLIENT, CLIENTS)?])
    };
    let [measured_ends, control_ends] = [ends(PROD)?, ends(VLAN20)?];

    let (mut lost, mut late, mut control) = (Vec::new(), Duration::ZERO, Fate::default());
    for number in 1..=ROUNDS {
        let [measured, other] = round(&host, [&measured_ends, &control_ends])?;
        let [from_host, to_host] = measured;
        let (worst, other) = (from_host.worse(to_host), other[0].worse(other[1]));
        context.say(&format!(
            "  link down, {number} of {ROUNDS}: from the host {from_host}, to it {to_host}; control {other}"
        ));
        lost.push(worst.lost);
        late = late.max(worst.late);
        control = control.worse(other);
    }
    lost.sort();
    let note = format!(
        "packets that never came, the more of both directions; median {:.0} ms; those that came took at most {:.0} ms. \
         The control, over the other uplink at the same time: at most {control} in any round",
        milliseconds(&percentile(&lost, 50)),
        milliseconds(&late),
    );
    measured.push(Measured::times("uplink-loss", &lost, note));
    host.site.lab.down()
}

/// One failover: what became of the packets of each pair of streams, from the host and to it, from a moment before the
/// link went down.
fn round(host: &Host, [measured, control]: [&Ends; 2]) -> Result<[[Fate; 2]; 2]> {
    let streams = [both_ways(measured)?, both_ways(control)?];
    carries(host, "vmnic1")?;
    forget(host)?;
    pass(BEFORE);
    let down = now()?;
    host.site.lab.link_down(1, 1)?;
    pass(AFTER);
    let until = now()?;
    let packets = streams.map(|pair| pair.map(Stream::stop));
    host.site.lab.link_up(1, 1)?;
    let mut fates = [[Fate::default(); 2]; 2];
    for (stream, fate) in packets.into_iter().flatten().zip(fates.as_flattened_mut()) {
        let packets = stream?;
        let last = packets.iter().rev().find_map(|packet| packet.arrived);
        ensure!(
            last.is_some_and(|last| last > down + AFTER / 2),
            "there is no traffic on the standby uplink"
        );
        *fate = Fate::of(&packets, down - BEFORE / 2, until);
    }
    Ok(fates)
}

fn both_ways([ours, theirs]: &Ends) -> Result<[Stream; 2]> {
    Ok([Stream::start(ours, theirs)?, Stream::start(theirs, ours)?])
}

/// Makes the physical switch forget how it handled each flow of the last round, as it does by itself after 10 s. An Open
/// vSwitch learns where an address is from the first packet of a flow, and for flows that it remembers only every
/// 500 ms; so it would overlook what the host announces. Hardware learns from every packet.
fn forget(host: &Host) -> Result<()> {
    let mut command = host.site.lab.inside(SWITCH, "ovs-appctl");
    tool::run(command.args(["--target=ovs-vswitchd", "revalidator/purge"])).map(drop)
}

/// Waits until a NIC carries the traffic: whatever makes that choice, its counter tells.
fn carries(host: &Host, nic: &str) -> Result<()> {
    let mut last = u64::MAX;
    wait_for(&format!("{nic} as the active uplink"), PATIENCE, || {
        let file = format!("/sys/class/net/{nic}/statistics/tx_packets");
        let sent = tool::run(host.site.lab.inside(&host_name(1), "cat").arg(file))?;
        let sent: u64 = sent.trim().parse()?;
        // A few are the host's own; between two looks the stream sends more.
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
