use serde_json::Value;

use super::Sites;
use super::read::locked;
use crate::assignments::{next, tell};
use crate::db::Tx;
use crate::log::new_id;
use crate::model::{Location, Map, ObjectRef, Site, SiteSpec};
use crate::{Caller, Error, Kind, Op, Role, args, check};

fn object(site: &Site) -> ObjectRef {
    ObjectRef {
        kind: "site".to_owned(),
        id: site.id.clone(),
        name: site.name.clone(),
    }
}

fn spec_of(site: &Site) -> SiteSpec {
    SiteSpec {
        name: site.name.clone(),
        display_name: site.display_name.clone(),
        labels: site.labels.clone(),
        location: site.location.clone(),
        variables: site.variables.clone(),
        secret_variables: std::collections::BTreeMap::new(),
        repository: site.repository.clone(),
        path: site.path.clone(),
        branch: site.branch.clone(),
        policy: site.policy.clone(),
    }
}

fn check(spec: &SiteSpec) -> Result<(), Error> {
    check::name("name", &spec.name)?;
    check::text("displayName", &spec.display_name, 256)?;
    check::labels(&spec.labels)?;
    check::variables(
        "variables",
        spec.variables.iter().map(|(name, value)| (name, value.as_str())),
    )?;
    check_location(&spec.location)?;
    check::text("path", &spec.path, 1024)?;
    if spec.path.starts_with('/') || spec.path.split('/').any(|part| part == "..") {
        return Err(Error::invalid(
            "path",
            "is a folder in the repository, as sites/berlin",
        ));
    }
    if let Some(branch) = &spec.branch {
        crate::repositories::branch("branch", branch)?;
    }
    Ok(())
}

fn check_location(location: &Location) -> Result<(), Error> {
    let outside = |value: Option<f64>, most: f64| value.is_some_and(|v| !(-most..=most).contains(&v));
    if outside(location.lat, 90.0) {
        return Err(Error::invalid("location.lat", "is -90 to 90"));
    }
    if outside(location.lon, 180.0) {
        return Err(Error::invalid("location.lon", "is -180 to 180"));
    }
    if location.lat.is_some() != location.lon.is_some() {
        return Err(Error::invalid("location", "has both lat and lon, or none"));
    }
    check::text("location.address", &location.address, 512)?;
    let zone = &location.timezone;
    if !zone.is_empty() && jiff::tz::TimeZone::get(zone).is_err() {
        return Err(Error::invalid(
            "location.timezone",
            format!("{zone} is not an IANA time zone, as Europe/Berlin"),
        ));
    }
    Ok(())
}

/// What free-text search looks at.
fn words(spec: &SiteSpec) -> String {
    let mut words = format!("{} {} {}", spec.name, spec.display_name, spec.location.address);
    for (key, value) in &spec.labels {
        words.push_str(&format!(" {key}={value}"));
    }
    words.to_lowercase()
}

pub(crate) async fn write_labels(
    tx: &mut Tx<'_>,
    table: &str,
    (tenant, column, id): (&str, &str, &str),
    labels: &Map,
) -> Result<(), Error> {
    let mut sql = crate::db::Sql::new(&format!("DELETE FROM {table} WHERE tenant="));
    sql.bind(tenant).push(&format!(" AND {column}=")).bind(id);
    tx.execute(sql).await?;
    if labels.is_empty() {
        return Ok(());
    }
    let mut sql = crate::db::Sql::new(&format!(
        "INSERT INTO {table} (tenant,{column},label,value) VALUES "
    ));
    for (n, (label, value)) in labels.iter().enumerate() {
        sql.push(if n == 0 { "(" } else { ",(" })
            .bind(tenant)
            .push(",")
            .bind(id);
        sql.push(",")
            .bind(label.as_str())
            .push(",")
            .bind(value.as_str())
            .push(")");
    }
    tx.execute(sql).await.map(drop)
}

async fn repository(tx: &mut Tx<'_>, tenant: &str, name: Option<&str>) -> Result<Option<String>, Error> {
    let Some(name) = name else { return Ok(None) };
    let row = tx
        .row(
            "SELECT id FROM repository WHERE tenant=$1 AND (name=$2 OR id=$2)",
            args![tenant, name],
        )
        .await?;
    match row {
        Some(row) => Ok(Some(row.text(0))),
        None => Err(Error::invalid(
            "repository",
            format!("there is no repository {name}"),
        )),
    }
}

async fn policy(tx: &mut Tx<'_>, tenant: &str, name: Option<&str>) -> Result<Option<String>, Error> {
    let Some(name) = name else { return Ok(None) };
    let row = tx
        .row(
            "SELECT id FROM policy WHERE tenant=$1 AND (name=$2 OR id=$2)",
            args![tenant, name],
        )
        .await?;
    match row {
        Some(row) => Ok(Some(row.text(0))),
        None => Err(Error::invalid("policy", format!("there is no policy {name}"))),
    }
}

