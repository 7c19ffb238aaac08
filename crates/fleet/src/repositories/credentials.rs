//! Credentials of repositories, and what their webhooks must know. Sealed; never shown.

use super::{Repositories, read::locked, write::object};
use crate::model::{Credentials, Repository};
use crate::{Caller, Error, Fleet, Role, args, secrets};

const CREDENTIALS: &str = "repository-credentials";
const WEBHOOK: &str = "repository-webhook";

impl Fleet {
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

    pub(super) fn seal_credentials(
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

    /// A new secret for webhooks.
    pub(super) fn new_webhook(&self, tenant: &str, id: &str) -> Result<Vec<u8>, Error> {
        self.seal(WEBHOOK, tenant, id, secrets::random()?.as_bytes())
    }
}

impl Repositories<'_> {
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
        fleet
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let tenant = &caller.tenant;
                    let before = locked(tx, tenant, name).await?;
                    let sealed = fleet.new_webhook(tenant, &before.id)?;
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
}
