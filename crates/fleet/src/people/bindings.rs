use serde_json::Value;

use super::{accounts, keeps_an_owner, owners};
use crate::db::{Db, Row, Sql, Tx};
use crate::log::new_id;
use crate::model::{Binding, BindingSpec, ObjectRef, User};
use crate::page::{Order, Page, Query, Sort};
use crate::{Caller, Error, Fleet, Grant, Role, Scope, args, check};

const SORTS: &[Sort] = &[Sort {
    name: "user",
    column: "p.username",
    number: false,
}];
const COLUMNS: &str = "b.id,p.username,b.role,b.scope,b.generation,b.person";

/// See [`Fleet::bindings`].
#[derive(Clone, Copy, Debug)]
pub struct Bindings<'a>(&'a Fleet);

impl Fleet {
    /// Who may do what, and where.
    #[must_use]
    pub fn bindings(&self) -> Bindings<'_> {
        Bindings(self)
    }
}

/// A stored role; one that can't be read is the least.
pub(super) fn role(word: &str) -> Role {
    match word {
        "owner" => Role::Owner,
        "operator" => Role::Operator,
        _ => Role::Viewer,
    }
}

/// A stored scope; one that can't be read is nowhere.
pub(super) fn scope(text: &str) -> Scope {
    serde_json::from_str(text).unwrap_or_else(|_| Scope::Site(String::new()))
}

pub(super) fn scope_text(scope: &Scope) -> String {
    serde_json::to_string(scope).unwrap_or_default()
}

fn read(row: &Row) -> Binding {
    Binding {
        id: row.text(0),
        user: row.text(1),
        role: role(row.str(2)),
        scope: scope(row.str(3)),
        generation: row.int(4),
    }
}

fn object(binding: &Binding) -> ObjectRef {
    ObjectRef {
        kind: "binding".to_owned(),
        id: binding.id.clone(),
        name: binding.user.clone(),
    }
}

/// The bindings of each of some users.
pub(super) async fn of(db: &Db, tenant: &str, users: &[User]) -> Result<Vec<Vec<Binding>>, Error> {
    let mut all = vec![Vec::new(); users.len()];
    for (at, some) in users.chunks(200).enumerate() {
        let mut sql = Sql::new(&format!(
            "SELECT {COLUMNS} FROM binding b JOIN person p ON p.tenant=b.tenant AND p.id=b.person WHERE b.tenant="
        ));
        sql.bind(tenant).push(" AND b.person IN ");
        sql.list(some.iter().map(|user| user.id.as_str()))
            .push(" ORDER BY b.id");
        for row in db.query(sql).await? {
            if let Some(n) = some.iter().position(|user| user.id == row.str(5)) {
                all[at * 200 + n].push(read(&row));
            }
        }
    }
    Ok(all)
}

/// What a person may do.
pub(super) async fn grants(db: &Db, tenant: &str, person: &str) -> Result<Vec<Grant>, Error> {
    let rows = db
        .rows(
            "SELECT role,scope FROM binding WHERE tenant=$1 AND person=$2",
            args![tenant, person],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| Grant {
            role: role(row.str(0)),
            scope: scope(row.str(1)),
        })
        .collect())
}

async fn locked(tx: &mut Tx<'_>, tenant: &str, id: &str) -> Result<Binding, Error> {
    let row = tx
        .row(
            "SELECT b.id,p.username,b.role,b.scope,b.generation FROM binding b \
             JOIN person p ON p.tenant=b.tenant AND p.id=b.person WHERE b.tenant=$1 AND b.id=$2 FOR UPDATE",
            args![tenant, id],
        )
        .await?;
    row.as_ref()
        .map(read)
        .ok_or_else(|| Error::not_found("binding", id))
}

