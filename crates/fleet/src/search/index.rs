//! A row for each virtual machine that hosts report, so that they are found without reading every status.

use serde_json::Value;

use crate::{Error, args, db::Tx};

/// The section of a virtual machine, `vm/NAMESPACE/NAME`, taken apart.
fn names(section: &str) -> Option<(&str, &str)> {
    section.strip_prefix("vm/")?.split_once('/')
}

/// Takes in a section of a host's status that was written, or removed (`None`). To be called in the transaction
/// that writes it.
pub(crate) async fn section(
    tx: &mut Tx<'_>,
    tenant: &str,
    host: &str,
    section: &str,
    value: Option<&Value>,
) -> Result<(), Error> {
    let Some((namespace, name)) = names(section) else {
        return Ok(());
    };
    let Some(value) = value else {
        let sql = "DELETE FROM vm WHERE tenant=$1 AND host=$2 AND namespace=$3 AND name=$4";
        return tx.run(sql, args![tenant, host, namespace, name]).await.map(drop);
    };
    // Foreign text: bounded here, and without the one character that PostgreSQL can't keep.
    let text = |key: &str| -> String {
        let text = value[key].as_str().unwrap_or_default();
        text.chars().filter(|c| *c != '\0').take(256).collect()
    };
    let (power, reason, message) = (text("power"), text("reason"), text("message"));
    let (ip, class, image) = (text("ip"), text("class"), text("image"));
    let words = format!("{namespace}/{name} {ip} {class} {image} {reason} {message}").to_lowercase();
    tx.run(
        "INSERT INTO vm (tenant,host,namespace,name,power,ready,reason,ip,class,image,words)
         VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11)
         ON CONFLICT (tenant,host,namespace,name) DO UPDATE SET power=excluded.power, ready=excluded.ready,
         reason=excluded.reason, ip=excluded.ip, class=excluded.class, image=excluded.image, words=excluded.words",
        args![
            tenant,
            host,
            namespace,
            name,
            power,
            value["ready"].as_bool().unwrap_or(false),
            reason,
            ip,
            class,
            image,
            words
        ],
    )
    .await
    .map(drop)
}

/// Forgets a host's virtual machines: the host is gone, or reports everything anew.
pub(crate) async fn forget(tx: &mut Tx<'_>, tenant: &str, host: &str) -> Result<(), Error> {
    tx.run("DELETE FROM vm WHERE tenant=$1 AND host=$2", args![tenant, host])
        .await
        .map(drop)
}
