use identity::activation::ActivationKey;
use identity::csr::Csr;
use identity::enrol::Request;

use super::{enrol, forbidden, host_caller};
use crate::db::{Row, Sql, Tx};
use crate::hosts::{blank, insert, locked, name_from, object};
use crate::log::new_id;
use crate::model::{Host, Phase};
use crate::{Error, Kind, Op, args, check};

/// Hosts that may wait at a time in one tenant: strangers must not fill the database.
const MOST_PENDING: i64 = 20_000;
/// Of one address: a stranger must not take all places.
const MOST_FROM_ONE: i64 = 1_000;
const MOST_MACS: usize = 64;

/// What a machine says of itself, checked and in one spelling.
pub(super) struct Machine {
    serial: String,
    uuid: String,
    macs: Vec<String>,
    hostname: String,
    /// Hash of its activation key.
    key: Option<String>,
    tenant: Option<String>,
    csr: String,
}

/// What was decided.
pub(super) enum Decided {
    /// It is in: the tenant's and the host's id, and the activation key that is still to be used up.
    In {
        tenant: String,
        host: String,
        key: Option<String>,
    },
    /// It waits: the request's id.
    Waits { request: String },
}

impl Machine {
    pub(super) fn of(request: &Request) -> Result<Self, Error> {
        if request.macs.len() > MOST_MACS {
            return Err(Error::invalid("macs", format!("are more than {MOST_MACS}")));
        }
        check::text("hostname", &request.hostname, 253)?;
        let key = match request.activation_key.as_deref().filter(|key| !key.is_empty()) {
            Some(text) => Some(
                ActivationKey::parse(text)
                    .map_err(|e| Error::invalid("activationKey", e.to_string()))?
                    .hash(),
            ),
            None => None,
        };
        Ok(Self {
            serial: check::machine(&request.serial),
            uuid: check::machine(&request.uuid),
            macs: request.macs.iter().filter_map(|mac| check::mac(mac)).collect(),
            hostname: request.hostname.clone(),
            key,
            tenant: request.tenant.clone().filter(|tenant| !tenant.is_empty()),
            csr: request.csr.clone(),
        })
    }

    fn host(&self, id: String, phase: Phase, from: &str) -> Host {
        let mut host = blank(id, phase);
        host.name = name_from(&self.hostname, &host.id);
        host.serial.clone_from(&self.serial);
        host.uuid.clone_from(&self.uuid);
        host.macs.clone_from(&self.macs);
        from.clone_into(&mut host.address);
        host
    }
}

pub(super) async fn decide(
    tx: &mut Tx<'_>,
    machine: &Machine,
    csr: &Csr,
    from: &str,
) -> Result<Decided, Error> {
    let fingerprint = csr.fingerprint();
    let tenant = match &machine.tenant {
        Some(name) => {
            let row = tx
                .row("SELECT id FROM tenant WHERE name=$1 OR id=$1", args![name])
                .await?;
            // Who knows no key learns no names of tenants: as if it were there and nobody expected the machine.
            Some(
                row.map(|row| row.text(0))
                    .ok_or_else(|| forbidden("nobody here expects this machine"))?,
            )
        }
        None => alone(tx).await?,
    };
    if let Some(decided) = asked_before(tx, tenant.as_deref(), &fingerprint).await? {
        return Ok(decided);
    }
    if let Some(key) = &machine.key {
        return by_key(tx, machine, (key, &fingerprint), tenant.as_deref(), from).await;
    }
    // Among several tenants a machine says whose it is: another could expect its numbers too.
    if let Some(tenant) = &tenant
        && let Some((tenant, host)) = expected(tx, machine, tenant).await?
    {
        let held = locked(tx, &tenant, &host).await?;
        let site = held.site.as_ref().map(|(id, _, _)| id.as_str());
        merge_facts(tx, &tenant, &held.host, machine, from).await?;
        enrol(tx, &tenant, &held.host, site).await?;
        remember(tx, &tenant, &host, machine, &fingerprint, from).await?;
        let after = locked(tx, &tenant, &host).await?.host;
        let caller = host_caller(&tenant, &after.name, from);
        tx.audit(
            &caller,
            "host.enrol",
            object(&after),
            Some(&held.host),
            Some(&after),
        );
        return Ok(Decided::In {
            tenant,
            host,
            key: None,
        });
    }
    let tenant = tenant.ok_or_else(|| {
        forbidden(
            "say whose this machine is: set `orchestrator.tenant` in host.toml, or bring an activation key",
        )
    })?;
    wait(tx, &tenant, machine, &fingerprint, from).await
}

