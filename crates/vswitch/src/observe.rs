//! What is true now: the database as last seen, the kernel's links, addresses and routes, the NICs.

mod kernel;
mod neighbours;
mod nics;

use std::collections::BTreeMap;

use ovsdb::{MonitorSpec, Row, Snapshot};

pub(crate) use self::nics::devices;
pub use self::{
    kernel::{Address, Kernel, KernelError, Link, Route, Watcher},
    kernel::{SILENCE, setting},
    neighbours::{Neighbour, NeighbourError},
    nics::{Nic, NicNaming, Nics},
};

/// Everything that a plan is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The database.
    pub database: Database,
    /// The kernel.
    pub kernel: Kernel,
}

/// The database's bridges and ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Database {
    /// UUID of the one row of the root table.
    pub root: String,
    /// The configuration number that vswitchd has last carried out.
    pub current: i64,
    /// The bridges by name, foreign ones too.
    pub bridges: BTreeMap<String, Bridge>,
}

/// A bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bridge {
    /// Its row.
    pub uuid: String,
    /// The row's columns.
    pub row: Row,
    /// Its ports by name.
    pub ports: BTreeMap<String, Port>,
}

/// A port with its interface (the first one; we make no bonds).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// Its row.
    pub uuid: String,
    /// The row's columns.
    pub row: Row,
    /// The interface's row.
    pub interface_uuid: String,
    /// The interface's columns.
    pub interface: Row,
}

/// The mark on bridges: the vSwitch's name.
pub const MARK_SWITCH: &str = "selvedge-switch";
/// The mark on ports: `uplink`, `vmknic` or `vm`.
pub const MARK_ROLE: &str = "selvedge-role";
/// On ports: the port group.
pub const MARK_PORT_GROUP: &str = "selvedge-port-group";
/// On ports of virtual machines: who asked.
pub const MARK_OWNER: &str = "selvedge-owner";
/// On ports: the MAC address (the name that OVS gives it in its integration guide).
pub const MARK_MAC: &str = "attached-mac";

impl Bridge {
    /// The vSwitch that it is, if it is ours.
    #[must_use]
    pub fn switch(&self) -> Option<&str> {
        self.row.key("external_ids", MARK_SWITCH)
    }
}

impl Port {
    /// What it is for, if it is ours.
    #[must_use]
    pub fn role(&self) -> Option<&str> {
        self.row.key("external_ids", MARK_ROLE)
    }

    /// Its OpenFlow number, once vswitchd has opened the device.
    #[must_use]
    pub fn ofport(&self) -> Option<u32> {
        self.interface
            .integer("ofport")
            .and_then(|n| u32::try_from(n).ok())
            .filter(|n| *n > 0)
    }
}

impl Database {
    /// The tables and columns that are watched.
    #[must_use]
    pub fn monitor() -> MonitorSpec {
        let table = |name: &str, columns: &[&str]| {
            (name.to_owned(), columns.iter().map(ToString::to_string).collect())
        };
        [
            table("Open_vSwitch", &["bridges", "next_cfg", "cur_cfg"]),
            table(
                "Bridge",
                &[
                    "name",
                    "ports",
                    "datapath_type",
                    "fail_mode",
                    "external_ids",
                    "stp_enable",
                ],
            ),
            table(
                "Port",
                &["name", "interfaces", "tag", "vlan_mode", "external_ids"],
            ),
            table(
                "Interface",
                &[
                    "name",
                    "type",
                    "mac",
                    "mtu_request",
                    "ofport",
                    "error",
                    "external_ids",
                ],
            ),
        ]
        .into()
    }

    /// Reads a snapshot; `None` while the root row is not there yet.
    #[must_use]
    pub fn read(snapshot: &Snapshot) -> Option<Self> {
        let (root, row) = snapshot.rows("Open_vSwitch").next()?;
        let port = |uuid: &str| -> Option<(String, Port)> {
            let row = snapshot.row("Port", uuid)?;
            let interface_uuid = row.references("interfaces").next().unwrap_or_default();
            let port = Port {
                uuid: uuid.into(),
                row: row.clone(),
                interface_uuid: interface_uuid.into(),
                interface: snapshot
                    .row("Interface", interface_uuid)
                    .cloned()
                    .unwrap_or_default(),
            };
            Some((row.text("name").into(), port))
        };
        let bridge = |uuid: &str| -> Option<(String, Bridge)> {
            let row = snapshot.row("Bridge", uuid)?;
            let ports = row.references("ports").filter_map(port).collect();
            Some((
                row.text("name").into(),
                Bridge {
                    uuid: uuid.into(),
                    row: row.clone(),
                    ports,
                },
            ))
        };
        Some(Self {
            root: root.into(),
            current: row.integer("cur_cfg").unwrap_or(0),
            bridges: row.references("bridges").filter_map(bridge).collect(),
        })
    }

    /// The bridge and port with this port name, wherever it is.
    #[must_use]
    pub fn port(&self, name: &str) -> Option<(&str, &Bridge, &Port)> {
        self.bridges.iter().find_map(|(bridge_name, bridge)| {
            bridge
                .ports
                .get(name)
                .map(|port| (bridge_name.as_str(), bridge, port))
        })
    }
}
