use crate::db::{Row, Sql};
use crate::hosts::placed;
use crate::log::new_id;
use crate::model::{ActivationKey, ActivationKeySpec, ObjectRef};
use crate::page::{Order, Page, Query, Sort};
use crate::{Caller, Error, Fleet, Kind, Op, Role, args, check};

const COLUMNS: &str = "k.id,k.name,s.name,k.uses,k.max_uses,k.expires_at,k.created_by,k.created_at";
const JOINS: &str = " FROM activation_key k LEFT JOIN site s ON s.tenant=k.tenant AND s.id=k.site";
const SORTS: &[Sort] = &[
    Sort {
        name: "createdAt",
        column: "k.created_at",
        number: true,
    },
    Sort {
        name: "name",
        column: "k.name",
        number: false,
    },
];

/// See [`Fleet::keys`].
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a>(&'a Fleet);

impl Fleet {
    /// Activation keys. Only hashes are kept.
    #[must_use]
    pub fn keys(&self) -> Keys<'_> {
        Keys(self)
    }
}

fn read(row: &Row) -> ActivationKey {
    ActivationKey {
        id: row.text(0),
        name: row.text(1),
        site: row.opt_text(2),
        uses: row.int(3),
        max_uses: row.int(4),
        expires_at: row.opt_time(5),
        created_by: row.text(6),
        created_at: row.time(7),
        key: None,
    }
}

fn object(key: &ActivationKey) -> ObjectRef {
    ObjectRef {
        kind: "activationKey".to_owned(),
        id: key.id.clone(),
        name: key.name.clone(),
    }
}

impl Keys<'_> {
    /// Lists them.
    pub async fn list(&self, caller: &Caller, query: &Query) -> Result<Page<ActivationKey>, Error> {
        caller.require(Role::Viewer)?;
        let order = Order::new(query, SORTS, "k.id")?;
        let key = usize::from(query.sort.as_deref().is_some_and(|s| s.ends_with("name")));
        let mut filter = Sql::new(" WHERE k.tenant=");
        filter.bind(caller.tenant.as_str());
        for pattern in query.patterns()? {
            filter
                .push(" AND LOWER(k.name) LIKE ")
                .bind(pattern)
                .push(" ESCAPE '\\'");
        }
        let db = self.0.db();
        let total = db.query(filter.select("COUNT(*) FROM activation_key k")).await?;
        let total = total.first().map_or(0, |row| row.int(0));
        let mut sql = filter.select(&format!("{COLUMNS}{JOINS}"));
        order.finish(&mut sql);
        let column = if key == 1 { 1 } else { 7 };
        Ok(order.page(db.query(sql).await?, total, (column, 0), read))
    }

    /// Reads one.
    pub async fn get(&self, caller: &Caller, id: &str) -> Result<ActivationKey, Error> {
        caller.require(Role::Viewer)?;
        let mut sql = Sql::new(&format!("SELECT {COLUMNS}{JOINS} WHERE k.tenant="));
        sql.bind(caller.tenant.as_str()).push(" AND k.id=").bind(id);
        let rows = self.0.db().query(sql).await?;
        rows.first()
            .map(read)
            .ok_or_else(|| Error::not_found("activation key", id))
    }

    /// Makes one; the answer has the key itself, which is shown only now.
    pub async fn create(&self, caller: &Caller, spec: &ActivationKeySpec) -> Result<ActivationKey, Error> {
        caller.require(Role::Owner)?;
        check::text("name", &spec.name, 128)?;
        let now = self.0.db().now();
        let max_uses = spec.max_uses.unwrap_or(1);
        if !(1..=1_000_000).contains(&max_uses) {
            return Err(Error::invalid("maxUses", "is 1 to 1000000"));
        }
        if spec.expires_at.is_some_and(|at| at <= now) {
            return Err(Error::invalid("expiresAt", "is past"));
        }
        let secret = identity::activation::ActivationKey::generate().map_err(|e| Error::Identity {
            what: "making an activation key",
            source: Box::new(e),
        })?;
        let id = &new_id(now);
        let hash = &secret.hash();
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let tenant = &caller.tenant;
                    let site = match &spec.site {
                        Some(site) => Some(placed(tx, caller, site, Role::Owner).await?),
                        None => None,
                    };
                    tx.run(
                        "INSERT INTO activation_key (tenant,id,name,site,hash,uses,max_uses,expires_at,created_by,\
                         created_at) VALUES ($1,$2,$3,$4,$5,0,$6,$7,$8,$9)",
                        args![
                            tenant,
                            id,
                            &spec.name,
                            &site,
                            hash.as_bytes(),
                            max_uses,
                            spec.expires_at,
                            &caller.actor,
                            now
                        ],
                    )
                    .await?;
                    let made = ActivationKey {
                        id: id.clone(),
                        name: spec.name.clone(),
                        site: spec.site.clone(),
                        uses: 0,
                        max_uses,
                        expires_at: spec.expires_at,
                        created_by: caller.actor.clone(),
                        created_at: now,
                        key: None,
                    };
                    tx.audit(caller, "activationKey.create", object(&made), None::<&()>, Some(&made));
                    tx.changed(tenant, Kind::Enrollment, Op::Upsert, id, &spec.name, site.as_deref());
                    Ok(())
                })
            })
            .await?;
        let mut made = self.get(caller, id).await?;
        made.key = Some(secret.text());
        Ok(made)
    }

    /// Deletes one: it is refused from now on.
    pub async fn delete(&self, caller: &Caller, id: &str) -> Result<(), Error> {
        caller.require(Role::Owner)?;
        let before = &self.get(caller, id).await?;
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let gone = tx
                        .run(
                            "DELETE FROM activation_key WHERE tenant=$1 AND id=$2",
                            args![&caller.tenant, id],
                        )
                        .await?;
                    if gone == 0 {
                        return Err(Error::not_found("activation key", id));
                    }
                    tx.audit(
                        caller,
                        "activationKey.delete",
                        object(before),
                        Some(before),
                        None::<&()>,
                    );
                    tx.changed(
                        &caller.tenant,
                        Kind::Enrollment,
                        Op::Delete,
                        id,
                        &before.name,
                        None,
                    );
                    Ok(())
                })
            })
            .await
    }
}
