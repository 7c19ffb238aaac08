//! How machines become hosts.
//!
//! ```text
//!   POST /enroll/v1/requests
//!      │  the key is one we know        ──▶ the same answer again (an answer may be lost on its way)
//!      │  an activation key             ──▶ used up in the same transaction; enrolled
//!      │  serial, UUID, MAC expected    ──▶ enrolled, once
//!      └  none of these                 ──▶ pending: waits for `approve`; GET with a proof of the key asks again
//!
//!   expected ──▶ enrolled ──▶ revoked        pending ──approve──▶ enrolled
//! ```
//!
//! Deciding, using up the key, the host's row, its certificate's record and the audit line are one transaction. On
//! SQLite many of them share a commit, which is what makes thousands of hosts that power on together cheap.

mod decide;
mod issue;
mod keys;

use std::collections::BTreeMap;

use identity::csr::Csr;
use identity::enrol::{Answer, Granted, Renewal, Request, Waiting};
use identity::proof::Nonces;
use identity::verify::Peer;
use serde::Serialize;
use utoipa::ToSchema;

pub use keys::Keys;

use crate::db::Tx;
use crate::hosts::{Standing, locked, object, placed};
use crate::model::{ActorKind, Host, Phase, Time};
use crate::page::{Page, Query};
use crate::sites::summary;
use crate::{Caller, Error, Fleet, Kind, Op, Role, args};

/// When a host that waits is to ask again.
const POLL: u64 = 15;

/// See [`Fleet::enrolment`].
#[derive(Clone, Copy, Debug)]
pub struct Enrolment<'a>(pub(crate) &'a Fleet);

impl Fleet {
    /// How machines become hosts.
    #[must_use]
    pub fn enrolment(&self) -> Enrolment<'_> {
        Enrolment(self)
    }
}

/// A host that waits to be approved.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PendingHost {
    /// What is known of it.
    #[serde(flatten)]
    pub host: Host,
    /// SHA-256 of its key: the machine's console shows the same.
    pub fingerprint: String,
    /// When it asked first.
    pub requested_at: Time,
}

fn forbidden(message: &str) -> Error {
    Error::Forbidden {
        message: message.to_owned(),
    }
}

fn host_caller(tenant: &str, host: &str, from: &str) -> Caller {
    Caller {
        actor: host.to_owned(),
        kind: ActorKind::Host,
        from: from.to_owned(),
        platform_admin: false,
        grants: Vec::new(),
        ..Caller::system(tenant, "")
    }
}

