//! What a change costs a site, by the domains' own planners, and whether its hosts can take it.
//!
//! | impact | a change that |
//! |---|---|
//! | none | is made while everything runs |
//! | maintenance | stops, suspends or removes a guest that runs, or interrupts a network that guests may be on |
//! | reboot | has a guest that runs restart: the change asks for it, or counts only from the guest's next start |
//!
//! Nothing that is enforced today needs the host itself to restart.

use std::collections::{BTreeMap, BTreeSet};

use hostconfig::{Layer, merge_layers};
use jiff::Timestamp;
use kinds::{
    Object,
    object::{self, ObjectKey},
};
use qmp::RunState;
use reconcile::section::Impact;
use vm::{
    desired::{Bootstrap, Desired, Firmware, Inputs, Power},
    plan::{Action, Guest, Observed},
    record::{DiskRecord, Launch, Record},
};
use vswitch::observe::{Bridge, Database, Port};

/// What a host has reported.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostState {
    /// Its name.
    pub name: String,
    /// Bytes of memory; `None` if it has not said.
    pub memory: Option<u64>,
    /// Its physical NICs by their names in profiles; `None` if it has not said.
    pub nics: Option<BTreeSet<String>>,
    /// The power states of its virtual machines by namespace and name; `None` if it has not said any.
    pub machines: Option<BTreeMap<(String, String), String>>,
}

/// All objects of a site at one commit.
pub(super) type Objects = BTreeMap<ObjectKey, Object>;

/// What a change costs.
#[derive(Clone, Debug, Default)]
pub(super) struct Costs {
    /// By object; absent is none.
    pub(super) impact: BTreeMap<ObjectKey, Impact>,
    /// Why the site can't take it.
    pub(super) errors: Vec<String>,
    /// What the answer rests on, and what is worth knowing.
    pub(super) notes: Vec<String>,
}

/// Works out what the changed objects cost on these hosts.
pub(super) fn costs(before: &Objects, after: &Objects, hosts: &[HostState], now: Timestamp) -> Costs {
    let mut costs = Costs::default();
    if hosts.is_empty() {
        costs
            .notes
            .push("no host has reported: what the commit before asks for is taken as what is there".into());
    }
    machines(before, after, hosts, now, &mut costs);
    profiles(before, after, hosts, &mut costs);
    memory(after, hosts, &mut costs);
    costs
}

fn is_machine(key: &ObjectKey) -> bool {
    key.kind == "VirtualMachine" && key.group == "vmoperator.vmware.com"
}

/// A virtual machine's class: in its namespace, in `default`, or predefined.
fn class(objects: &Objects, machine: &Object) -> Option<Object> {
    let name = machine["spec"]["className"].as_str().unwrap_or_default();
    let in_namespace = |namespace: &str| {
        let key = ObjectKey {
            group: "vmoperator.vmware.com".into(),
            kind: "VirtualMachineClass".into(),
            namespace: namespace.into(),
            name: name.into(),
        };
        objects.get(&key).cloned()
    };
    in_namespace(object::namespace(machine))
        .or_else(|| in_namespace("default"))
        .or_else(|| vm::classes::named(name))
}

fn wish(objects: &Objects, machine: &Object) -> Desired {
    let class = class(objects, machine);
    let identity = format!("{}/{}", object::namespace(machine), object::name(machine));
    vm::desired::of(Inputs {
        vm: machine,
        identity: &identity,
        class: class.as_ref(),
        bootstrap: Bootstrap::None,
    })
}

fn machines(before: &Objects, after: &Objects, hosts: &[HostState], now: Timestamp, costs: &mut Costs) {
    let mut assumed = false;
    let mut later = Vec::new();
    for (key, old) in before.iter().filter(|(key, _)| is_machine(key)) {
        let was = wish(before, old);
        let mut will = after.get(key).map_or_else(|| was.clone(), |new| wish(after, new));
        will.deleting = !after.contains_key(key);
        let reported = hosts
            .iter()
            .filter_map(|host| host.machines.as_ref())
            .find_map(|machines| machines.get(&(key.namespace.clone(), key.name.clone())));
        let running = match reported {
            Some(power) => power == "poweredOn",
            None => {
                assumed |= was.hardware.is_some();
                was.power == Power::PoweredOn
            }
        };
        let Some(observed) = observed(key, &was, running, now) else {
            continue;
        };
        let plan = vm::plan::plan(&will, &observed, now);
        let stops = plan.steps.iter().any(|step| {
            matches!(
                step.action,
                Action::Quit | Action::Kill | Action::Suspend | Action::AskShutdown(_) | Action::Remove
            )
        });
        let stays_on = running && !will.deleting && will.power == Power::PoweredOn;
        let asked = will.restart_at.is_some() && will.restart_at != was.restart_at;
        if stays_on && asked {
            // Also a time that is still to come.
            costs.impact.insert(key.clone(), Impact::Reboot);
        } else if stops {
            costs.impact.insert(key.clone(), Impact::Maintenance);
        } else if running && will.hardware.is_some() && will.hardware != was.hardware {
            costs.impact.insert(key.clone(), Impact::Reboot);
            later.push(format!("{}/{}", key.namespace, key.name));
        }
    }
    for (key, new) in after.iter().filter(|(key, _)| is_machine(key)) {
        for missing in wish(after, new).missing {
            costs.errors.push(format!("{key}: {}", missing.message));
        }
    }
    if assumed && !hosts.is_empty() {
        costs.notes.push(
            "some virtual machines are not in the reported status: taken as the commit before asks for them"
                .into(),
        );
    }
    if !later.is_empty() {
        let list = later.iter().take(10).cloned().collect::<Vec<_>>().join(", ");
        costs.notes.push(format!(
            "new hardware counts when the virtual machine is next started: {list}"
        ));
    }
}