/// The same key asked before: its answer may have been lost.
async fn asked_before(
    tx: &mut Tx<'_>,
    tenant: Option<&str>,
    fingerprint: &str,
) -> Result<Option<Decided>, Error> {
    let rows = tx
        .rows(
            "SELECT e.tenant,e.host,e.id,h.phase FROM enrolment e JOIN host h ON h.tenant=e.tenant AND h.id=e.host \
             WHERE e.key_hash=$1",
            args![fingerprint],
        )
        .await?;
    let of_tenant = |row: &&Row| tenant.is_none_or(|tenant| tenant == row.str(0));
    let Some(row) = rows.iter().find(of_tenant) else {
        return Ok(None);
    };
    match row.str(3) {
        "enrolled" => Ok(Some(Decided::In {
            tenant: row.text(0),
            host: row.text(1),
            key: None,
        })),
        "pending" => Ok(Some(Decided::Waits { request: row.text(2) })),
        _ => Err(forbidden("this host was revoked")),
    }
}

/// Enrols the machine that has an activation key; the key is used up at the end of the transaction ([`use_up`]).
async fn by_key(
    tx: &mut Tx<'_>,
    machine: &Machine,
    (key, fingerprint): (&str, &str),
    tenant: Option<&str>,
    from: &str,
) -> Result<Decided, Error> {
    let now = tx.now;
    let row = tx
        .row(
            "SELECT tenant,id,site,name FROM activation_key WHERE hash=$1 AND uses<max_uses \
             AND (expires_at IS NULL OR expires_at>$2)",
            args![key.as_bytes(), now],
        )
        .await?;
    let row = row
        .filter(|row| tenant.is_none_or(|tenant| tenant == row.str(0)))
        .ok_or_else(|| forbidden(NOT_GOOD))?;
    let (tenant, site) = (row.text(0), row.opt_text(2));
    // The same machine may be expected, wait, or have been enrolled before it was installed anew.
    let (host, before) = match same_machine(tx, &tenant, machine).await? {
        Some(id) => {
            let held = locked(tx, &tenant, &id).await?;
            if held.host.phase == Phase::Revoked {
                return Err(forbidden(
                    "this host was revoked: an owner can delete it, then it may enrol anew",
                ));
            }
            let own = held.site.as_ref().map(|(id, _, _)| id.clone());
            // Serial numbers are no secrets: a key of one site must not make somebody the host of another.
            if held.host.phase == Phase::Enrolled && own.is_some() && site.is_some() && own != site {
                return Err(forbidden(
                    "this machine is a host of another site than the key's: an owner can move or delete it first",
                ));
            }
            let place = own.or(site);
            tx.run(
                "UPDATE certificate SET revoked_at=$3 WHERE tenant=$1 AND host=$2 AND revoked_at IS NULL",
                args![&tenant, &id, now],
            )
            .await?;
            tx.run(
                "DELETE FROM enrolment WHERE tenant=$1 AND host=$2",
                args![&tenant, &id],
            )
            .await?;
            merge_facts(tx, &tenant, &held.host, machine, from).await?;
            enrol(tx, &tenant, &held.host, place.as_deref()).await?;
            (id, Some(held.host))
        }
        None => {
            let mut host = machine.host(new_id(now), Phase::Enrolled, from);
            add(tx, &tenant, &mut host, site.as_deref()).await?;
            enrol(tx, &tenant, &host, site.as_deref()).await?;
            (host.id, None)
        }
    };
    remember(tx, &tenant, &host, machine, fingerprint, from).await?;
    let after = locked(tx, &tenant, &host).await?.host;
    let mut caller = host_caller(&tenant, &after.name, from);
    caller.actor = format!("{} (activation key {})", after.name, row.str(3));
    tx.audit(
        &caller,
        "host.enrol",
        object(&after),
        before.as_ref(),
        Some(&after),
    );
    Ok(Decided::In {
        tenant,
        host,
        key: Some(key.to_owned()),
    })
}

