use super::bindings::{role, scope, scope_text};
use crate::db::{Row, Sql};
use crate::log::new_id;
use crate::model::{ActorKind, ObjectRef, Token, TokenSpec};
use crate::page::{Order, Page, Query, Sort};
use crate::{Caller, Error, Fleet, Grant, Role, args, check, secrets};

const COLUMNS: &str = "id,name,role,scope,expires_at,last_used_at,created_by,created_at";
const SORTS: &[Sort] = &[Sort {
    name: "name",
    column: "name",
    number: false,
}];
/// What tokens begin with, so that scanners for leaked secrets know them.
const PREFIX: &str = "slv_";
/// The last use is written at most so often.
const USED_EVERY: i64 = 60_000;

/// See [`Fleet::tokens`].
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a>(&'a Fleet);

impl Fleet {
    /// Tokens for programs. Only hashes are kept.
    #[must_use]
    pub fn tokens(&self) -> Tokens<'_> {
        Tokens(self)
    }
}

fn read(row: &Row) -> Token {
    Token {
        id: row.text(0),
        name: row.text(1),
        role: role(row.str(2)),
        scope: scope(row.str(3)),
        expires_at: row.opt_time(4),
        last_used_at: row.opt_time(5),
        created_by: row.text(6),
        created_at: row.time(7),
        secret: None,
    }
}

fn object(token: &Token) -> ObjectRef {
    ObjectRef {
        kind: "token".to_owned(),
        id: token.id.clone(),
        name: token.name.clone(),
    }
}

impl Tokens<'_> {
    /// Lists them.
    pub async fn list(&self, caller: &Caller, query: &Query) -> Result<Page<Token>, Error> {
        caller.require(Role::Owner)?;
        let order = Order::new(query, SORTS, "id")?;
        let mut filter = Sql::new(" FROM token WHERE tenant=");
        filter.bind(caller.tenant.as_str());
        for pattern in query.patterns()? {
            filter
                .push(" AND LOWER(name) LIKE ")
                .bind(pattern)
                .push(" ESCAPE '\\'");
        }
        let total = crate::page::count(self.0.db(), &filter).await?;
        let mut sql = filter.select(COLUMNS);
        order.finish(&mut sql);
        let rows = self.0.db().query(sql).await?;
        Ok(order.page(rows, total, (1, 0), read))
    }

    /// Reads one.
    pub async fn get(&self, caller: &Caller, name: &str) -> Result<Token, Error> {
        caller.require(Role::Owner)?;
        let row = self
            .0
            .db()
            .row(
                "SELECT id,name,role,scope,expires_at,last_used_at,created_by,created_at FROM token \
                 WHERE tenant=$1 AND (name=$2 OR id=$2)",
                args![&caller.tenant, name],
            )
            .await?;
        row.as_ref()
            .map(read)
            .ok_or_else(|| Error::not_found("token", name))
    }

    /// Makes one; the answer has its secret, which is shown only now.
    pub async fn create(&self, caller: &Caller, spec: &TokenSpec) -> Result<Token, Error> {
        caller.require(Role::Owner)?;
        check::name("name", &spec.name)?;
        let now = self.0.db().now();
        if spec.expires_at.is_some_and(|at| at <= now) {
            return Err(Error::invalid("expiresAt", "is past"));
        }
        let secret = format!("{PREFIX}{}", secrets::random()?);
        let token = Token {
            id: new_id(now),
            name: spec.name.clone(),
            role: spec.role,
            scope: spec.scope.clone(),
            expires_at: spec.expires_at,
            last_used_at: None,
            created_by: caller.actor.clone(),
            created_at: now,
            secret: None,
        };
        let (made, hash) = (&token, &secrets::hash(&secret));
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let count = tx
                        .run(
                            "INSERT INTO token (tenant,id,name,role,scope,hash,expires_at,created_by,created_at) \
                             VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9) ON CONFLICT DO NOTHING",
                            args![
                                &caller.tenant,
                                &made.id,
                                &made.name,
                                made.role.as_str(),
                                scope_text(&made.scope),
                                hash,
                                made.expires_at,
                                &made.created_by,
                                made.created_at
                            ],
                        )
                        .await?;
                    if count == 0 {
                        return Err(Error::conflict(format!("there is a token {} already", made.name)));
                    }
                    tx.audit(caller, "token.create", object(made), None::<&()>, Some(made));
                    Ok(())
                })
            })
            .await?;
        Ok(Token {
            secret: Some(secret),
            ..token
        })
    }

    /// Deletes one: it is refused from now on.
    pub async fn delete(&self, caller: &Caller, name: &str) -> Result<(), Error> {
        let before = &self.get(caller, name).await?;
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let gone = tx
                        .run(
                            "DELETE FROM token WHERE tenant=$1 AND id=$2",
                            args![&caller.tenant, &before.id],
                        )
                        .await?;
                    if gone == 0 {
                        return Err(Error::not_found("token", name));
                    }
                    tx.audit(caller, "token.delete", object(before), Some(before), None::<&()>);
                    Ok(())
                })
            })
            .await
    }

    /// Who comes with this token: a caller in the token's tenant.
    pub async fn authenticate(&self, secret: &str, from: &str) -> Result<Caller, Error> {
        if !secret.starts_with(PREFIX) || secret.len() > 128 {
            return Err(Error::Unauthenticated);
        }
        let now = self.0.db().now();
        let row = self
            .0
            .db()
            .row(
                "SELECT tenant,id,name,role,scope,last_used_at FROM token \
                 WHERE hash=$1 AND (expires_at IS NULL OR expires_at>$2)",
                args![secrets::hash(secret), now],
            )
            .await?
            .ok_or(Error::Unauthenticated)?;
        if row.int(5) + USED_EVERY < now.millis() {
            let row = &row;
            self.0
                .db()
                .write(|tx| {
                    Box::pin(async move {
                        let now = tx.now;
                        tx.run(
                            "UPDATE token SET last_used_at=$3 WHERE tenant=$1 AND id=$2",
                            args![row.str(0), row.str(1), now],
                        )
                        .await
                    })
                })
                .await?;
        }
        Ok(Caller {
            tenant: row.text(0),
            actor: row.text(2),
            kind: ActorKind::Token,
            grants: vec![Grant {
                role: role(row.str(3)),
                scope: scope(row.str(4)),
            }],
            from: from.to_owned(),
            platform_admin: false,
        })
    }
}
