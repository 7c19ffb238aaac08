use serde_json::Value;

use super::{keeps_an_owner, owners, password, sign_in};
use crate::db::{Row, Sql, Tx};
use crate::log::{new_id, word};
use crate::model::{ObjectRef, User, UserKind, UserSpec};
use crate::page::{Order, Page, Query, Sort};
use crate::{Caller, Error, Fleet, Role, args, check};

const SORTS: &[Sort] = &[Sort {
    name: "username",
    column: "p.username",
    number: false,
}];

/// See [`Fleet::people`].
#[derive(Clone, Copy, Debug)]
pub struct People<'a>(pub(super) &'a Fleet);

impl Fleet {
    /// Users.
    #[must_use]
    pub fn people(&self) -> People<'_> {
        People(self)
    }
}

pub(super) const COLUMNS: &str = "p.id,p.username,p.display_name,p.email,p.kind,p.totp,p.disabled,\
     p.platform_admin,p.last_login_at,p.generation";

pub(super) fn read(row: &Row) -> User {
    User {
        id: row.text(0),
        username: row.text(1),
        display_name: row.text(2),
        email: row.text(3),
        kind: if row.str(4) == "oidc" {
            UserKind::Oidc
        } else {
            UserKind::Local
        },
        totp: row.int(5) == 2,
        disabled: row.bool(6),
        platform_admin: row.bool(7),
        last_login_at: row.opt_time(8),
        bindings: Vec::new(),
        generation: row.int(9),
    }
}

pub(super) fn object(user: &User) -> ObjectRef {
    ObjectRef {
        kind: "user".to_owned(),
        id: user.id.clone(),
        name: user.username.clone(),
    }
}

/// Reads one and holds its row.
pub(super) async fn locked(tx: &mut Tx<'_>, tenant: &str, name: &str) -> Result<User, Error> {
    let mut sql = Sql::new(&format!("SELECT {COLUMNS} FROM person p WHERE p.tenant="));
    sql.bind(tenant).push(" AND (p.username=").bind(name);
    sql.push(" OR p.id=").bind(name).push(") FOR UPDATE");
    let rows = tx.query(sql).await?;
    rows.first()
        .map(read)
        .ok_or_else(|| Error::not_found("user", name))
}

/// What people are called: nothing that is a role of the system, an id, or a trick on a terminal.
pub(super) fn check_name(username: &str) -> Result<(), Error> {
    let fits = (1..=128).contains(&username.len())
        && username
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | '+'))
        && uuid::Uuid::try_parse(username).is_err();
    if !fits {
        return Err(Error::invalid(
            "username",
            "has 1 to 128 letters, digits and - _ . @ +",
        ));
    }
    Ok(())
}

fn check(spec: &UserSpec) -> Result<(), Error> {
    check_name(&spec.username)?;
    check::text("displayName", &spec.display_name, 256)?;
    check::text("email", &spec.email, 254)?;
    if let Some(new) = &spec.password {
        if spec.kind == UserKind::Oidc {
            return Err(Error::invalid("password", "is kept by the user's provider"));
        }
        password::check(new)?;
    }
    Ok(())
}

