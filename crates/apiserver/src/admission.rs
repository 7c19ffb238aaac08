//! Rules for writes beside those of the kinds, and the record of what was refused or done under break-glass.
//!
//! | module | what it is |
//! |---|---|
//! | [`git`] | only Git writes what Git owns |
//! | [`audit`] | the audit log: one JSON object a line |

pub mod audit;
pub mod git;

use async_trait::async_trait;
use kinds::object::{Gvr, Object};

pub use self::{
    audit::{Audit, Decision, FileAudit, NoAudit, Record},
    git::GitOwned,
};
use crate::{
    Api, Caller, Status,
    api::{
        BREAK_GLASS, Target,
        roles::{OPERATOR, OWNER, VIEWER},
    },
};

/// The groups of those who come through the orchestrator: what they write is recorded.
const REMOTE: [&str; 3] = [VIEWER, OPERATOR, OWNER];

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// A new object.
    Create,
    /// An object is replaced.
    Update,
    /// An object is patched.
    Patch,
    /// A configuration is applied.
    Apply,
    /// An object is deleted.
    Delete,
    /// All objects of a selection are deleted. Each is asked about as a `Delete` too.
    DeleteCollection,
}

impl Verb {
    /// As in an authorization rule: an apply is a patch.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch | Self::Apply => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }
}

/// A write that is about to be done: everything is checked but this.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// For what.
    pub verb: Verb,
    /// Of which resource, in the version that the request speaks.
    pub gvr: &'a Gvr,
    /// Empty for kinds of cluster scope.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
    /// What is stored; none for a new object.
    pub old: Option<&'a Object>,
    /// What will be stored; none for a deletion.
    pub new: Option<&'a Object>,
    /// `status`, or none.
    pub subresource: Option<&'a str>,
    /// Whether nothing will be stored.
    pub dry_run: bool,
}

/// A rule for writes.
#[async_trait]
pub trait Admission: Send + Sync + 'static {
    /// Lets a write pass, with warnings for the client, or refuses it.
    async fn check(&self, api: &Api, request: &Request<'_>) -> Result<Vec<String>, Status>;
}

impl Api {
    /// Asks all rules, and records what is to be recorded.
    pub(crate) async fn admit(
        &self,
        served: &crate::api::Served<'_>,
        request: &Request<'_>,
    ) -> Result<Vec<String>, Status> {
        let mut warnings = Vec::new();
        let mut refusal = git::only_owners_steer(served.kind, request).err();
        for rule in &*self.admission {
            if refusal.is_some() {
                break;
            }
            match rule.check(self, request).await {
                Ok(more) => warnings.extend(more),
                Err(status) => refusal = Some(status),
            }
        }
        if let Some(status) = refusal {
            self.record(served, request, Decision::Refused, &status.message)
                .await;
            return Err(status);
        }
        if request.dry_run {
            return Ok(warnings);
        }
        if request.caller.is_in(BREAK_GLASS) {
            self.record(served, request, Decision::BreakGlass, "").await;
        } else if REMOTE.iter().any(|group| request.caller.is_in(group)) {
            self.record(served, request, Decision::Allowed, "").await;
        }
        Ok(warnings)
    }

    /// Records that somebody opened a console, a screen or a log of this host; `what` is as `serial` or `vnc`.
    pub async fn record_access(&self, caller: &Caller, what: &str, namespace: &str, name: &str) {
        let record = Record::access(self.clock.now(), caller, what, namespace, name);
        self.audit.record(record).await;
    }

    /// Records a write that the caller may not do, and gives the refusal back.
    pub(crate) async fn refused(
        &self,
        caller: &Caller,
        served: &crate::api::Served<'_>,
        target: Target<'_>,
        verb: Verb,
        status: Status,
    ) -> Status {
        let request = Request {
            caller,
            verb,
            gvr: target.gvr,
            namespace: target.namespace,
            name: target.name,
            old: None,
            new: None,
            subresource: target.subresource,
            dry_run: false,
        };
        self.record(served, &request, Decision::Refused, &status.message)
            .await;
        status
    }

    async fn record(
        &self,
        served: &crate::api::Served<'_>,
        request: &Request<'_>,
        decision: Decision,
        message: &str,
    ) {
        let record = Record::new(self.clock.now(), served.kind, request, decision, message);
        self.audit.record(record).await;
    }
}
