//! One pass: desired, observe, plan, apply, observe again.

use std::sync::Arc;

use kinds::network::{PortGroup, PortGroups, PortRequest};
use reconcile::section::{Applied, Problem};
use telemetry::chain;
use tokio::time::Instant;

use super::{Inner, State, Wish};
use crate::{
    apply::{ApplyError, apply_database},
    desired::Desired,
    observe::{Database, Kernel, MARK_MAC, MARK_OWNER, MARK_PORT_GROUP, Observed},
    plan::{Plan, helpers, plan},
    report::problem,
};

/// Somebody else may change the database between looking and committing; that often is a fight.
const LOOKS: usize = 3;

impl Inner {
    /// Makes the host as `state.desired` says; changes are added to `state.untold`. The result is what is wrong.
    pub(super) async fn pass(&self, state: &mut State) -> Vec<Problem> {
        let started = Instant::now();
        let Some(desired) = state.desired.clone() else {
            return Vec::new();
        };
        let problems = match self.make(state, &desired).await {
            Ok(problems) => problems,
            Err(problem) => vec![problem],
        };
        self.metrics.pass(started.elapsed(), problems.len());
        problems
    }

    async fn make(&self, state: &mut State, desired: &Arc<Desired>) -> Result<Vec<Problem>, Problem> {
        let mut observed = self.observe(desired).await?;
        let requests = self.requests(state, &observed.database);
        let wish = Wish {
            desired: desired.clone(),
            requests,
        };
        let drift = state.applied.as_ref() == Some(&wish);
        let mut plan = self.plan(&wish, &observed);
        let checkpoint = self.arm(state, desired, &plan, &observed).await;
        let mut looks = 1;
        while !plan.steps.is_empty() {
            let mut snapshots = self.snapshots.clone();
            match apply_database(&self.client, &mut snapshots, &plan.steps, &observed.database).await {
                Ok(()) => {
                    let told = plan.steps.iter().map(|s| Applied {
                        message: s.to_string(),
                        drift,
                    });
                    state.untold.extend(told);
                    observed = self.observe(desired).await?;
                    plan = self.plan(&wish, &observed);
                    if let Some(step) = plan.steps.first() {
                        let message = format!("the switch did not stay as it was made; still to do: {step}");
                        return Err(problem("NotConverged", message));
                    }
                }
                Err(ApplyError::Transaction(error)) if error.is_guard() && looks < LOOKS => {
                    looks += 1;
                    observed = self.observe(desired).await?;
                    plan = self.plan(&wish, &observed);
                }
                Err(error) => return Err(problem("ApplyFailed", chain(&error).to_string())),
            }
        }
        let mut problems = plan.problems.clone();
        problems.extend(device_problems(desired, &observed.database));
        problems.extend(self.flows(state, desired, &plan.attachments, &observed).await);
        self.publish(state, desired, &observed.database);
        let kernel = match plan.kernel.is_empty() {
            true => Ok(()),
            false => self.change_kernel(state, &plan, drift).await,
        };
        if let Some(checkpoint) = checkpoint
            && let Err(problem) = self.verify(state, checkpoint, desired).await
        {
            return Err(problem);
        }
        kernel?;
        let helpers = helpers::wanted(desired, &self.helper_programs());
        if let Err(error) = state.helpers.keep(helpers) {
            problems.push(problem("HelperFailed", chain(&error).to_string()));
        }
        state.rejected.take_if(|rejected| rejected.desired == *desired);
        state.applied = Some(wish);
        Ok(problems)
    }

    pub(super) fn plan(&self, wish: &Wish, observed: &Observed) -> Plan {
        plan(
            &wish.desired,
            &wish.requests,
            observed,
            &self.config.datapath_type,
        )
    }