impl Bindings<'_> {
    /// Lists them.
    pub async fn list(&self, caller: &Caller, query: &Query) -> Result<Page<Binding>, Error> {
        caller.require(Role::Viewer)?;
        let order = Order::new(query, SORTS, "b.id")?;
        let mut filter =
            Sql::new(" FROM binding b JOIN person p ON p.tenant=b.tenant AND p.id=b.person WHERE b.tenant=");
        filter.bind(caller.tenant.as_str());
        for pattern in query.patterns()? {
            filter.push(" AND LOWER(p.username||' '||b.role||' '||b.scope) LIKE ");
            filter.bind(pattern).push(" ESCAPE '\\'");
        }
        let total = crate::page::count(self.0.db(), &filter).await?;
        let mut sql = filter.select(COLUMNS);
        order.finish(&mut sql);
        let rows = self.0.db().query(sql).await?;
        Ok(order.page(rows, total, (1, 0), read))
    }

    /// Reads one.
    pub async fn get(&self, caller: &Caller, id: &str) -> Result<Binding, Error> {
        caller.require(Role::Viewer)?;
        let row = self
            .0
            .db()
            .row(
                "SELECT b.id,p.username,b.role,b.scope,b.generation FROM binding b \
                 JOIN person p ON p.tenant=b.tenant AND p.id=b.person WHERE b.tenant=$1 AND b.id=$2",
                args![&caller.tenant, id],
            )
            .await?;
        row.as_ref()
            .map(read)
            .ok_or_else(|| Error::not_found("binding", id))
    }

    /// Makes one.
    pub async fn create(&self, caller: &Caller, spec: &BindingSpec) -> Result<Binding, Error> {
        caller.require(Role::Owner)?;
        let text = &scope_text(&spec.scope);
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let user = accounts::locked(tx, &caller.tenant, &spec.user)
                        .await
                        .map_err(|_| Error::invalid("user", format!("there is no user {}", spec.user)))?;
                    let same = tx
                        .row(
                            "SELECT id FROM binding WHERE tenant=$1 AND person=$2 AND role=$3 AND scope=$4",
                            args![&caller.tenant, &user.id, spec.role.as_str(), text],
                        )
                        .await?;
                    if same.is_some() {
                        return Err(Error::conflict(format!("{} has that role there already", user.username)));
                    }
                    let binding = Binding {
                        id: new_id(tx.now),
                        user: user.username,
                        role: spec.role,
                        scope: spec.scope.clone(),
                        generation: 1,
                    };
                    tx.run(
                        "INSERT INTO binding (tenant,id,person,role,scope,generation) VALUES ($1,$2,$3,$4,$5,1)",
                        args![&caller.tenant, &binding.id, user.id, spec.role.as_str(), text],
                    )
                    .await?;
                    tx.audit(caller, "binding.create", object(&binding), None::<&()>, Some(&binding));
                    Ok(binding)
                })
            })
            .await
    }

    /// Changes role or scope of one.
    pub async fn update(
        &self,
        caller: &Caller,
        id: &str,
        if_match: Option<i64>,
        patch: &Value,
    ) -> Result<Binding, Error> {
        caller.require(Role::Owner)?;
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let before = locked(tx, &caller.tenant, id).await?;
                    let had = owners(tx, &caller.tenant).await?;
                    check::generation("binding", id, before.generation, if_match)?;
                    // A scope is one of three shapes: merged, two would stand in it.
                    let mut spec = check::patched(
                        &BindingSpec {
                            user: before.user.clone(),
                            role: before.role,
                            scope: Scope::All,
                        },
                        &without(patch, "scope"),
                    )?;
                    spec.scope = match patch.get("scope") {
                        Some(new) => serde_json::from_value(new.clone())
                            .map_err(|e| Error::invalid("scope", e.to_string()))?,
                        None => before.scope.clone(),
                    };
                    if spec.user != before.user {
                        return Err(Error::invalid("user", "a binding stays with its user"));
                    }
                    let after = Binding {
                        role: spec.role,
                        scope: spec.scope,
                        generation: before.generation + 1,
                        ..before.clone()
                    };
                    tx.run(
                        "UPDATE binding SET role=$3, scope=$4, generation=generation+1 WHERE tenant=$1 AND id=$2",
                        args![&caller.tenant, id, after.role.as_str(), scope_text(&after.scope)],
                    )
                    .await?;
                    keeps_an_owner(tx, &caller.tenant, had).await?;
                    tx.audit(caller, "binding.update", object(&after), Some(&before), Some(&after));
                    Ok(after)
                })
            })
            .await
    }

    /// Deletes one.
    pub async fn delete(&self, caller: &Caller, id: &str, if_match: Option<i64>) -> Result<(), Error> {
        caller.require(Role::Owner)?;
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let before = locked(tx, &caller.tenant, id).await?;
                    let had = owners(tx, &caller.tenant).await?;
                    check::generation("binding", id, before.generation, if_match)?;
                    tx.run(
                        "DELETE FROM binding WHERE tenant=$1 AND id=$2",
                        args![&caller.tenant, id],
                    )
                    .await?;
                    keeps_an_owner(tx, &caller.tenant, had).await?;
                    tx.audit(
                        caller,
                        "binding.delete",
                        object(&before),
                        Some(&before),
                        None::<&()>,
                    );
                    Ok(())
                })
            })
            .await
    }
}

fn without(patch: &Value, field: &str) -> Value {
    let mut patch = patch.clone();
    if let Some(object) = patch.as_object_mut() {
        object.remove(field);
    }
    patch
}
