//! Carries plans out. No choices are made here; killed anywhere, the next run goes on from what it finds.

mod kernel;
mod openflow;
mod supervisor;

use std::{collections::BTreeMap, time::Duration};

use ovsdb::{Atom, Client, Condition, Datum, Row, Snapshot, Transaction};
use tokio::{sync::watch, time::timeout};

use crate::{
    observe::Database,
    plan::{Change, Step},
};

pub use self::{
    kernel::{apply as apply_kernel, reaches, rename},
    openflow::{OfctlError, OpenFlow},
    supervisor::Supervisor,
};

/// How long vswitchd may take to carry out a change of the database.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the database was not changed, or its change not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The transaction failed; nothing was changed.
    #[error("the switch database refused the change")]
    Transaction(#[from] ovsdb::Error),
    /// vswitchd does not follow.
    #[error("ovs-vswitchd has not carried out the change within {0:?}; is it running?")]
    NotApplied(Duration),
    /// The answer to the transaction has no configuration number.
    #[error("the switch database did not say the number of the change")]
    NoNumber,
}

/// Commits the steps as one transaction, guarded against changes since `seen`, and waits until vswitchd has
/// carried it out.
///
/// # Errors
/// Refused, guard failed (look again and plan anew), or not carried out in time.
pub async fn apply_database(
    client: &Client,
    snapshots: &mut watch::Receiver<Option<Snapshot>>,
    steps: &[Step],
    seen: &Database,
) -> Result<(), ApplyError> {
    let transaction = transaction(steps, seen);
    let results = client.transact("Open_vSwitch", &transaction).await?;
    let number = results
        .iter()
        .rev()
        .find_map(|r| Client::rows_of(r).first()?.integer("next_cfg"));
    let number = number.ok_or(ApplyError::NoNumber)?;
    let carried_out = |s: &Option<Snapshot>| {
        s.as_ref()
            .and_then(Database::read)
            .is_some_and(|d| d.current >= number)
    };
    match timeout(PATIENCE, snapshots.wait_for(carried_out)).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(ApplyError::NotApplied(PATIENCE)),
    }
}

/// The transaction for steps.
#[must_use]
pub fn transaction(steps: &[Step], seen: &Database) -> Transaction {
    let mut t = Transaction::new();
    let root = [Condition::uuid(&seen.root)];
    guard(&mut t, steps, seen);
    let named = |prefix: &str, number: usize| format!("{prefix}{number}");
    let reference = |name: &str| Datum::one(Atom::NamedUuid(name.into()));
    // Ports of new bridges and of bridges that are there, each list written once.
    let mut new_bridges: BTreeMap<&str, Vec<Atom>> = BTreeMap::new();
    let mut more_ports: BTreeMap<&str, Vec<Atom>> = BTreeMap::new();
    let mut fewer_ports: BTreeMap<&str, Vec<Atom>> = BTreeMap::new();
    let mut gone = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        match &step.change {
            Change::RemoveBridge { uuid } => gone.push(Atom::Uuid(uuid.clone())),
            Change::RemovePort { bridge_uuid, uuid } => {
                fewer_ports
                    .entry(bridge_uuid)
                    .or_default()
                    .push(Atom::Uuid(uuid.clone()));
            }
            Change::AddPort {
                bridge_uuid,
                port,
                interface,
            } => {
                let (interface_name, port_name) = (named("interface", number), named("port", number));
                t.insert("Interface", interface, Some(&interface_name));
                let port = port.clone().with("interfaces", reference(&interface_name));
                t.insert("Port", &port, Some(&port_name));
                let ports = match bridge_uuid {
                    Some(uuid) => more_ports.entry(uuid).or_default(),
                    None => new_bridges.entry(&step.bridge).or_default(),
                };
                ports.push(Atom::NamedUuid(port_name));
            }
            Change::AddBridge { .. } | Change::Update { .. } => {}
        }
    }
    for (uuid, ports) in fewer_ports {
        t.mutate(
            "Bridge",
            &[Condition::uuid(uuid)],
            &[("ports", "delete", Datum::Set(ports))],
        );
    }
    if !gone.is_empty() {
        t.mutate("Open_vSwitch", &root, &[("bridges", "delete", Datum::Set(gone))]);
    }
    for (number, step) in steps.iter().enumerate() {
        match &step.change {
            Change::Update { table, uuid, columns } => {
                t.update(table, &[Condition::uuid(uuid)], columns);
            }
            Change::AddBridge { row } => {
                let name = named("bridge", number);
                let ports = new_bridges.remove(step.bridge.as_str()).unwrap_or_default();
                t.insert(
                    "Bridge",
                    &row.clone().with("ports", Datum::Set(ports)),
                    Some(&name),
                );
                t.mutate("Open_vSwitch", &root, &[("bridges", "insert", reference(&name))]);
            }
            _ => {}
        }
    }
    for (uuid, ports) in more_ports {
        t.mutate(
            "Bridge",
            &[Condition::uuid(uuid)],
            &[("ports", "insert", Datum::Set(ports))],
        );
    }
    t.mutate("Open_vSwitch", &root, &[("next_cfg", "+=", Datum::one(1))]);
    t.select("Open_vSwitch", &root, &["next_cfg"]);
    t.comment("selvedge");
    t
}

/// The plan is for what was seen: the same bridges, with the same ports where ports come or go.
fn guard(t: &mut Transaction, steps: &[Step], seen: &Database) {
    let references = |ids: Vec<&str>| {
        let mut atoms: Vec<_> = ids.into_iter().map(|id| Atom::Uuid(id.into())).collect();
        atoms.sort();
        Datum::Set(atoms)
    };
    let bridges = references(seen.bridges.values().map(|b| b.uuid.as_str()).collect());
    t.wait(
        "Open_vSwitch",
        &[Condition::uuid(&seen.root)],
        &["bridges"],
        &[Row::new().with("bridges", bridges)],
    );
    let mut guarded: Vec<&str> = steps.iter().map(|s| s.bridge.as_str()).collect();
    guarded.sort_unstable();
    guarded.dedup();
    for bridge in guarded.into_iter().filter_map(|name| seen.bridges.get(name)) {
        let ports = references(bridge.row.references("ports").collect());
        t.wait(
            "Bridge",
            &[Condition::uuid(&bridge.uuid)],
            &["ports"],
            &[Row::new().with("ports", ports)],
        );
    }
}
