use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Time;

/// Labels and variables: small sorted maps of text.
pub type Map = BTreeMap<String, String>;

/// A Git repository, registered once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Repository {
    /// Id.
    pub id: String,
    /// A DNS label, unique in the tenant.
    pub name: String,
    /// What hosts fetch from.
    pub url: String,
    /// The branch that sites follow when they name none.
    pub branch: String,
    /// Whether the orchestrator itself serves it.
    pub hosted: bool,
    /// How hosts prove who they are to it.
    pub auth: RepositoryAuth,
    /// Whether credentials are kept (sealed; they can't be read back).
    pub has_credentials: bool,
    /// Certificates to trust, PEM, or empty.
    pub ca_pem: String,
    /// SSH host keys to trust, or empty.
    pub known_hosts: String,
    /// Whether the orchestrator could reach it.
    pub reach: Reach,
    /// The newest commit of `branch`.
    pub head: Option<Head>,
    /// Where its server may tell of pushes. Filled by the server, which knows its own URL.
    pub webhook_url: String,
    /// Rises with each change.
    pub generation: i64,
}

/// How a repository wants to be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum RepositoryAuth {
    /// Open to all.
    #[default]
    None,
    /// User name and password.
    Basic,
    /// A bearer token.
    Bearer,
    /// An SSH key.
    Ssh,
}

/// Whether the orchestrator could reach a repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reach {
    /// What the last check said.
    pub state: ReachState,
    /// Why it failed.
    pub message: String,
    /// When it was checked.
    pub checked_at: Option<Time>,
}

/// What the last check of a repository said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum ReachState {
    /// Never checked.
    #[default]
    Unknown,
    /// Reached.
    Ok,
    /// Not reached.
    Failed,
}

/// The newest commit of a branch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// Commit id.
    pub commit: String,
    /// First line of its message.
    pub subject: String,
    /// Its author.
    pub author: String,
    /// When it was committed.
    pub time: Option<Time>,
}

/// A place: a name, labels, variables and a folder in a repository.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Site {
    /// Id.
    pub id: String,
    /// A DNS label, unique in the tenant.
    pub name: String,
    /// For people.
    pub display_name: String,
    /// Labels, for selectors.
    pub labels: Map,
    /// Where it is.
    pub location: Location,
    /// Substituted in the manifests of its hosts.
    pub variables: Map,
    /// Names of the variables whose values are kept sealed.
    pub secret_variables: Vec<String>,
    /// Name of its repository.
    pub repository: Option<String>,
    /// Folder in the repository.
    pub path: String,
    /// Branch, if not the repository's.
    pub branch: Option<String>,
    /// Name of its rollout policy; none follows the branch directly.
    pub policy: Option<String>,
    /// Its hosts, counted.
    pub hosts: HostCount,
    /// How it is.
    pub state: State,
    /// The one sentence a person needs; empty when healthy.
    pub reason: String,
    /// The commit it should be at.
    pub desired: Option<String>,
    /// The commit that all its hosts are at; the oldest reported if they differ.
    pub applied: Option<String>,
    /// The rollout it is part of now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<String>,
    /// When what is reported of it changed last.
    pub updated_at: Time,
    /// Rises with each change that a person or program made.
    pub generation: i64,
}

/// Where a site is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Location {
    /// Degrees north.
    pub lat: Option<f64>,
    /// Degrees east.
    pub lon: Option<f64>,
    /// Postal address, or empty.
    pub address: String,
    /// IANA time zone, as `Europe/Berlin`; empty is UTC.
    pub timezone: String,
}

/// Hosts of a site, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostCount {
    /// Enrolled ones.
    pub total: i64,
    /// Online ones.
    pub online: i64,
}

