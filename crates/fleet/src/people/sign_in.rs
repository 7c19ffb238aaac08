//! Signing in, and how tries are slowed down.
//!
//! A try is counted before the password is looked at, so that many at once gain nothing; a success takes the count
//! back. Counted are tries by name and address (5 free), by name (50 free: a stranger can't lock somebody out
//! by trying), by address (30 free). Past the free ones each failure doubles the wait, up to a quarter of an hour.
//! An hour without a try forgets. It is in the database: all processes count together, and a restart forgets nothing.

use serde::Serialize;

use super::accounts::{self, People, object, read};
use super::{bindings, password, totp};
use crate::db::Sql;
use crate::log::new_id;
use crate::model::{ActorKind, Tenant, Time, User, UserKind};
use crate::{Caller, Error, Fleet, args};

const FORGET: i64 = 3600;
const LONGEST_WAIT: i64 = 900;

/// Somebody who signed in.
#[derive(Clone, Debug, Serialize)]
pub struct Person {
    /// Their tenant.
    pub tenant: Tenant,
    /// They.
    pub user: User,
}

/// Somebody of whom an OpenID Connect provider said who they are.
#[derive(Clone, Debug, Default)]
pub struct OidcPerson {
    /// The provider.
    pub issuer: String,
    /// Who, at the provider.
    pub subject: String,
    /// The name to give a new account.
    pub username: String,
    /// E-mail address.
    pub email: String,
    /// For people.
    pub display_name: String,
    /// Whether an account is made for them if there is none: a group of theirs gives them a role.
    pub admitted: bool,
}

/// Counts one try under a name; how long to wait if there were too many.
async fn count(tx: &mut crate::db::Tx<'_>, name: &str, free: i64) -> Result<Option<i64>, Error> {
    let now = tx.now.millis();
    let row = tx
        .row(
            "SELECT failures,since,until FROM throttle WHERE name=$1 FOR UPDATE",
            args![name],
        )
        .await?;
    let (failures, since, until) = row.map_or((0, now, 0), |row| (row.int(0), row.int(1), row.int(2)));
    if until > now {
        return Ok(Some((until - now).div_euclid(1000) + 1));
    }
    let failures = if now - since > FORGET * 1000 {
        1
    } else {
        failures + 1
    };
    let over = failures - free;
    let until = if over > 0 {
        let wait = LONGEST_WAIT.min(1_i64 << over.min(20));
        now + wait * 1000
    } else {
        0
    };
    tx.run(
        "INSERT INTO throttle (name,failures,since,until) VALUES ($1,$2,$3,$4) \
         ON CONFLICT (name) DO UPDATE SET failures=$2, since=$3, until=$4",
        args![name, failures, now, until],
    )
    .await?;
    Ok(None)
}

/// A short name under which tries are counted, whatever was typed.
pub(super) fn key(kind: &str, parts: &[&str]) -> String {
    format!("{kind}:{}", crate::log::chain("", parts))
}

/// Counts one try under each name with its free ones.
///
/// # Errors
/// [`Error::Throttled`] if there were too many.
pub(super) async fn counted(fleet: &Fleet, keys: &[(String, i64)]) -> Result<(), Error> {
    let wait = fleet
        .db()
        .write(|tx| {
            Box::pin(async move {
                let mut longest = None;
                for (key, free) in keys {
                    longest = longest.max(count(tx, key, *free).await?);
                }
                Ok(longest)
            })
        })
        .await?;
    match wait {
        Some(wait) => Err(Error::Throttled {
            retry_after: u64::try_from(wait).unwrap_or(1),
        }),
        None => Ok(()),
    }
}

/// Takes a counted try back.
pub(super) async fn forgiven(fleet: &Fleet, keys: &[(String, i64)]) -> Result<(), Error> {
    fleet
        .db()
        .write(|tx| {
            Box::pin(async move {
                for (key, _) in keys {
                    tx.run(
                        "UPDATE throttle SET failures=failures-1, until=0 WHERE name=$1 AND failures>0",
                        args![key],
                    )
                    .await?;
                }
                Ok(())
            })
        })
        .await
}

/// Whose address it is: of IPv6 the network, which has more addresses than anybody can count tries of.
fn line(from: &str) -> String {
    match from.parse() {
        Ok(std::net::IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_none() => {
            std::net::Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).to_string()
        }
        _ => from.to_owned(),
    }
}

