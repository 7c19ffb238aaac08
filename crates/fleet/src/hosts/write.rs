use serde_json::Value;

use super::Hosts;
use super::read::{Locked, locked};
use crate::assignments::{next, tell};
use crate::db::Tx;
use crate::log::{new_id, word};
use crate::model::{ExpectedSpec, Host, HostSpec, ObjectRef, Phase, State};
use crate::sites::summary;
use crate::{Caller, Error, Kind, Op, Role, args, check};

pub(crate) fn object(host: &Host) -> ObjectRef {
    ObjectRef {
        kind: "host".to_owned(),
        id: host.id.clone(),
        name: host.name.clone(),
    }
}

/// What free-text search looks at.
pub(crate) fn words(host: &Host) -> String {
    let mut words = format!(
        "{} {} {} {}",
        host.name,
        host.serial,
        host.uuid,
        host.macs.join(" ")
    );
    for (key, value) in &host.labels {
        words.push_str(&format!(" {key}={value}"));
    }
    words.to_lowercase()
}

/// Inserts a host's row. `site` is an id.
pub(crate) async fn insert(
    tx: &mut Tx<'_>,
    tenant: &str,
    host: &Host,
    site: Option<&str>,
) -> Result<(), Error> {
    let now = tx.now;
    let made = tx
        .run(
            "INSERT INTO host (tenant,id,name,site,serial,uuid,macs,labels,phase,connection,state,rank,reason,\
             quarantined,drift,compliance,versions,address,boot,status_generation,health,health_reason,told,\
             acknowledged,refused,ahead,target_mode,since,updated_at,generation,words) \
             VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,'never','pending',$10,$11,'[]',0,'unknown','{}',$12,'',0,'','',0,\
             0,'',0,'',$13,$13,1,$14) ON CONFLICT DO NOTHING",
            args![
                tenant,
                &host.id,
                &host.name,
                site,
                &host.serial,
                &host.uuid,
                crate::sites::json(&host.macs),
                crate::sites::json(&host.labels),
                word(&host.phase),
                summary::rank(State::Pending),
                &host.reason,
                &host.address,
                now,
                words(host)
            ],
        )
        .await?;
    if made == 0 {
        return Err(Error::conflict(format!("there is a host {} already", host.name)));
    }
    for mac in &host.macs {
        tx.run(
            "INSERT INTO host_mac (tenant,mac,host) VALUES ($1,$2,$3) ON CONFLICT DO NOTHING",
            args![tenant, mac, &host.id],
        )
        .await?;
    }
    if !host.labels.is_empty() {
        crate::sites::write_labels(tx, "host_label", (tenant, "host", &host.id), &host.labels).await?;
    }
    Ok(())
}

/// A host that nothing is known of yet.
pub(crate) fn blank(id: String, phase: Phase) -> Host {
    Host {
        id,
        name: String::new(),
        site: None,
        serial: String::new(),
        uuid: String::new(),
        macs: Vec::new(),
        labels: crate::model::Map::new(),
        phase,
        connection: crate::model::Connection::Never,
        last_seen_at: None,
        connected_at: None,
        state: State::Pending,
        reason: String::new(),
        desired: None,
        applied: None,
        attempted: None,
        quarantined: Vec::new(),
        drift: false,
        compliance: crate::model::Compliance::Unknown,
        versions: crate::model::Versions::default(),
        certificate: None,
        address: String::new(),
        clock_skew_seconds: 0,
        status_generation: 0,
        generation: 1,
        status: None,
    }
}

/// A DNS label made of what a machine says of itself.
pub(crate) fn name_from(text: &str, id: &str) -> String {
    let mut name: String = text
        .split('.')
        .next()
        .unwrap_or("")
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(50)
        .collect();
    name = name.trim_matches('-').to_owned();
    if check::name("name", &name).is_err() {
        let end: String = id
            .chars()
            .rev()
            .take(8)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect();
        name = format!("host-{end}");
    }
    name
}

