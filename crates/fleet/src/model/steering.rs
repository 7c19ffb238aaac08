use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Time;
use crate::rollout::Rules;
pub use crate::rollout::{Gate, Turn, Wave, Window};

/// How a new commit reaches the sites that name this policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// Id.
    pub id: String,
    /// A DNS label, unique in the tenant.
    pub name: String,
    /// Waves, window, gate and failure budget.
    #[serde(flatten)]
    pub rules: Rules,
    /// Rises with each change.
    pub generation: i64,
}

/// What makes a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicySpec {
    /// A DNS label, unique in the tenant.
    pub name: String,
    /// Waves, window, gate and failure budget.
    #[serde(flatten)]
    pub rules: Rules,
}

/// A commit on its way to the sites of a policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Id.
    pub id: String,
    /// Number in the tenant, from 1.
    pub number: i64,
    /// Name of the repository.
    pub repository: String,
    /// What is rolled out.
    pub commit: String,
    /// First line of its message.
    pub subject: String,
    /// What the sites were at before.
    pub previous: Option<String>,
    /// Name of the policy.
    pub policy: String,
    /// How far it is.
    pub state: RolloutState,
    /// Why it is there.
    pub reason: String,
    /// Its waves.
    pub waves: Vec<WaveProgress>,
    /// When it was made.
    pub created_at: Time,
    /// Who made it.
    pub created_by: String,
    /// Rises with each change.
    pub generation: i64,
}

/// A site in a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutSite {
    /// Name of the site.
    pub site: String,
    /// Name of its wave.
    pub wave: String,
    /// `waiting`, `told`, `succeeded`, `failed`, `reverting`, `reverted`, `unchanged` (the
    /// commit changes nothing there); `pending` while it can't be reached.
    pub state: String,
    /// Why it failed.
    pub reason: String,
    /// Since when.
    pub at: Time,
}

/// How far a rollout is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum RolloutState {
    /// Not started.
    #[default]
    Pending,
    /// A person must start the next wave.
    AwaitingApproval,
    /// Going on.
    Running,
    /// Stopped by a person or by its budget.
    Halted,
    /// Going back.
    Reverting,
    /// All sites that are there have it.
    Succeeded,
    /// Gone back.
    Reverted,
    /// A newer commit took its place.
    Superseded,
}

/// How far a wave is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WaveProgress {
    /// Name.
    pub name: String,
    /// How far.
    pub state: RolloutState,
    /// Sites in it.
    pub total: i64,
    /// Sites that were told the commit.
    pub told: i64,
    /// Sites that have it and pass the gate.
    pub succeeded: i64,
    /// Sites that failed with it.
    pub failed: i64,
    /// Sites that were not there; they catch up.
    pub pending: i64,
    /// Sites of the wave for which the commit changes nothing: they are at it without a turn. Not in `total`.
    #[serde(default)]
    pub unchanged: i64,
    /// The sites by name, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sites: Option<Vec<String>>,
}

/// Something that a person should know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// Id.
    pub id: String,
    /// What makes two of them one.
    pub key: String,
    /// How bad.
    pub severity: Severity,
    /// Name of the site.
    pub site: Option<String>,
    /// Name of the host.
    pub host: Option<String>,
    /// One line.
    pub title: String,
    /// More.
    pub message: String,
    /// How often it came.
    pub count: i64,
    /// First time.
    pub first_at: Time,
    /// Last time.
    pub last_at: Time,
    /// When it went by itself.
    pub resolved_at: Option<Time>,
    /// Who has seen it.
    pub acknowledged_by: Option<String>,
}

/// Where alerts are told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Channel {
    /// Id.
    pub id: String,
    /// A DNS label, unique in the tenant.
    pub name: String,
    /// `webhook` or `email`.
    pub kind: ChannelKind,
    /// A webhook's address.
    pub url: String,
    /// Addresses of people.
    pub to: Vec<String>,
    /// What is less bad is not told.
    pub severity: Severity,
    /// Whether nothing is told.
    pub disabled: bool,
    /// What a webhook's messages are signed with; only in the answer that makes it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Why the last message was not delivered; empty when it was.
    pub failure: String,
    /// When that was.
    pub failed_at: Option<Time>,
    /// When a message was delivered last.
    pub told_at: Option<Time>,
    /// Rises with each change.
    pub generation: i64,
}

