//! Policies and rollouts as the API has them.

use serde_json::Value;

use super::{Command, store::Line, turns};
use crate::{
    Caller, Error, Fleet, Page, Query, Role, args, check,
    db::{Row, Sql, Tx},
    log::new_id,
    model::{ObjectRef, Policy, PolicySpec, Rollout, RolloutSite},
    page::{Order, Sort, count},
};

/// See [`Fleet::policies`].
#[derive(Clone, Copy, Debug)]
pub struct Policies<'a>(&'a Fleet);

/// See [`Fleet::rollouts`].
#[derive(Clone, Copy, Debug)]
pub struct Rollouts<'a>(&'a Fleet);

impl Fleet {
    /// How commits reach sites.
    #[must_use]
    pub fn policies(&self) -> Policies<'_> {
        Policies(self)
    }

    /// Commits on their way.
    #[must_use]
    pub fn rollouts(&self) -> Rollouts<'_> {
        Rollouts(self)
    }
}

fn policy(row: &Row) -> Policy {
    Policy {
        id: row.text(0),
        name: row.text(1),
        rules: row.json(2),
        generation: row.int(3),
    }
}

fn policy_ref(policy: &Policy) -> ObjectRef {
    ObjectRef {
        kind: "policy".into(),
        id: policy.id.clone(),
        name: policy.name.clone(),
    }
}

fn checked(spec: &PolicySpec) -> Result<String, Error> {
    check::name("name", &spec.name)?;
    if let Some((field, message)) = spec.rules.check().into_iter().next() {
        return Err(Error::invalid(field, message));
    }
    serde_json::to_string(&spec.rules).map_err(|e| Error::invalid("body", e.to_string()))
}