/// Uses an activation key up. The last thing that a transaction does with it: thousands of hosts may share one key, and
/// its row is held until the commit.
pub(super) async fn use_up(tx: &mut Tx<'_>, key: &str) -> Result<(), Error> {
    let now = tx.now;
    // One statement looks and counts: of two that come together with the last use, one is refused.
    let row = tx
        .row(
            "UPDATE activation_key SET uses=uses+1 WHERE hash=$1 AND uses<max_uses \
             AND (expires_at IS NULL OR expires_at>$2) RETURNING tenant,id,site,name",
            args![key.as_bytes(), now],
        )
        .await?
        .ok_or_else(|| forbidden(NOT_GOOD))?;
    tx.changed(
        row.str(0),
        Kind::Enrollment,
        Op::Upsert,
        row.str(1),
        row.str(3),
        row.opt_text(2).as_deref(),
    );
    Ok(())
}

const NOT_GOOD: &str = "this activation key is not good: used up, expired or unknown";

/// Inserts a host under its name, or with a part of its id behind it if the name is taken.
async fn add(tx: &mut Tx<'_>, tenant: &str, host: &mut Host, site: Option<&str>) -> Result<(), Error> {
    let taken = tx
        .row(
            "SELECT 1 FROM host WHERE tenant=$1 AND name=$2",
            args![tenant, &host.name],
        )
        .await?;
    if taken.is_some() {
        host.name = format!("{}-{}", host.name, &host.id[host.id.len() - 8..]);
    }
    insert(tx, tenant, host, site).await
}

/// The tenant and id of a host that is expected and is this machine: all that is known of it must fit.
async fn expected(
    tx: &mut Tx<'_>,
    machine: &Machine,
    tenant: &str,
) -> Result<Option<(String, String)>, Error> {
    let mut sql =
        Sql::new("SELECT h.tenant,h.id,h.serial,h.uuid,h.macs FROM host h WHERE h.phase='expected' AND (1=0");
    if !machine.serial.is_empty() {
        sql.push(" OR h.serial=").bind(machine.serial.as_str());
    }
    if !machine.uuid.is_empty() {
        sql.push(" OR h.uuid=").bind(machine.uuid.as_str());
    }
    if !machine.macs.is_empty() {
        sql.push(" OR h.id IN (SELECT m.host FROM host_mac m WHERE m.mac IN ");
        sql.list(&machine.macs).push(")");
    }
    sql.push(")");
    sql.push(" AND h.tenant=").bind(tenant);
    let rows = tx.query(sql).await?;
    let fits = |row: &&Row| {
        let macs: Vec<String> = row.json(4);
        (row.str(2).is_empty() || row.str(2) == machine.serial)
            && (row.str(3).is_empty() || row.str(3) == machine.uuid)
            && (macs.is_empty() || macs.iter().any(|mac| machine.macs.contains(mac)))
    };
    let mut fitting = rows.iter().filter(fits);
    match (fitting.next(), fitting.next()) {
        (Some(row), None) => Ok(Some((row.text(0), row.text(1)))),
        // Two expect it: neither gets it without a person's word.
        _ => Ok(None),
    }
}

/// A host of the tenant that is this machine, whatever its phase.
async fn same_machine(tx: &mut Tx<'_>, tenant: &str, machine: &Machine) -> Result<Option<String>, Error> {
    if let Some((_, host)) = expected(tx, machine, tenant).await? {
        return Ok(Some(host));
    }
    // MAC addresses move between machines with their cards: only the machine's own numbers count here.
    let row = tx
        .row(
            "SELECT id FROM host WHERE tenant=$1 AND ((uuid<>'' AND uuid=$2 AND serial=$3) \
             OR (serial<>'' AND serial=$3 AND uuid=$2)) ORDER BY phase LIMIT 1",
            args![tenant, &machine.uuid, &machine.serial],
        )
        .await?;
    Ok(row.map(|row| row.text(0)))
}

