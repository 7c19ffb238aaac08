//! From what is wanted and what is true to the steps between: pure.

pub mod addresses;
pub mod flows;
pub mod helpers;
pub mod teaming;
mod wanted;

use std::{collections::BTreeMap, fmt};

use kinds::network::PortRequest;
use ovsdb::Row;
use reconcile::section::{Impact, Problem};

use crate::{desired::Desired, observe::Observed};

pub use self::{
    addresses::KernelStep,
    wanted::{Attachment, WantedPort, attach, wanted},
};

/// One change to the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A bridge of ours that is no longer wanted, with all its ports.
    RemoveBridge {
        /// Its row.
        uuid: String,
    },
    /// A port of ours that is no longer wanted, or is in the wrong place.
    RemovePort {
        /// The bridge's row.
        bridge_uuid: String,
        /// The port's row.
        uuid: String,
    },
    /// A new bridge; its ports follow as steps of their own.
    AddBridge {
        /// Its columns.
        row: Row,
    },
    /// A new port.
    AddPort {
        /// The bridge's row, if the bridge is there already.
        bridge_uuid: Option<String>,
        /// Columns of the port.
        port: Row,
        /// Columns of its interface.
        interface: Row,
    },
    /// Columns that are not as they should be.
    Update {
        /// The table.
        table: &'static str,
        /// The row.
        uuid: String,
        /// The columns to set.
        columns: Row,
    },
}

/// A step: what, to which bridge and port, why, and at which cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The change.
    pub change: Change,
    /// The bridge's name.
    pub bridge: String,
    /// The port's name, if it is about one.
    pub port: Option<String>,
    /// Why, for people.
    pub reason: String,
    /// What it costs.
    pub impact: Impact,
}

/// What is to be done, in order; carried out whole or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Changes to the database, removals first: one transaction.
    pub steps: Vec<Step>,
    /// Changes to the kernel's links, addresses and routes, after the database's.
    pub kernel: Vec<KernelStep>,
    /// What stands in the way. Its parts of the profile are left out of the plan.
    pub problems: Vec<Problem>,
    /// The ports that are wanted, after the limits.
    pub attachments: Vec<Attachment>,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.kernel.is_empty()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match &self.change {
            Change::RemoveBridge { .. } | Change::RemovePort { .. } => "removed",
            Change::AddBridge { .. } | Change::AddPort { .. } => "added",
            Change::Update { .. } => "changed",
        };
        match &self.port {
            Some(port) => write!(f, "{verb} port {port} of bridge {}: {}", self.bridge, self.reason),
            None => write!(f, "{verb} bridge {}: {}", self.bridge, self.reason),
        }
    }
}

/// The steps from `observed` to `desired` with these ports of virtual machines.
#[must_use]
pub fn plan(desired: &Desired, requests: &[PortRequest], observed: &Observed, datapath_type: &str) -> Plan {
    let database = &observed.database;
    let (attachments, mut problems) = attach(desired, requests, database);
    let mut bridges = wanted(desired, &attachments, datapath_type);
    wanted::yield_to_foreign(&mut bridges, desired, database, &mut problems);

    let mut removals = Vec::new();
    let mut additions = Vec::new();
    for (name, bridge) in database.bridges.iter().filter(|(_, b)| b.switch().is_some()) {
        let step = |change, port: Option<&str>, reason: String| Step {
            change,
            bridge: name.clone(),
            port: port.map(Into::into),
            reason,
            impact: Impact::None,
        };
        let Some(wanted) = bridges.get(name) else {
            let switch = bridge.switch().unwrap_or_default();
            let change = Change::RemoveBridge {
                uuid: bridge.uuid.clone(),
            };
            removals.push(step(
                change,
                None,
                format!("vSwitch {switch} is not in the profile"),
            ));
            continue;
        };
        if let Some((columns, what)) = wanted::differing(&wanted.row, &bridge.row) {
            let change = Change::Update {
                table: "Bridge",
                uuid: bridge.uuid.clone(),
                columns,
            };
            additions.push(step(
                change,
                None,
                format!("vSwitch {} needs {what}", wanted.switch),
            ));
        }
        for (port_name, port) in bridge.ports.iter().filter(|(_, p)| p.role().is_some()) {
            let remove = |reason: String| {
                let (bridge_uuid, uuid) = (bridge.uuid.clone(), port.uuid.clone());
                step(Change::RemovePort { bridge_uuid, uuid }, Some(port_name), reason)
            };
            let Some(wanted) = wanted.ports.get(port_name) else {
                removals.push(remove(wanted::why_gone(port_name, port, &bridges)));
                continue;
            };
            let mut update = |table, uuid: &str, have: &Row, want: &Row| {
                if let Some((columns, what)) = wanted::differing(want, have) {
                    let change = Change::Update {
                        table,
                        uuid: uuid.into(),
                        columns,
                    };
                    additions.push(step(
                        change,
                        Some(port_name),
                        format!("{} needs {what}", wanted.reason),
                    ));
                }
            };
            update("Port", &port.uuid, &port.row, &wanted.port);
            update(
                "Interface",
                &port.interface_uuid,
                &port.interface,
                &wanted.interface,
            );
        }
    }
    for (name, wanted) in &bridges {
        let there = database.bridges.get(name);
        if there.is_none() {
            additions.push(Step {
                change: Change::AddBridge {
                    row: wanted.row.clone(),
                },
                bridge: name.clone(),
                port: None,
                reason: format!("vSwitch {} is in the profile", wanted.switch),
                impact: Impact::None,
            });
        }
        for (port_name, port) in &wanted.ports {
            if there.is_some_and(|b| b.ports.contains_key(port_name)) {
                continue;
            }
            additions.push(Step {
                change: Change::AddPort {
                    bridge_uuid: there.map(|b| b.uuid.clone()),
                    port: port.port.clone(),
                    interface: port.interface.clone(),
                },
                bridge: name.clone(),
                port: Some(port_name.clone()),
                reason: port.reason.clone(),
                impact: Impact::None,
            });
        }
    }
    // What must change on a bridge comes before what is added to it.
    additions.sort_by_key(|step| !matches!(step.change, Change::Update { .. }));
    removals.extend(additions);
    let present: BTreeMap<&str, &WantedPort> = bridges
        .values()
        .flat_map(|b| b.ports.iter().map(|(n, p)| (n.as_str(), p)))
        .collect();
    let kernel = addresses::steps(desired, &present, &observed.kernel, datapath_type);
    Plan {
        steps: removals,
        kernel,
        problems,
        attachments,
    }
}

#[cfg(test)]
mod tests;
