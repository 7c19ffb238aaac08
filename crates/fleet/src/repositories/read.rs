//! Repositories as they are shown.

use super::Repositories;
use crate::db::{Row, Sql, Tx};
use crate::model::{Head, Reach, Repository};
use crate::page::{Order, Page, Query, Sort};
use crate::{Caller, Error, Role, args};

const COLUMNS: &str = "r.id,r.name,r.url,r.branch,r.hosted,r.auth,r.credentials IS NOT NULL,r.ca_pem,r.known_hosts,\
     r.reach,r.reach_message,r.reach_at,r.generation,d.id,d.subject,d.author,d.time";
const FROM: &str = " FROM repository r LEFT JOIN head d ON d.tenant=r.tenant AND d.repository=r.id AND d.branch=r.branch \
     WHERE r.tenant=";
const SORTS: &[Sort] = &[Sort {
    name: "name",
    column: "r.name",
    number: false,
}];

fn read(row: &Row) -> Repository {
    Repository {
        id: row.text(0),
        name: row.text(1),
        url: row.text(2),
        branch: row.text(3),
        hosted: row.bool(4),
        auth: row.word(5),
        has_credentials: row.bool(6),
        ca_pem: row.text(7),
        known_hosts: row.text(8),
        reach: Reach {
            state: row.word(9),
            message: row.text(10),
            checked_at: row.opt_time(11),
        },
        generation: row.int(12),
        head: row.opt_text(13).map(|commit| Head {
            commit,
            subject: row.text(14),
            author: row.text(15),
            time: row.opt_time(16),
        }),
        webhook_url: String::new(),
    }
}

pub(super) async fn locked(tx: &mut Tx<'_>, tenant: &str, name: &str) -> Result<Repository, Error> {
    // The lock is on the repository's row alone: an outer join can't be locked.
    let row = tx
        .row(
            "SELECT id FROM repository WHERE tenant=$1 AND (name=$2 OR id=$2) FOR UPDATE",
            args![tenant, name],
        )
        .await?
        .ok_or_else(|| Error::not_found("repository", name))?;
    let mut sql = Sql::new(&format!("SELECT {COLUMNS}{FROM}"));
    sql.bind(tenant).push(" AND r.id=").bind(row.str(0));
    let rows = tx.query(sql).await?;
    rows.first()
        .map(read)
        .ok_or_else(|| Error::not_found("repository", name))
}

impl Repositories<'_> {
    /// Lists them.
    pub async fn list(&self, caller: &Caller, query: &Query) -> Result<Page<Repository>, Error> {
        caller.require_anywhere(Role::Viewer)?;
        let order = Order::new(query, SORTS, "r.id")?;
        let mut filter = Sql::new(FROM);
        filter.bind(caller.tenant.as_str());
        for pattern in query.patterns()? {
            filter.push(" AND LOWER(r.name||' '||r.url) LIKE ");
            filter.bind(pattern).push(" ESCAPE '\\'");
        }
        let total = crate::page::count(self.0.db(), &filter).await?;
        let mut sql = filter.select(COLUMNS);
        order.finish(&mut sql);
        let rows = self.0.db().query(sql).await?;
        Ok(order.page(rows, total, (1, 0), read))
    }

    /// Reads one.
    pub async fn get(&self, caller: &Caller, name: &str) -> Result<Repository, Error> {
        caller.require_anywhere(Role::Viewer)?;
        self.find(&caller.tenant, name)
            .await?
            .ok_or_else(|| Error::not_found("repository", name))
    }

    /// Finds one for the server itself.
    pub async fn find(&self, tenant: &str, name: &str) -> Result<Option<Repository>, Error> {
        let mut sql = Sql::new(&format!("SELECT {COLUMNS}{FROM}"));
        sql.bind(tenant).push(" AND (r.name=").bind(name);
        sql.push(" OR r.id=").bind(name).push(")");
        Ok(self.0.db().query(sql).await?.first().map(read))
    }

    /// All repositories of all tenants, as (tenant, repository): for the task that polls them.
    pub async fn all(&self) -> Result<Vec<(String, Repository)>, Error> {
        let sql = format!(
            "SELECT {COLUMNS},r.tenant FROM repository r LEFT JOIN head d ON d.tenant=r.tenant \
             AND d.repository=r.id AND d.branch=r.branch ORDER BY r.tenant,r.name"
        );
        let rows = self.0.db().query(Sql::new(&sql)).await?;
        Ok(rows.iter().map(|row| (row.text(17), read(row))).collect())
    }

    /// The branches of a repository that somebody follows: its own and those that sites name.
    pub async fn branches(&self, tenant: &str, id: &str) -> Result<Vec<String>, Error> {
        let rows = self
            .0
            .db()
            .rows(
                "SELECT branch FROM repository WHERE tenant=$1 AND id=$2 UNION \
                 SELECT branch FROM site WHERE tenant=$1 AND repository=$2 AND branch IS NOT NULL",
                args![tenant, id],
            )
            .await?;
        Ok(rows.iter().map(|row| row.text(0)).collect())
    }
}