/// A virtual machine as it is when it is as it was asked to be; `None` if it could not have been started.
fn observed(key: &ObjectKey, was: &Desired, running: bool, now: Timestamp) -> Option<Observed> {
    let hardware = was.hardware.clone()?;
    let disks = vec![
        DiskRecord {
            volume: String::new(),
            backing: None,
            bytes: 0,
            grown: false,
        };
        1 + was.disks.iter().filter(|disk| disk.index.is_none()).count()
    ];
    let launch = Launch {
        owner: key.to_string(),
        hardware,
        disks: disks.len(),
        cd: true,
        firmware: Firmware::default(),
        accelerator: String::new(),
        started_at: now,
        stop: None,
    };
    Some(Observed {
        record: Some(Record {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            identity: key.to_string(),
            image: was.image.clone(),
            digest: String::new(),
            firmware: Firmware::default(),
            disks,
            ports: Vec::new(),
            last_restart: Some(now),
        }),
        guest: if running {
            Guest::Alive(RunState::Running, launch)
        } else {
            Guest::Gone
        },
        cd_current: true,
        ..Observed::default()
    })
}

fn layers(objects: &Objects) -> (Vec<Layer>, Vec<String>) {
    let mut layers = Vec::new();
    let mut errors = Vec::new();
    for (key, object) in objects.iter().filter(|(key, _)| key.kind == "HostConfiguration") {
        match hostconfig::profile::parse(&object["spec"]["profile"]) {
            Ok(profile) => layers.push(Layer {
                name: format!("{}/{}", key.namespace, key.name),
                base: false,
                profile: profile.value,
            }),
            Err(error) => errors.push(format!("{key}: {error}")),
        }
    }
    (layers, errors)
}

fn profiles(before: &Objects, after: &Objects, hosts: &[HostState], costs: &mut Costs) {
    let (old, _) = layers(before);
    let (new, errors) = layers(after);
    costs.errors.extend(errors);
    if old == new {
        return;
    }
    let (old, new) = (merge_layers(&old), merge_layers(&new));
    costs.errors.extend(new.conflicts.iter().map(ToString::to_string));
    let none = [HostState::default()];
    let mut worst = Impact::None;
    let mut told = BTreeSet::new();
    for host in if hosts.is_empty() { &none[..] } else { hosts } {
        let nics = |profile: &serde_json::Value| -> vswitch::desired::NicDevices {
            let named = || {
                let switches = profile.pointer("/esx/network_vss/switches");
                let switches = switches.and_then(|s| s.as_array()).into_iter().flatten();
                let nics = switches
                    .filter_map(|switch| switch.pointer("/bridge/nics")?.as_array())
                    .flatten();
                nics.filter_map(|nic| nic.as_str())
                    .map(str::to_owned)
                    .collect::<BTreeSet<_>>()
            };
            let nics = host.nics.clone().unwrap_or_else(named);
            nics.into_iter().map(|nic| (nic.clone(), nic)).collect()
        };
        let read = |profile: &serde_json::Value| {
            vswitch::desired::Desired::read(profile, &nics(profile), &host.name)
        };
        let will = match read(&new.profile) {
            Ok(reading) => reading.desired,
            Err(problems) => {
                for problem in problems {
                    if told.insert((problem.path.clone(), problem.message.clone())) {
                        let on = if host.name.is_empty() {
                            String::new()
                        } else {
                            format!("host {}: ", host.name)
                        };
                        costs
                            .errors
                            .push(format!("{on}{}: {}", problem.path, problem.message));
                    }
                }
                continue;
            }
        };
        let was = read(&old.profile)
            .map(|reading| reading.desired)
            .unwrap_or_default();
        let observed = vswitch::observe::Observed {
            database: database(&was),
            ..vswitch::observe::Observed::default()
        };
        let plan = vswitch::plan::plan(&will, &[], &observed, "");
        worst = plan.steps.iter().map(|step| step.impact).fold(worst, Ord::max);
        for why in interrupted(&was, &will) {
            worst = worst.max(Impact::Maintenance);
            if !costs.notes.contains(&why) {
                costs.notes.push(why);
            }
        }
        for problem in plan.problems {
            if told.insert((problem.path.clone(), problem.message.clone())) {
                costs
                    .errors
                    .push(format!("{}: {}", problem.path, problem.message));
            }
        }
    }
    for key in before
        .keys()
        .chain(after.keys())
        .filter(|key| key.kind == "HostConfiguration")
    {
        if before.get(key) != after.get(key) {
            costs.impact.insert(key.clone(), worst);
        }
    }
}