/// What makes a channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ChannelSpec {
    /// A DNS label, unique in the tenant.
    pub name: String,
    /// `webhook` or `email`.
    pub kind: ChannelKind,
    /// A webhook's address.
    pub url: String,
    /// Addresses of people.
    pub to: Vec<String>,
    /// What is less bad is not told.
    pub severity: Severity,
    /// Whether nothing is told.
    pub disabled: bool,
    /// What a webhook's messages are signed with, 16 characters at least; made up if there is none. Never comes out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// How a channel tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum ChannelKind {
    /// A POST, signed.
    #[default]
    Webhook,
    /// E-mail.
    Email,
}

/// How bad an alert is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Look soon.
    #[default]
    Warning,
    /// Look now.
    Critical,
}

/// What a commit would change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Id.
    pub id: String,
    /// Name of the repository.
    pub repository: String,
    /// Commit before.
    pub from: String,
    /// Commit after.
    pub to: String,
    /// How far the planning is.
    pub state: PlanState,
    /// Why it failed.
    pub message: String,
    /// Sums.
    pub totals: PlanTotals,
    /// One entry for each site that would change or can't be planned.
    pub sites: Vec<SitePlan>,
    /// When it was asked for.
    pub created_at: Time,
    /// Who asked.
    pub created_by: String,
}

/// How far a planning is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum PlanState {
    /// Going on.
    #[default]
    Running,
    /// Ready.
    Done,
    /// Not possible.
    Failed,
}

/// Sums of a plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PlanTotals {
    /// Sites looked at.
    pub sites: i64,
    /// Sites that would change.
    pub changed: i64,
    /// Sites that can't take the commit.
    pub blocked: i64,
    /// Sites by impact.
    pub impact: ImpactCount,
    /// Objects by action.
    pub objects: ActionCount,
}

/// Sites by impact.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ImpactCount {
    /// Nobody notices.
    pub none: i64,
    /// Work on the host stops for a moment.
    pub maintenance: i64,
    /// The host restarts.
    pub reboot: i64,
}

/// Objects by action.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ActionCount {
    /// New ones.
    pub create: i64,
    /// Changed ones.
    pub update: i64,
    /// Ones that go.
    pub delete: i64,
}

/// A plan to make.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PlanSpec {
    /// Name of the repository.
    pub repository: String,
    /// A branch or tag; or
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// a commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// For the sites that follow this branch; the repository's own if it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
}

/// What a commit would change at one site.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SitePlan {
    /// Name of the site.
    pub site: String,
    /// `none`, `maintenance` or `reboot`: the worst of its objects.
    pub impact: String,
    /// Objects that change.
    pub objects: Vec<ObjectPlan>,
    /// Why it can't be planned, or can't take the commit.
    pub errors: Vec<String>,
    /// What the answer rests on, where that is not what was reported, and what is worth knowing.
    pub notes: Vec<String>,
    /// All its objects that change, counted.
    pub count: ActionCount,
    /// How many of them are not listed, because there are too many.
    pub more: i64,
}

/// What a commit would change in one object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectPlan {
    /// `create`, `update` or `delete`.
    pub action: String,
    /// Kind.
    pub kind: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `none`, `maintenance` or `reboot`.
    pub impact: String,
    /// Fields that change.
    pub fields: Vec<FieldPlan>,
    /// How many more change than are listed.
    #[serde(default)]
    pub more_fields: i64,
}

/// A field that changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldPlan {
    /// Path, as `/spec/replicas`.
    pub path: String,
    /// Before.
    pub before: Option<Value>,
    /// After.
    pub after: Option<Value>,
}

/// What needs a person now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    /// Sites, counted.
    pub sites: StateCount,
    /// Hosts, counted.
    pub hosts: ConnectionCount,
    /// Rollouts that go on.
    pub rollouts: Vec<Rollout>,
    /// The newest open alerts.
    pub alerts: Vec<Alert>,
    /// What needs a look, worst first.
    pub attention: Vec<Attention>,
    /// How many sites are at which commit.
    pub commits: Vec<CommitCount>,
}

/// Sites by state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StateCount {
    /// All.
    pub total: i64,
    /// By state.
    pub by_state: BTreeMap<String, i64>,
}

/// Hosts by connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionCount {
    /// All.
    pub total: i64,
    /// By connection.
    pub by_connection: BTreeMap<String, i64>,
}

/// One thing that needs a look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attention {
    /// Kind of the object, as `site`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The one sentence.
    pub reason: String,
    /// Since when.
    pub since: Time,
}

/// How many sites are at a commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommitCount {
    /// Name of the repository.
    pub repository: String,
    /// Commit id.
    pub commit: String,
    /// Sites.
    pub sites: i64,
}