/// Adds what the machine says of itself to what was known beforehand.
async fn merge_facts(
    tx: &mut Tx<'_>,
    tenant: &str,
    host: &Host,
    machine: &Machine,
    from: &str,
) -> Result<(), Error> {
    let mut merged = host.clone();
    if let Some(name) = crate::hosts::own_name(tx, tenant, host, &machine.hostname).await? {
        merged.name = name;
    }
    if merged.serial.is_empty() {
        merged.serial.clone_from(&machine.serial);
    }
    if merged.uuid.is_empty() {
        merged.uuid.clone_from(&machine.uuid);
    }
    for mac in &machine.macs {
        if !merged.macs.contains(mac) {
            merged.macs.push(mac.clone());
            tx.run(
                "INSERT INTO host_mac (tenant,mac,host) VALUES ($1,$2,$3) ON CONFLICT DO NOTHING",
                args![tenant, mac, &host.id],
            )
            .await?;
        }
    }
    tx.run(
        "UPDATE host SET serial=$3,uuid=$4,macs=$5,words=$6,address=$7,name=$8 WHERE tenant=$1 AND id=$2",
        args![
            tenant,
            &host.id,
            &merged.serial,
            &merged.uuid,
            crate::sites::json(&merged.macs),
            crate::hosts::words(&merged),
            from,
            &merged.name
        ],
    )
    .await
    .map(drop)
}

/// Keeps the request, by which its key is known again.
async fn remember(
    tx: &mut Tx<'_>,
    tenant: &str,
    host: &str,
    machine: &Machine,
    fingerprint: &str,
    from: &str,
) -> Result<String, Error> {
    let now = tx.now;
    let id = new_id(now);
    tx.run(
        "INSERT INTO enrolment (id,tenant,host,csr,key_hash,source,created_at) VALUES ($1,$2,$3,$4,$5,$6,$7)",
        args![&id, tenant, host, &machine.csr, fingerprint, from, now],
    )
    .await?;
    Ok(id)
}

async fn wait(
    tx: &mut Tx<'_>,
    tenant: &str,
    machine: &Machine,
    fingerprint: &str,
    from: &str,
) -> Result<Decided, Error> {
    let row = tx
        .row(
            "SELECT COUNT(*),COUNT(CASE WHEN address=$2 THEN 1 END) FROM host WHERE tenant=$1 AND phase='pending'",
            args![tenant, from],
        )
        .await?;
    if row.is_some_and(|row| row.int(0) >= MOST_PENDING || row.int(1) >= MOST_FROM_ONE) {
        return Err(Error::Throttled { retry_after: 300 });
    }
    let mut host = machine.host(new_id(tx.now), Phase::Pending, from);
    host.reason = match same_machine(tx, tenant, machine).await? {
        Some(id) => {
            let other = locked(tx, tenant, &id).await?.host;
            format!(
                "it waits to be approved; host {} says it is the same machine",
                other.name
            )
        }
        None => "it waits to be approved".to_owned(),
    };
    add(tx, tenant, &mut host, None).await?;
    let request = remember(tx, tenant, &host.id, machine, fingerprint, from).await?;
    tx.changed(tenant, Kind::Enrollment, Op::Upsert, &host.id, &host.name, None);
    let caller = host_caller(tenant, &host.name, from);
    tx.audit(&caller, "host.request", object(&host), None::<&()>, Some(&host));
    Ok(Decided::Waits { request })
}

/// The only tenant there is: what a machine means that names none.
async fn alone(tx: &mut Tx<'_>) -> Result<Option<String>, Error> {
    let rows = tx.rows("SELECT id FROM tenant LIMIT 2", vec![]).await?;
    Ok(match rows.as_slice() {
        [one] => Some(one.text(0)),
        _ => None,
    })
}
