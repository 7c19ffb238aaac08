//! Organisations, each with its own authority for its hosts.

use identity::ca::Authority;
use serde_json::Value;

use crate::db::{Row, Tx};
use crate::log::new_id;
use crate::model::{ObjectRef, Tenant, TenantSpec};
use crate::{Caller, Error, Fleet, args, check};

const COLUMNS: &str = "id,name,display_name,created_at,generation";
const CA_KEY: &str = "ca-key";

/// Tables whose rows are a tenant's, emptied when it is deleted.
const TABLES: &[&str] = &[
    "audit",
    "audit_head",
    "person",
    "binding",
    "token",
    "session",
    "idempotency",
    "repository",
    "head",
    "site",
    "site_label",
    "host",
    "host_mac",
    "host_label",
    "section",
    "host_event",
    "usage",
    "certificate",
    "activation_key",
    "enrolment",
    "change",
    "policy",
    "rollout",
    "rollout_site",
    "plan",
    "alert",
    "channel",
    "delivery",
    "vm",
];

/// See [`Fleet::tenants`].
#[derive(Clone, Copy, Debug)]
pub struct Tenants<'a>(&'a Fleet);

impl Fleet {
    /// Organisations.
    #[must_use]
    pub fn tenants(&self) -> Tenants<'_> {
        Tenants(self)
    }
}

impl Fleet {
    pub(crate) fn open_authority(
        &self,
        tenant: &str,
        pem: &str,
        sealed: Option<Vec<u8>>,
    ) -> Result<Authority, Error> {
        let key = self.unseal(CA_KEY, tenant, "", &sealed.unwrap_or_default())?;
        Authority::from_parts(pem, &key).map_err(failed)
    }
}

fn read(row: &Row) -> Tenant {
    Tenant {
        id: row.text(0),
        name: row.text(1),
        display_name: row.text(2),
        created_at: row.time(3),
        generation: row.int(4),
    }
}

fn object(tenant: &Tenant) -> ObjectRef {
    ObjectRef {
        kind: "tenant".to_owned(),
        id: tenant.id.clone(),
        name: tenant.name.clone(),
    }
}