/// What loses its network when a host's switches change, though the switches themselves are changed while they run.
fn interrupted(was: &vswitch::desired::Desired, will: &vswitch::desired::Desired) -> Vec<String> {
    let mut reasons = Vec::new();
    for switch in &was.switches {
        let Some(after) = will.switches.iter().find(|after| after.name == switch.name) else {
            reasons.push(format!(
                "vSwitch {} goes: what is on it loses its network",
                switch.name
            ));
            continue;
        };
        let kept =
            |uplink: &vswitch::desired::Uplink| after.uplinks.iter().any(|after| after.nic == uplink.nic);
        if !switch.uplinks.is_empty() && !switch.uplinks.iter().any(kept) {
            reasons.push(format!(
                "vSwitch {} keeps none of its uplinks: its network is interrupted",
                switch.name
            ));
        }
        for group in &switch.port_groups {
            if !after.port_groups.iter().any(|after| after.name == group.name) {
                reasons.push(format!(
                    "port group {} goes: what is on it loses its network",
                    group.name
                ));
            }
        }
    }
    reasons
}

/// The switch database of a host that is as it was asked to be.
fn database(was: &vswitch::desired::Desired) -> Database {
    let (attachments, _) = vswitch::plan::attach(was, &[], &Database::default());
    let mut bridges = BTreeMap::new();
    for (name, wanted) in vswitch::plan::wanted(was, &attachments, "") {
        let ports = wanted.ports.into_iter().map(|(port, rows)| {
            let there = Port {
                uuid: format!("port {port}"),
                row: rows.port,
                interface_uuid: format!("interface {port}"),
                interface: rows.interface,
            };
            (port, there)
        });
        let bridge = Bridge {
            uuid: format!("bridge {name}"),
            row: wanted.row,
            ports: ports.collect(),
        };
        bridges.insert(name, bridge);
    }
    Database {
        root: "root".into(),
        current: 0,
        bridges,
    }
}

/// The memory of what is to run must fit.
fn memory(after: &Objects, hosts: &[HostState], costs: &mut Costs) {
    let machines: Vec<(String, u64)> = after
        .iter()
        .filter(|(key, _)| is_machine(key))
        .filter_map(|(key, object)| {
            let wish = wish(after, object);
            let runs = wish.power == Power::PoweredOn && !wish.paused && !wish.worker;
            let mib = wish.hardware.filter(|_| runs)?.memory_mib;
            Some((
                format!("{}/{}", key.namespace, key.name),
                mib.saturating_mul(1 << 20),
            ))
        })
        .collect();
    let Some(largest) = hosts.iter().filter_map(|host| host.memory).max() else {
        return;
    };
    let gib = |bytes: u64| format!("{:.1} GiB", bytes_as_gib(bytes));
    for (name, bytes) in machines.iter().filter(|(_, bytes)| *bytes > largest) {
        costs.errors.push(format!(
            "virtual machine {name} needs {} of memory; the site's largest host has {}",
            gib(*bytes),
            gib(largest)
        ));
    }
    if hosts.iter().all(|host| host.memory.is_some()) {
        let all: u64 = hosts
            .iter()
            .filter_map(|host| host.memory)
            .fold(0, u64::saturating_add);
        let wanted: u64 = machines
            .iter()
            .map(|(_, bytes)| *bytes)
            .fold(0, u64::saturating_add);
        if wanted > all && machines.iter().all(|(_, bytes)| *bytes <= largest) {
            costs.errors.push(format!(
                "its virtual machines need {} of memory together; its hosts have {}",
                gib(wanted),
                gib(all)
            ));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn bytes_as_gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}
