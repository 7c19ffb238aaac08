//! Alerts and channels as the API has them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Caller, Error, Fleet, Kind, Op, Page, Query, Role, args, check,
    db::{Row, Sql, Tx},
    log::{new_id, word},
    model::{Alert, Channel, ChannelKind, ChannelSpec, ObjectRef},
    page::{Order, Sort, count},
};

/// What channels' secrets are sealed for.
pub(super) const SEAL: &str = "channel";
/// Channels of a tenant.
const MOST_CHANNELS: i64 = 50;
/// People that one channel writes to.
const MOST_PEOPLE: usize = 20;

/// Where a channel leads, as it is stored.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Settings {
    pub(super) url: String,
    pub(super) to: Vec<String>,
}

/// See [`Fleet::alerts`].
#[derive(Clone, Copy, Debug)]
pub struct Alerts<'a>(&'a Fleet);

/// See [`Fleet::channels`].
#[derive(Clone, Copy, Debug)]
pub struct Channels<'a>(&'a Fleet);

impl Fleet {
    /// What a person should know.
    #[must_use]
    pub fn alerts(&self) -> Alerts<'_> {
        Alerts(self)
    }

    /// Where alerts are told.
    #[must_use]
    pub fn channels(&self) -> Channels<'_> {
        Channels(self)
    }
}

const SHOWN: &str = "a.id,a.name,a.severity,a.site_name,a.host_name,a.title,a.message,a.count,a.first_at,a.last_at,\
     a.resolved_at,a.acknowledged_by";

fn alert(row: &Row) -> Alert {
    Alert {
        id: row.text(0),
        key: row.text(1),
        severity: serde_json::from_value(row.str(2).into()).unwrap_or_default(),
        site: row.opt_text(3),
        host: row.opt_text(4),
        title: row.text(5),
        message: row.text(6),
        count: row.int(7),
        first_at: row.time(8),
        last_at: row.time(9),
        resolved_at: row.opt_time(10),
        acknowledged_by: row.opt_text(11),
    }
}

