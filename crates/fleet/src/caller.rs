//! Who asks, and what they may.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{RefOr, Schema};

use crate::db::Sql;
use crate::model::{ActorKind, Map};
use crate::{Error, Selector};

/// What one may do. A later role may all that an earlier one may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// Reads; never secrets.
    Viewer,
    /// Runs sites: sites, signals, rollouts, plans, consoles, approval of hosts.
    Operator,
    /// Runs the tenant: people, tokens, repositories, keys, policies, revoking, deleting.
    Owner,
}

impl Role {
    /// As in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Owner => "owner",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a role counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In the whole tenant.
    All,
    /// At one site, by name.
    Site(String),
    /// At sites with these labels.
    Selector(Selector),
}

impl Scope {
    /// Whether a site is in it.
    #[must_use]
    pub fn contains(&self, site: &str, labels: &Map) -> bool {
        match self {
            Self::All => true,
            Self::Site(name) => name == site,
            Self::Selector(selector) => selector.matches(labels),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScopeJson {
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    all: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    site: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    selector: Option<String>,
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ScopeJson {
            all: *self == Self::All,
            site: match self {
                Self::Site(name) => Some(name.clone()),
                _ => None,
            },
            selector: match self {
                Self::Selector(selector) => Some(selector.to_string()),
                _ => None,
            },
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = ScopeJson::deserialize(deserializer)?;
        match (json.all, json.site, json.selector) {
            (true, None, None) => Ok(Self::All),
            (false, Some(site), None) => Ok(Self::Site(site)),
            (false, None, Some(selector)) => Selector::parse(&selector)
                .map(Self::Selector)
                .map_err(serde::de::Error::custom),
            _ => Err(serde::de::Error::custom(
                "a scope is one of {\"all\":true}, {\"site\":NAME}, {\"selector\":TEXT}",
            )),
        }
    }
}

impl utoipa::PartialSchema for Scope {
    fn schema() -> RefOr<Schema> {
        let one = |name: &str, of: Type| {
            ObjectBuilder::new()
                .schema_type(Type::Object)
                .property(name, ObjectBuilder::new().schema_type(of))
                .required(name)
        };
        OneOfBuilder::new()
            .item(one("all", Type::Boolean))
            .item(one("site", Type::String))
            .item(one("selector", Type::String))
            .into()
    }
}

impl ToSchema for Scope {
    fn name() -> std::borrow::Cow<'static, str> {
        "Scope".into()
    }
}

/// A role and where it counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// What.
    pub role: Role,
    /// Where.
    pub scope: Scope,
}

/// Who asks: each method of the fleet takes one first, so that neither the tenant nor the audit is forgotten.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Id of the tenant that the request is about.
    pub tenant: String,
    /// User name, token name, host name, or the name of the task.
    pub actor: String,
    /// What kind of actor.
    pub kind: ActorKind,
    /// What they may, and where.
    pub grants: Vec<Grant>,
    /// The address it came from.
    pub from: String,
    /// May make and delete tenants.
    pub platform_admin: bool,
}

impl Caller {
    /// The orchestrator itself, at work in a tenant; may all.
    #[must_use]
    pub fn system(tenant: &str, task: &str) -> Self {
        Self {
            tenant: tenant.to_owned(),
            actor: format!("system:{task}"),
            kind: ActorKind::System,
            grants: vec![Grant {
                role: Role::Owner,
                scope: Scope::All,
            }],
            from: String::new(),
            platform_admin: true,
        }
    }

    /// A person with one grant; for tests and simple callers.
    #[must_use]
    pub fn user(tenant: &str, name: &str, role: Role, scope: Scope) -> Self {
        Self {
            tenant: tenant.to_owned(),
            actor: name.to_owned(),
            kind: ActorKind::User,
            grants: vec![Grant { role, scope }],
            from: String::new(),
            platform_admin: false,
        }
    }

    /// The highest role in the whole tenant.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        self.grants
            .iter()
            .filter(|g| g.scope == Scope::All)
            .map(|g| g.role)
            .max()
    }

    /// The highest role at a site.
    #[must_use]
    pub fn role_at(&self, site: &str, labels: &Map) -> Option<Role> {
        self.grants
            .iter()
            .filter(|g| g.scope.contains(site, labels))
            .map(|g| g.role)
            .max()
    }

    /// The highest role that the caller has anywhere.
    #[must_use]
    pub fn role_anywhere(&self) -> Option<Role> {
        self.grants.iter().map(|g| g.role).max()
    }

    /// Refuses who has not at least this role in the whole tenant.
    pub fn require(&self, need: Role) -> Result<(), Error> {
        if self.role() >= Some(need) {
            Ok(())
        } else {
            Err(Error::Denied { need })
        }
    }

    /// Refuses who has not at least this role at least somewhere: for what is the tenant's but has no place.
    pub fn require_anywhere(&self, need: Role) -> Result<(), Error> {
        if self.role_anywhere() >= Some(need) {
            Ok(())
        } else {
            Err(Error::Denied { need })
        }
    }

    /// Refuses who may not do it at this site: "not found" if they can't even see it.
    pub fn require_at(&self, need: Role, site: &str, labels: &Map) -> Result<(), Error> {
        match self.role_at(site, labels) {
            None => Err(Error::not_found("site", site)),
            Some(role) if role >= need => Ok(()),
            Some(_) => Err(Error::Denied { need }),
        }
    }

    /// Refuses who may not make and delete tenants.
    pub fn require_platform(&self) -> Result<(), Error> {
        if self.platform_admin {
            Ok(())
        } else {
            Err(Error::Forbidden {
                message: "this is for administrators of the platform".to_owned(),
            })
        }
    }

    /// Adds to `sql` the condition that the site row `alias` is the caller's to see: ` AND (…)`, or nothing.
    ///
    /// `alias` must have the columns of `site`. Joins that may have no site row (hosts not placed yet) fail the
    /// condition, so that only callers for the whole tenant see those.
    pub fn restrict(&self, need: Role, alias: &str, sql: &mut Sql) {
        let grants: Vec<&Grant> = self.grants.iter().filter(|g| g.role >= need).collect();
        if grants.iter().any(|g| g.scope == Scope::All) {
            return;
        }
        sql.push(" AND (1=0");
        for grant in grants {
            sql.push(" OR ");
            match &grant.scope {
                Scope::All => sql.push("1=1"),
                Scope::Site(name) => sql.push(&format!("{alias}.name=")).bind(name.as_str()),
                Scope::Selector(selector) => {
                    sql.push(&format!("({alias}.id IS NOT NULL"));
                    selector.condition("site_label", "site", alias, sql);
                    sql.push(")")
                }
            };
        }
        sql.push(")");
    }
}