/// What an expected host is called until it says its own name: by what is known of it.
fn unnamed(host: &Host) -> String {
    let known = [&host.serial, &host.uuid, host.macs.first().unwrap_or(&host.uuid)];
    let known = known.into_iter().find(|text| !text.is_empty());
    name_from(known.map_or("", |text| text), &host.id)
}

/// The name that an expected host takes when it enrols: the one that its machine has, with a part of its id behind it if
/// that is taken. None if a person has named it, or the machine has no name that fits. `host` is as it was before.
pub(crate) async fn own_name(
    tx: &mut Tx<'_>,
    tenant: &str,
    host: &Host,
    hostname: &str,
) -> Result<Option<String>, Error> {
    if host.phase != Phase::Expected || host.name != unnamed(host) {
        return Ok(None);
    }
    let nothing = name_from("", &host.id);
    let name = name_from(hostname, &host.id);
    // Every machine that was installed and not named is called so.
    if name == nothing || name == "localhost" {
        return Ok(None);
    }
    let taken = tx
        .row(
            "SELECT 1 FROM host WHERE tenant=$1 AND name=$2 AND id<>$3",
            args![tenant, &name, &host.id],
        )
        .await?;
    Ok(Some(match taken {
        Some(_) => format!("{name}-{}", &host.id[host.id.len().saturating_sub(8)..]),
        None => name,
    }))
}

