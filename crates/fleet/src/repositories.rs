//! Git repositories: registered once, their credentials sealed.

use serde_json::Value;

use crate::assignments::{next, tell};
use crate::db::{Row, Sql, Tx};
use crate::log::{new_id, word};
use crate::model::{
    Credentials, Head, ObjectRef, Reach, ReachState, Repository, RepositoryAuth, RepositorySpec,
};
use crate::page::{Order, Page, Query, Sort};
use crate::{Caller, Error, Fleet, Kind, Op, Role, args, check, secrets};

const CREDENTIALS: &str = "repository-credentials";
const WEBHOOK: &str = "repository-webhook";

const COLUMNS: &str = "r.id,r.name,r.url,r.branch,r.hosted,r.auth,r.credentials IS NOT NULL,r.ca_pem,r.known_hosts,\
     r.reach,r.reach_message,r.reach_at,r.generation,d.id,d.subject,d.author,d.time";
const FROM: &str = " FROM repository r LEFT JOIN head d ON d.tenant=r.tenant AND d.repository=r.id AND d.branch=r.branch \
     WHERE r.tenant=";
const SORTS: &[Sort] = &[Sort {
    name: "name",
    column: "r.name",
    number: false,
}];

/// See [`Fleet::repositories`].
#[derive(Clone, Copy, Debug)]
pub struct Repositories<'a>(&'a Fleet);

impl Fleet {
    /// Git repositories.
    #[must_use]
    pub fn repositories(&self) -> Repositories<'_> {
        Repositories(self)
    }

    pub(crate) fn open_credentials(
        &self,
        tenant: &str,
        id: &str,
        sealed: &[u8],
    ) -> Result<Credentials, Error> {
        let bytes = self.unseal(CREDENTIALS, tenant, id, sealed)?;
        serde_json::from_slice(&bytes).map_err(|_| Error::Damaged {
            what: "the credentials of a repository".to_owned(),
        })
    }

    fn seal_credentials(
        &self,
        tenant: &str,
        id: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Option<Vec<u8>>, Error> {
        let Some(credentials) = credentials else {
            return Ok(None);
        };
        let bytes = serde_json::to_vec(credentials).unwrap_or_default();
        self.seal(CREDENTIALS, tenant, id, &bytes).map(Some)
    }
}

fn read(row: &Row) -> Repository {
    Repository {
        id: row.text(0),
        name: row.text(1),
        url: row.text(2),
        branch: row.text(3),
        hosted: row.bool(4),
        auth: row.word(5),
        has_credentials: row.bool(6),
        ca_pem: row.text(7),
        known_hosts: row.text(8),
        reach: Reach {
            state: row.word(9),
            message: row.text(10),
            checked_at: row.opt_time(11),
        },
        generation: row.int(12),
        head: row.opt_text(13).map(|commit| Head {
            commit,
            subject: row.text(14),
            author: row.text(15),
            time: row.opt_time(16),
        }),
        webhook_url: String::new(),
    }
}

fn object(repository: &Repository) -> ObjectRef {
    ObjectRef {
        kind: "repository".to_owned(),
        id: repository.id.clone(),
        name: repository.name.clone(),
    }
}

fn spec_of(repository: &Repository) -> RepositorySpec {
    RepositorySpec {
        name: repository.name.clone(),
        url: repository.url.clone(),
        branch: repository.branch.clone(),
        hosted: repository.hosted,
        auth: repository.auth,
        credentials: None,
        ca_pem: repository.ca_pem.clone(),
        known_hosts: repository.known_hosts.clone(),
    }
}

