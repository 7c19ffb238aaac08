//! The kernel's links, addresses and routes, by netlink.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use futures::{StreamExt, TryStreamExt};
use rtnetlink::{
    Handle, MulticastGroup, RouteMessageBuilder, new_connection, new_multicast_connection,
    packet_route::{
        address::AddressAttribute,
        link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
        route::{RouteAddress, RouteAttribute, RouteHeader, RouteType},
    },
};
use tokio::sync::{Mutex, mpsc};

/// The kernel lists one thing at a time on a socket, and answers `EBUSY` to a second ask.
static ONE_LIST: Mutex<()> = Mutex::const_new(());

/// Why the kernel could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// No netlink socket.
    #[error("cannot open a netlink socket")]
    Socket(#[source] std::io::Error),
    /// The kernel refused.
    #[error("cannot list {what}")]
    Dump {
        /// What was asked for.
        what: &'static str,
        /// Why not.
        source: rtnetlink::Error,
    },
}

/// What the kernel has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Links by name.
    pub links: BTreeMap<String, Link>,
    /// IPv4 addresses.
    pub addresses: Vec<Address>,
    /// IPv4 routes of the main table that people or DHCP made (not the ones that come with addresses).
    pub routes: Vec<Route>,
}

/// A network device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number.
    pub index: u32,
    /// MAC address, lower case with colons.
    pub mac: String,
    /// Bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Up, and the link is there.
    pub running: bool,
    /// The kind of virtual device, empty for a real one.
    pub kind: String,
    /// Whether the host's own network stack is kept from it.
    pub silent: bool,
}

/// An IPv4 address on a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The device.
    pub device: String,
    /// The address.
    pub address: Ipv4Addr,
    /// Length of the network part.
    pub prefix: u8,
    /// Whether it has a life time, as one from DHCP has.
    pub dynamic: bool,
}

/// An IPv4 route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Destination network; `0.0.0.0/0` is the default route.
    pub destination: (Ipv4Addr, u8),
    /// The next hop, if it is not directly connected.
    pub gateway: Option<Ipv4Addr>,
    /// The device.
    pub device: String,
    /// Metric.
    pub metric: u32,
}

/// Asks the kernel, and says when a link changed.
pub struct Watcher {
    handle: Handle,
    events: mpsc::Receiver<()>,
}