impl People<'_> {
    /// Lists the tenant's users.
    pub async fn list(&self, caller: &Caller, query: &Query) -> Result<Page<User>, Error> {
        caller.require(Role::Viewer)?;
        let order = Order::new(query, SORTS, "p.id")?;
        let mut filter = Sql::new(" FROM person p WHERE p.tenant=");
        filter.bind(caller.tenant.as_str());
        for pattern in query.patterns()? {
            filter.push(" AND LOWER(p.username||' '||p.display_name||' '||p.email) LIKE ");
            filter.bind(pattern).push(" ESCAPE '\\'");
        }
        let total = crate::page::count(self.0.db(), &filter).await?;
        let mut sql = filter.select(COLUMNS);
        order.finish(&mut sql);
        let rows = self.0.db().query(sql).await?;
        let mut page = order.page(rows, total, (1, 0), read);
        self.fill(caller, &mut page.items).await?;
        Ok(page)
    }

    /// Reads one.
    pub async fn get(&self, caller: &Caller, name: &str) -> Result<User, Error> {
        // Everybody may read themselves.
        if caller.actor != name || caller.kind != crate::model::ActorKind::User {
            caller.require(Role::Viewer)?;
        }
        let mut sql = Sql::new(&format!("SELECT {COLUMNS} FROM person p WHERE p.tenant="));
        sql.bind(caller.tenant.as_str())
            .push(" AND (p.username=")
            .bind(name);
        sql.push(" OR p.id=").bind(name).push(")");
        let rows = self.0.db().query(sql).await?;
        let mut users: Vec<User> = rows.iter().map(read).collect();
        self.fill(caller, &mut users).await?;
        users.pop().ok_or_else(|| Error::not_found("user", name))
    }

    async fn fill(&self, caller: &Caller, users: &mut [User]) -> Result<(), Error> {
        let bindings = super::bindings::of(self.0.db(), &caller.tenant, users).await?;
        for (user, bindings) in users.iter_mut().zip(bindings) {
            user.bindings = bindings;
        }
        Ok(())
    }

    /// Makes one.
    pub async fn create(&self, caller: &Caller, spec: &UserSpec) -> Result<User, Error> {
        caller.require(Role::Owner)?;
        check(spec)?;
        if spec.platform_admin {
            caller.require_platform()?;
        }
        let hash = match &spec.password {
            Some(new) => Some(password::hash(self.0, new).await?),
            None => None,
        };
        let user = User {
            id: new_id(self.0.db().now()),
            username: spec.username.clone(),
            display_name: spec.display_name.clone(),
            email: spec.email.clone(),
            kind: spec.kind,
            totp: false,
            disabled: spec.disabled,
            platform_admin: spec.platform_admin,
            last_login_at: None,
            bindings: Vec::new(),
            generation: 1,
        };
        let (made, hash) = (&user, &hash);
        self.0
            .db()
            .write(|tx| Box::pin(insert(tx, caller, made, hash.as_deref(), None)))
            .await?;
        Ok(user)
    }

    /// Changes one. A new password ends all sessions of the user.
    pub async fn update(
        &self,
        caller: &Caller,
        name: &str,
        if_match: Option<i64>,
        patch: &Value,
    ) -> Result<User, Error> {
        caller.require(Role::Owner)?;
        let hash = match patch.get("password") {
            Some(Value::String(new)) => {
                password::check(new)?;
                Some(password::hash(self.0, new).await?)
            }
            _ => None,
        };
        let hash = &hash;
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let before = locked(tx, &caller.tenant, name).await?;
                    let had = owners(tx, &caller.tenant).await?;
                    check::generation("user", &before.username, before.generation, if_match)?;
                    let spec = check::patched(
                        &UserSpec {
                            username: before.username.clone(),
                            display_name: before.display_name.clone(),
                            email: before.email.clone(),
                            kind: before.kind,
                            disabled: before.disabled,
                            platform_admin: before.platform_admin,
                            password: None,
                        },
                        patch,
                    )?;
                    check(&spec)?;
                    if spec.username != before.username || spec.kind != before.kind {
                        return Err(Error::invalid("username", "name and kind of a user stay"));
                    }
                    if spec.platform_admin != before.platform_admin || before.platform_admin {
                        caller.require_platform()?;
                    }
                    let after = User {
                        display_name: spec.display_name,
                        email: spec.email,
                        disabled: spec.disabled,
                        platform_admin: spec.platform_admin,
                        generation: before.generation + 1,
                        ..before.clone()
                    };
                    tx.run(
                        "UPDATE person SET display_name=$3, email=$4, disabled=$5, platform_admin=$6, \
                         generation=generation+1, password=COALESCE($7,password) WHERE tenant=$1 AND id=$2",
                        args![
                            &caller.tenant,
                            &after.id,
                            &after.display_name,
                            &after.email,
                            after.disabled,
                            after.platform_admin,
                            hash
                        ],
                    )
                    .await?;
                    if after.disabled && !before.disabled {
                        keeps_an_owner(tx, &caller.tenant, had).await?;
                    }
                    if hash.is_some() || after.disabled {
                        end_sessions(tx, &caller.tenant, &after.id).await?;
                    }
                    tx.audit(caller, "user.update", object(&after), Some(&before), Some(&after));
                    if hash.is_some() {
                        tx.audit(caller, "user.password", object(&after), None::<&()>, None::<&()>);
                    }
                    Ok(after)
                })
            })
            .await
    }

    /// Deletes one, with bindings and sessions.
    pub async fn delete(&self, caller: &Caller, name: &str, if_match: Option<i64>) -> Result<(), Error> {
        caller.require(Role::Owner)?;
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let before = locked(tx, &caller.tenant, name).await?;
                    let had = owners(tx, &caller.tenant).await?;
                    check::generation("user", &before.username, before.generation, if_match)?;
                    if before.platform_admin {
                        caller.require_platform()?;
                    }
                    end_sessions(tx, &caller.tenant, &before.id).await?;
                    tx.run(
                        "DELETE FROM binding WHERE tenant=$1 AND person=$2",
                        args![&caller.tenant, &before.id],
                    )
                    .await?;
                    tx.run(
                        "DELETE FROM person WHERE tenant=$1 AND id=$2",
                        args![&caller.tenant, &before.id],
                    )
                    .await?;
                    keeps_an_owner(tx, &caller.tenant, had).await?;
                    tx.audit(caller, "user.delete", object(&before), Some(&before), None::<&()>);
                    Ok(())
                })
            })
            .await
    }

    /// A person sets their own password. Ends their other sessions.
    pub async fn set_own_password(&self, caller: &Caller, old: &str, new: &str) -> Result<(), Error> {
        password::check(new)?;
        let row = self
            .0
            .db()
            .row(
                "SELECT password FROM person WHERE tenant=$1 AND username=$2 AND kind='local'",
                args![&caller.tenant, &caller.actor],
            )
            .await?;
        let stored = row.and_then(|row| row.opt_text(0));
        // Who found an open session must not find the password by trying.
        let tries = &[(sign_in::key("own", &[&caller.tenant, &caller.actor]), 5)];
        sign_in::counted(self.0, tries).await?;
        if !password::fits(self.0, old, stored.as_deref()).await? {
            return Err(Error::Unauthenticated);
        }
        sign_in::forgiven(self.0, tries).await?;
        let hash = &password::hash(self.0, new).await?;
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let user = locked(tx, &caller.tenant, &caller.actor).await?;
                    tx.run(
                        "UPDATE person SET password=$3 WHERE tenant=$1 AND id=$2",
                        args![&caller.tenant, &user.id, hash],
                    )
                    .await?;
                    end_sessions(tx, &caller.tenant, &user.id).await?;
                    tx.audit(caller, "user.password", object(&user), None::<&()>, None::<&()>);
                    Ok(())
                })
            })
            .await
    }

    /// Makes a tenant's first owner, or gives an account of that name the role and password: for the command line on
    /// the orchestrator itself.
    pub async fn make_owner(
        &self,
        tenant: &str,
        username: &str,
        new: &str,
        platform_admin: bool,
    ) -> Result<User, Error> {
        let caller = Caller::system(tenant, "command-line");
        let spec = UserSpec {
            username: username.to_owned(),
            display_name: String::new(),
            email: String::new(),
            kind: UserKind::Local,
            disabled: false,
            platform_admin,
            password: Some(new.to_owned()),
        };
        match self.create(&caller, &spec).await {
            Ok(_) => {}
            Err(Error::Conflict { .. }) => {
                let mut patch = serde_json::json!({"password": new, "disabled": false});
                // Given when it is asked for; to take it away is for the page and the API.
                if platform_admin {
                    patch["platformAdmin"] = true.into();
                }
                self.update(&caller, username, None, &patch).await?;
            }
            Err(error) => return Err(error),
        }
        let binding = crate::model::BindingSpec {
            user: username.to_owned(),
            role: Role::Owner,
            scope: crate::Scope::All,
        };
        match self.0.bindings().create(&caller, &binding).await {
            Ok(_) | Err(Error::Conflict { .. }) => self.get(&caller, username).await,
            Err(error) => Err(error),
        }
    }
}

