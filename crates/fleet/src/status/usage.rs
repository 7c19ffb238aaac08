//! How much hosts use, over time: points of five minutes for a day, of an hour for a month (both can be set).

use serde_json::Value;

use super::Key;
use crate::db::Tx;
use crate::model::{Time, UsagePoint};
use crate::{Caller, Error, Fleet, args};

/// Seconds of a fine point
const FINE: i64 = 300;
/// and of a coarse one.
const COARSE: i64 = 3600;
const DAY: i64 = 24 * 3_600_000;

/// See [`Fleet::usage`].
#[derive(Clone, Copy, Debug)]
pub struct Usage<'a>(&'a Fleet);

impl Fleet {
    /// How much hosts use, over time.
    #[must_use]
    pub fn usage(&self) -> Usage<'_> {
        Usage(self)
    }
}

fn share(value: &Value, field: &str) -> f64 {
    value
        .get(field)
        .and_then(Value::as_f64)
        .filter(|share| share.is_finite())
        .unwrap_or(0.0)
        .clamp(0.0, 1.0)
}

fn bytes(value: &Value, field: &str) -> i64 {
    value
        .get(field)
        .and_then(Value::as_u64)
        .map_or(0, |n| i64::try_from(n).unwrap_or(i64::MAX))
}

/// Bytes of a fine point: a host may count over another time.
fn per_point(value: &Value, field: &str) -> i64 {
    let seconds = value
        .get("seconds")
        .and_then(Value::as_i64)
        .unwrap_or(FINE)
        .max(1);
    bytes(value, field).saturating_mul(FINE) / seconds
}

/// Writes the point that a host reported.
pub(super) async fn write(tx: &mut Tx<'_>, (tenant, host): &Key, value: &Value) -> Result<(), Error> {
    let now = tx.now.millis();
    let said = value
        .get("time")
        .and_then(Value::as_str)
        .and_then(|at| at.parse::<jiff::Timestamp>().ok())
        .map_or(now, |at| at.as_millisecond());
    // A host whose clock is wrong is put at our time; one that was cut off brings what it gathered.
    let at = if said > now || said < now - DAY { now } else { said };
    let slot = at.div_euclid(FINE * 1000) * FINE * 1000;
    tx.run(
        "INSERT INTO usage (tenant,host,span,time,cpu,memory,disk,rx,tx) VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9) \
         ON CONFLICT (tenant,host,span,time) DO UPDATE SET cpu=$5,memory=$6,disk=$7,rx=$8,tx=$9",
        args![
            &**tenant,
            &**host,
            FINE,
            slot,
            share(value, "cpu"),
            share(value, "memory"),
            share(value, "disk"),
            per_point(value, "rxBytes"),
            per_point(value, "txBytes")
        ],
    )
    .await
    .map(drop)
}

impl Usage<'_> {
    /// The points of a host from a time on, oldest first: fine ones as far back as they are kept, before them coarse
    /// ones; and the seconds that each stands for, when all are alike the same.
    pub async fn of(
        &self,
        caller: &Caller,
        host: &str,
        from: Time,
        fine: bool,
    ) -> Result<(i64, Vec<UsagePoint>), Error> {
        let host = self.0.hosts().find(caller, host).await?;
        let span = if fine { FINE } else { COARSE };
        let rows = self
            .0
            .db()
            .rows(
                "SELECT time,cpu,memory,disk,rx,tx FROM usage WHERE tenant=$1 AND host=$2 AND span=$3 AND time>=$4 \
                 ORDER BY time LIMIT 5000",
                args![&caller.tenant, &host.id, span, from],
            )
            .await?;
        let point = |row: &crate::db::Row| UsagePoint {
            time: row.time(0),
            cpu: row.opt_float(1).unwrap_or(0.0),
            memory: row.opt_float(2).unwrap_or(0.0),
            disk: row.opt_float(3).unwrap_or(0.0),
            rx_bytes: row.int(4),
            tx_bytes: row.int(5),
        };
        Ok((span, rows.iter().map(point).collect()))
    }

    /// Makes coarse points of full hours and forgets what is past its time. For the leader, some times an hour.
    pub async fn condense(&self) -> Result<(), Error> {
        let keep = |kept: std::time::Duration| i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
        let fine = keep(self.0.options().usage_fine);
        let coarse = keep(self.0.options().usage_coarse);
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let now = tx.now.millis();
                    let hour = now.div_euclid(COARSE * 1000) * COARSE * 1000;
                    // Hours that may have grown since: hosts bring points up to a day late, but an hour written once is
                    // only written again when it differs.
                    tx.run(
                        "INSERT INTO usage (tenant,host,span,time,cpu,memory,disk,rx,tx) \
                         SELECT tenant,host,$1,(time/$2)*$2,AVG(cpu),AVG(memory),AVG(disk),CAST(SUM(rx) AS BIGINT),\
                         CAST(SUM(tx) AS BIGINT) FROM usage WHERE span=$3 AND time<$4 AND time>=$5 \
                         GROUP BY tenant,host,(time/$2)*$2 \
                         ON CONFLICT (tenant,host,span,time) DO UPDATE SET cpu=excluded.cpu,memory=excluded.memory,\
                         disk=excluded.disk,rx=excluded.rx,tx=excluded.tx \
                         WHERE usage.rx<>excluded.rx OR usage.tx<>excluded.tx OR usage.cpu<>excluded.cpu",
                        args![COARSE, COARSE * 1000, FINE, hour, hour - 3 * COARSE * 1000],
                    )
                    .await?;
                    tx.run(
                        "DELETE FROM usage WHERE span=$1 AND time<$2",
                        args![FINE, now.saturating_sub(fine)],
                    )
                    .await?;
                    tx.run(
                        "DELETE FROM usage WHERE span=$1 AND time<$2",
                        args![COARSE, now.saturating_sub(coarse)],
                    )
                    .await
                })
            })
            .await
            .map(drop)
    }
}