impl Watcher {
    /// Opens sockets in the network namespace of the calling thread.
    ///
    /// # Errors
    /// No netlink socket.
    pub fn new() -> Result<(Handle, Self), KernelError> {
        let (connection, handle, _) = new_connection().map_err(KernelError::Socket)?;
        tokio::spawn(connection);
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr];
        let (connection, _, mut messages) = new_multicast_connection(&groups).map_err(KernelError::Socket)?;
        tokio::spawn(connection);
        // One waiting event is enough: whoever sees it looks at everything.
        let (sender, events) = mpsc::channel(1);
        tokio::spawn(async move {
            while messages.next().await.is_some() {
                if sender.is_closed() {
                    break;
                }
                let _ = sender.try_send(());
            }
        });
        Ok((handle.clone(), Self { handle, events }))
    }

    /// Waits until a link or an address changed.
    pub async fn changed(&mut self) {
        if self.events.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// The handle to ask with.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Kernel {
    /// Reads links, addresses and routes, and of these uplinks whether they are silent.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn read(handle: &Handle, uplinks: &[&str]) -> Result<Self, KernelError> {
        let _asking = ONE_LIST.lock().await;
        let mut kernel = Self::default();
        let mut names = BTreeMap::new();
        let mut links = handle.link().get().execute();
        while let Some(message) = next(&mut links, "links").await? {
            if let Some((name, mut link)) = link(&message) {
                link.silent = uplinks.contains(&name.as_str()) && silent(&name);
                names.insert(link.index, name.clone());
                kernel.links.insert(name, link);
            }
        }
        let mut addresses = handle.address().get().execute();
        while let Some(message) = next(&mut addresses, "addresses").await? {
            let Some(device) = names.get(&message.header.index) else {
                continue;
            };
            let local = message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Local(IpAddr::V4(v4)) => Some(*v4),
                _ => None,
            });
            let lifetime = message.attributes.iter().find_map(|a| match a {
                AddressAttribute::CacheInfo(info) => Some(info.ifa_valid),
                _ => None,
            });
            if let Some(address) = local {
                let dynamic = lifetime.is_some_and(|seconds| seconds != u32::MAX);
                let prefix = message.header.prefix_len;
                kernel.addresses.push(Address {
                    device: device.clone(),
                    address,
                    prefix,
                    dynamic,
                });
            }
        }
        let filter = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let mut routes = handle.route().get(filter).execute();
        while let Some(message) = next(&mut routes, "routes").await? {
            let header = &message.header;
            let from_kernel = header.protocol == rtnetlink::packet_route::route::RouteProtocol::Kernel;
            if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast || from_kernel
            {
                continue;
            }
            let mut route = Route {
                destination: (Ipv4Addr::UNSPECIFIED, header.destination_prefix_length),
                gateway: None,
                device: String::new(),
                metric: 0,
            };
            for attribute in &message.attributes {
                match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet(v4)) => route.destination.0 = *v4,
                    RouteAttribute::Gateway(RouteAddress::Inet(v4)) => route.gateway = Some(*v4),
                    RouteAttribute::Oif(index) => {
                        route.device = names.get(index).cloned().unwrap_or_default();
                    }
                    RouteAttribute::Priority(metric) => route.metric = *metric,
                    _ => {}
                }
            }
            kernel.routes.push(route);
        }
        kernel.addresses.sort();
        kernel.routes.sort();
        Ok(kernel)
    }

    /// The addresses on a device.
    pub fn addresses_on(&self, device: &str) -> impl Iterator<Item = &Address> {
        self.addresses.iter().filter(move |a| a.device == device)
    }

    /// Whether a device is there and can carry traffic.
    #[must_use]
    pub fn running(&self, device: &str) -> bool {
        self.links.get(device).is_some_and(|l| l.running)
    }
}

/// The settings that keep the host's own network stack from an uplink: with no address on it, strict reverse
/// path filtering drops all IPv4 packets; the second keeps it from answering ARP for other devices' addresses.
pub const SILENCE: [(&str, &str); 3] = [
    ("ipv4", "rp_filter=1"),
    ("ipv4", "arp_ignore=8"),
    ("ipv6", "disable_ipv6=1"),
];

/// The file of a setting.
#[must_use]
pub fn setting(device: &str, family: &str, name: &str) -> String {
    format!("/proc/sys/net/{family}/conf/{device}/{name}")
}

fn silent(device: &str) -> bool {
    SILENCE.iter().all(|(family, pair)| {
        let (name, value) = pair.split_once('=').unwrap_or_default();
        match std::fs::read_to_string(setting(device, family, name)) {
            Ok(text) => text.trim() == value,
            // A kernel without IPv6 has nothing to keep quiet.
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        }
    })
}

async fn next<T>(
    stream: &mut (impl futures::TryStream<Ok = T, Error = rtnetlink::Error> + Unpin),
    what: &'static str,
) -> Result<Option<T>, KernelError> {
    stream
        .try_next()
        .await
        .map_err(|source| KernelError::Dump { what, source })
}

fn link(message: &LinkMessage) -> Option<(String, Link)> {
    let flags = message.header.flags;
    let up = flags.contains(LinkFlags::Up);
    let mut link = Link {
        index: message.header.index,
        up,
        ..Link::default()
    };
    link.running = up && flags.contains(LinkFlags::LowerUp) && flags.contains(LinkFlags::Running);
    let mut name = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => {
                link.mac = bytes
                    .iter()
                    .map(|b| format!("{b:02x}"))
                    .collect::<Vec<_>>()
                    .join(":");
            }
            LinkAttribute::LinkInfo(infos) => {
                let kind = infos.iter().find_map(|i| match i {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
                link.kind = kind.unwrap_or_default();
            }
            _ => {}
        }
    }
    Some((name?, link))
}
