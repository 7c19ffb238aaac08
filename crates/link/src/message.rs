//! What the two sides say in control frames and when they open a stream. JSON, camelCase, times RFC 3339 in UTC.
//!
//! Unknown fields are ignored and absent ones have defaults, so that either side may be older than the other. An
//! unknown `t` is [`HostMessage::Unknown`] or [`ServerMessage::Unknown`]: skipped, never an error.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of the protocol that this crate speaks.
pub const PROTOCOL: u32 = 1;

/// Sections of a host's status by name (`source`, `vm/NS/NAME`, …).
pub type Sections = BTreeMap<String, Value>;

/// From a host to the orchestrator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "camelCase")]
pub enum HostMessage {
    /// The first message of a connection.
    Hello(Hello),
    /// Sent every [`Welcome::heartbeat`] seconds, ±10 %.
    Beat {},
    /// What time it is on the host: every few minutes with a beat, and when its clock was set.
    Clock {
        /// RFC 3339.
        time: String,
    },
    /// What changed in the host's status.
    Status(Status),
    /// What happened on the host.
    Events {
        /// Oldest first.
        #[serde(default)]
        items: Vec<Event>,
    },
    /// The assignment is durable on the host and in force, or why it is not.
    Assigned {
        /// Which assignment.
        generation: u64,
        /// Why it was refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A message of a newer host.
    #[serde(other)]
    Unknown,
}

/// From the orchestrator to a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "camelCase")]
pub enum ServerMessage {
    /// The answer to [`Hello`].
    Welcome(Welcome),
    /// The answer to [`HostMessage::Beat`].
    Beat {},
    /// The status up to this generation is held (not before it would survive what the orchestrator promises).
    Ack {
        /// The generation of the [`Status`].
        generation: u64,
    },
    /// The status didn't build on what is held: send everything (`base` 0).
    Resync {},
    /// What the host shall be.
    Assign {
        /// Rises whenever anything in the assignment changes.
        generation: u64,
        /// The assignment.
        assignment: Box<Assignment>,
    },
    /// Do something now.
    Signal {
        /// What.
        what: Signal,
    },
    /// A message of a newer orchestrator.
    #[serde(other)]
    Unknown,
}

/// The first message of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hello {
    /// [`PROTOCOL`] of the host.
    pub protocol: u32,
    /// The host's Selvedge version.
    pub version: String,
    /// Changes when the host's daemon starts.
    pub boot_id: String,
    /// The newest generation of the host's status.
    pub status_generation: u64,
    /// The assignment in force on the host; 0 for none.
    pub assignment_generation: u64,
    /// What time it is on the host, RFC 3339; empty if it does not say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub time: String,
}

/// The answer to [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Welcome {
    /// What the orchestrator holds of this host's status; 0 for nothing.
    pub status_generation: u64,
    /// Seconds between heartbeats.
    pub heartbeat: u32,
}

impl Default for Welcome {
    fn default() -> Self {
        Self {
            status_generation: 0,
            heartbeat: 30,
        }
    }
}

/// What changed in a host's status between two generations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// The generation that this message makes.
    pub generation: u64,
    /// The generation it builds on; 0: sections not in `set` are gone.
    pub base: u64,
    /// Sections that are new or changed, whole.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: Sections,
    /// Sections that are gone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// Something that happened on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Event {
    /// When, RFC 3339.
    pub time: String,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub kind: String,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// What it is about.
    pub object: ObjectReference,
}

/// Which object an [`Event`] is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectReference {
    /// Kind.
    pub kind: String,
    /// Namespace; empty for none.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// Something a host shall do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Signal {
    /// Look at the Git source.
    Fetch,
    /// Reconcile everything.
    Reconcile,
    /// Renew the certificate.
    Renew,
    /// The host was revoked: it stays as it is and doesn't come back.
    Revoked,
    /// A signal of a newer orchestrator.
    #[serde(other)]
    Unknown,
}

/// What the orchestrator makes of a host.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Assignment {
    /// The tenant's name.
    pub tenant: String,
    /// The site's name.
    pub site: String,
    /// The host's name.
    pub host: String,
    /// Labels of site and host, the host's over the site's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Where the wanted state is; absent: the site has none yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Substitutions.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// Substitutions that must not be shown.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secret_variables: BTreeMap<String, String>,
    /// Which commit.
    pub target: Target,
}

/// A Git source.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Source {
    /// Address of the repository.
    pub url: String,
    /// Branch.
    pub branch: String,
    /// Folder in it.
    pub path: String,
    /// How often to look, as Flux writes durations (`1m`); empty: the host's default.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub interval: String,
    /// User name for HTTPS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Password for HTTPS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Bearer token for HTTPS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bearer: Option<String>,
    /// Private key for SSH.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// `known_hosts` for SSH.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known_hosts: Option<String>,
    /// CA certificates for HTTPS, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

/// Which commit of the source is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "camelCase")]
pub enum Target {
    /// The head of the branch.
    #[default]
    Follow,
    /// One commit.
    Pinned {
        /// Its id.
        commit: String,
    },
}

/// What a stream is for: the payload of an `open` frame. The orchestrator opens, the host serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "service", rename_all = "camelCase")]
pub enum Open {
    /// HTTP/1.1 into the host's API server, already authenticated.
    Api {
        /// The user.
        user: String,
        /// Their groups (`selvedge:viewer`, `selvedge:operator`, `selvedge:owner`).
        #[serde(default)]
        groups: Vec<String>,
        /// Where they come from, for the audit log.
        #[serde(default)]
        from: String,
    },
    /// A VM's serial console.
    Serial {
        /// The VM's namespace.
        namespace: String,
        /// The VM's name.
        name: String,
        /// The user, for the audit log.
        #[serde(default)]
        user: String,
    },
    /// A VM's screen, RFB.
    Vnc {
        /// The VM's namespace.
        namespace: String,
        /// The VM's name.
        name: String,
        /// The user, for the audit log.
        #[serde(default)]
        user: String,
    },
    /// Log lines of the host.
    Logs {
        /// A unit, or empty for all.
        #[serde(default)]
        unit: String,
        /// Whether to go on with what comes.
        #[serde(default)]
        follow: bool,
        /// How many past lines.
        #[serde(default)]
        lines: u32,
        /// The user, for the audit log.
        #[serde(default)]
        user: String,
    },
    /// A service of a newer orchestrator: the host resets the stream.
    #[serde(other)]
    Unknown,
}

impl std::fmt::Debug for Assignment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Assignment")
            .field("tenant", &self.tenant)
            .field("site", &self.site)
            .field("host", &self.host)
            .field("source", &self.source)
            .field("variables", &self.variables.keys())
            .field("secret_variables", &self.secret_variables.keys())
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("url", &without_password(&self.url))
            .field("branch", &self.branch)
            .field("path", &self.path)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

/// A URL as it may be logged: what stands before `@` in its authority is left out.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.into();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => url.into(),
    }
}