impl Tenants<'_> {
    /// Finds one by name or id; for routing, before there is a caller.
    pub async fn find(&self, name: &str) -> Result<Option<Tenant>, Error> {
        let row = self
            .0
            .db()
            .row(
                "SELECT id,name,display_name,created_at,generation FROM tenant WHERE name=$1 OR id=$1",
                args![name],
            )
            .await?;
        Ok(row.as_ref().map(read))
    }

    /// Those that the caller may know of: all for administrators of the platform, else their own.
    pub async fn list(&self, caller: &Caller) -> Result<Vec<Tenant>, Error> {
        let mut sql = crate::db::Sql::new(&format!("SELECT {COLUMNS} FROM tenant WHERE 1=1"));
        if !caller.platform_admin {
            sql.push(" AND id=").bind(caller.tenant.as_str());
        }
        sql.push(" ORDER BY name");
        Ok(self.0.db().query(sql).await?.iter().map(read).collect())
    }

    /// Reads one.
    pub async fn get(&self, caller: &Caller, name: &str) -> Result<Tenant, Error> {
        let found = self.find(name).await?;
        found
            .filter(|tenant| caller.platform_admin || tenant.id == caller.tenant)
            .ok_or_else(|| Error::not_found("tenant", name))
    }

    /// Makes one, with its authority.
    pub async fn create(&self, caller: &Caller, spec: &TenantSpec) -> Result<Tenant, Error> {
        caller.require_platform()?;
        check::name("name", &spec.name)?;
        check::text("displayName", &spec.display_name, 256)?;
        let authority =
            Authority::create(&format!("selvedge tenant {}", spec.name), self.0.clock()).map_err(failed)?;
        let tenant = Tenant {
            id: new_id(self.0.db().now()),
            name: spec.name.clone(),
            display_name: if spec.display_name.is_empty() {
                spec.name.clone()
            } else {
                spec.display_name.clone()
            },
            created_at: self.0.db().now(),
            generation: 1,
        };
        let key = self.0.seal(CA_KEY, &tenant.id, "", authority.key())?;
        let pem = authority.certificate_pem();
        let (tenant, key, pem) = (&tenant, &key, pem.as_str());
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let made = tx
                        .run(
                            "INSERT INTO tenant (id,name,display_name,created_at,generation,ca_pem,ca_key) \
                             VALUES ($1,$2,$3,$4,1,$5,$6) ON CONFLICT DO NOTHING",
                            args![
                                &tenant.id,
                                &tenant.name,
                                &tenant.display_name,
                                tenant.created_at,
                                pem,
                                key
                            ],
                        )
                        .await?;
                    if made == 0 {
                        return Err(Error::conflict(format!(
                            "there is a tenant {} already",
                            tenant.name
                        )));
                    }
                    tx.audit(caller, "tenant.create", object(tenant), None::<&()>, Some(tenant));
                    // The new tenant's own log begins with its making.
                    let there = Caller {
                        tenant: tenant.id.clone(),
                        ..caller.clone()
                    };
                    if caller.tenant != tenant.id {
                        tx.audit(&there, "tenant.create", object(tenant), None::<&()>, Some(tenant));
                    }
                    Ok(())
                })
            })
            .await?;
        Ok(tenant.clone())
    }

    /// Changes one.
    pub async fn update(
        &self,
        caller: &Caller,
        name: &str,
        if_match: Option<i64>,
        patch: &Value,
    ) -> Result<Tenant, Error> {
        if !caller.platform_admin {
            caller.require(crate::Role::Owner)?;
        }
        let before = &self.get(caller, name).await?;
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let before = locked(tx, &before.id).await?;
                    check::generation("tenant", &before.name, before.generation, if_match)?;
                    let spec = TenantSpec {
                        name: before.name.clone(),
                        display_name: before.display_name.clone(),
                    };
                    let spec = check::patched(&spec, patch)?;
                    if spec.name != before.name {
                        return Err(Error::invalid("name", "a tenant's name stays"));
                    }
                    check::text("displayName", &spec.display_name, 256)?;
                    if spec.display_name == before.display_name {
                        return Ok(before);
                    }
                    tx.run(
                        "UPDATE tenant SET display_name=$2, generation=generation+1 WHERE id=$1",
                        args![&before.id, &spec.display_name],
                    )
                    .await?;
                    let after = Tenant {
                        display_name: spec.display_name,
                        generation: before.generation + 1,
                        ..before.clone()
                    };
                    tx.audit(
                        caller,
                        "tenant.update",
                        object(&after),
                        Some(&before),
                        Some(&after),
                    );
                    Ok(after)
                })
            })
            .await
    }

    /// Deletes one with all that is its own. Its hosts go on with what they have.
    pub async fn delete(&self, caller: &Caller, name: &str, if_match: Option<i64>) -> Result<(), Error> {
        caller.require_platform()?;
        let before = &self.get(caller, name).await?;
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let before = locked(tx, &before.id).await?;
                    check::generation("tenant", &before.name, before.generation, if_match)?;
                    for table in TABLES {
                        let mut sql = crate::db::Sql::new(&format!("DELETE FROM {table} WHERE tenant="));
                        sql.bind(before.id.as_str());
                        tx.execute(sql).await?;
                    }
                    tx.run("DELETE FROM tenant WHERE id=$1", args![&before.id])
                        .await?;
                    if caller.tenant != before.id {
                        tx.audit(
                            caller,
                            "tenant.delete",
                            object(&before),
                            Some(&before),
                            None::<&()>,
                        );
                    }
                    tx.changed(
                        &before.id,
                        crate::Kind::Revocation,
                        crate::Op::Delete,
                        &before.id,
                        "",
                        None,
                    );
                    Ok(())
                })
            })
            .await
    }

    /// The authorities of all tenants, as (tenant's id, certificate PEM): what links are checked against.
    pub async fn authorities(&self) -> Result<Vec<(String, String)>, Error> {
        let rows = self
            .0
            .db()
            .rows("SELECT id,ca_pem FROM tenant ORDER BY id", vec![])
            .await?;
        Ok(rows.iter().map(|row| (row.text(0), row.text(1))).collect())
    }

    /// A tenant's authority, ready to sign.
    pub async fn authority(&self, tenant: &str) -> Result<Authority, Error> {
        let row = self
            .0
            .db()
            .row("SELECT ca_pem,ca_key FROM tenant WHERE id=$1", args![tenant])
            .await?
            .ok_or_else(|| Error::not_found("tenant", tenant))?;
        self.0.open_authority(tenant, row.str(0), row.bytes(1))
    }
}

async fn locked(tx: &mut Tx<'_>, id: &str) -> Result<Tenant, Error> {
    let row = tx
        .row(
            "SELECT id,name,display_name,created_at,generation FROM tenant WHERE id=$1 FOR UPDATE",
            args![id],
        )
        .await?;
    row.as_ref()
        .map(read)
        .ok_or_else(|| Error::not_found("tenant", id))
}

fn failed(error: identity::ca::Error) -> Error {
    Error::Identity {
        what: "the tenant's authority",
        source: Box::new(error),
    }
}
