use super::sign_in::Person;
use super::{accounts, bindings};
use crate::model::{ActorKind, Time, User};
use crate::{Caller, Error, Fleet, args, secrets};

/// See [`Fleet::sessions`].
#[derive(Clone, Copy, Debug)]
pub struct Sessions<'a>(&'a Fleet);

impl Fleet {
    /// Signed-in browsers. Of their secrets only hashes are kept.
    #[must_use]
    pub fn sessions(&self) -> Sessions<'_> {
        Sessions(self)
    }
}

/// A session just made. `{:?}` shows no secret.
#[derive(Clone)]
pub struct NewSession {
    /// What the cookie holds.
    pub secret: String,
    /// What unsafe requests repeat in a header.
    pub csrf: String,
    /// When it ends.
    pub expires_at: Time,
}

impl std::fmt::Debug for NewSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewSession(…, until {})", self.expires_at)
    }
}

/// A session that is good.
#[derive(Clone, Debug)]
pub struct Session {
    /// The user's tenant.
    pub tenant_id: String,
    /// The user's id.
    pub user_id: String,
    /// The user's name.
    pub username: String,
    /// May make and delete tenants.
    pub platform_admin: bool,
    /// What unsafe requests must repeat.
    pub csrf: String,
    /// When it ends.
    pub expires_at: Time,
}

impl Sessions<'_> {
    /// Makes one for somebody who signed in.
    pub async fn create(&self, person: &Person, from: &str) -> Result<NewSession, Error> {
        let lasts = i64::try_from(self.0.options().session.as_secs()).unwrap_or(3600);
        let new = NewSession {
            secret: secrets::random()?,
            csrf: secrets::random()?,
            expires_at: self.0.db().now().plus_seconds(lasts),
        };
        let made = &new;
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let now = tx.now;
                    tx.run("DELETE FROM session WHERE expires_at<$1", args![now])
                        .await?;
                    tx.run(
                        "INSERT INTO session (hash,tenant,person,csrf,created_at,expires_at,used_at,source) \
                         VALUES ($1,$2,$3,$4,$5,$6,$5,$7)",
                        args![
                            secrets::hash(&made.secret),
                            &person.tenant.id,
                            &person.user.id,
                            &made.csrf,
                            now,
                            made.expires_at,
                            from
                        ],
                    )
                    .await
                })
            })
            .await?;
        Ok(new)
    }

    /// Finds a good one: not ended, its user not disabled.
    pub async fn find(&self, secret: &str) -> Result<Option<Session>, Error> {
        let row = self
            .0
            .db()
            .row(
                "SELECT s.tenant,s.person,p.username,p.platform_admin,s.csrf,s.expires_at FROM session s \
                 JOIN person p ON p.tenant=s.tenant AND p.id=s.person \
                 WHERE s.hash=$1 AND s.expires_at>$2 AND p.disabled=0",
                args![secrets::hash(secret), self.0.db().now()],
            )
            .await?;
        Ok(row.map(|row| Session {
            tenant_id: row.text(0),
            user_id: row.text(1),
            username: row.text(2),
            platform_admin: row.bool(3),
            csrf: row.text(4),
            expires_at: row.time(5),
        }))
    }

    /// Who a session's user is in a tenant: with their roles in their own. In another they are nobody, and may not learn
    /// that it is there; only administrators of the platform may, without a role in it.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a stranger's tenant, or the database.
    pub async fn caller(&self, session: &Session, tenant: &str, from: &str) -> Result<Caller, Error> {
        let grants = if session.tenant_id == tenant {
            bindings::grants(self.0.db(), tenant, &session.user_id).await?
        } else if session.platform_admin {
            Vec::new()
        } else {
            return Err(Error::not_found("tenant", tenant));
        };
        Ok(Caller {
            tenant: tenant.to_owned(),
            actor: session.username.clone(),
            kind: ActorKind::User,
            grants,
            from: from.to_owned(),
            platform_admin: session.platform_admin,
        })
    }

    /// The session's user, with bindings.
    pub async fn user(&self, session: &Session) -> Result<User, Error> {
        let caller = Caller::system(&session.tenant_id, "session");
        self.0.people().get(&caller, &session.user_id).await
    }

    /// Ends one.
    pub async fn end(&self, secret: &str) -> Result<(), Error> {
        let hash = &secrets::hash(secret);
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move { tx.run("DELETE FROM session WHERE hash=$1", args![hash]).await })
            })
            .await
            .map(drop)
    }

    /// Ends all of a user.
    pub async fn end_all_of(&self, tenant: &str, user: &str) -> Result<(), Error> {
        self.0
            .db()
            .write(|tx| Box::pin(accounts::end_sessions(tx, tenant, user)))
            .await
    }
}
