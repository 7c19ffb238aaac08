use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Time;
use crate::{Role, Scope};

/// An organisation, fully apart from all others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tenant {
    /// Id.
    pub id: String,
    /// A DNS label, unique.
    pub name: String,
    /// For people.
    pub display_name: String,
    /// When it was made.
    pub created_at: Time,
    /// Rises with each change.
    pub generation: i64,
}

/// A person who may sign in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// Id.
    pub id: String,
    /// What they type at sign-in; unique in the tenant.
    pub username: String,
    /// For people.
    pub display_name: String,
    /// E-mail address, or empty.
    pub email: String,
    /// Where the password is checked.
    pub kind: UserKind,
    /// Whether a second factor is asked for.
    pub totp: bool,
    /// Whether sign-in is refused.
    pub disabled: bool,
    /// May make and delete tenants.
    pub platform_admin: bool,
    /// The last sign-in.
    pub last_login_at: Option<Time>,
    /// What they may do.
    pub bindings: Vec<Binding>,
    /// Rises with each change.
    pub generation: i64,
}

/// Where a person's password is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum UserKind {
    /// Here.
    Local,
    /// At an OpenID Connect provider.
    Oidc,
}

/// What one person may do, and where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Binding {
    /// Id.
    pub id: String,
    /// The user's name.
    pub user: String,
    /// What they may do.
    pub role: Role,
    /// Where.
    pub scope: Scope,
    /// Rises with each change.
    pub generation: i64,
}

/// A token for programs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// Id.
    pub id: String,
    /// For people.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Where.
    pub scope: Scope,
    /// When it ends by itself.
    pub expires_at: Option<Time>,
    /// When it was used last, to about a minute.
    pub last_used_at: Option<Time>,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: Time,
    /// The token itself; only in the answer that makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// One line of the audit log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// Place in the tenant's log, from 1 without gaps.
    pub seq: i64,
    /// When.
    pub time: Time,
    /// Who.
    pub actor: String,
    /// What kind of who.
    pub actor_kind: ActorKind,
    /// The address it came from.
    pub from: String,
    /// What, as `site.update`.
    pub action: String,
    /// What it was done to.
    pub object: ObjectRef,
    /// The object before, without secrets.
    pub before: Option<Value>,
    /// The object after, without secrets.
    pub after: Option<Value>,
    /// SHA-256 over this line and the hash of the line before, hexadecimal: a changed or missing line shows.
    pub hash: String,
}

/// What kind of actor did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum ActorKind {
    /// A person.
    User,
    /// A program with a token.
    Token,
    /// A host.
    Host,
    /// The orchestrator itself.
    System,
}

/// Names an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// Kind, as `site`.
    pub kind: String,
    /// Id.
    pub id: String,
    /// Name at that time.
    pub name: String,
}

/// A key that lets hosts enrol without approval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActivationKey {
    /// Id.
    pub id: String,
    /// For people.
    pub name: String,
    /// The site that hosts enrolled with it get.
    pub site: Option<String>,
    /// How often it was used.
    pub uses: i64,
    /// How often it may be.
    pub max_uses: i64,
    /// When it ends by itself.
    pub expires_at: Option<Time>,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: Time,
    /// The key itself; only in the answer that makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}