impl People<'_> {
    /// Checks name, password and second factor of a local account. Without a tenant the name may be any tenant's.
    ///
    /// [`Error::Unauthenticated`] says no more than that it failed; [`Error::SecondFactor`] that the password was
    /// right and a code is missing; [`Error::Throttled`] how long to wait.
    pub async fn sign_in(
        &self,
        tenant: Option<&str>,
        username: &str,
        secret: &str,
        code: Option<&str>,
        from: &str,
    ) -> Result<Person, Error> {
        let (who, line) = (tenant.unwrap_or(""), &line(from));
        let keys = &[
            (key("person", &[who, username, line]), 5),
            (key("name", &[who, username]), 50),
            (key("from", &[line]), 30),
        ];
        counted(self.0, keys).await?;
        let person = self.check(tenant, username, secret, code, from).await;
        if matches!(person, Ok(_) | Err(Error::SecondFactor)) {
            // A right password with the code still to come is no failure; a wrong code is.
            forgiven(self.0, keys).await?;
        }
        person
    }

    async fn check(
        &self,
        tenant: Option<&str>,
        username: &str,
        secret: &str,
        code: Option<&str>,
        from: &str,
    ) -> Result<Person, Error> {
        let fleet = self.0;
        let mut sql = Sql::new(&format!(
            "SELECT {},p.password,p.totp_secret,p.tenant FROM person p JOIN tenant t ON t.id=p.tenant \
             WHERE p.kind='local' AND p.disabled=0 AND p.username=",
            accounts::COLUMNS
        ));
        sql.bind(username);
        if let Some(tenant) = tenant {
            sql.push(" AND (t.name=").bind(tenant);
            sql.push(" OR t.id=").bind(tenant).push(")");
        }
        sql.push(" ORDER BY p.created_at LIMIT 4");
        let rows = fleet.db().query(sql).await?;
        let mut found = None;
        if rows.is_empty() {
            password::fits(fleet, secret, None).await?;
        }
        for row in &rows {
            if password::fits(fleet, secret, row.opt_text(10).as_deref()).await? {
                found = Some(row);
                break;
            }
        }
        let Some(row) = found else {
            return Err(Error::Unauthenticated);
        };
        let user = read(row);
        let tenant = row.text(12);
        let sealed = row.bytes(11);
        match (user.totp, code) {
            (true, None) => return Err(Error::SecondFactor),
            (true, Some(code)) => {
                let sealed = &sealed.unwrap_or_default();
                let (tenant, id) = (tenant.as_str(), user.id.as_str());
                let accepted = fleet
                    .db()
                    .write(|tx| Box::pin(totp::accept(fleet, tx, (tenant, id), sealed, code)))
                    .await?;
                if !accepted {
                    return Err(Error::Unauthenticated);
                }
            }
            (false, _) => {}
        }
        self.signed_in(&tenant, user, from).await
    }

    /// Lets somebody in of whom their provider said who they are; makes their account when they come first. A new
    /// account may do nothing until an owner binds it.
    pub async fn sign_in_oidc(&self, tenant: &str, who: &OidcPerson, from: &str) -> Result<Person, Error> {
        let fleet = self.0;
        let caller = &Caller::system(tenant, "oidc");
        let subject = &format!("{} {}", who.issuer, who.subject);
        // At many providers people choose how they are called.
        accounts::check_name(&who.username)?;
        let plain = |text: &str| {
            text.chars()
                .filter(|c| !c.is_control())
                .take(254)
                .collect::<String>()
        };
        let (display_name, email) = (&plain(&who.display_name), &plain(&who.email));
        let user = fleet
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let mut sql = Sql::new(&format!(
                        "SELECT {} FROM person p WHERE p.tenant=",
                        accounts::COLUMNS
                    ));
                    sql.bind(tenant).push(" AND p.subject=").bind(subject);
                    if let Some(row) = tx.query(sql).await?.first() {
                        return Ok(read(row));
                    }
                    let user = User {
                        id: new_id(tx.now),
                        username: who.username.clone(),
                        display_name: display_name.clone(),
                        email: email.clone(),
                        kind: UserKind::Oidc,
                        totp: false,
                        disabled: false,
                        platform_admin: false,
                        last_login_at: None,
                        bindings: Vec::new(),
                        generation: 1,
                    };
                    // An owner may have made the account beforehand: the first who comes with that name takes it.
                    let taken = tx
                        .run(
                            "UPDATE person SET subject=$3 WHERE tenant=$1 AND username=$2 AND kind='oidc' \
                             AND subject IS NULL",
                            args![tenant, &user.username, subject],
                        )
                        .await?;
                    if taken == 1 {
                        return accounts::locked(tx, tenant, &user.username).await;
                    }
                    // Anybody may have an account at a large provider; that makes them nobody here.
                    if !who.admitted {
                        return Err(Error::Forbidden {
                            message: format!("{} has no role here: ask an owner for one", who.username),
                        });
                    }
                    accounts::insert(tx, caller, &user, None, Some(subject)).await?;
                    Ok(user)
                })
            })
            .await?;
        if user.disabled {
            return Err(Error::Unauthenticated);
        }
        self.signed_in(tenant, user, from).await
    }

    async fn signed_in(&self, tenant: &str, mut user: User, from: &str) -> Result<Person, Error> {
        let fleet = self.0;
        let caller = &Caller {
            kind: ActorKind::User,
            actor: user.username.clone(),
            from: from.to_owned(),
            ..Caller::system(tenant, "")
        };
        let who = &user;
        fleet
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let now = tx.now;
                    tx.run(
                        "UPDATE person SET last_login_at=$3 WHERE tenant=$1 AND id=$2",
                        args![tenant, &who.id, now],
                    )
                    .await?;
                    tx.audit(caller, "session.create", object(who), None::<&()>, None::<&()>);
                    Ok(())
                })
            })
            .await?;
        user.last_login_at = Some(fleet.db().now());
        let mut filled = bindings::of(fleet.db(), tenant, std::slice::from_ref(&user)).await?;
        user.bindings = filled.pop().unwrap_or_default();
        let tenant = fleet
            .tenants()
            .find(tenant)
            .await?
            .ok_or(Error::Unauthenticated)?;
        Ok(Person { tenant, user })
    }

    /// Forgets tries that are long past. For the leader, now and then.
    pub async fn forget_tries(&self) -> Result<(), Error> {
        let before = &Time::from_millis(self.0.db().now().millis() - FORGET * 1000);
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    tx.run("DELETE FROM throttle WHERE since<$1 AND until<$1", args![*before])
                        .await
                })
            })
            .await
            .map(drop)
    }
}