impl Hosts<'_> {
    /// Registers hosts that are known beforehand; all or none.
    pub async fn expect(&self, caller: &Caller, specs: &[ExpectedSpec]) -> Result<Vec<Host>, Error> {
        caller.require_anywhere(Role::Operator)?;
        if specs.is_empty() || specs.len() > 1000 {
            return Err(Error::invalid("body", "has 1 to 1000 hosts"));
        }
        let mut wanted = Vec::with_capacity(specs.len());
        for spec in specs {
            let mut host = blank(new_id(self.0.db().now()), Phase::Expected);
            host.serial = check::machine(&spec.serial);
            host.uuid = check::machine(&spec.uuid);
            for mac in &spec.macs {
                host.macs.push(check::mac(mac).ok_or_else(|| {
                    Error::invalid("macs", format!("{mac} is not a machine's MAC address"))
                })?);
            }
            if host.macs.len() > 64 {
                return Err(Error::invalid("macs", "are more than 64"));
            }
            if host.serial.is_empty() && host.uuid.is_empty() && host.macs.is_empty() {
                return Err(Error::invalid(
                    "serial",
                    "one of serial, uuid and macs says which machine it is (and not a maker's placeholder)",
                ));
            }
            check::labels(&spec.labels)?;
            host.labels.clone_from(&spec.labels);
            if spec.name.is_empty() {
                host.name = unnamed(&host);
            } else {
                check::name("name", &spec.name)?;
                host.name.clone_from(&spec.name);
            }
            "it has not called yet".clone_into(&mut host.reason);
            wanted.push((host, spec.site.clone()));
        }
        let wanted = &wanted;
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let tenant = &caller.tenant;
                    let mut made = Vec::with_capacity(wanted.len());
                    for (host, site) in wanted {
                        let site = placed(tx, caller, site, Role::Operator).await?;
                        let known = known(tx, tenant, host).await?;
                        if let Some(name) = known {
                            return Err(Error::conflict(format!("host {name} is that machine already")));
                        }
                        insert(tx, tenant, host, Some(&site)).await?;
                        let after = locked(tx, tenant, &host.id).await?.host;
                        tx.audit(caller, "host.expect", object(&after), None::<&()>, Some(&after));
                        tx.changed(
                            tenant,
                            Kind::Enrollment,
                            Op::Upsert,
                            &after.id,
                            &after.name,
                            Some(&site),
                        );
                        made.push(after);
                    }
                    Ok(made)
                })
            })
            .await
    }

    /// Changes name, site or labels.
    pub async fn update(
        &self,
        caller: &Caller,
        name: &str,
        if_match: Option<i64>,
        patch: &Value,
    ) -> Result<Host, Error> {
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let tenant = &caller.tenant;
                    let held = locked(tx, tenant, name).await?;
                    held.require(caller, Role::Operator, name)?;
                    let before = &held.host;
                    check::generation("host", &before.name, before.generation, if_match)?;
                    let old = HostSpec {
                        name: before.name.clone(),
                        site: before.site.clone(),
                        labels: before.labels.clone(),
                    };
                    let spec = check::patched(&old, patch)?;
                    check::name("name", &spec.name)?;
                    check::labels(&spec.labels)?;
                    if spec == old {
                        return Ok(before.clone());
                    }
                    let old_site = held.site.as_ref().map(|(id, _, _)| id.clone());
                    let site = match &spec.site {
                        Some(site) => Some(placed(tx, caller, site, Role::Operator).await?),
                        None => None,
                    };
                    if site.is_none() && old_site.is_some() {
                        caller.require(Role::Operator)?;
                    }
                    let told = next(tx).await?;
                    let mut after = before.clone();
                    after.name.clone_from(&spec.name);
                    after.labels.clone_from(&spec.labels);
                    let written = tx
                        .run(
                            "UPDATE host SET name=$3,site=$4,labels=$5,told=$6,generation=generation+1,words=$7 \
                             WHERE tenant=$1 AND id=$2",
                            args![
                                tenant,
                                &before.id,
                                &spec.name,
                                &site,
                                crate::sites::json(&spec.labels),
                                told,
                                words(&after)
                            ],
                        )
                        .await;
                    if written.as_ref().is_err_and(crate::db::is_unique) {
                        return Err(Error::conflict(format!("there is a host {} already", spec.name)));
                    }
                    written?;
                    if spec.labels != old.labels {
                        crate::sites::write_labels(tx, "host_label", (tenant, "host", &before.id), &spec.labels)
                            .await?;
                    }
                    if site != old_site {
                        for site in [&site, &old_site].into_iter().flatten() {
                            summary::refresh(tx, tenant, site).await?;
                        }
                    }
                    let after = locked(tx, tenant, &before.id).await?.host;
                    tx.audit(caller, "host.update", object(&after), Some(before), Some(&after));
                    tx.changed(tenant, Kind::Host, Op::Upsert, &after.id, &after.name, site.as_deref());
                    tell(tx, tenant, "host", &after.id);
                    Ok(after)
                })
            })
            .await
    }

    /// Revokes one: its certificates are refused from now on, its link is cut, it must not come back.
    pub async fn revoke(&self, caller: &Caller, name: &str) -> Result<Host, Error> {
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let tenant = &caller.tenant;
                    let held = locked(tx, tenant, name).await?;
                    held.require(caller, Role::Owner, name)?;
                    let before = &held.host;
                    if before.phase == Phase::Revoked {
                        return Ok(before.clone());
                    }
                    let now = tx.now;
                    tx.run(
                        "UPDATE host SET phase='revoked',connection='offline',state='offline',rank=$4,\
                         reason='it was revoked',generation=generation+1,since=$3,updated_at=$3,node=NULL \
                         WHERE tenant=$1 AND id=$2",
                        args![tenant, &before.id, now, summary::rank(State::Offline)],
                    )
                    .await?;
                    tx.run(
                        "UPDATE certificate SET revoked_at=$3 WHERE tenant=$1 AND host=$2 AND revoked_at IS NULL",
                        args![tenant, &before.id, now],
                    )
                    .await?;
                    tx.run(
                        "DELETE FROM enrolment WHERE tenant=$1 AND host=$2",
                        args![tenant, &before.id],
                    )
                    .await?;
                    let after = locked(tx, tenant, &before.id).await?.host;
                    gone(tx, caller, &held, "host.revoke", Some(&after)).await?;
                    Ok(after)
                })
            })
            .await
    }

    /// Deletes one with all that is known of it. One that was enrolled is refused from now on, as is one revoked: it is
    /// unknown.
    pub async fn delete(&self, caller: &Caller, name: &str, if_match: Option<i64>) -> Result<(), Error> {
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let tenant = &caller.tenant;
                    let held = locked(tx, tenant, name).await?;
                    let need = match held.host.phase {
                        Phase::Expected | Phase::Pending => Role::Operator,
                        Phase::Enrolled | Phase::Revoked => Role::Owner,
                    };
                    held.require(caller, need, name)?;
                    check::generation("host", &held.host.name, held.host.generation, if_match)?;
                    let id = &held.host.id;
                    for sql in [
                        "DELETE FROM host_mac WHERE tenant=$1 AND host=$2",
                        "DELETE FROM host_label WHERE tenant=$1 AND host=$2",
                        "DELETE FROM section WHERE tenant=$1 AND host=$2",
                        "DELETE FROM host_event WHERE tenant=$1 AND host=$2",
                        "DELETE FROM usage WHERE tenant=$1 AND host=$2",
                        "DELETE FROM certificate WHERE tenant=$1 AND host=$2",
                        "DELETE FROM enrolment WHERE tenant=$1 AND host=$2",
                        "DELETE FROM host WHERE tenant=$1 AND id=$2",
                    ] {
                        tx.run(sql, args![tenant, id]).await?;
                    }
                    crate::search::index::forget(tx, tenant, id).await?;
                    gone(tx, caller, &held, "host.delete", None).await
                })
            })
            .await
    }
}