impl Policies<'_> {
    /// All of them, by name.
    ///
    /// # Errors
    /// The caller may not, or the database.
    pub async fn list(&self, caller: &Caller, query: &Query) -> Result<Page<Policy>, Error> {
        caller.require_anywhere(Role::Viewer)?;
        const SORTS: &[Sort] = &[Sort {
            name: "name",
            column: "name",
            number: false,
        }];
        let order = Order::new(query, SORTS, "id")?;
        let mut filter = Sql::new("FROM policy WHERE tenant=");
        filter.bind(caller.tenant.as_str());
        for pattern in query.patterns()? {
            filter.push(" AND name LIKE ").bind(pattern).push(" ESCAPE '\\'");
        }
        let total = count(self.0.db(), &filter).await?;
        let mut sql = filter.select("id,name,rules,generation");
        order.finish(&mut sql);
        let rows = self.0.db().query(sql).await?;
        Ok(order.page(rows, total, (1, 0), policy))
    }

    /// One, by name or id.
    ///
    /// # Errors
    /// There is none, or the database.
    pub async fn get(&self, caller: &Caller, name: &str) -> Result<Policy, Error> {
        caller.require_anywhere(Role::Viewer)?;
        let sql = "SELECT id,name,rules,generation FROM policy WHERE tenant=$1 AND (name=$2 OR id=$2)";
        let row = self.0.db().row(sql, args![&caller.tenant, name]).await?;
        row.as_ref()
            .map(policy)
            .ok_or_else(|| Error::not_found("policy", name))
    }

    /// Makes one.
    ///
    /// # Errors
    /// The caller may not, something in it is wrong, there is one of that name, or the database.
    pub async fn create(&self, caller: &Caller, spec: &PolicySpec) -> Result<Policy, Error> {
        caller.require(Role::Owner)?;
        let rules = &checked(spec)?;
        let made = &Policy {
            id: new_id(self.0.db().now()),
            name: spec.name.clone(),
            rules: spec.rules.clone(),
            generation: 1,
        };
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let rows = tx
                        .run(
                            "INSERT INTO policy (tenant,id,name,rules,generation) VALUES ($1,$2,$3,$4,1) ON CONFLICT DO NOTHING",
                            args![&caller.tenant, &made.id, &made.name, rules],
                        )
                        .await?;
                    if rows == 0 {
                        return Err(Error::conflict(format!("there is a policy {} already", made.name)));
                    }
                    tx.audit(caller, "policy.create", policy_ref(made), None::<&()>, Some(made));
                    Ok(())
                })
            })
            .await?;
        Ok(made.clone())
    }

    /// Changes one. Rollouts that have begun go on by the rules that they began with.
    ///
    /// # Errors
    /// As for [`Policies::create`], and another generation than the caller read.
    pub async fn update(
        &self,
        caller: &Caller,
        name: &str,
        if_match: Option<i64>,
        patch: &Value,
    ) -> Result<Policy, Error> {
        caller.require(Role::Owner)?;
        let id = &self.get(caller, name).await?.id;
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let before = locked(tx, &caller.tenant, id).await?;
                    check::generation("policy", &before.name, before.generation, if_match)?;
                    let spec = PolicySpec {
                        name: before.name.clone(),
                        rules: before.rules.clone(),
                    };
                    let spec = check::patched(&spec, patch)?;
                    let rules = checked(&spec)?;
                    if (&spec.name, &spec.rules) == (&before.name, &before.rules) {
                        return Ok(before);
                    }
                    let other = tx
                        .row(
                            "SELECT id FROM policy WHERE tenant=$1 AND name=$2 AND id<>$3",
                            args![&caller.tenant, &spec.name, id],
                        )
                        .await?;
                    if other.is_some() {
                        return Err(Error::conflict(format!("there is a policy {} already", spec.name)));
                    }
                    tx.run(
                        "UPDATE policy SET name=$3,rules=$4,generation=generation+1 WHERE tenant=$1 AND id=$2",
                        args![&caller.tenant, id, &spec.name, rules],
                    )
                    .await?;
                    let after = Policy {
                        id: id.clone(),
                        name: spec.name,
                        rules: spec.rules,
                        generation: before.generation + 1,
                    };
                    tx.audit(caller, "policy.update", policy_ref(&after), Some(&before), Some(&after));
                    Ok(after)
                })
            })
            .await
    }

    /// Deletes one that no site follows.
    ///
    /// # Errors
    /// The caller may not, sites follow it, or the database.
    pub async fn delete(&self, caller: &Caller, name: &str, if_match: Option<i64>) -> Result<(), Error> {
        caller.require(Role::Owner)?;
        let id = &self.get(caller, name).await?.id;
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let before = locked(tx, &caller.tenant, id).await?;
                    check::generation("policy", &before.name, before.generation, if_match)?;
                    let sql = "SELECT COUNT(*) FROM site WHERE tenant=$1 AND policy=$2";
                    let sites = tx
                        .row(sql, args![&caller.tenant, id])
                        .await?
                        .map_or(0, |row| row.int(0));
                    if sites > 0 {
                        let message = format!(
                            "{sites} sites follow the policy {}: give them another first",
                            before.name
                        );
                        return Err(Error::conflict(message));
                    }
                    tx.run(
                        "DELETE FROM policy WHERE tenant=$1 AND id=$2",
                        args![&caller.tenant, id],
                    )
                    .await?;
                    tx.audit(
                        caller,
                        "policy.delete",
                        policy_ref(&before),
                        Some(&before),
                        None::<&()>,
                    );
                    Ok(())
                })
            })
            .await
    }
}

async fn locked(tx: &mut Tx<'_>, tenant: &str, id: &str) -> Result<Policy, Error> {
    let sql = "SELECT id,name,rules,generation FROM policy WHERE tenant=$1 AND id=$2 FOR UPDATE";
    let row = tx.row(sql, args![tenant, id]).await?;
    row.as_ref()
        .map(policy)
        .ok_or_else(|| Error::not_found("policy", id))
}

/// What of a rollout the API shows; the alias is `o`.
const SHOWN: &str = "o.id,o.number,COALESCE((SELECT r.name FROM repository r WHERE r.tenant=o.tenant AND r.id=o.repository),''),\
     o.commit_id,o.subject,o.previous,\
     COALESCE((SELECT p.name FROM policy p WHERE p.tenant=o.tenant AND p.id=o.policy),o.policy_name),\
     o.phase,o.reason,o.waves,o.created_at,o.created_by,o.generation";

