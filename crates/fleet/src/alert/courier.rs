//! The task that delivers messages. One process at a time has the lease for it.

use std::{sync::Arc, time::Duration};

use lettre::{AsyncSmtpTransport, Tokio1Executor};
use tokio::task::JoinSet;

use super::{
    deliver::{self, DeliverError, Smtp},
    room::{SEAL, Settings},
};
use crate::{Error, Fleet, args, db::Row};

const LEASE: &str = "courier";
const TERM: Duration = Duration::from_secs(60);
/// Messages that are on their way at once.
const AT_ONCE: i64 = 16;
/// How long a message is tried.
const LONGEST_SECONDS: i64 = 24 * 3600;
/// The first pause, and the longest.
const PAUSE_SECONDS: i64 = 5;
const LONGEST_PAUSE: i64 = 3600;

/// Delivers messages.
#[derive(Clone, Debug)]
pub struct Courier {
    fleet: Fleet,
    node: String,
    http: reqwest::Client,
    mail: Option<Arc<(AsyncSmtpTransport<Tokio1Executor>, String)>>,
}

impl Courier {
    /// For the process `node`. `tls` is for webhooks; without it they are HTTP only.
    ///
    /// # Errors
    /// The mail server's or TLS settings make no sense.
    pub fn new(
        fleet: Fleet,
        node: &str,
        smtp: Option<&Smtp>,
        tls: Option<rustls::ClientConfig>,
    ) -> Result<Self, DeliverError> {
        let mut builder = reqwest::Client::builder()
            // Who may set the address of a webhook decides where it goes; nobody else.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("selvedge-orchestrator/", env!("CARGO_PKG_VERSION")))
            .pool_idle_timeout(Duration::from_secs(60));
        if let Some(tls) = tls {
            builder = builder.tls_backend_preconfigured(tls);
        }
        let http = builder.build().map_err(DeliverError::Http)?;
        let mail = match smtp {
            Some(smtp) => Some(Arc::new((deliver::transport(smtp)?, smtp.from.clone()))),
            None => None,
        };
        Ok(Self {
            fleet,
            node: node.into(),
            http,
            mail,
        })
    }

    /// Runs for ever; to end it, drop it.
    pub async fn run(self) {
        loop {
            let wait = match self.round().await {
                Ok(0) => Duration::from_secs(2),
                Ok(_) => Duration::ZERO,
                Err(error) => {
                    tracing::warn!(error = %telemetry::chain(&error), "messages can't be delivered now");
                    Duration::from_secs(10)
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Tries what is due, if this process has the lease; how many messages that were.
    ///
    /// # Errors
    /// The database.
    pub async fn round(&self) -> Result<usize, Error> {
        if !self.fleet.nodes().lead(LEASE, &self.node, TERM).await? {
            return Ok(0);
        }
        let rows = self
            .fleet
            .db()
            .rows(
                "SELECT d.tenant,d.id,d.channel,d.body,d.tries,d.created_at,c.kind,c.settings,c.secret FROM delivery d
                 LEFT JOIN channel c ON c.tenant=d.tenant AND c.id=d.channel
                 WHERE d.next_at<=$1 ORDER BY d.next_at LIMIT $2",
                args![self.fleet.db().now(), AT_ONCE],
            )
            .await?;
        let count = rows.len();
        let mut tries = JoinSet::new();
        for row in rows {
            let courier = self.clone();
            tries.spawn(async move {
                let outcome = courier.send(&row).await;
                courier.note(&row, outcome).await
            });
        }
        while let Some(done) = tries.join_next().await {
            // A try that was cut off is still due.
            if let Ok(result) = done {
                result?;
            }
        }
        Ok(count)
    }

    async fn send(&self, row: &Row) -> Result<(), DeliverError> {
        let settings: Settings = row.json(7);
        let (id, body) = (row.str(1), row.str(3));
        match row.str(6) {
            "webhook" => {
                let sealed = row.bytes(8).unwrap_or_default();
                let secret = self
                    .fleet
                    .unseal(SEAL, row.str(0), row.str(2), &sealed)
                    .map_err(|_| DeliverError::Wrong("its secret can't be read: set it again".into()))?;
                let seconds = self.fleet.db().now().millis() / 1000;
                deliver::webhook(&self.http, &settings.url, &secret, id, body, seconds).await
            }
            "email" => {
                let mail = self.mail.as_ref().ok_or(DeliverError::NoSmtp)?;
                deliver::email(&mail.0, &mail.1, &settings.to, id, body).await
            }
            // The channel is gone, and its messages with it.
            _ => Ok(()),
        }
    }

    async fn note(&self, row: &Row, outcome: Result<(), DeliverError>) -> Result<(), Error> {
        let (tenant, id, channel) = (row.str(0), row.str(1), row.str(2));
        let (tries, created) = (row.int(4) + 1, row.time(5));
        let failure = &outcome
            .as_ref()
            .err()
            .map(|error| telemetry::chain(error).to_string());
        let hopeless = matches!(outcome, Err(DeliverError::Wrong(_)))
            || created.plus_seconds(LONGEST_SECONDS) < self.fleet.db().now();
        let pause = pause(tries);
        self.fleet
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let now = tx.now;
                    let Some(failure) = failure else {
                        tx.run(
                            "DELETE FROM delivery WHERE tenant=$1 AND id=$2",
                            args![tenant, id],
                        )
                        .await?;
                        tx.run(
                            "UPDATE channel SET told_at=$3,failure='' WHERE tenant=$1 AND id=$2",
                            args![tenant, channel, now],
                        )
                        .await?;
                        return Ok(());
                    };
                    if hopeless {
                        tx.run(
                            "DELETE FROM delivery WHERE tenant=$1 AND id=$2",
                            args![tenant, id],
                        )
                        .await?;
                    } else {
                        tx.run(
                            "UPDATE delivery SET tries=$3,next_at=$4 WHERE tenant=$1 AND id=$2",
                            args![tenant, id, tries, now.plus_seconds(pause)],
                        )
                        .await?;
                    }
                    tx.run(
                        "UPDATE channel SET failure=$3,failed_at=$4 WHERE tenant=$1 AND id=$2",
                        args![tenant, channel, failure.as_str(), now],
                    )
                    .await?;
                    Ok(())
                })
            })
            .await
    }
}

/// Seconds until the next try: doubling, and not all at the same moment.
fn pause(tries: i64) -> i64 {
    let doubled = u32::try_from(tries.clamp(1, 20) - 1).unwrap_or(0);
    let full = (PAUSE_SECONDS << doubled).min(LONGEST_PAUSE);
    let byte = crate::secrets::bytes::<1>().map_or(255, |[byte]| i64::from(byte));
    full / 2 + full * byte / 510
}
