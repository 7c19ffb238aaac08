//! What of a host's report lists and counts look at.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::db::Row;
use crate::model::{Compliance, Connection, Quarantined, State, Time, Versions};

/// Sections that these are made of.
pub(super) const SECTIONS: [&str; 4] = ["source", "health", "compliance", "versions"];

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Facts {
    pub(super) connection: Connection,
    pub(super) last_seen: Option<Time>,
    pub(super) applied: Option<String>,
    pub(super) attempted: Option<String>,
    pub(super) quarantined: Vec<Quarantined>,
    pub(super) drift: bool,
    pub(super) compliance: Compliance,
    pub(super) versions: Versions,
    /// Empty: not reported yet.
    pub(super) health: String,
    pub(super) health_reason: String,
    pub(super) refused: String,
    pub(super) target_mode: String,
    pub(super) target: Option<String>,
}

/// The columns that [`Facts::read`] reads, in order.
pub(super) const COLUMNS: &str = "connection,last_seen_at,applied,attempted,quarantined,drift,compliance,versions,\
     health,health_reason,refused,target_mode,target";

fn text(value: &Value, field: &str, most: usize) -> String {
    let text = value.get(field).and_then(Value::as_str).unwrap_or("");
    // PostgreSQL has no text with a NUL in it.
    let text = text.replace('\0', "");
    text[..text.floor_char_boundary(most)].to_owned()
}

fn commit(value: &Value, field: &str) -> Option<String> {
    Some(text(value, field, 128)).filter(|commit| !commit.is_empty())
}

impl Facts {
    /// From a row whose columns from `at` on are [`COLUMNS`].
    pub(super) fn read(row: &Row, at: usize) -> Self {
        Self {
            connection: row.word(at),
            last_seen: row.opt_time(at + 1),
            applied: row.opt_text(at + 2),
            attempted: row.opt_text(at + 3),
            quarantined: row.json(at + 4),
            drift: row.bool(at + 5),
            compliance: row.word(at + 6),
            versions: row.json(at + 7),
            health: row.text(at + 8),
            health_reason: row.text(at + 9),
            refused: row.text(at + 10),
            target_mode: row.text(at + 11),
            target: row.opt_text(at + 12),
        }
    }

    /// Takes in a section that was set (or, with null, removed).
    pub(super) fn take(&mut self, name: &str, value: &Value) {
        match name {
            "source" => {
                self.applied = commit(value, "applied");
                self.attempted = commit(value, "attempted");
                self.quarantined = value
                    .get("quarantined")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .take(32)
                    .map(|one| Quarantined {
                        commit: text(one, "commit", 128),
                        reason: text(one, "reason", 1024),
                        at: one
                            .get("at")
                            .and_then(|at| serde_json::from_value(at.clone()).ok()),
                    })
                    .collect();
                let target = value.get("target").unwrap_or(&Value::Null);
                self.target_mode = text(target, "mode", 16);
                self.target = commit(target, "commit");
            }
            "health" => {
                self.health = text(value, "state", 16);
                self.health_reason = text(value, "reason", 1024);
            }
            "compliance" => {
                self.drift = value.get("drift").and_then(Value::as_bool).unwrap_or(false);
                self.compliance = match value.get("state").and_then(Value::as_str) {
                    Some("compliant") => Compliance::Compliant,
                    Some("nonCompliant") => Compliance::NonCompliant,
                    _ => Compliance::Unknown,
                };
            }
            "versions" => {
                self.versions = Versions {
                    selvedge: text(value, "selvedge", 64),
                    kernel: text(value, "kernel", 128),
                    qemu: text(value, "qemu", 128),
                    ovs: text(value, "ovs", 128),
                    os: text(value, "os", 128),
                };
            }
            _ => {}
        }
    }

    /// Takes in all sections of a full report: those not in it are gone.
    pub(super) fn take_all(&mut self, sections: &BTreeMap<String, Value>) {
        for name in SECTIONS {
            self.take(name, sections.get(name).unwrap_or(&Value::Null));
        }
    }

    /// How the host is, and the one sentence.
    pub(super) fn state(&self) -> (State, String) {
        match self.connection {
            Connection::Never => return (State::Pending, "it has not connected yet".to_owned()),
            Connection::Stale => return (State::Stale, "it missed two heartbeats".to_owned()),
            Connection::Offline => {
                let since = self.last_seen.map_or(String::new(), |at| {
                    format!(" since {}", at.timestamp().strftime("%Y-%m-%d %H:%M:%S UTC"))
                });
                return (State::Offline, format!("it has not been heard of{since}"));
            }
            Connection::Online => {}
        }
        if !self.refused.is_empty() {
            return (
                State::Degraded,
                format!("it refused its assignment: {}", self.refused),
            );
        }
        let said = |fallback: &str| {
            if self.health_reason.is_empty() {
                fallback.to_owned()
            } else {
                self.health_reason.clone()
            }
        };
        match self.health.as_str() {
            "healthy" => (State::Healthy, String::new()),
            "degraded" => (State::Degraded, said("it works in part")),
            "failing" => (State::Failing, said("it does not work")),
            "progressing" => (State::Progressing, said("it is on its way")),
            _ => (
                State::Progressing,
                "it has not reported its health yet".to_owned(),
            ),
        }
    }
}