impl Enrolment<'_> {
    /// `POST /enroll/v1/requests`: lets a machine in, or has it wait.
    pub async fn request(&self, request: &Request, from: &str) -> Result<Answer, Error> {
        let csr = &Csr::parse(&request.csr).map_err(|e| Error::invalid("csr", e.to_string()))?;
        let machine = &decide::Machine::of(request)?;
        let this = *self;
        let attempt = async || {
            self.0
                .db()
                .write(|tx| {
                    Box::pin(async move {
                        let decided = decide::decide(tx, machine, csr, from).await?;
                        match &decided {
                            decide::Decided::Waits { .. } => Ok((decided, None)),
                            decide::Decided::In { tenant, host, key } => {
                                let granted = this.issue(tx, tenant, host, csr).await?;
                                if let Some(key) = key {
                                    decide::use_up(tx, key).await?;
                                }
                                Ok((decided, Some(granted)))
                            }
                        }
                    })
                })
                .await
        };
        let mut decided = attempt().await;
        for _ in 0..3 {
            match &decided {
                // The same machine twice at once, or two of the same name: seen anew, there is no conflict.
                Err(Error::Conflict { .. }) => {}
                Err(error) if crate::db::is_unique(error) => {}
                _ => break,
            }
            decided = attempt().await;
        }
        let decided = decided?;
        match decided {
            (decide::Decided::In { tenant, .. }, Some(granted)) => Ok(Answer::Granted(Box::new(
                self.with_assignment(&tenant, granted).await?,
            ))),
            (decide::Decided::Waits { request } | decide::Decided::In { host: request, .. }, _) => {
                Ok(Answer::Waiting(Waiting { request, poll: POLL }))
            }
        }
    }

    /// `GET /enroll/v1/requests/ID`: what became of a request, for who has its key.
    pub async fn poll(&self, id: &str, proof: &str) -> Result<Answer, Error> {
        let unknown = || Error::not_found("request", id);
        let row = self
            .0
            .db()
            .row(
                "SELECT e.tenant,e.host,e.csr,h.phase FROM enrolment e \
                 LEFT JOIN host h ON h.tenant=e.tenant AND h.id=e.host WHERE e.id=$1",
                args![id],
            )
            .await?
            .ok_or_else(unknown)?;
        let csr = &Csr::parse(row.str(2)).map_err(|_| unknown())?;
        identity::proof::check_request(csr.public_key(), id, proof).map_err(|_| unknown())?;
        match row.str(3) {
            "pending" => Ok(Answer::Waiting(Waiting {
                request: id.to_owned(),
                poll: POLL,
            })),
            "enrolled" => {
                let (tenant, host) = (row.str(0), row.str(1));
                let this = *self;
                let granted = self
                    .0
                    .db()
                    .write(|tx| Box::pin(async move { this.issue(tx, tenant, host, csr).await }))
                    .await?;
                Ok(Answer::Granted(Box::new(
                    self.with_assignment(tenant, granted).await?,
                )))
            }
            _ => Err(forbidden("this machine was turned away")),
        }
    }

    /// `GET /enroll/v1/nonce`.
    pub fn nonce(&self) -> Result<String, Error> {
        self.nonces().give(self.0.clock()).map_err(|e| Error::Identity {
            what: "making a nonce",
            source: Box::new(e),
        })
    }

    fn nonces(&self) -> Nonces {
        Nonces::new(&self.0.master().derive("enrol-nonce"))
    }

    /// `POST /enroll/v1/renew`: a new certificate for a host whose old one (expired or not) was checked: `peer` is what
    /// `ClientVerifier::check_expired` said of it.
    pub async fn renew(&self, peer: &Peer, renewal: &Renewal, from: &str) -> Result<Granted, Error> {
        let refuse = |_| forbidden("the renewal does not prove that it comes from the certificate's holder");
        self.nonces()
            .check(&renewal.nonce, self.0.clock())
            .map_err(|_| forbidden("the nonce is too old or not ours: ask for another"))?;
        identity::proof::check_renewal(peer, &renewal.nonce, &renewal.csr, &renewal.proof).map_err(refuse)?;
        let csr = &Csr::parse(&renewal.csr).map_err(|e| Error::invalid("csr", e.to_string()))?;
        match self
            .0
            .hosts()
            .by_certificate(&peer.tenant, &peer.host, &peer.serial)
            .await?
        {
            Standing::Known { .. } => {}
            Standing::Revoked => return Err(forbidden("this host was revoked")),
            // Deleted, or the database is older than the host: it may enrol anew with the same key.
            Standing::Unknown => return Err(Error::not_found("host", &peer.host)),
        }
        let this = *self;
        let granted = self
            .0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    // Held, so that a revocation that comes now is before or after it.
                    let held = locked(tx, &peer.tenant, &peer.host).await?;
                    if held.host.phase != Phase::Enrolled {
                        return Err(forbidden("this host was revoked"));
                    }
                    let caller = host_caller(&peer.tenant, &held.host.name, from);
                    tx.audit(
                        &caller,
                        "host.renew",
                        object(&held.host),
                        None::<&()>,
                        None::<&()>,
                    );
                    this.issue(tx, &peer.tenant, &peer.host, csr).await
                })
            })
            .await?;
        self.with_assignment(&peer.tenant, granted).await
    }

    async fn with_assignment(&self, tenant: &str, mut granted: Granted) -> Result<Granted, Error> {
        granted.assignment = match self.0.assignments().of(tenant, &granted.host_id).await? {
            Some(numbered) => serde_json::to_value(numbered.assignment).ok(),
            None => None,
        };
        Ok(granted)
    }

    /// Hosts that wait to be approved.
    pub async fn pending(&self, caller: &Caller, query: &Query) -> Result<Page<PendingHost>, Error> {
        caller.require(Role::Viewer)?;
        let query = Query {
            state: Some("pending".to_owned()),
            ..query.clone()
        };
        let page = self.0.hosts().list(caller, &query).await?;
        let mut sql = crate::db::Sql::new("SELECT host,key_hash,created_at FROM enrolment WHERE tenant=");
        sql.bind(caller.tenant.as_str()).push(" AND host IN ");
        sql.list(page.items.iter().map(|host| host.id.as_str()));
        let mut facts: BTreeMap<String, (String, Time)> = self
            .0
            .db()
            .query(sql)
            .await?
            .iter()
            .map(|row| (row.text(0), (row.text(1), row.time(2))))
            .collect();
        Ok(page.map(|host| {
            let (fingerprint, requested_at) = facts
                .remove(&host.id)
                .unwrap_or((String::new(), Time::from_millis(0)));
            PendingHost {
                host,
                fingerprint,
                requested_at,
            }
        }))
    }

    /// Lets a waiting host in, at a site.
    pub async fn approve(&self, caller: &Caller, host: &str, site: &str) -> Result<Host, Error> {
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let tenant = &caller.tenant;
                    // A waiting host is nobody's yet: who may place hosts at the site may take it.
                    let site = placed(tx, caller, site, Role::Operator).await?;
                    let held = locked(tx, tenant, host).await?;
                    let before = &held.host;
                    if before.phase != Phase::Pending {
                        return Err(Error::conflict(format!(
                            "host {} does not wait for approval",
                            before.name
                        )));
                    }
                    enrol(tx, tenant, before, Some(&site)).await?;
                    let after = locked(tx, tenant, &before.id).await?.host;
                    tx.audit(caller, "host.approve", object(&after), Some(before), Some(&after));
                    Ok(after)
                })
            })
            .await
    }
}

/// Makes a host's row one of an enrolled host.
async fn enrol(tx: &mut Tx<'_>, tenant: &str, host: &Host, site: Option<&str>) -> Result<(), Error> {
    let now = tx.now;
    // No new generation: it has been told nothing yet, and the counter of all tenants is not for crowds.
    tx.run(
        "UPDATE host SET phase='enrolled',site=$3,reason='it has not connected yet',updated_at=$4,\
         generation=generation+1 WHERE tenant=$1 AND id=$2",
        args![tenant, &host.id, site, now],
    )
    .await?;
    if let Some(site) = site {
        summary::refresh(tx, tenant, site).await?;
    }
    tx.changed(tenant, Kind::Enrollment, Op::Delete, &host.id, &host.name, site);
    tx.changed(tenant, Kind::Host, Op::Upsert, &host.id, &host.name, site);
    Ok(())
}
