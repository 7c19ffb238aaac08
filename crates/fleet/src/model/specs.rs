//! What people send to make or change things. A PATCH is merged into the current spec as JSON (RFC 7396).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Location, Map, RepositoryAuth, Time, UserKind};
use crate::{Role, Scope};

/// A tenant to make.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TenantSpec {
    /// A DNS label.
    pub name: String,
    /// For people; the name if empty.
    pub display_name: String,
}

/// A person to make.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UserSpec {
    /// What they type at sign-in.
    pub username: String,
    /// For people.
    #[serde(default)]
    pub display_name: String,
    /// E-mail address.
    #[serde(default)]
    pub email: String,
    /// Where the password is checked.
    #[serde(default = "local")]
    pub kind: UserKind,
    /// Whether sign-in is refused.
    #[serde(default)]
    pub disabled: bool,
    /// May make and delete tenants; only such a one can say so.
    #[serde(default)]
    pub platform_admin: bool,
    /// A new password; never comes out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

fn local() -> UserKind {
    UserKind::Local
}

/// A binding to make.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BindingSpec {
    /// The user's name.
    pub user: String,
    /// What they may do.
    pub role: Role,
    /// Where.
    pub scope: Scope,
}

/// A token to make.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenSpec {
    /// For people; unique.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Where; everywhere if nothing is said.
    #[serde(default = "everywhere")]
    pub scope: Scope,
    /// When it ends by itself.
    #[serde(default)]
    pub expires_at: Option<Time>,
}

fn everywhere() -> Scope {
    Scope::All
}

/// A repository to register.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RepositorySpec {
    /// A DNS label.
    pub name: String,
    /// What hosts fetch from; the server fills it for hosted ones.
    pub url: String,
    /// The branch that sites follow when they name none; `main` if empty.
    pub branch: String,
    /// Whether the orchestrator itself serves it.
    pub hosted: bool,
    /// How hosts prove who they are to it.
    pub auth: RepositoryAuth,
    /// What they prove it with; sealed, never comes out. Null takes them away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// Certificates to trust, PEM.
    pub ca_pem: String,
    /// SSH host keys to trust.
    pub known_hosts: String,
}

/// Credentials of a repository. `{:?}` shows none of it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Credentials {
    /// User name (`basic`).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// Password (`basic`).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
    /// Token (`bearer`).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub bearer: String,
    /// Private key (`ssh`).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub identity: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// A site to make.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SiteSpec {
    /// A DNS label.
    pub name: String,
    /// For people; the name if empty.
    pub display_name: String,
    /// Labels.
    pub labels: Map,
    /// Where it is.
    pub location: Location,
    /// Substituted in the manifests of its hosts.
    pub variables: Map,
    /// Values kept sealed; they never come out. In a PATCH, null takes one away and those not named stay.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secret_variables: BTreeMap<String, Option<String>>,
    /// Name or id of its repository.
    pub repository: Option<String>,
    /// Folder in the repository.
    pub path: String,
    /// Branch, if not the repository's.
    pub branch: Option<String>,
    /// Name of its rollout policy.
    pub policy: Option<String>,
}

/// What of a host can be changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HostSpec {
    /// A DNS label.
    pub name: String,
    /// Name or id of its site.
    pub site: Option<String>,
    /// Labels.
    pub labels: Map,
}

/// A host that is known beforehand. At least one of serial, uuid and macs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ExpectedSpec {
    /// A DNS label; made from what is known if empty.
    pub name: String,
    /// Name or id of its site.
    pub site: String,
    /// Serial number of the machine.
    pub serial: String,
    /// UUID of the machine's firmware.
    pub uuid: String,
    /// MAC addresses of its interfaces.
    pub macs: Vec<String>,
    /// Labels.
    pub labels: Map,
}

/// An activation key to make.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ActivationKeySpec {
    /// For people.
    pub name: String,
    /// Name or id of the site that its hosts get.
    pub site: Option<String>,
    /// How often it may be used; once if nothing is said.
    pub max_uses: Option<i64>,
    /// When it ends by itself.
    pub expires_at: Option<Time>,
}
