//! What people write down of repositories.

use serde_json::Value;

use super::{Repositories, read::locked};
use crate::assignments::{next, tell};
use crate::log::{new_id, word};
use crate::model::{ObjectRef, Repository, RepositoryAuth, RepositorySpec};
use crate::{Caller, Error, Kind, Op, Role, args, check};

pub(super) fn object(repository: &Repository) -> ObjectRef {
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

fn fits(spec: &RepositorySpec) -> Result<(), Error> {
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

impl Repositories<'_> {
    /// Registers one.
    pub async fn create(&self, caller: &Caller, spec: &RepositorySpec) -> Result<Repository, Error> {
        caller.require(Role::Owner)?;
        let mut spec = spec.clone();
        if spec.branch.is_empty() {
            "main".clone_into(&mut spec.branch);
        }
        fits(&spec)?;
        let id = &new_id(self.0.db().now());
        let tenant = &caller.tenant;
        let sealed = &self.0.seal_credentials(tenant, id, spec.credentials.as_ref())?;
        let webhook = &self.0.new_webhook(tenant, id)?;
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
                    fits(&spec)?;
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
}
