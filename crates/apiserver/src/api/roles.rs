//! What the members of each group may. Pure.
//!
//! | group | may |
//! |---|---|
//! | `system:masters`, `selvedge:owner`, the daemon itself | everything |
//! | `selvedge:operator` | what a viewer may; write objects, but not in the system namespaces, nor what decides what else is applied; Secrets outside the system namespaces |
//! | `selvedge:viewer` | get, list and watch everything but Secrets |
//!
//! Whether Git owns an object is another question, asked after this one (see [`crate::admission::GitOwned`]).
//!
//! Why operators may not write GitRepositories and Kustomizations: the daemon applies with its own rights what they
//! name, and signs in with the Secrets that they name. Who could write one could do everything. All that an operator may
//! change of them is the annotation that asks for a run.

use kinds::object::Gvr;

use super::{Caller, MASTERS, SYSTEM};

/// The group whose members may look.
pub const VIEWER: &str = "selvedge:viewer";
/// The group whose members may do the daily work.
pub const OPERATOR: &str = "selvedge:operator";
/// The group whose members may do everything, as masters.
pub const OWNER: &str = "selvedge:owner";

/// Namespaces that hold the host's own objects.
pub const SYSTEM_NAMESPACES: [&str; 4] = ["kube-system", "esx-system", "flux-system", "kube-public"];

/// What a caller may, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// May look.
    Viewer,
    /// May do the daily work.
    Operator,
    /// May do everything.
    Owner,
}

impl Role {
    /// The highest role that the caller's groups give; none for others.
    #[must_use]
    pub fn of(caller: &Caller) -> Option<Self> {
        [
            (MASTERS, Self::Owner),
            (SYSTEM, Self::Owner),
            (OWNER, Self::Owner),
            (OPERATOR, Self::Operator),
            (VIEWER, Self::Viewer),
        ]
        .into_iter()
        .filter(|(group, _)| caller.is_in(group))
        .map(|(_, role)| role)
        .max()
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: &'a str,
    /// The resource.
    pub gvr: &'a Gvr,
    /// Empty for kinds of cluster scope, and for all namespaces.
    pub namespace: &'a str,
    /// Empty for a collection.
    pub name: &'a str,
    /// `status`, or none.
    pub subresource: Option<&'a str>,
}

/// Lets pass or says why not, in words that follow "…, because ".
///
/// # Errors
/// The reason; empty when there is none but that no role allows it.
pub fn judge(caller: &Caller, asked: &Attributes<'_>) -> Result<(), &'static str> {
    let Some(role) = Role::of(caller) else {
        return Err("");
    };
    if role == Role::Owner {
        return Ok(());
    }
    let reads = matches!(asked.verb, "get" | "list" | "watch");
    let secret = asked.gvr.group.is_empty() && asked.gvr.plural == "secrets";
    if role == Role::Viewer {
        return match (reads, secret) {
            (true, false) => Ok(()),
            (true, true) => Err("viewers don't see Secrets"),
            (false, _) => Err("viewers may not write"),
        };
    }
    let in_system = SYSTEM_NAMESPACES.contains(&asked.namespace);
    if secret && asked.namespace.is_empty() {
        return Err("the Secrets of the system namespaces are among them; ask for one namespace");
    }
    if secret && in_system {
        return Err("Secrets of the system namespaces are for owners only");
    }
    if reads {
        return Ok(());
    }
    if is_steering(asked.gvr) {
        // What of it changes is looked at when the change is known: see `Api::admit`.
        return match (asked.verb, asked.subresource) {
            ("update" | "patch", None) => Ok(()),
            _ => Err("only owners may write what decides what is applied"),
        };
    }
    if asked.subresource == Some("status") {
        return Err("the status is written by the host");
    }
    let is_system_namespace = asked.gvr.group.is_empty()
        && asked.gvr.plural == "namespaces"
        && (SYSTEM_NAMESPACES.contains(&asked.name) || asked.verb == "deletecollection");
    if in_system || is_system_namespace {
        return Err("the system namespaces are for owners only");
    }
    // Over all namespaces at once the system's are among them.
    if asked.verb == "deletecollection" && asked.namespace.is_empty() {
        return Err("the system namespaces are among them; ask for one namespace");
    }
    Ok(())
}

/// Whether objects of a resource decide what else the host applies, and with what Secrets.
#[must_use]
pub fn is_steering(gvr: &Gvr) -> bool {
    gvr.group.ends_with(".toolkit.fluxcd.io")
}

#[cfg(test)]
mod tests;