impl Alerts<'_> {
    /// Alerts that the caller may see, the newest first. `state` is `open`, `acknowledged` or `resolved`; without, all.
    ///
    /// # Errors
    /// The caller may not, or the database.
    pub async fn list(&self, caller: &Caller, query: &Query) -> Result<Page<Alert>, Error> {
        caller.require_anywhere(Role::Viewer)?;
        const SORTS: &[Sort] = &[
            Sort {
                name: "lastAt",
                column: "a.last_at",
                number: true,
            },
            Sort {
                name: "firstAt",
                column: "a.first_at",
                number: true,
            },
        ];
        let mut query = query.clone();
        let by_first = query
            .sort
            .as_deref()
            .is_some_and(|sort| sort.ends_with("firstAt"));
        query.sort.get_or_insert_with(|| "-lastAt".into());
        let order = Order::new(&query, SORTS, "a.id")?;
        let mut filter =
            Sql::new("FROM alert a LEFT JOIN site s ON s.tenant=a.tenant AND s.id=a.site WHERE a.tenant=");
        filter.bind(caller.tenant.as_str());
        caller.restrict(Role::Viewer, "s", &mut filter);
        match query.state.as_deref() {
            None | Some("") => {}
            Some("open") => {
                filter.push(" AND a.open_name IS NOT NULL");
            }
            Some("acknowledged") => {
                filter.push(" AND a.open_name IS NOT NULL AND a.acknowledged_by IS NOT NULL");
            }
            Some("resolved") => {
                filter.push(" AND a.open_name IS NULL");
            }
            Some(_) => return Err(Error::invalid("state", "is none of open, acknowledged, resolved")),
        }
        if let Some(site) = query.site.as_deref().filter(|site| !site.is_empty()) {
            filter
                .push(" AND (s.name=")
                .bind(site)
                .push(" OR s.id=")
                .bind(site)
                .push(")");
        }
        for pattern in query.patterns()? {
            filter
                .push(" AND (LOWER(a.title) LIKE ")
                .bind(pattern.clone())
                .push(" ESCAPE '\\'");
            filter
                .push(" OR LOWER(a.message) LIKE ")
                .bind(pattern)
                .push(" ESCAPE '\\')");
        }
        let total = count(self.0.db(), &filter).await?;
        let mut sql = filter.select(SHOWN);
        order.finish(&mut sql);
        let rows = self.0.db().query(sql).await?;
        Ok(order.page(rows, total, (if by_first { 8 } else { 9 }, 0), alert))
    }

    /// One.
    ///
    /// # Errors
    /// There is none that the caller may see, or the database.
    pub async fn get(&self, caller: &Caller, id: &str) -> Result<Alert, Error> {
        self.find(caller, id, Role::Viewer).await
    }

    async fn find(&self, caller: &Caller, id: &str, need: Role) -> Result<Alert, Error> {
        caller.require_anywhere(need)?;
        let mut sql = Sql::new(&format!(
            "SELECT {SHOWN} FROM alert a LEFT JOIN site s ON s.tenant=a.tenant AND s.id=a.site WHERE a.tenant="
        ));
        sql.bind(caller.tenant.as_str()).push(" AND a.id=").bind(id);
        caller.restrict(need, "s", &mut sql);
        let row = self.0.db().query(sql).await?.into_iter().next();
        row.as_ref()
            .map(alert)
            .ok_or_else(|| Error::not_found("alert", id))
    }

    /// Says that the caller has seen it.
    ///
    /// # Errors
    /// There is none that the caller may run, it is over, or the database.
    pub async fn acknowledge(&self, caller: &Caller, id: &str) -> Result<Alert, Error> {
        let before = &self.find(caller, id, Role::Operator).await?;
        if before.resolved_at.is_some() {
            return Err(Error::conflict("the alert is over"));
        }
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let sql = "UPDATE alert SET acknowledged_by=$3,generation=generation+1
                         WHERE tenant=$1 AND id=$2 AND open_name IS NOT NULL AND acknowledged_by IS NULL";
                    if tx
                        .run(sql, args![&caller.tenant, &before.id, &caller.actor])
                        .await?
                        == 0
                    {
                        return Ok(());
                    }
                    let object = ObjectRef {
                        kind: "alert".into(),
                        id: before.id.clone(),
                        name: before.title.clone(),
                    };
                    tx.audit(caller, "alert.acknowledge", object, None::<&()>, None::<&()>);
                    let sql = "SELECT site FROM alert WHERE tenant=$1 AND id=$2";
                    let site = tx
                        .row(sql, args![&caller.tenant, &before.id])
                        .await?
                        .and_then(|row| row.opt_text(0));
                    tx.changed(
                        &caller.tenant,
                        Kind::Alert,
                        Op::Upsert,
                        &before.id,
                        &before.title,
                        site.as_deref(),
                    );
                    Ok(())
                })
            })
            .await?;
        self.get(caller, id).await
    }
}

const CHANNEL: &str = "id,name,kind,settings,severity,disabled,failure,failed_at,told_at,generation";

fn channel(row: &Row) -> Channel {
    let settings: Settings = row.json(3);
    Channel {
        id: row.text(0),
        name: row.text(1),
        kind: row.word(2),
        url: settings.url,
        to: settings.to,
        severity: serde_json::from_value(row.str(4).into()).unwrap_or_default(),
        disabled: row.bool(5),
        secret: None,
        failure: row.text(6),
        failed_at: row.opt_time(7),
        told_at: row.opt_time(8),
        generation: row.int(9),
    }
}

fn object(channel: &Channel) -> ObjectRef {
    ObjectRef {
        kind: "channel".into(),
        id: channel.id.clone(),
        name: channel.name.clone(),
    }
}

/// A channel for the audit log: an address may carry a secret of the receiver's behind its host.
fn told(channel: &Channel) -> Channel {
    let host = channel.url.split('/').take(3).collect::<Vec<_>>().join("/");
    Channel {
        url: host,
        secret: None,
        ..channel.clone()
    }
}