    pub(super) async fn observe(&self, desired: &Desired) -> Result<Observed, Problem> {
        let database = self.snapshots.borrow().as_ref().and_then(Database::read);
        let state = self.client.state();
        let connection = state.borrow().clone();
        let database = match (database, connection) {
            (_, ovsdb::ConnectionState::Disconnected(reason)) => {
                let socket = self.config.db_socket.display();
                let message = format!("the switch database at {socket} does not answer: {reason}");
                return Err(problem("DatabaseUnavailable", message));
            }
            (None, _) => {
                return Err(problem(
                    "DatabaseUnavailable",
                    "the switch database was not read yet",
                ));
            }
            (Some(database), _) => database,
        };
        let uplinks: Vec<&str> = desired
            .switches
            .iter()
            .flat_map(|s| &s.uplinks)
            .map(|u| u.device.as_str())
            .collect();
        let kernel = Kernel::read(&self.netlink, &uplinks).await;
        let kernel = kernel.map_err(|error| problem("HostUnreadable", chain(&error).to_string()))?;
        Ok(Observed { database, kernel })
    }

    /// What the virtual machines ask for. Until they were heard, the ports that are there speak for them: a
    /// restart of the daemon must not take a running machine off the network.
    fn requests(&self, state: &mut State, database: &Database) -> Arc<Vec<PortRequest>> {
        let wished = self.ports.borrow().clone();
        state.requests_known |= self.ports.has_changed().unwrap_or(false) || !wished.is_empty();
        if state.requests_known {
            return wished;
        }
        let ports = database
            .bridges
            .values()
            .filter(|b| b.switch().is_some())
            .flat_map(|b| &b.ports);
        let requests = ports
            .filter(|(_, port)| port.role() == Some("vm"))
            .map(|(name, port)| {
                let mark = |key| port.row.key("external_ids", key).unwrap_or_default().to_owned();
                PortRequest {
                    interface: name.clone(),
                    port_group: mark(MARK_PORT_GROUP),
                    mac: port
                        .interface
                        .key("external_ids", MARK_MAC)
                        .unwrap_or_default()
                        .into(),
                    owner: mark(MARK_OWNER),
                }
            })
            .collect();
        Arc::new(requests)
    }

    /// Tells which port groups there are: those whose bridge is there.
    fn publish(&self, state: &mut State, desired: &Arc<Desired>, database: &Database) {
        let ours = |name: &str| database.bridges.get(name).is_some_and(|b| b.switch().is_some());
        let there: Vec<bool> = desired.switches.iter().map(|s| ours(&s.bridge)).collect();
        let published = Some((desired.clone(), there));
        if state.published == published {
            return;
        }
        let groups: PortGroups = desired
            .switches
            .iter()
            .filter(|s| ours(&s.bridge))
            .flat_map(|s| s.port_groups.iter().map(move |g| (s, g)))
            .map(|(s, g)| {
                let (name, switch) = (g.name.clone(), s.name.clone());
                (
                    name.clone(),
                    PortGroup {
                        name,
                        switch,
                        vlan_id: g.vlan_id,
                        mtu: s.mtu,
                    },
                )
            })
            .collect();
        self.groups.send_if_modified(|now| {
            let changed = **now != groups;
            if changed {
                *now = Arc::new(groups);
            }
            changed
        });
        state.published = published;
    }
}

/// Devices that vswitchd could not open. A virtual machine's tap may come after its port, so it does not count.
fn device_problems(desired: &Desired, database: &Database) -> Vec<Problem> {
    let mut problems = Vec::new();
    for switch in &desired.switches {
        let Some(bridge) = database.bridges.get(&switch.bridge) else {
            continue;
        };
        for (name, port) in bridge
            .ports
            .iter()
            .filter(|(_, p)| matches!(p.role(), Some("uplink" | "vmknic")))
        {
            let error = port.interface.text("error");
            if !error.is_empty() {
                let path = format!("esx.network_vss.switches[{}]", switch.name);
                let message = format!("the switch cannot use {name}: {error}");
                problems.push(Problem {
                    path,
                    ..problem("DeviceFailed", message)
                });
            }
        }
    }
    problems
}
