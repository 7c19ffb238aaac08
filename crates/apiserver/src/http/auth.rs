//! Who asks, and whether they may.

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    Caller, Status,
    api::{
        MASTERS, SYSTEM,
        roles::{OPERATOR, OWNER, Role, VIEWER},
    },
    tls,
};

use super::Access;

/// The other end of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    /// Who it is, if it has shown a certificate of ours or is on the local socket.
    caller: Option<Caller>,
    /// When the certificate ends.
    not_after: Option<Timestamp>,
}

impl Peer {
    /// The owner of a verified client certificate: its common name is the user, its organisations are the groups.
    pub(crate) fn of_certificate(certificate: Option<&CertificateDer<'_>>) -> Self {
        let Some((_, certificate)) = certificate.and_then(|der| X509Certificate::from_der(der).ok()) else {
            return Self::default();
        };
        let subject = certificate.subject();
        let Some(user) = subject
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok())
        else {
            return Self::default();
        };
        // The daemon's own identities exist only inside it.
        if user.is_empty() || user.starts_with("system:selvedge:") {
            return Self::default();
        }
        let groups = subject
            .iter_organization()
            .filter_map(|o| o.as_str().ok())
            .filter(|group| *group != SYSTEM);
        let mut groups: Vec<String> = groups.map(str::to_owned).collect();
        groups.push("system:authenticated".into());
        let not_after = Timestamp::from_second(certificate.validity().not_after.timestamp()).ok();
        Self {
            caller: Some(Caller {
                user: user.into(),
                groups,
                from: String::new(),
            }),
            not_after,
        }
    }

    /// Root of this machine, on the local socket.
    pub(crate) fn local_admin() -> Self {
        let groups = vec![MASTERS.into(), "system:authenticated".into()];
        Self {
            caller: Some(Caller {
                user: tls::ADMIN.into(),
                groups,
                from: String::new(),
            }),
            not_after: None,
        }
    }

    /// Somebody whom the orchestrator has let in. Only the groups of roles count; the daemon's own identities, the
    /// machine's and the break-glass group can't be had from there.
    pub(crate) fn through_orchestrator(user: &str, groups: &[String], from: &str) -> Self {
        let user = user.trim();
        if user.is_empty() || user.starts_with("system:") || user.chars().any(char::is_control) {
            return Self::default();
        }
        let mut groups: Vec<String> = groups
            .iter()
            .filter(|group| [VIEWER, OPERATOR, OWNER].contains(&group.as_str()))
            .cloned()
            .collect();
        groups.push("system:authenticated".into());
        Self {
            caller: Some(Caller {
                user: user.into(),
                groups,
                from: from.into(),
            }),
            not_after: None,
        }
    }

    /// Whether it has not said who it is.
    pub(crate) fn is_nobody(&self) -> bool {
        self.caller.is_none()
    }

    /// Who it is, unless the certificate has ended meanwhile.
    pub(crate) fn caller(&self, now: Timestamp) -> Option<&Caller> {
        if self.not_after.is_some_and(|end| end < now) {
            None
        } else {
            self.caller.as_ref()
        }
    }
}

/// The refusal of callers that are nobody.
pub(crate) fn unauthorized() -> Status {
    Status::new(
        401,
        "Unauthorized",
        "Unauthorized: show a client certificate of this host (see its admin.kubeconfig)",
    )
}

/// Whether a caller may use the API at all: what exactly is asked about each object later.
pub(crate) fn authorize(caller: &Caller) -> Result<(), Status> {
    if Role::of(caller).is_some() {
        return Ok(());
    }
    Err(Status::new(
        403,
        "Forbidden",
        format!(
            "user {:?} is in none of the groups {MASTERS}, {OWNER}, {OPERATOR}, {VIEWER}",
            caller.user
        ),
    ))
}

/// Whether a caller may use a local route.
pub(crate) fn authorize_route(caller: &Caller, access: Access) -> Result<(), Status> {
    let needed = match access {
        Access::Anyone => return Ok(()),
        Access::Viewer => Role::Viewer,
        Access::Admin => Role::Owner,
    };
    if Role::of(caller) >= Some(needed) {
        return Ok(());
    }
    let group = if needed == Role::Owner { MASTERS } else { VIEWER };
    Err(Status::new(
        403,
        "Forbidden",
        format!("user {:?} is not in the group {group}", caller.user),
    ))
}