/// Whether a branch's name can be given to `git` (see git-check-ref-format).
pub(crate) fn branch(field: &str, name: &str) -> Result<(), Error> {
    let bad = name.is_empty()
        || name.len() > 200
        || name.starts_with(['-', '/', '.'])
        || name.ends_with(['/', '.'])
        || name.ends_with(".lock")
        || name.contains("..")
        || name.contains("//")
        || name.contains("/.")
        || name.contains("@{")
        || name
            .chars()
            .any(|c| c.is_control() || matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\'));
    if bad {
        return Err(Error::invalid(field, "is not a branch's name"));
    }
    Ok(())
}

fn check(spec: &RepositorySpec) -> Result<(), Error> {
    check::name("name", &spec.name)?;
    branch("branch", &spec.branch)?;
    check::text("url", &spec.url, 1024)?;
    check::lines("caPem", &spec.ca_pem, 64 * 1024)?;
    check::lines("knownHosts", &spec.known_hosts, 64 * 1024)?;
    if spec.hosted {
        return Ok(());
    }
    let url = &spec.url;
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    match scheme {
        Some("https" | "http" | "ssh" | "git" | "file") => {}
        // git@host:path
        None if url.contains('@') && url.contains(':') && !url.starts_with('-') => {}
        _ => {
            return Err(Error::invalid(
                "url",
                "is none of https://, http://, ssh://, git@HOST:PATH, git://, file://",
            ));
        }
    }
    let authority = url
        .split_once("://")
        .map_or("", |(_, rest)| rest.split('/').next().unwrap_or(""));
    if authority
        .split_once('@')
        .is_some_and(|(user, _)| user.contains(':'))
    {
        return Err(Error::invalid(
            "url",
            "has a password in it: give it as credentials",
        ));
    }
    if let Some(credentials) = &spec.credentials {
        for (field, text) in [
            ("credentials.username", &credentials.username),
            ("credentials.password", &credentials.password),
            ("credentials.bearer", &credentials.bearer),
            ("credentials.identity", &credentials.identity),
        ] {
            check::lines(field, text, 32 * 1024)?;
        }
        // They become a line of a request's head each: what follows a line break would be another.
        check::text("credentials.username", &credentials.username, 1024)?;
        check::text("credentials.bearer", &credentials.bearer, 32 * 1024)?;
        let missing = match spec.auth {
            RepositoryAuth::None => Some(("auth", "says that there are no credentials")),
            RepositoryAuth::Basic if credentials.password.is_empty() => {
                Some(("credentials.password", "is missing"))
            }
            RepositoryAuth::Bearer if credentials.bearer.is_empty() => {
                Some(("credentials.bearer", "is missing"))
            }
            RepositoryAuth::Ssh if credentials.identity.is_empty() => {
                Some(("credentials.identity", "is missing"))
            }
            _ => None,
        };
        if let Some((field, message)) = missing {
            return Err(Error::invalid(field, message));
        }
    }
    Ok(())
}

pub(crate) async fn locked(tx: &mut Tx<'_>, tenant: &str, name: &str) -> Result<Repository, Error> {
    // The lock is on the repository's row alone: an outer join can't be locked.
    let row = tx
        .row(
            "SELECT id FROM repository WHERE tenant=$1 AND (name=$2 OR id=$2) FOR UPDATE",
            args![tenant, name],
        )
        .await?
        .ok_or_else(|| Error::not_found("repository", name))?;
    let mut sql = Sql::new(&format!("SELECT {COLUMNS}{FROM}"));
    sql.bind(tenant).push(" AND r.id=").bind(row.str(0));
    let rows = tx.query(sql).await?;
    rows.first()
        .map(read)
        .ok_or_else(|| Error::not_found("repository", name))
}

impl Repositories<'_> {
    /// Lists them.
    pub async fn list(&self, caller: &Caller, query: &Query) -> Result<Page<Repository>, Error> {
        caller.require_anywhere(Role::Viewer)?;
        let order = Order::new(query, SORTS, "r.id")?;
        let mut filter = Sql::new(FROM);
        filter.bind(caller.tenant.as_str());
        for pattern in query.patterns()? {
            filter.push(" AND LOWER(r.name||' '||r.url) LIKE ");
            filter.bind(pattern).push(" ESCAPE '\\'");
        }
        let total = crate::page::count(self.0.db(), &filter).await?;
        let mut sql = filter.select(COLUMNS);
        order.finish(&mut sql);
        let rows = self.0.db().query(sql).await?;
        Ok(order.page(rows, total, (1, 0), read))
    }

    /// Reads one.
    pub async fn get(&self, caller: &Caller, name: &str) -> Result<Repository, Error> {
        caller.require_anywhere(Role::Viewer)?;
        self.find(&caller.tenant, name)
            .await?
            .ok_or_else(|| Error::not_found("repository", name))
    }

    /// Finds one for the server itself.
    pub async fn find(&self, tenant: &str, name: &str) -> Result<Option<Repository>, Error> {
        let mut sql = Sql::new(&format!("SELECT {COLUMNS}{FROM}"));
        sql.bind(tenant).push(" AND (r.name=").bind(name);
        sql.push(" OR r.id=").bind(name).push(")");
        Ok(self.0.db().query(sql).await?.first().map(read))
    }

    /// All repositories of all tenants, as (tenant, repository): for the task that polls them.
    pub async fn all(&self) -> Result<Vec<(String, Repository)>, Error> {
        let sql = format!(
            "SELECT {COLUMNS},r.tenant FROM repository r LEFT JOIN head d ON d.tenant=r.tenant \
             AND d.repository=r.id AND d.branch=r.branch ORDER BY r.tenant,r.name"
        );
        let rows = self.0.db().query(Sql::new(&sql)).await?;
        Ok(rows.iter().map(|row| (row.text(17), read(row))).collect())
    }

    /// The branches of a repository that somebody follows: its own and those that sites name.
    pub async fn branches(&self, tenant: &str, id: &str) -> Result<Vec<String>, Error> {
        let rows = self
            .0
            .db()
            .rows(
                "SELECT branch FROM repository WHERE tenant=$1 AND id=$2 UNION \
                 SELECT branch FROM site WHERE tenant=$1 AND repository=$2 AND branch IS NOT NULL",
                args![tenant, id],
            )
            .await?;
        Ok(rows.iter().map(|row| row.text(0)).collect())
    }

    /// Registers one.
    pub async fn create(&self, caller: &Caller, spec: &RepositorySpec) -> Result<Repository, Error> {
        caller.require(Role::Owner)?;
        let mut spec = spec.clone();
        if spec.branch.is_empty() {
            "main".clone_into(&mut spec.branch);
        }
        check(&spec)?;
        let id = &new_id(self.0.db().now());
        let tenant = &caller.tenant;
        let sealed = &self.0.seal_credentials(tenant, id, spec.credentials.as_ref())?;
        let webhook = &self.0.seal(WEBHOOK, tenant, id, secrets::random()?.as_bytes())?;
        let spec = &spec;
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let told = next(tx).await?;
                    let made = tx
                        .run(
                            "INSERT INTO repository (tenant,id,name,url,branch,hosted,auth,credentials,ca_pem,\
                             known_hosts,reach,reach_message,webhook,generation,told) \
                             VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,'unknown','',$11,1,$12) ON CONFLICT DO NOTHING",
                            args![
                                tenant,
                                id,
                                &spec.name,
                                &spec.url,
                                &spec.branch,
                                spec.hosted,
                                word(&spec.auth),
                                sealed.clone(),
                                &spec.ca_pem,
                                &spec.known_hosts,
                                webhook,
                                told
                            ],
                        )
                        .await?;
                    if made == 0 {
                        return Err(Error::conflict(format!("there is a repository {} already", spec.name)));
                    }
                    let after = locked(tx, tenant, id).await?;
                    tx.audit(caller, "repository.create", object(&after), None::<&()>, Some(&after));
                    tx.changed(tenant, Kind::Repository, Op::Upsert, id, &after.name, None);
                    Ok(after)
                })
            })
            .await
    }

    /// Changes one.
    pub async fn update(
        &self,
        caller: &Caller,
        name: &str,
        if_match: Option<i64>,
        patch: &Value,
    ) -> Result<Repository, Error> {
        caller.require(Role::Owner)?;
        let fleet = self.0;
        let forget = patch.get("credentials").is_some_and(Value::is_null);
        fleet
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let tenant = &caller.tenant;
                    let before = locked(tx, tenant, name).await?;
                    check::generation("repository", &before.name, before.generation, if_match)?;
                    let spec = check::patched(&spec_of(&before), patch)?;
                    check(&spec)?;
                    if spec.hosted != before.hosted {
                        return Err(Error::invalid("hosted", "stays: register another repository"));
                    }
                    if spec == spec_of(&before) && !forget {
                        return Ok(before);
                    }
                    let forget = forget || spec.auth == RepositoryAuth::None;
                    let sealed = fleet.seal_credentials(tenant, &before.id, spec.credentials.as_ref())?;
                    let told = next(tx).await?;
                    let written = tx
                        .run(
                            "UPDATE repository SET name=$3,url=$4,branch=$5,auth=$6,ca_pem=$7,known_hosts=$8,\
                             credentials=CASE WHEN $9=1 THEN NULL ELSE COALESCE($10,credentials) END,\
                             generation=generation+1,told=$11 WHERE tenant=$1 AND id=$2",
                            args![
                                tenant,
                                &before.id,
                                &spec.name,
                                &spec.url,
                                &spec.branch,
                                word(&spec.auth),
                                &spec.ca_pem,
                                &spec.known_hosts,
                                forget,
                                sealed,
                                told
                            ],
                        )
                        .await;
                    if written.as_ref().is_err_and(crate::db::is_unique) {
                        return Err(Error::conflict(format!(
                            "there is a repository {} already",
                            spec.name
                        )));
                    }
                    written?;
                    let after = locked(tx, tenant, &before.id).await?;
                    tx.audit(
                        caller,
                        "repository.update",
                        object(&after),
                        Some(&before),
                        Some(&after),
                    );
                    if spec.credentials.is_some() || forget && before.has_credentials {
                        tx.audit(
                            caller,
                            "repository.credentials",
                            object(&after),
                            None::<&()>,
                            None::<&()>,
                        );
                    }
                    tx.changed(tenant, Kind::Repository, Op::Upsert, &after.id, &after.name, None);
                    tell(tx, tenant, "repository", &after.id);
                    Ok(after)
                })
            })
            .await
    }

    /// Deletes one that no site uses.
    pub async fn delete(&self, caller: &Caller, name: &str, if_match: Option<i64>) -> Result<(), Error> {
        caller.require(Role::Owner)?;
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let tenant = &caller.tenant;
                    let before = locked(tx, tenant, name).await?;
                    check::generation("repository", &before.name, before.generation, if_match)?;
                    let used = tx
                        .row(
                            "SELECT name FROM site WHERE tenant=$1 AND repository=$2 LIMIT 1",
                            args![tenant, &before.id],
                        )
                        .await?;
                    if let Some(row) = used {
                        return Err(Error::conflict(format!(
                            "site {} and perhaps others use repository {}: point them elsewhere first",
                            row.str(0),
                            before.name
                        )));
                    }
                    tx.run(
                        "DELETE FROM head WHERE tenant=$1 AND repository=$2",
                        args![tenant, &before.id],
                    )
                    .await?;
                    tx.run(
                        "DELETE FROM repository WHERE tenant=$1 AND id=$2",
                        args![tenant, &before.id],
                    )
                    .await?;
                    tx.audit(
                        caller,
                        "repository.delete",
                        object(&before),
                        Some(&before),
                        None::<&()>,
                    );
                    tx.changed(
                        tenant,
                        Kind::Repository,
                        Op::Delete,
                        &before.id,
                        &before.name,
                        None,
                    );
                    Ok(())
                })
            })
            .await
    }

    /// The URL of a hosted repository, which only the server knows. Writes nothing if it is there already.
    pub async fn set_url(&self, tenant: &str, id: &str, url: &str) -> Result<(), Error> {
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let same = tx
                        .row(
                            "SELECT 1 FROM repository WHERE tenant=$1 AND id=$2 AND url=$3",
                            args![tenant, id, url],
                        )
                        .await?;
                    if same.is_none() {
                        let told = next(tx).await?;
                        tx.run(
                            "UPDATE repository SET url=$3, told=$4 WHERE tenant=$1 AND id=$2",
                            args![tenant, id, url, told],
                        )
                        .await?;
                        tell(tx, tenant, "repository", id);
                    }
                    Ok(())
                })
            })
            .await
    }

    /// The credentials, unsealed: for the server's own fetches. Never to be shown.
    pub async fn credentials(&self, tenant: &str, id: &str) -> Result<Option<Credentials>, Error> {
        let row = self
            .0
            .db()
            .row(
                "SELECT credentials FROM repository WHERE tenant=$1 AND id=$2",
                args![tenant, id],
            )
            .await?;
        row.and_then(|row| row.bytes(0))
            .map(|sealed| self.0.open_credentials(tenant, id, &sealed))
            .transpose()
    }

    /// What a webhook of the repository must know.
    pub async fn webhook_secret(&self, tenant: &str, id: &str) -> Result<String, Error> {
        let row = self
            .0
            .db()
            .row(
                "SELECT webhook FROM repository WHERE tenant=$1 AND id=$2",
                args![tenant, id],
            )
            .await?
            .ok_or_else(|| Error::not_found("repository", id))?;
        let secret = self
            .0
            .unseal(WEBHOOK, tenant, id, &row.bytes(0).unwrap_or_default())?;
        Ok(String::from_utf8_lossy(&secret).into_owned())
    }

    /// The repository that a webhook's URL is for; none if the secret is wrong.
    pub async fn by_webhook(
        &self,
        tenant: &str,
        name: &str,
        secret: &str,
    ) -> Result<Option<(String, Repository)>, Error> {
        let Some(tenant) = self.0.tenants().find(tenant).await? else {
            return Ok(None);
        };
        let Some(repository) = self.find(&tenant.id, name).await? else {
            return Ok(None);
        };
        let right = self.webhook_secret(&tenant.id, &repository.id).await?;
        let same = identity::proof::same_secret(right.as_bytes(), secret.as_bytes());
        Ok(same.then_some((tenant.id, repository)))
    }

    /// Makes a new secret for webhooks; the old one is refused from now on.
    pub async fn rotate_webhook(&self, caller: &Caller, name: &str) -> Result<Repository, Error> {
        caller.require(Role::Owner)?;
        let fleet = self.0;
        let secret = &secrets::random()?;
        fleet
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let tenant = &caller.tenant;
                    let before = locked(tx, tenant, name).await?;
                    let sealed = fleet.seal(WEBHOOK, tenant, &before.id, secret.as_bytes())?;
                    tx.run(
                        "UPDATE repository SET webhook=$3, generation=generation+1 WHERE tenant=$1 AND id=$2",
                        args![tenant, &before.id, sealed],
                    )
                    .await?;
                    tx.audit(
                        caller,
                        "repository.webhook.rotate",
                        object(&before),
                        None::<&()>,
                        None::<&()>,
                    );
                    locked(tx, tenant, &before.id).await
                })
            })
            .await
    }

    /// What the last try to reach it said. Writes nothing when that is what was known, but for the time each hour.
    pub async fn set_reach(
        &self,
        tenant: &str,
        id: &str,
        state: ReachState,
        message: &str,
    ) -> Result<(), Error> {
        let message = message.get(..message.floor_char_boundary(1024)).unwrap_or("");
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let now = tx.now;
                    let row = tx
                        .row(
                            "SELECT reach,reach_message,reach_at,name FROM repository \
                             WHERE tenant=$1 AND id=$2 FOR UPDATE",
                            args![tenant, id],
                        )
                        .await?
                        .ok_or_else(|| Error::not_found("repository", id))?;
                    let same = row.str(0) == word(&state) && row.str(1) == message;
                    if same && row.int(2) + 3_600_000 > now.millis() {
                        return Ok(());
                    }
                    tx.run(
                        "UPDATE repository SET reach=$3, reach_message=$4, reach_at=$5 WHERE tenant=$1 AND id=$2",
                        args![tenant, id, word(&state), message, now],
                    )
                    .await?;
                    if !same {
                        tx.changed(tenant, Kind::Repository, Op::Upsert, id, row.str(3), None);
                    }
                    Ok(())
                })
            })
            .await
    }

    /// The newest commit of a branch; whether that is news. Writes nothing when it is not.
    pub async fn set_head(&self, tenant: &str, id: &str, branch: &str, head: &Head) -> Result<bool, Error> {
        let cut = |text: &str, most| text[..text.floor_char_boundary(most)].to_owned();
        let (subject, author) = (&cut(&head.subject, 256), &cut(&head.author, 256));
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let row = tx
                        .row(
                            "SELECT r.name,d.id FROM repository r LEFT JOIN head d ON d.tenant=r.tenant \
                             AND d.repository=r.id AND d.branch=$3 WHERE r.tenant=$1 AND r.id=$2",
                            args![tenant, id, branch],
                        )
                        .await?
                        .ok_or_else(|| Error::not_found("repository", id))?;
                    if row.str(1) == head.commit {
                        return Ok(false);
                    }
                    tx.run(
                        "INSERT INTO head (tenant,repository,branch,id,subject,author,time) \
                         VALUES ($1,$2,$3,$4,$5,$6,$7) ON CONFLICT (tenant,repository,branch) \
                         DO UPDATE SET id=$4, subject=$5, author=$6, time=$7",
                        args![tenant, id, branch, &head.commit, subject, author, head.time],
                    )
                    .await?;
                    tx.changed(tenant, Kind::Repository, Op::Upsert, id, row.str(0), None);
                    Ok(true)
                })
            })
            .await
    }
}
