use std::sync::Arc;

use identity::ca::Authority;
use identity::csr::Csr;
use identity::enrol::Granted;

use super::Enrolment;
use crate::db::Tx;
use crate::{Error, args};

/// Certificates remembered for a host; older ones that ended go.
const KEPT: i64 = 4;
/// Certificates of a host that count at a time. It uses the newest that reached it; who asks for one after the other
/// fills no table.
const MOST: i64 = 32;

impl Enrolment<'_> {
    /// Signs a certificate for a host and records it.
    pub(super) async fn issue(
        &self,
        tx: &mut Tx<'_>,
        tenant: &str,
        host: &str,
        csr: &Csr,
    ) -> Result<Granted, Error> {
        let authority = self.authority(tx, tenant).await?;
        let fleet = self.0;
        let issued = authority
            .issue_host(csr, tenant, host, fleet.options().certificate, fleet.clock())
            .map_err(|e| Error::Identity {
                what: "signing a host's certificate",
                source: Box::new(e),
            })?;
        let now = tx.now;
        let not_after = crate::model::Time::from(issued.not_after);
        tx.run(
            "INSERT INTO certificate (tenant,serial,host,key_hash,issued_at,not_after) VALUES ($1,$2,$3,$4,$5,$6)",
            args![tenant, &issued.serial, host, csr.fingerprint(), now, not_after],
        )
        .await?;
        tx.run(
            "DELETE FROM certificate WHERE tenant=$1 AND host=$2 AND not_after<$3 AND serial NOT IN \
             (SELECT serial FROM certificate WHERE tenant=$1 AND host=$2 ORDER BY issued_at DESC LIMIT $4)",
            args![tenant, host, now, KEPT],
        )
        .await?;
        tx.run(
            "DELETE FROM certificate WHERE tenant=$1 AND host=$2 AND serial NOT IN \
             (SELECT serial FROM certificate WHERE tenant=$1 AND host=$2 ORDER BY issued_at DESC, not_after DESC LIMIT $3) \
             AND serial<>$4",
            args![tenant, host, MOST, &issued.serial],
        )
        .await?;
        let row = tx
            .row(
                "UPDATE host SET certificate=$3,not_after=$4 WHERE tenant=$1 AND id=$2 \
                 RETURNING (SELECT name FROM tenant WHERE id=$1),\
                 (SELECT name FROM site WHERE site.tenant=$1 AND site.id=host.site)",
                args![tenant, host, &issued.serial, not_after],
            )
            .await?
            .ok_or_else(|| Error::not_found("host", host))?;
        let ca = authority.certificate_pem();
        Ok(Granted {
            certificate: issued.certificate,
            ca,
            host_id: host.to_owned(),
            tenant: row.text(0),
            site: row.opt_text(1),
            assignment: None,
        })
    }

    /// The tenant's authority, kept open: it never changes.
    async fn authority(&self, tx: &mut Tx<'_>, tenant: &str) -> Result<Arc<Authority>, Error> {
        if let Some(found) = self.0.0.authorities.load().get(tenant) {
            return Ok(found.clone());
        }
        let row = tx
            .row("SELECT ca_pem,ca_key FROM tenant WHERE id=$1", args![tenant])
            .await?
            .ok_or_else(|| Error::not_found("tenant", tenant))?;
        let authority = Arc::new(self.0.open_authority(tenant, row.str(0), row.bytes(1))?);
        self.0.0.authorities.rcu(|all| {
            let mut all = std::collections::HashMap::clone(all);
            all.insert(tenant.to_owned(), authority.clone());
            all
        });
        Ok(authority)
    }
}