/// How a site or host is; later ones are worse, but for `pending`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Never seen.
    #[default]
    Pending,
    /// All is as wanted.
    Healthy,
    /// On its way.
    Progressing,
    /// Works in part.
    Degraded,
    /// Does not work.
    Failing,
    /// Two heartbeats were missed.
    Stale,
    /// Four heartbeats were missed.
    Offline,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Healthy,
        Self::Progressing,
        Self::Degraded,
        Self::Failing,
        Self::Stale,
        Self::Offline,
    ];
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    /// Id.
    pub id: String,
    /// A name, unique in the tenant.
    pub name: String,
    /// Name of its site.
    pub site: Option<String>,
    /// Serial number of the machine, or empty.
    pub serial: String,
    /// UUID of the machine's firmware, or empty.
    pub uuid: String,
    /// MAC addresses of its interfaces.
    pub macs: Vec<String>,
    /// Labels.
    pub labels: Map,
    /// How far it is with enrolment.
    pub phase: Phase,
    /// Whether it is connected.
    pub connection: Connection,
    /// When it was heard of last, to about a minute.
    pub last_seen_at: Option<Time>,
    /// Since when it is connected.
    pub connected_at: Option<Time>,
    /// How it is.
    pub state: State,
    /// The one sentence a person needs; empty when healthy.
    pub reason: String,
    /// The commit it should be at.
    pub desired: Option<String>,
    /// The commit it is at.
    pub applied: Option<String>,
    /// The commit it tried last.
    pub attempted: Option<String>,
    /// Commits that it refuses.
    pub quarantined: Vec<Quarantined>,
    /// Whether something was changed on the machine behind Selvedge's back.
    pub drift: bool,
    /// Whether its configuration is what is wanted.
    pub compliance: Compliance,
    /// What runs on it.
    pub versions: Versions,
    /// Its certificate.
    pub certificate: Option<CertificateRef>,
    /// The address it connected from, or empty.
    pub address: String,
    /// How far its clock is ahead (or, below 0, behind) of the orchestrator's, in seconds; 0 if it is right to a minute.
    #[serde(default)]
    pub clock_skew_seconds: i64,
    /// Generation of its reported status.
    pub status_generation: i64,
    /// Rises with each change that a person or program made.
    pub generation: i64,
    /// Status sections; only when one host is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub status: Option<BTreeMap<String, Value>>,
}

/// How far a host is with enrolment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Known beforehand, not seen yet.
    #[default]
    Expected,
    /// Waits to be approved.
    Pending,
    /// Has a certificate.
    Enrolled,
    /// Must not come back.
    Revoked,
}

/// Whether a host is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Connection {
    /// Never was.
    #[default]
    Never,
    /// Beats.
    Online,
    /// Missed two beats.
    Stale,
    /// Missed four.
    Offline,
}

/// Whether a host's configuration is what is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Compliance {
    /// Not told.
    #[default]
    Unknown,
    /// It is.
    Compliant,
    /// It is not.
    NonCompliant,
}

/// A commit that a host refuses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Quarantined {
    /// Commit id.
    pub commit: String,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Since when.
    #[serde(default)]
    pub at: Option<Time>,
}

/// What runs on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Versions {
    /// The host daemon.
    pub selvedge: String,
    /// Linux.
    pub kernel: String,
    /// QEMU.
    pub qemu: String,
    /// Open vSwitch.
    pub ovs: String,
    /// The distribution.
    pub os: String,
}

/// The certificate that a host has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRef {
    /// Serial number, hexadecimal.
    pub serial: String,
    /// When it ends.
    pub not_after: Time,
}

/// What a host reported that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostEvent {
    /// Name of the host.
    pub host: String,
    /// When it happened, by the host's clock.
    pub time: Time,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub kind: String,
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The object in the host's API, as `VirtualMachine/default/web`.
    pub object: String,
}

/// One point of a host's history of use.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsagePoint {
    /// Start of the span that the point stands for.
    pub time: Time,
    /// Share of the processors, 0 to 1.
    pub cpu: f64,
    /// Share of the memory.
    pub memory: f64,
    /// Share of the disk.
    pub disk: f64,
    /// Bytes received in the span.
    pub rx_bytes: i64,
    /// Bytes sent in the span.
    pub tx_bytes: i64,
}

/// A line of the compact list for the map.
pub type GeoRow = (String, String, f64, f64, State);