/// What follows when a host goes: its site counts anew, whoever holds its link cuts it.
async fn gone(
    tx: &mut Tx<'_>,
    caller: &Caller,
    held: &Locked,
    action: &'static str,
    after: Option<&Host>,
) -> Result<(), Error> {
    let tenant = &caller.tenant;
    let host = &held.host;
    let site = held.site.as_ref().map(|(id, _, _)| id.as_str());
    if let Some(site) = site {
        summary::refresh(tx, tenant, site).await?;
    }
    tx.audit(caller, action, object(host), Some(host), after);
    let op = if after.is_some() { Op::Upsert } else { Op::Delete };
    tx.changed(tenant, Kind::Host, op, &host.id, &host.name, site);
    if matches!(host.phase, Phase::Expected | Phase::Pending) {
        tx.changed(tenant, Kind::Enrollment, Op::Delete, &host.id, &host.name, site);
    }
    tx.changed(tenant, Kind::Revocation, Op::Delete, &host.id, &host.name, site);
    Ok(())
}

/// The id of a site that the caller may place hosts at.
pub(crate) async fn placed(
    tx: &mut Tx<'_>,
    caller: &Caller,
    name: &str,
    need: Role,
) -> Result<String, Error> {
    let unknown = || Error::invalid("site", format!("there is no site {name}"));
    let site = crate::sites::locked(tx, &caller.tenant, name)
        .await
        .map_err(|error| match error {
            Error::NotFound { .. } => unknown(),
            other => other,
        })?;
    match caller.require_at(need, &site.name, &site.labels) {
        Err(Error::NotFound { .. }) => Err(unknown()),
        Err(error) => Err(error),
        Ok(()) => Ok(site.id),
    }
}

/// The name of a host of the tenant that is the same machine.
async fn known(tx: &mut Tx<'_>, tenant: &str, host: &Host) -> Result<Option<String>, Error> {
    let row = tx
        .row(
            "SELECT name FROM host WHERE tenant=$1 AND phase<>'revoked' AND \
             ((serial<>'' AND serial=$2) OR (uuid<>'' AND uuid=$3)) LIMIT 1",
            args![tenant, &host.serial, &host.uuid],
        )
        .await?;
    if let Some(row) = row {
        return Ok(Some(row.text(0)));
    }
    for mac in &host.macs {
        let row = tx
            .row(
                "SELECT h.name FROM host_mac m JOIN host h ON h.tenant=m.tenant AND h.id=m.host \
                 WHERE m.mac=$2 AND m.tenant=$1 AND h.phase<>'revoked'",
                args![tenant, mac],
            )
            .await?;
        if let Some(row) = row {
            return Ok(Some(row.text(0)));
        }
    }
    Ok(None)
}