impl Sites<'_> {
    /// Makes one.
    pub async fn create(&self, caller: &Caller, spec: &SiteSpec) -> Result<Site, Error> {
        caller.require_anywhere(Role::Operator)?;
        check(spec)?;
        caller
            .require_at(Role::Operator, &spec.name, &spec.labels)
            .map_err(|_| Error::Denied { need: Role::Operator })?;
        let id = &new_id(self.0.db().now());
        let tenant = &caller.tenant;
        let (sealed, names) = &self
            .0
            .seal_variables((tenant, id), Map::new(), &spec.secret_variables)?;
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let now = tx.now;
                    let repository = repository(tx, tenant, spec.repository.as_deref()).await?;
                    let policy = policy(tx, tenant, spec.policy.as_deref()).await?;
                    let told = next(tx).await?;
                    let display = if spec.display_name.is_empty() {
                        &spec.name
                    } else {
                        &spec.display_name
                    };
                    let made = tx
                        .run(
                            "INSERT INTO site (tenant,id,name,display_name,labels,lat,lon,address,timezone,variables,\
                             secret_names,secret_values,repository,path,branch,policy,targeted,told,hosts_total,\
                             hosts_online,state,rank,reason,since,updated_at,generation,words) \
                             VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$17,0,0,\
                             'pending',$18,'it has no host yet',$19,$19,1,$20) ON CONFLICT DO NOTHING",
                            args![
                                tenant,
                                id,
                                &spec.name,
                                display,
                                json(&spec.labels),
                                spec.location.lat,
                                spec.location.lon,
                                &spec.location.address,
                                &spec.location.timezone,
                                json(&spec.variables),
                                json(names),
                                sealed.clone(),
                                repository,
                                &spec.path,
                                &spec.branch,
                                policy,
                                told,
                                super::summary::rank(crate::model::State::Pending),
                                now,
                                words(spec)
                            ],
                        )
                        .await?;
                    if made == 0 {
                        return Err(Error::conflict(format!("there is a site {} already", spec.name)));
                    }
                    write_labels(tx, "site_label", (tenant, "site", id), &spec.labels).await?;
                    let after = locked(tx, tenant, id).await?;
                    tx.audit(caller, "site.create", object(&after), None::<&()>, Some(&after));
                    tx.changed(tenant, Kind::Site, Op::Upsert, id, &after.name, Some(id));
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
    ) -> Result<Site, Error> {
        let fleet = self.0;
        fleet
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let tenant = &caller.tenant;
                    let before = locked(tx, tenant, name).await?;
                    caller
                        .require_at(Role::Operator, &before.name, &before.labels)
                        .map_err(|e| renamed(e, name))?;
                    check::generation("site", &before.name, before.generation, if_match)?;
                    // Null takes a secret variable away, which a merge would only not mention.
                    let secret_change = secret_change(patch)?;
                    let old = spec_of(&before);
                    let spec = check::patched(&old, &without_secrets(patch))?;
                    check(&spec)?;
                    if spec.name != before.name {
                        return Err(Error::invalid("name", "a site's name stays: change displayName"));
                    }
                    // Who sees only some sites can't move one out of, or into, what they see.
                    caller
                        .require_at(Role::Operator, &spec.name, &spec.labels)
                        .map_err(|_| Error::Denied { need: Role::Operator })?;
                    if spec == old && secret_change.is_empty() {
                        return Ok(before);
                    }
                    let repository = repository(tx, tenant, spec.repository.as_deref()).await?;
                    let policy = policy(tx, tenant, spec.policy.as_deref()).await?;
                    let (sealed, names) = if secret_change.is_empty() {
                        (None, before.secret_variables.clone())
                    } else {
                        let row = tx
                            .row(
                                "SELECT secret_values FROM site WHERE tenant=$1 AND id=$2",
                                args![tenant, &before.id],
                            )
                            .await?;
                        let open = row.and_then(|row| row.bytes(0));
                        let open = fleet.secret_variables(tenant, &before.id, open)?;
                        fleet.seal_variables((tenant, &before.id), open, &secret_change)?
                    };
                    let retarget = spec.repository != old.repository
                        || spec.branch != old.branch
                        || spec.policy != old.policy;
                    let told = if retarget
                        || spec.path != old.path
                        || spec.labels != old.labels
                        || spec.variables != old.variables
                        || !secret_change.is_empty()
                    {
                        Some(next(tx).await?)
                    } else {
                        None
                    };
                    tx.run(
                        "UPDATE site SET display_name=$3,labels=$4,lat=$5,lon=$6,address=$7,timezone=$8,variables=$9,\
                         secret_names=$10,secret_values=CASE WHEN $11=1 THEN $12 ELSE secret_values END,\
                         repository=$13,path=$14,branch=$15,policy=$16,told=COALESCE($17,told),\
                         target=CASE WHEN $18=1 THEN NULL ELSE target END,\
                         targeted=CASE WHEN $18=1 THEN COALESCE($17,targeted) ELSE targeted END,\
                         rollout=CASE WHEN $18=1 THEN NULL ELSE rollout END,\
                         generation=generation+1,words=$19 WHERE tenant=$1 AND id=$2",
                        args![
                            tenant,
                            &before.id,
                            &spec.display_name,
                            json(&spec.labels),
                            spec.location.lat,
                            spec.location.lon,
                            &spec.location.address,
                            &spec.location.timezone,
                            json(&spec.variables),
                            json(&names),
                            !secret_change.is_empty(),
                            sealed,
                            repository,
                            &spec.path,
                            &spec.branch,
                            policy,
                            told,
                            retarget,
                            words(&spec)
                        ],
                    )
                    .await?;
                    if spec.labels != old.labels {
                        write_labels(tx, "site_label", (tenant, "site", &before.id), &spec.labels).await?;
                    }
                    let after = locked(tx, tenant, &before.id).await?;
                    tx.audit(caller, "site.update", object(&after), Some(&before), Some(&after));
                    if !secret_change.is_empty() {
                        let names: Vec<_> = secret_change.keys().collect();
                        tx.audit(caller, "site.secrets", object(&after), None::<&()>, Some(&names));
                    }
                    tx.changed(tenant, Kind::Site, Op::Upsert, &after.id, &after.name, Some(&after.id));
                    if told.is_some() {
                        tell(tx, tenant, "site", &after.id);
                    }
                    Ok(after)
                })
            })
            .await
    }

    /// Deletes one that has no enrolled host. Roles and tokens for only this site go with it, so that a later site of
    /// the same name does not inherit them.
    pub async fn delete(&self, caller: &Caller, name: &str, if_match: Option<i64>) -> Result<(), Error> {
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let tenant = &caller.tenant;
                    let before = locked(tx, tenant, name).await?;
                    caller
                        .require_at(Role::Owner, &before.name, &before.labels)
                        .map_err(|e| renamed(e, name))?;
                    check::generation("site", &before.name, before.generation, if_match)?;
                    let host = tx
                        .row(
                            "SELECT name FROM host WHERE tenant=$1 AND site=$2 AND phase='enrolled' LIMIT 1",
                            args![tenant, &before.id],
                        )
                        .await?;
                    if let Some(row) = host {
                        return Err(Error::conflict(format!(
                            "host {} and perhaps others are at site {}: move or revoke them first",
                            row.str(0),
                            before.name
                        )));
                    }
                    let scope =
                        &serde_json::to_string(&crate::Scope::Site(before.name.clone())).unwrap_or_default();
                    for sql in [
                        "DELETE FROM binding WHERE tenant=$1 AND scope=$2",
                        "DELETE FROM token WHERE tenant=$1 AND scope=$2",
                    ] {
                        tx.run(sql, args![tenant, scope]).await?;
                    }
                    for sql in [
                        "UPDATE host SET site=NULL WHERE tenant=$1 AND site=$2",
                        "DELETE FROM activation_key WHERE tenant=$1 AND site=$2",
                        "DELETE FROM site_label WHERE tenant=$1 AND site=$2",
                        "DELETE FROM site WHERE tenant=$1 AND id=$2",
                    ] {
                        tx.run(sql, args![tenant, &before.id]).await?;
                    }
                    tx.audit(caller, "site.delete", object(&before), Some(&before), None::<&()>);
                    tx.changed(
                        tenant,
                        Kind::Site,
                        Op::Delete,
                        &before.id,
                        &before.name,
                        Some(&before.id),
                    );
                    Ok(())
                })
            })
            .await
    }
}

/// Not found, by the name that was asked for: an id must not come back as the name behind it.
pub(crate) fn renamed(error: Error, asked: &str) -> Error {
    match error {
        Error::NotFound { kind, .. } => Error::not_found(kind, asked),
        other => other,
    }
}

pub(crate) fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn secret_change(patch: &Value) -> Result<std::collections::BTreeMap<String, Option<String>>, Error> {
    match patch.get("secretVariables") {
        None => Ok(std::collections::BTreeMap::new()),
        Some(change) => serde_json::from_value(change.clone()).map_err(|_| {
            Error::invalid(
                "secretVariables",
                "is an object of texts, or null for those to take away",
            )
        }),
    }
}

fn without_secrets(patch: &Value) -> Value {
    let mut patch = patch.clone();
    if let Some(object) = patch.as_object_mut() {
        object.remove("secretVariables");
    }
    patch
}
