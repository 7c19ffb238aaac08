//! Lists in pages: what is asked, and cursors that stay right while rows come and go.
//!
//! A cursor is the sort key and id of the last row of a page: the next page starts after it, wherever that is now.
//! It is opaque to clients (base64url of JSON) and, being foreign text when it comes back, is checked.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::db::{Sql, Value};
use crate::{Error, Selector};

/// Rows of a page if nothing is said,
pub const LIMIT: usize = 100;
/// and at most.
pub const MOST: usize = 1000;
const LONGEST_CURSOR: usize = 1024;
const LONGEST_SEARCH: usize = 256;

/// What to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Query {
    /// At most so many; 0 is [`LIMIT`].
    pub limit: usize,
    /// Where the page before ended.
    pub cursor: Option<String>,
    /// Free text.
    pub q: Option<String>,
    /// Label selector.
    pub selector: Option<String>,
    /// Only this state (or phase, or connection, whatever the list has).
    pub state: Option<String>,
    /// What to sort by; `-` before it turns it round.
    pub sort: Option<String>,
    /// Only what belongs to this site, by name or id.
    pub site: Option<String>,
}

/// A page.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// The cursor of the next page; none at the end.
    pub next: Option<String>,
    /// How many rows all pages have together.
    pub total: i64,
}

impl<T> Page<T> {
    /// The page with each row changed.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(f).collect(),
            next: self.next,
            total: self.total,
        }
    }
}

/// A column that a list can be sorted by.
pub(crate) struct Sort {
    /// As people write it.
    pub name: &'static str,
    /// The column.
    pub column: &'static str,
    /// Whether it holds numbers.
    pub number: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cursor {
    /// The sort it belongs to.
    s: String,
    /// Key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    t: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    n: Option<i64>,
    /// Id.
    i: String,
}

/// How a list is ordered and where it starts.
pub(crate) struct Order {
    sort: String,
    column: &'static str,
    number: bool,
    down: bool,
    id: &'static str,
    limit: usize,
    after: Option<(Value, String)>,
}

impl Order {
    /// Reads what the query says; `id` is the column that makes the order unique.
    pub(crate) fn new(query: &Query, sorts: &[Sort], id: &'static str) -> Result<Self, Error> {
        let asked = query.sort.as_deref().unwrap_or(sorts[0].name);
        let (down, name) = asked
            .strip_prefix('-')
            .map_or((false, asked), |name| (true, name));
        let sort = sorts.iter().find(|sort| sort.name == name).ok_or_else(|| {
            let names: Vec<_> = sorts.iter().map(|sort| sort.name).collect();
            Error::invalid("sort", format!("is none of {}", names.join(", ")))
        })?;
        let limit = match query.limit {
            0 => LIMIT,
            more => more.min(MOST),
        };
        let mut order = Self {
            sort: asked.to_owned(),
            column: sort.column,
            number: sort.number,
            down,
            id,
            limit,
            after: None,
        };
        if let Some(cursor) = query.cursor.as_deref().filter(|c| !c.is_empty()) {
            order.after = Some(order.read(cursor).ok_or_else(|| {
                Error::invalid("cursor", "is not one of this list: start again without it")
            })?);
        }
        Ok(order)
    }

    fn read(&self, text: &str) -> Option<(Value, String)> {
        if text.len() > LONGEST_CURSOR {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let cursor: Cursor = serde_json::from_slice(&bytes).ok()?;
        if cursor.s != self.sort || cursor.i.contains('\0') {
            return None;
        }
        let key = match (self.number, cursor.n, cursor.t) {
            (true, Some(n), None) => Value::from(n),
            // PostgreSQL has no text with a NUL in it.
            (false, None, Some(t)) if !t.contains('\0') => Value::from(t),
            _ => return None,
        };
        Some((key, cursor.i))
    }

    /// Adds the condition, the order and the limit (one more, to know whether there is a next page).
    pub(crate) fn finish(&self, sql: &mut Sql) {
        let (column, id) = (self.column, self.id);
        let sign = if self.down { "<" } else { ">" };
        if let Some((key, last)) = &self.after {
            sql.push(&format!(" AND ({column},{id}){sign}("));
            sql.bind(key.clone()).push(",").bind(last.as_str()).push(")");
        }
        let way = if self.down { " DESC" } else { "" };
        sql.push(&format!(" ORDER BY {column}{way},{id}{way} LIMIT "));
        sql.bind(self.limit + 1);
    }

    /// Makes a page of rows; `key` and `id` are the numbers of those columns in a row.
    pub(crate) fn page<T>(
        &self,
        mut rows: Vec<crate::db::Row>,
        total: i64,
        (key, id): (usize, usize),
        mut make: impl FnMut(&crate::db::Row) -> T,
    ) -> Page<T> {
        let more = rows.len() > self.limit;
        rows.truncate(self.limit);
        let next = rows.last().filter(|_| more).map(|row| {
            let cursor = Cursor {
                s: self.sort.clone(),
                t: (!self.number).then(|| row.text(key)),
                n: self.number.then(|| row.int(key)),
                i: row.text(id),
            };
            URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).unwrap_or_default())
        });
        Page {
            items: rows.iter().map(&mut make).collect(),
            next,
            total,
        }
    }
}

impl Query {
    /// The selector, checked.
    pub(crate) fn selector(&self) -> Result<Selector, Error> {
        Selector::parse(self.selector.as_deref().unwrap_or(""))
    }

    /// Adds what the free text asks for in the language of [`crate::search`], for lists of sites and hosts.
    pub(crate) fn search(&self, target: crate::search::Target, sql: &mut Sql) -> Result<(), Error> {
        let text = self.q.as_deref().unwrap_or("");
        if text.contains('\0') {
            return Err(Error::invalid("q", "has a NUL in it"));
        }
        let query = crate::search::Query::parse(text)?;
        if !query.condition(target, sql) {
            return Err(Error::invalid(
                "q",
                "asks for something that this list does not have",
            ));
        }
        Ok(())
    }

    /// The words of the free text, lower-case, as LIKE patterns.
    pub(crate) fn patterns(&self) -> Result<Vec<String>, Error> {
        let text = self.q.as_deref().unwrap_or("");
        if text.len() > LONGEST_SEARCH {
            return Err(Error::invalid(
                "q",
                format!("is longer than {LONGEST_SEARCH} bytes"),
            ));
        }
        if text.contains('\0') {
            return Err(Error::invalid("q", "has a NUL in it"));
        }
        Ok(text.split_whitespace().map(pattern).collect())
    }
}

/// A LIKE pattern for text that contains `word`.
fn pattern(word: &str) -> String {
    let mut out = String::from("%");
    for c in word.to_lowercase().chars() {
        if matches!(c, '%' | '_' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('%');
    out
}

/// Counts the rows of a filter (`FROM … WHERE …`).
pub(crate) async fn count(db: &crate::db::Db, filter: &Sql) -> Result<i64, Error> {
    let rows = db.query(filter.select("COUNT(*)")).await?;
    Ok(rows.first().map_or(0, |row| row.int(0)))
}