fn rollout(row: &Row) -> Rollout {
    Rollout {
        id: row.text(0),
        number: row.int(1),
        repository: row.text(2),
        commit: row.text(3),
        subject: row.text(4),
        previous: row.opt_text(5),
        policy: row.text(6),
        state: row.word(7),
        reason: row.text(8),
        waves: row.json(9),
        created_at: row.time(10),
        created_by: row.text(11),
        generation: row.int(12),
    }
}

const SORTS: &[Sort] = &[
    Sort {
        name: "number",
        column: "o.number",
        number: true,
    },
    Sort {
        name: "state",
        column: "o.phase",
        number: false,
    },
];

impl Rollouts<'_> {
    /// Rollouts, the newest first if nothing else is said. `state` may be `active`: those that have not ended.
    ///
    /// # Errors
    /// The caller may not, or the database.
    pub async fn list(&self, caller: &Caller, query: &Query) -> Result<Page<Rollout>, Error> {
        caller.require_anywhere(Role::Viewer)?;
        let mut query = query.clone();
        query.sort.get_or_insert_with(|| "-number".into());
        let order = Order::new(&query, SORTS, "o.id")?;
        let mut filter = Sql::new("FROM rollout o WHERE o.tenant=");
        filter.bind(caller.tenant.as_str());
        match query.state.as_deref() {
            None | Some("") => {}
            Some("active") => {
                filter.push(" AND o.phase NOT IN ('succeeded','reverted','superseded')");
            }
            Some(state) => {
                filter.push(" AND o.phase=").bind(state);
            }
        }
        for pattern in query.patterns()? {
            filter
                .push(" AND (LOWER(o.subject) LIKE ")
                .bind(pattern.clone())
                .push(" ESCAPE '\\'");
            filter
                .push(" OR o.commit_id LIKE ")
                .bind(pattern)
                .push(" ESCAPE '\\')");
        }
        if let Some(site) = query.site.as_deref().filter(|site| !site.is_empty()) {
            filter.push(" AND o.id IN (SELECT x.rollout FROM rollout_site x JOIN site s ON s.tenant=x.tenant AND s.id=x.site WHERE x.tenant=o.tenant AND (s.name=");
            filter.bind(site).push(" OR s.id=").bind(site).push("))");
        }
        let total = count(self.0.db(), &filter).await?;
        let mut sql = filter.select(SHOWN);
        order.finish(&mut sql);
        let rows = self.0.db().query(sql).await?;
        let key = usize::from(query.sort.as_deref().is_some_and(|sort| sort.ends_with("number")));
        Ok(order.page(rows, total, (if key == 1 { 1 } else { 7 }, 0), rollout))
    }

    /// One, by number or id.
    ///
    /// # Errors
    /// There is none, or the database.
    pub async fn get(&self, caller: &Caller, name: &str) -> Result<Rollout, Error> {
        caller.require_anywhere(Role::Viewer)?;
        let mut sql = Sql::new(&format!("SELECT {SHOWN} FROM rollout o WHERE o.tenant="));
        sql.bind(caller.tenant.as_str());
        self.named(name, &mut sql);
        let row = self.0.db().query(sql).await?.into_iter().next();
        row.as_ref()
            .map(rollout)
            .ok_or_else(|| Error::not_found("rollout", name))
    }

    fn named(&self, name: &str, sql: &mut Sql) {
        match name.parse::<i64>() {
            Ok(number) => sql.push(" AND o.number=").bind(number),
            Err(_) => sql.push(" AND o.id=").bind(name),
        };
    }

    /// Its sites that the caller may see. `state` is one of theirs.
    ///
    /// # Errors
    /// There is none, or the database.
    pub async fn sites(
        &self,
        caller: &Caller,
        name: &str,
        query: &Query,
    ) -> Result<Page<RolloutSite>, Error> {
        let rollout = self.get(caller, name).await?;
        const SORTS: &[Sort] = &[Sort {
            name: "site",
            column: "s.name",
            number: false,
        }];
        let order = Order::new(query, SORTS, "s.id")?;
        let mut filter = Sql::new(
            "FROM rollout_site x JOIN site s ON s.tenant=x.tenant AND s.id=x.site WHERE x.turn<>'left' AND x.tenant=",
        );
        filter
            .bind(caller.tenant.as_str())
            .push(" AND x.rollout=")
            .bind(rollout.id.as_str());
        caller.restrict(Role::Viewer, "s", &mut filter);
        match query.state.as_deref() {
            None | Some("") => {}
            Some("pending") => {
                filter.push(" AND x.away=1 AND x.turn IN ('waiting','told','reverting')");
            }
            Some(state) => {
                filter.push(" AND x.turn=").bind(state);
            }
        }
        for pattern in query.patterns()? {
            filter
                .push(" AND s.words LIKE ")
                .bind(pattern)
                .push(" ESCAPE '\\'");
        }
        let total = count(self.0.db(), &filter).await?;
        let mut sql = filter.select("s.name,s.id,x.wave,x.turn,x.away,x.reason,x.at");
        order.finish(&mut sql);
        let rows = self.0.db().query(sql).await?;
        Ok(order.page(rows, total, (0, 1), |row| {
            let wave = usize::try_from(row.int(2)).unwrap_or(0);
            let open = matches!(row.str(3), "waiting" | "told" | "reverting");
            RolloutSite {
                site: row.text(0),
                wave: rollout
                    .waves
                    .get(wave)
                    .map(|wave| wave.name.clone())
                    .unwrap_or_default(),
                state: if open && row.bool(4) {
                    "pending".into()
                } else {
                    row.text(3)
                },
                reason: row.text(5),
                at: row.time(6),
            }
        }))
    }

    /// Opens the wave that waits to be approved.
    ///
    /// # Errors
    /// The caller may not, none waits, or the database.
    pub async fn approve(&self, caller: &Caller, name: &str) -> Result<Rollout, Error> {
        self.command(caller, name, &Command::Approve).await
    }

    /// Tells nobody more.
    ///
    /// # Errors
    /// The caller may not, it has halted or ended, or the database.
    pub async fn halt(&self, caller: &Caller, name: &str) -> Result<Rollout, Error> {
        let why = format!("halted by {}", caller.actor);
        self.command(caller, name, &Command::Halt(why)).await
    }

    /// Goes on; failures so far count no more.
    ///
    /// # Errors
    /// The caller may not, it is not halted, or the database.
    pub async fn resume(&self, caller: &Caller, name: &str) -> Result<Rollout, Error> {
        self.command(caller, name, &Command::Resume).await
    }

    /// Sends every site that was told back to the commit that came through before, all at once.
    ///
    /// # Errors
    /// The caller may not, there is nothing to go back to, a newer one took its place, or the database.
    pub async fn revert(&self, caller: &Caller, name: &str) -> Result<Rollout, Error> {
        let why = format!("taken back by {}", caller.actor);
        self.command(caller, name, &Command::Revert(why)).await
    }

    async fn command(&self, caller: &Caller, name: &str, command: &Command) -> Result<Rollout, Error> {
        // A rollout is the whole tenant's: it reaches sites beyond a narrower scope.
        caller.require(Role::Operator)?;
        let mut sql = Sql::new("SELECT o.id,o.repository,o.branch,o.policy FROM rollout o WHERE o.tenant=");
        sql.bind(caller.tenant.as_str());
        self.named(name, &mut sql);
        let row = self.0.db().query(sql).await?.into_iter().next();
        let row = row.ok_or_else(|| Error::not_found("rollout", name))?;
        let line = Line {
            tenant: caller.tenant.clone(),
            repository: row.text(1),
            branch: row.text(2),
            policy: row.text(3),
        };
        turns::command(self.0, caller, &line, row.str(0), command).await?;
        self.get(caller, row.str(0)).await
    }
}
