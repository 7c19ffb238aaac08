//! Whether repositories can be reached, and what is newest there.

use super::Repositories;
use crate::log::word;
use crate::model::{Head, ReachState};
use crate::{Error, Kind, Op, args};

impl Repositories<'_> {
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