pub(super) async fn insert(
    tx: &mut Tx<'_>,
    caller: &Caller,
    user: &User,
    hash: Option<&str>,
    subject: Option<&str>,
) -> Result<(), Error> {
    let now = tx.now;
    let made = tx
        .run(
            "INSERT INTO person (tenant,id,username,display_name,email,kind,subject,password,totp,totp_step,\
             disabled,platform_admin,created_at,generation) \
             VALUES ($1,$2,$3,$4,$5,$6,$7,$8,0,0,$9,$10,$11,1) ON CONFLICT DO NOTHING",
            args![
                &caller.tenant,
                &user.id,
                &user.username,
                &user.display_name,
                &user.email,
                word(&user.kind),
                subject,
                hash,
                user.disabled,
                user.platform_admin,
                now
            ],
        )
        .await?;
    if made == 0 {
        return Err(Error::conflict(format!(
            "there is a user {} already",
            user.username
        )));
    }
    tx.audit(caller, "user.create", object(user), None::<&()>, Some(user));
    Ok(())
}

pub(super) async fn end_sessions(tx: &mut Tx<'_>, tenant: &str, person: &str) -> Result<(), Error> {
    tx.run(
        "DELETE FROM session WHERE tenant=$1 AND person=$2",
        args![tenant, person],
    )
    .await
    .map(drop)
}
