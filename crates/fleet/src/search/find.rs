//! Asking every kind of thing.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::query::{Query, Target};
use crate::{Caller, Error, Fleet, Role, db::Sql};

/// Hits of each kind, if nothing else is asked for.
const EACH: usize = 20;
/// Hits of each kind at most.
const MOST: usize = 200;

/// Something that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hit {
    /// `site`, `host`, `vm` or `commit`.
    pub kind: String,
    /// Its id; `NAMESPACE/NAME` of a virtual machine, the commit's id.
    pub id: String,
    /// Its name; a commit's first line.
    pub name: String,
    /// The name of its site; empty if it has none.
    pub site: String,
    /// The name of its host, of a virtual machine; a commit's repository.
    pub parent: String,
    /// Its state; a virtual machine's power state.
    pub state: String,
    /// Why it is not well.
    pub reason: String,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hits {
    /// Sites first, then hosts, virtual machines, commits; by name.
    pub items: Vec<Hit>,
    /// Whether there are more of some kind than are shown.
    pub more: bool,
}

impl Fleet {
    /// Looks for a query among everything that the caller may see; `each` of each kind at most (0: 20).
    ///
    /// # Errors
    /// The query can't be read ([`Error::Invalid`], field `q`, with the place), or the database.
    pub async fn search(&self, caller: &Caller, q: &str, each: usize) -> Result<Hits, Error> {
        caller.require_anywhere(Role::Viewer)?;
        let query = Query::parse(q)?;
        let each = match each {
            0 => EACH,
            each => each.min(MOST),
        };
        let mut hits = Hits::default();
        if query.is_empty() {
            return Ok(hits);
        }
        for target in query.targets() {
            let Some(sql) = statement(caller, &query, target, each) else {
                continue;
            };
            let mut rows = self.db().query(sql).await?;
            hits.more |= rows.len() > each;
            rows.truncate(each);
            hits.items.extend(rows.iter().map(|row| Hit {
                kind: target.word().into(),
                id: row.text(0),
                name: row.text(1),
                site: row.text(2),
                parent: row.text(3),
                state: row.text(4),
                reason: row.text(5),
            }));
        }
        Ok(hits)
    }
}

/// The statement for one kind; `None` if the query can't find anything of it.
fn statement(caller: &Caller, query: &Query, target: Target, each: usize) -> Option<Sql> {
    let mut sql = Sql::new(match target {
        Target::Site => "SELECT s.id, s.name, s.name, '', s.state, s.reason FROM site s WHERE s.tenant=",
        Target::Host => {
            "SELECT h.id, h.name, s.name, '', h.state, h.reason FROM host h
             LEFT JOIN site s ON s.tenant=h.tenant AND s.id=h.site WHERE h.tenant="
        }
        Target::Vm => {
            "SELECT v.namespace || '/' || v.name, v.name, s.name, h.name, v.power, v.reason FROM vm v
             JOIN host h ON h.tenant=v.tenant AND h.id=v.host
             LEFT JOIN site s ON s.tenant=h.tenant AND s.id=h.site WHERE v.tenant="
        }
        Target::Commit => {
            "SELECT DISTINCT c.id, c.subject, '', r.name, '', '' FROM
             (SELECT tenant, repository, id, subject FROM head
              UNION SELECT tenant, repository, commit_id, subject FROM rollout) c
             JOIN repository r ON r.tenant=c.tenant AND r.id=c.repository WHERE c.tenant="
        }
    });
    sql.bind(caller.tenant.as_str());
    if target != Target::Commit {
        caller.restrict(Role::Viewer, "s", &mut sql);
    }
    if !query.condition(target, &mut sql) {
        return None;
    }
    sql.push(match target {
        Target::Site => " ORDER BY s.name LIMIT ",
        Target::Host => " ORDER BY h.name LIMIT ",
        Target::Vm => " ORDER BY v.name, h.name LIMIT ",
        Target::Commit => " ORDER BY r.name, c.id LIMIT ",
    });
    sql.bind(each + 1);
    Some(sql)
}
