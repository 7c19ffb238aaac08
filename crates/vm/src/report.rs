//! From what was found to the object's status. Pure.

use kinds::{
    Object,
    condition::{self, Condition},
    object,
};
use qmp::RunState;
use serde_json::{Map, Value, json};

use crate::{
    desired::{Desired, Firmware, Hardware, Power, uuid},
    monitor::Sensed,
    packet::Learned,
    plan::{Guest, Hold, Observed, condition as condition_type},
    record::Launch,
};

/// All that a status is made of.
pub(crate) struct Report<'a> {
    pub(crate) vm: &'a Object,
    pub(crate) identity: &'a str,
    pub(crate) host: &'a str,
    pub(crate) desired: &'a Desired,
    pub(crate) observed: &'a Observed,
    pub(crate) holds: &'a [Hold],
    pub(crate) sensed: &'a Sensed,
    /// What has no effect, or not the one that was asked for.
    pub(crate) warnings: Vec<String>,
    /// RFC 3339.
    pub(crate) now: &'a str,
}

/// Greatest number of warnings, and of characters in a message: a status is stored and sent often.
const MAX_WARNINGS: usize = 20;
const MAX_MESSAGE: usize = 1000;

impl Report<'_> {
    /// The status.
    pub(crate) fn status(&self) -> Value {
        let mut status = Map::new();
        let mut set = |key: &str, value: Value| {
            if !value.is_null() {
                status.insert(key.into(), value);
            }
        };
        set("phase", json!(self.phase()));
        if !self.desired.worker {
            let unique = uuid(self.identity);
            set("powerState", json!(self.power()));
            set("host", json!(self.host));
            set("uniqueID", json!(unique));
            set("instanceUUID", json!(unique));
            set("biosUUID", json!(unique));
            set("networkInterfaces", self.network_interfaces());
            set("volumes", self.volumes());
            set("vmIp", json!(self.first_address().map(|a| a.ip.to_string())));
            let host_name = self.sensed.agent.as_ref().map(|agent| agent.host_name.as_str());
            set("hostName", json!(host_name.filter(|name| !name.is_empty())));
            let restarted = self
                .observed
                .record
                .as_ref()
                .and_then(|record| record.last_restart);
            set(
                "lastRestartTime",
                json!(restarted.map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())),
            );
        }
        set("conditions", self.conditions());
        let warnings: Vec<&String> = self.warnings.iter().take(MAX_WARNINGS).collect();
        if !warnings.is_empty() {
            set("warnings", json!(warnings));
        }
        Value::Object(status)
    }

    fn phase(&self) -> &'static str {
        match &self.observed.record {
            _ if self.desired.deleting => "Deleting",
            _ if self.desired.worker => "Unknown",
            Some(record) if !record.disks.is_empty() => "Created",
            _ => "Creating",
        }
    }

    fn power(&self) -> Power {
        match &self.observed.guest {
            Guest::Alive(..) | Guest::Unreachable => Power::PoweredOn,
            Guest::Gone | Guest::Dead(_) if self.observed.saved => Power::Suspended,
            Guest::Gone | Guest::Dead(_) => Power::PoweredOff,
        }
    }

    /// What QEMU runs with, else what it would be started with.
    fn hardware(&self) -> Option<&Hardware> {
        match &self.observed.guest {
            Guest::Alive(_, launch) => Some(&launch.hardware),
            _ => self.desired.hardware.as_ref(),
        }
    }

    fn addresses(&self, mac: &str) -> Vec<Learned> {
        if matches!(self.observed.guest, Guest::Alive(..)) {
            self.sensed.addresses(mac)
        } else {
            Vec::new()
        }
    }

    fn network_interfaces(&self) -> Value {
        let cards = self
            .hardware()
            .map(|hardware| &hardware.nics[..])
            .unwrap_or_default();
        let alive = matches!(self.observed.guest, Guest::Alive(..));
        let each = cards.iter().map(|nic| {
            let text = |a: Learned| {
                a.prefix
                    .map_or_else(|| a.ip.to_string(), |prefix| format!("{}/{prefix}", a.ip))
            };
            let addresses: Vec<String> = self.addresses(&nic.mac).into_iter().map(text).collect();
            let connected = alive && self.observed.port_groups.contains_key(&nic.port_group);
            let mut card = json!({"connected": connected, "macAddress": nic.mac});
            if !addresses.is_empty() {
                card["ipAddresses"] = json!(addresses);
            }
            card
        });
        Value::Array(each.collect())
    }

    /// The further disks. Those of the image belong to the image.
    fn volumes(&self) -> Value {
        let attached = match &self.observed.guest {
            Guest::Alive(_, launch) => launch.disks,
            _ => 0,
        };
        let disks = self
            .observed
            .record
            .iter()
            .flat_map(|record| record.disks.iter().enumerate());
        let each = disks
            .filter(|(_, disk)| !disk.volume.is_empty())
            .map(|(index, disk)| {
                let id = uuid(&format!("{}/disk-{index}", self.identity));
                json!({"name": disk.volume, "attached": index < attached, "diskUUID": id, "error": ""})
            });
        let list: Vec<Value> = each.collect();
        if list.is_empty() {
            Value::Null
        } else {
            Value::Array(list)
        }
    }

    /// The first card's first address; a link-local one is of no use to others.
    fn first_address(&self) -> Option<Learned> {
        let cards = self
            .hardware()
            .map(|hardware| &hardware.nics[..])
            .unwrap_or_default();
        let useful = |a: &Learned| match a.ip {
            std::net::IpAddr::V4(ip) => !ip.is_link_local(),
            std::net::IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        };
        cards.iter().flat_map(|nic| self.addresses(&nic.mac)).find(useful)
    }

    fn conditions(&self) -> Value {
        let old = self.vm["status"]["conditions"].clone();
        let old: Vec<Condition> = serde_json::from_value(old).unwrap_or_default();
        let mut list = Vec::new();
        let mut severities = Map::new();
        for (condition, severity) in self.wanted_conditions() {
            // The time of the last change comes from the condition as it was.
            if let Some(before) = condition::find(&old, &condition.kind) {
                list.push(before.clone());
            }
            severities.insert(condition.kind.clone(), json!(severity));
            condition::set(&mut list, condition, self.now);
        }
        let each = list.into_iter().map(|condition| {
            let severity = severities[&condition.kind].clone();
            let no = condition.status == "False";
            let mut value = json!(condition);
            if let Value::Object(map) = &mut value {
                map.retain(|_, value| value != "");
                if no {
                    map.insert("severity".into(), severity);
                }
            }
            value
        });
        Value::Array(each.collect())
    }

    fn wanted_conditions(&self) -> Vec<(Condition, &'static str)> {
        if self.desired.worker {
            let message =
                "the built-in Kubernetes worker is not yet supported by this host; nothing is started";
            return vec![(Condition::no("Supported", "NotYetSupported", message), "Info")];
        }
        let mut out = vec![self.ready()];
        for (kind, good) in [
            (
                condition_type::PREREQUISITES,
                "class, image and data for the guest are there",
            ),
            (condition_type::NETWORK, "every network card is on a port group"),
            (condition_type::STORAGE, "its disks are as asked for"),
        ] {
            let holds: Vec<&Hold> = self.holds.iter().filter(|hold| hold.condition == kind).collect();
            out.push(match (holds.first(), self.unseen(kind)) {
                (Some(first), _) => {
                    let messages: Vec<&str> = holds.iter().map(|hold| hold.message.as_str()).collect();
                    (
                        Condition::no(kind, first.reason, short(&messages.join("; "))),
                        severity(first),
                    )
                }
                (None, Some(why)) => (Condition::unknown(kind, "Waiting", why), ""),
                (None, None) => (Condition::yes(kind, "Ready", good), ""),
            });
        }
        out.push(self.tools());
        if let Guest::Alive(_, launch) = &self.observed.guest {
            let changed = self.changed_since(launch);
            if !changed.is_empty() {
                let message = format!("takes effect when it is next powered on: {}", changed.join(", "));
                out.push((
                    Condition::yes("RestartRequired", "DefinitionChanged", message),
                    "",
                ));
            }
        }
        out
    }

    /// Why nothing can be said about a condition yet.
    fn unseen(&self, kind: &str) -> Option<&'static str> {
        let disks = self
            .observed
            .record
            .as_ref()
            .map_or(0, |record| record.disks.len());
        match kind {
            condition_type::NETWORK if self.desired.hardware.is_none() => {
                Some("its network cards are looked at once its class is there")
            }
            condition_type::STORAGE if disks == 0 => Some("its disks are made once its image is there"),
            _ => None,
        }
    }

    fn ready(&self) -> (Condition, &'static str) {
        const READY: &str = "Ready";
        if self.desired.deleting {
            let waits = self
                .holds
                .first()
                .map_or("it is being removed", |hold| hold.message.as_str());
            return (Condition::no(READY, "Deleting", short(waits)), "Info");
        }
        if let Some(hold) = self.holds.first() {
            return (
                Condition::no(READY, hold.reason, short(&hold.message)),
                severity(hold),
            );
        }
        if self.desired.paused {
            let message = "an annotation asks to leave it alone";
            return (Condition::unknown(READY, "Paused", message), "");
        }
        let is = self.power();
        if is != self.desired.power {
            return (
                Condition::no(
                    READY,
                    "Progressing",
                    "it is not in the power state yet that is asked for",
                ),
                "Info",
            );
        }
        match (is, &self.observed.guest, &self.desired.probe) {
            (Power::PoweredOff, ..) => (Condition::yes(READY, "PoweredOff", "powered off, as asked"), ""),
            (Power::Suspended, ..) => (Condition::yes(READY, "Suspended", "suspended, as asked"), ""),
            (Power::PoweredOn, Guest::Alive(RunState::Running | RunState::Suspended, _), None) => {
                (Condition::yes(READY, "Running", "it runs"), "")
            }
            (Power::PoweredOn, Guest::Alive(RunState::Running | RunState::Suspended, _), Some(_)) => {
                match &self.sensed.probe {
                    Some(Ok(())) => (
                        Condition::yes(READY, "ProbeSucceeded", "its readiness probe succeeds"),
                        "",
                    ),
                    Some(Err(why)) => (Condition::no(READY, "NotReady", short(why)), "Info"),
                    None => (
                        Condition::unknown(READY, "Unknown", "its readiness probe has not been answered yet"),
                        "",
                    ),
                }
            }
            (Power::PoweredOn, ..) => (
                Condition::no(READY, "Progressing", "the guest does not run yet"),
                "Info",
            ),
        }
    }

    fn tools(&self) -> (Condition, &'static str) {
        const TOOLS: &str = "VirtualMachineTools";
        let running = matches!(self.observed.guest, Guest::Alive(..)) && self.sensed.agent.is_some();
        if running {
            (
                Condition::yes(TOOLS, "VirtualMachineToolsRunning", "the guest agent answers"),
                "",
            )
        } else {
            (
                Condition::no(
                    TOOLS,
                    "VirtualMachineToolsNotRunning",
                    "there is no guest agent, or it does not answer",
                ),
                "Info",
            )
        }
    }

    /// What is different from what QEMU was started with, in words.
    fn changed_since(&self, launch: &Launch) -> Vec<&'static str> {
        let (Some(wanted), Some(record)) = (&self.desired.hardware, &self.observed.record) else {
            return Vec::new();
        };
        let has = &launch.hardware;
        let firmware: Firmware = wanted.firmware.unwrap_or(record.firmware);
        [
            (
                "CPUs",
                (wanted.cpus, wanted.cores_per_socket) != (has.cpus, has.cores_per_socket),
            ),
            ("memory", wanted.memory_mib != has.memory_mib),
            ("firmware", firmware != launch.firmware),
            ("network cards", !same_cards(wanted, has)),
            (
                "disks",
                record.disks.len() != launch.disks || wanted.disk_bus != has.disk_bus,
            ),
            ("data for the guest", self.desired.seed.is_some() != launch.cd),
        ]
        .into_iter()
        .filter_map(|(name, changed)| changed.then_some(name))
        .collect()
    }
}

/// The port group of a card can change while it runs; the card itself can't.
fn same_cards(one: &Hardware, other: &Hardware) -> bool {
    let cards = |hardware: &Hardware| -> Vec<(String, String)> {
        hardware
            .nics
            .iter()
            .map(|nic| (nic.mac.clone(), nic.model.clone()))
            .collect()
    };
    cards(one) == cards(other)
}

fn severity(hold: &Hold) -> &'static str {
    match (hold.progressing, hold.blocks) {
        (true, _) => "Info",
        (false, true) => "Error",
        (false, false) => "Warning",
    }
}

fn short(text: &str) -> String {
    text.chars().take(MAX_MESSAGE).collect()
}

/// What a status says about fields that nobody reads.
pub(crate) fn unknown_fields(paths: Vec<String>) -> Vec<String> {
    paths
        .into_iter()
        .map(|path| format!("unknown field {path:?} is kept and has no effect"))
        .collect()
}

/// Whether an object has a finalizer.
pub(crate) fn has_finalizer(vm: &Object, finalizer: &str) -> bool {
    object::finalizers(vm).contains(&finalizer)
}

#[cfg(test)]
mod tests;
