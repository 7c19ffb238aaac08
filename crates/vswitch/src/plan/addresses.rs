//! Steps on the kernel's links, addresses and routes.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr};

use super::wanted::WantedPort;
use crate::{
    desired::{Desired, Ipv4, Vmknic},
    observe::{Address, Kernel, Route},
};

/// One change to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelStep {
    /// Brings a link up.
    LinkUp {
        /// The device.
        device: String,
    },
    /// Makes the kernel's own network stack deaf on an uplink: with the userspace datapath it sees every frame
    /// too, and would answer twice.
    Silence {
        /// The device.
        device: String,
    },
    /// The reverse of `Silence`.
    Unsilence {
        /// The device.
        device: String,
    },
    /// Takes an address from a device.
    RemoveAddress(Address),
    /// Gives a device an address.
    AddAddress(Address),
    /// Makes or replaces a route.
    SetRoute(Route),
    /// Takes a route away.
    RemoveRoute(Route),
}

impl fmt::Display for KernelStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LinkUp { device } => write!(f, "brought {device} up"),
            Self::Silence { device } => write!(f, "took {device} from the host's own network stack"),
            Self::Unsilence { device } => write!(f, "gave {device} back to the host's own network stack"),
            Self::RemoveAddress(a) => write!(f, "took address {}/{} from {}", a.address, a.prefix, a.device),
            Self::AddAddress(a) => write!(f, "gave {} the address {}/{}", a.device, a.address, a.prefix),
            Self::SetRoute(r) => write!(f, "set the route to {}", RouteText(r)),
            Self::RemoveRoute(r) => write!(f, "removed the route to {}", RouteText(r)),
        }
    }
}

struct RouteText<'a>(&'a Route);

impl fmt::Display for RouteText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Route {
            destination,
            gateway,
            device,
            ..
        } = self.0;
        write!(f, "{}/{}", destination.0, destination.1)?;
        if let Some(gateway) = gateway {
            write!(f, " via {gateway}")?;
        }
        write!(f, " on {device}")
    }
}

/// What is to be done on the kernel. Addresses and routes are taken from other devices only if a vmknic is to
/// have them.
pub(super) fn steps(
    desired: &Desired,
    ports: &BTreeMap<&str, &WantedPort>,
    kernel: &Kernel,
    datapath_type: &str,
) -> Vec<KernelStep> {
    let mut steps = Vec::new();
    let uplinks: Vec<&str> = desired
        .switches
        .iter()
        .flat_map(|s| s.uplinks.iter().map(|u| u.device.as_str()))
        .filter(|device| ports.contains_key(device))
        .collect();
    for device in &uplinks {
        if kernel.links.get(*device).is_some_and(|l| !l.up) {
            steps.push(KernelStep::LinkUp {
                device: (*device).into(),
            });
        }
    }
    let mut additions = Vec::new();
    for vmknic in desired
        .vmknics
        .iter()
        .filter(|v| ports.contains_key(v.device.as_str()))
    {
        if kernel.links.get(&vmknic.device).is_none_or(|l| !l.up) {
            additions.push(KernelStep::LinkUp {
                device: vmknic.device.clone(),
            });
        }
        ipv4(vmknic, kernel, &uplinks, &mut steps, &mut additions);
    }
    steps.extend(additions);
    if datapath_type == "netdev" {
        for device in &uplinks {
            if kernel.links.get(*device).is_some_and(|l| !l.silent) {
                steps.push(KernelStep::Silence {
                    device: (*device).into(),
                });
            }
        }
    }
    steps
}

fn ipv4(
    vmknic: &Vmknic,
    kernel: &Kernel,
    uplinks: &[&str],
    removals: &mut Vec<KernelStep>,
    additions: &mut Vec<KernelStep>,
) {
    let device = vmknic.device.as_str();
    let (address, prefix, gateway) = match vmknic.ipv4 {
        Ipv4::None => return,
        Ipv4::Static {
            address,
            prefix,
            gateway,
        } => (address, prefix, gateway),
        // Until the DHCP client has its own, the address that the NIC got serves on.
        Ipv4::Dhcp => {
            let found = kernel
                .addresses
                .iter()
                .find(|a| uplinks.contains(&a.device.as_str()));
            match found {
                Some(found) if kernel.addresses_on(device).next().is_none() => {
                    (found.address, found.prefix, None)
                }
                _ => return,
            }
        }
    };
    let wanted = Address {
        device: device.into(),
        address,
        prefix,
        dynamic: false,
    };
    let there = kernel
        .addresses_on(device)
        .any(|a| (a.address, a.prefix) == (address, prefix));
    if !there {
        additions.push(KernelStep::AddAddress(wanted));
    }
    // Routes over a NIC whose address moved here move along; the kernel drops them with the address.
    let moved = |r: &&Route| {
        uplinks.contains(&r.device.as_str())
            && r.gateway.is_some_and(|g| in_network(g, address, prefix))
            && (r.destination.1 != 0 || gateway.is_none())
    };
    for route in kernel.routes.iter().filter(moved) {
        let route = Route {
            device: device.into(),
            ..route.clone()
        };
        if !kernel.routes.contains(&route) {
            additions.push(KernelStep::SetRoute(route));
        }
    }
    if let Some(gateway) = gateway {
        let is_default = |r: &&Route| r.destination == (Ipv4Addr::UNSPECIFIED, 0);
        let ours = |r: &&Route| is_default(r) && r.device == device && r.gateway == Some(gateway);
        for other in kernel.routes.iter().filter(|r| is_default(r) && !ours(r)) {
            if other.device == device || uplinks.contains(&other.device.as_str()) {
                removals.push(KernelStep::RemoveRoute(other.clone()));
            }
        }
        if !there || !kernel.routes.iter().any(|r| ours(&r)) {
            let destination = (Ipv4Addr::UNSPECIFIED, 0);
            let route = Route {
                destination,
                gateway: Some(gateway),
                device: device.into(),
                metric: 0,
            };
            additions.push(KernelStep::SetRoute(route));
        }
    }
    // After the routes: the kernel takes those of an address along.
    for other in kernel
        .addresses
        .iter()
        .filter(|a| a.address == address && a.device != device)
    {
        removals.push(KernelStep::RemoveAddress(other.clone()));
    }
    for other in kernel
        .addresses_on(device)
        .filter(|a| (a.address, a.prefix) != (address, prefix))
    {
        removals.push(KernelStep::RemoveAddress(other.clone()));
    }
}

/// Whether an address is in a network.
#[must_use]
pub fn in_network(address: Ipv4Addr, network: Ipv4Addr, prefix: u8) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    u32::from(address) & mask == u32::from(network) & mask
}