fn checked(spec: &ChannelSpec) -> Result<String, Error> {
    check::name("name", &spec.name)?;
    match spec.kind {
        ChannelKind::Webhook => {
            let url = reqwest::Url::parse(&spec.url).map_err(|_| Error::invalid("url", "is no address"))?;
            if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() || spec.url.len() > 2048
            {
                return Err(Error::invalid("url", "is no http or https address"));
            }
            if !url.username().is_empty() || url.password().is_some() {
                return Err(Error::invalid(
                    "url",
                    "must not have a user name or password in it; messages are signed",
                ));
            }
            if !spec.to.is_empty() {
                return Err(Error::invalid("to", "is for e-mail"));
            }
            if spec
                .secret
                .as_ref()
                .is_some_and(|secret| !(16..=256).contains(&secret.len()))
            {
                return Err(Error::invalid("secret", "has 16 to 256 characters"));
            }
        }
        ChannelKind::Email => {
            if spec.to.is_empty() || spec.to.len() > MOST_PEOPLE {
                return Err(Error::invalid("to", format!("has 1 to {MOST_PEOPLE} addresses")));
            }
            for (at, address) in spec.to.iter().enumerate() {
                if address.parse::<lettre::Address>().is_err() {
                    return Err(Error::invalid(format!("to[{at}]"), "is no e-mail address"));
                }
            }
            if !spec.url.is_empty() || spec.secret.is_some() {
                return Err(Error::invalid("url", "and secret are for webhooks"));
            }
        }
    }
    let settings = Settings {
        url: spec.url.clone(),
        to: spec.to.clone(),
    };
    serde_json::to_string(&settings).map_err(|e| Error::invalid("body", e.to_string()))
}

