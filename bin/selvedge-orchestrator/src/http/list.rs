//! What lists are asked: `?limit=&cursor=&q=&selector=&state=&sort=&site=`.

use serde::Deserialize;
use utoipa::IntoParams;

/// How to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct List {
    /// At most so many, 1000 at the most; 100 if nothing is said.
    limit: Option<usize>,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// What to search for.
    q: Option<String>,
    /// A label selector, as `region=eu,tier!=lab`.
    selector: Option<String>,
    /// Only those in this state.
    state: Option<String>,
    /// The field to sort by; `-` before it turns the order round.
    sort: Option<String>,
    /// Only what is of this site.
    site: Option<String>,
}

impl List {
    /// Rows that are wanted.
    pub(crate) fn limit(&self) -> usize {
        self.limit.unwrap_or(100).clamp(1, 1_000)
    }
}

impl From<List> for fleet::Query {
    fn from(list: List) -> Self {
        Self {
            limit: list.limit.unwrap_or_default(),
            cursor: list.cursor,
            q: list.q,
            selector: list.selector,
            state: list.state,
            sort: list.sort,
            site: list.site,
        }
    }
}
