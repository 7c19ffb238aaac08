//! Requests that carry an idempotency key are done once, and answered alike each time, for a day.

use crate::{Error, Fleet, args};

const KEPT: i64 = 24 * 3_600_000;
/// A request that was begun and never finished (its process died) may be begun again after this.
const ABANDONED: i64 = 60_000;

/// See [`Fleet::idempotency`].
#[derive(Clone, Copy, Debug)]
pub struct Idempotency<'a>(&'a Fleet);

impl Fleet {
    /// Answers to requests that may come twice.
    #[must_use]
    pub fn idempotency(&self) -> Idempotency<'_> {
        Idempotency(self)
    }
}

/// What is known of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It is new: do it, then [`Idempotency::finish`].
    New,
    /// It was done.
    Done {
        /// The status code of the answer.
        status: u16,
        /// The body of the answer.
        body: Vec<u8>,
    },
    /// It is being done.
    Running,
    /// The key came with another request.
    Mismatch,
}

fn name(actor: &str, key: &str) -> String {
    crate::log::chain("", &[actor, key])
}

impl Idempotency<'_> {
    /// Begins a request. `request` is a hash of method, path and body.
    pub async fn begin(&self, tenant: &str, actor: &str, key: &str, request: &[u8]) -> Result<Begun, Error> {
        if key.is_empty() || key.len() > 255 {
            return Err(Error::invalid("Idempotency-Key", "has 1 to 255 characters"));
        }
        let name = &name(actor, key);
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let now = tx.now.millis();
                    tx.run(
                        "DELETE FROM idempotency WHERE tenant=$1 AND name=$2 AND (created_at<$3 OR \
                         (status=0 AND created_at<$4))",
                        args![tenant, name, now - KEPT, now - ABANDONED],
                    )
                    .await?;
                    let new = tx
                        .run(
                            "INSERT INTO idempotency (tenant,name,request,status,answer,created_at) \
                             VALUES ($1,$2,$3,0,$4,$5) ON CONFLICT DO NOTHING",
                            args![tenant, name, request, Vec::new(), now],
                        )
                        .await?;
                    if new == 1 {
                        return Ok(Begun::New);
                    }
                    let row = tx
                        .row(
                            "SELECT request,status,answer FROM idempotency WHERE tenant=$1 AND name=$2",
                            args![tenant, name],
                        )
                        .await?;
                    Ok(match row {
                        None => Begun::Running,
                        Some(row) if row.bytes(0).as_deref() != Some(request) => Begun::Mismatch,
                        Some(row) if row.int(1) == 0 => Begun::Running,
                        Some(row) => Begun::Done {
                            status: u16::try_from(row.int(1)).unwrap_or(500),
                            body: row.bytes(2).unwrap_or_default(),
                        },
                    })
                })
            })
            .await
    }

    /// Keeps the answer. Answers with one-time secrets must not come here: call [`Idempotency::cancel`].
    pub async fn finish(
        &self,
        tenant: &str,
        actor: &str,
        key: &str,
        status: u16,
        body: &[u8],
    ) -> Result<(), Error> {
        let name = &name(actor, key);
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    tx.run(
                        "UPDATE idempotency SET status=$3, answer=$4 WHERE tenant=$1 AND name=$2",
                        args![tenant, name, i64::from(status), body],
                    )
                    .await
                })
            })
            .await
            .map(drop)
    }

    /// Forgets a request that failed in a way that a new try may mend.
    pub async fn cancel(&self, tenant: &str, actor: &str, key: &str) -> Result<(), Error> {
        let name = &name(actor, key);
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    tx.run(
                        "DELETE FROM idempotency WHERE tenant=$1 AND name=$2",
                        args![tenant, name],
                    )
                    .await
                })
            })
            .await
            .map(drop)
    }

    /// Forgets those past their day. For the leader.
    pub async fn expire(&self) -> Result<(), Error> {
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let before = tx.now.millis() - KEPT;
                    tx.run("DELETE FROM idempotency WHERE created_at<$1", args![before])
                        .await
                })
            })
            .await
            .map(drop)
    }
}