impl Channels<'_> {
    /// All of them, by name.
    ///
    /// # Errors
    /// The caller may not, or the database.
    pub async fn list(&self, caller: &Caller, query: &Query) -> Result<Page<Channel>, Error> {
        caller.require(Role::Operator)?;
        const SORTS: &[Sort] = &[Sort {
            name: "name",
            column: "name",
            number: false,
        }];
        let order = Order::new(query, SORTS, "id")?;
        let mut filter = Sql::new("FROM channel WHERE tenant=");
        filter.bind(caller.tenant.as_str());
        let total = count(self.0.db(), &filter).await?;
        let mut sql = filter.select(CHANNEL);
        order.finish(&mut sql);
        let rows = self.0.db().query(sql).await?;
        Ok(order.page(rows, total, (1, 0), channel))
    }

    /// One, by name or id.
    ///
    /// # Errors
    /// There is none, or the database.
    pub async fn get(&self, caller: &Caller, name: &str) -> Result<Channel, Error> {
        caller.require(Role::Operator)?;
        let mut sql = Sql::new(&format!("SELECT {CHANNEL} FROM channel WHERE tenant="));
        sql.bind(caller.tenant.as_str())
            .push(" AND (name=")
            .bind(name)
            .push(" OR id=")
            .bind(name)
            .push(")");
        let row = self.0.db().query(sql).await?.into_iter().next();
        row.as_ref()
            .map(channel)
            .ok_or_else(|| Error::not_found("channel", name))
    }

    /// Makes one. A webhook's secret comes out here, if it was made up, and never again.
    ///
    /// # Errors
    /// The caller may not, something in it is wrong, there is one of that name, or the database.
    pub async fn create(&self, caller: &Caller, spec: &ChannelSpec) -> Result<Channel, Error> {
        caller.require(Role::Owner)?;
        let settings = &checked(spec)?;
        let made_up = match (&spec.kind, &spec.secret) {
            (ChannelKind::Webhook, None) => Some(crate::secrets::random()?),
            _ => None,
        };
        let made = Channel {
            id: new_id(self.0.db().now()),
            name: spec.name.clone(),
            kind: spec.kind,
            url: spec.url.clone(),
            to: spec.to.clone(),
            severity: spec.severity,
            disabled: spec.disabled,
            generation: 1,
            ..Channel::default()
        };
        let secret = spec.secret.as_ref().or(made_up.as_ref());
        let sealed = match secret {
            Some(secret) => Some(self.0.seal(SEAL, &caller.tenant, &made.id, secret.as_bytes())?),
            None => None,
        };
        let (channel, sealed) = (&made, &sealed);
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let sql = "SELECT COUNT(*) FROM channel WHERE tenant=$1";
                    if tx.row(sql, args![&caller.tenant]).await?.is_some_and(|row| row.int(0) >= MOST_CHANNELS) {
                        return Err(Error::conflict(format!("there are {MOST_CHANNELS} channels already")));
                    }
                    let rows = tx
                        .run(
                            "INSERT INTO channel (tenant,id,name,kind,settings,secret,severity,disabled,failure,generation)
                             VALUES ($1,$2,$3,$4,$5,$6,$7,$8,'',1) ON CONFLICT DO NOTHING",
                            args![
                                &caller.tenant,
                                &channel.id,
                                &channel.name,
                                word(&channel.kind),
                                settings,
                                sealed.clone(),
                                word(&channel.severity),
                                channel.disabled
                            ],
                        )
                        .await?;
                    if rows == 0 {
                        return Err(Error::conflict(format!("there is a channel {} already", channel.name)));
                    }
                    tx.audit(caller, "channel.create", object(channel), None::<&()>, Some(&told(channel)));
                    Ok(())
                })
            })
            .await?;
        Ok(Channel {
            secret: made_up,
            ..made
        })
    }

    /// Changes one.
    ///
    /// # Errors
    /// As for [`Channels::create`], and another generation than the caller read.
    pub async fn update(
        &self,
        caller: &Caller,
        name: &str,
        if_match: Option<i64>,
        patch: &Value,
    ) -> Result<Channel, Error> {
        caller.require(Role::Owner)?;
        let id = &self.get(caller, name).await?.id;
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let before = locked(tx, &caller.tenant, id).await?;
                    check::generation("channel", &before.name, before.generation, if_match)?;
                    let spec = ChannelSpec {
                        name: before.name.clone(),
                        kind: before.kind,
                        url: before.url.clone(),
                        to: before.to.clone(),
                        severity: before.severity,
                        disabled: before.disabled,
                        secret: None,
                    };
                    let spec = check::patched(&spec, patch)?;
                    if spec.kind != before.kind {
                        return Err(Error::invalid("kind", "stays: make another channel"));
                    }
                    let settings = checked(&spec)?;
                    let other = tx
                        .row(
                            "SELECT id FROM channel WHERE tenant=$1 AND name=$2 AND id<>$3",
                            args![&caller.tenant, &spec.name, id],
                        )
                        .await?;
                    if other.is_some() {
                        return Err(Error::conflict(format!("there is a channel {} already", spec.name)));
                    }
                    tx.run(
                        "UPDATE channel SET name=$3,settings=$4,severity=$5,disabled=$6,generation=generation+1
                         WHERE tenant=$1 AND id=$2",
                        args![&caller.tenant, id, &spec.name, settings, word(&spec.severity), spec.disabled],
                    )
                    .await?;
                    if let Some(secret) = &spec.secret {
                        let sealed = self.0.seal(SEAL, &caller.tenant, id, secret.as_bytes())?;
                        let sql = "UPDATE channel SET secret=$3 WHERE tenant=$1 AND id=$2";
                        tx.run(sql, args![&caller.tenant, id, sealed]).await?;
                    }
                    let after = locked(tx, &caller.tenant, id).await?;
                    tx.audit(caller, "channel.update", object(&after), Some(&told(&before)), Some(&told(&after)));
                    Ok(after)
                })
            })
            .await
    }

    /// Deletes one, and what waits for it.
    ///
    /// # Errors
    /// The caller may not, there is none, or the database.
    pub async fn delete(&self, caller: &Caller, name: &str, if_match: Option<i64>) -> Result<(), Error> {
        caller.require(Role::Owner)?;
        let id = &self.get(caller, name).await?.id;
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let before = locked(tx, &caller.tenant, id).await?;
                    check::generation("channel", &before.name, before.generation, if_match)?;
                    tx.run(
                        "DELETE FROM delivery WHERE tenant=$1 AND channel=$2",
                        args![&caller.tenant, id],
                    )
                    .await?;
                    tx.run(
                        "DELETE FROM channel WHERE tenant=$1 AND id=$2",
                        args![&caller.tenant, id],
                    )
                    .await?;
                    tx.audit(
                        caller,
                        "channel.delete",
                        object(&before),
                        Some(&told(&before)),
                        None::<&()>,
                    );
                    Ok(())
                })
            })
            .await
    }
}

async fn locked(tx: &mut Tx<'_>, tenant: &str, id: &str) -> Result<Channel, Error> {
    let sql =
        "SELECT id,name,kind,settings,severity,disabled,failure,failed_at,told_at,generation FROM channel
         WHERE tenant=$1 AND id=$2 FOR UPDATE";
    let row = tx.row(sql, args![tenant, id]).await?;
    row.as_ref()
        .map(channel)
        .ok_or_else(|| Error::not_found("channel", id))
}
