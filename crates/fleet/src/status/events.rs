use link::message::Event;

use super::Key;
use crate::db::Tx;
use crate::model::Time;
use crate::{Error, args};

/// Events of one message that are kept.
const MOST: usize = 100;

fn cut(text: &str, most: usize) -> String {
    let text = text.replace('\0', "");
    text[..text.floor_char_boundary(most)].to_owned()
}

/// Writes events of a host and forgets the oldest beyond `keep`; whether there were any.
pub(super) async fn write(
    tx: &mut Tx<'_>,
    (tenant, host): &Key,
    items: &[Event],
    keep: i64,
) -> Result<bool, Error> {
    let (tenant, host) = (&**tenant, &**host);
    let row = tx
        .row(
            "SELECT seq,reason,message,object FROM host_event WHERE tenant=$1 AND host=$2 ORDER BY seq DESC LIMIT 1",
            args![tenant, host],
        )
        .await?;
    let (mut seq, mut last) = row.map_or((0, None), |row| {
        (row.int(0), Some((row.text(1), row.text(2), row.text(3))))
    });
    let now = tx.now;
    for event in items.iter().take(MOST) {
        let time = event
            .time
            .parse::<jiff::Timestamp>()
            .map_or(now, |at| Time::from(at).min(now));
        let object = &event.object;
        let object = [&object.kind, &object.namespace, &object.name]
            .into_iter()
            .filter(|part| !part.is_empty())
            .map(|part| cut(part, 253))
            .collect::<Vec<_>>()
            .join("/");
        let new = (cut(&event.reason, 128), cut(&event.message, 1024), object);
        if last.as_ref() == Some(&new) {
            // The same again: only its time is news.
            tx.run(
                "UPDATE host_event SET time=$4 WHERE tenant=$1 AND host=$2 AND seq=$3",
                args![tenant, host, seq, time],
            )
            .await?;
            continue;
        }
        seq += 1;
        let kind = if event.kind == "Warning" {
            "Warning"
        } else {
            "Normal"
        };
        tx.run(
            "INSERT INTO host_event (tenant,host,seq,time,kind,reason,message,object) VALUES ($1,$2,$3,$4,$5,$6,$7,$8)",
            args![tenant, host, seq, time, kind, &new.0, &new.1, &new.2],
        )
        .await?;
        last = Some(new);
    }
    tx.run(
        "DELETE FROM host_event WHERE tenant=$1 AND host=$2 AND seq<=$3",
        args![tenant, host, seq - keep],
    )
    .await?;
    Ok(!items.is_empty())
}
