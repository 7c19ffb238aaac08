//! One query language over sites, hosts, virtual machines and commits.
//!
//! ```text
//!   till label:region=eu state:offline          words and fields, all must hold
//!   "main street" -state:healthy                phrases; `-` turns a term round
//!   condition:Ready=False  drift:true           what is the matter
//!   commit:3f2a  serial:VMW-17  mac:52:54:00    by prefix
//!   kind:vm class:small power:poweredOff        virtual machines
//! ```
//!
//! [`Query::parse`] reads it, each mistake with its place; [`Query::condition`] makes SQL of it for one kind of
//! thing (`false` if a term makes no sense there, so that the kind is left out); [`Fleet::search`] asks all kinds.
//!
//! Virtual machines are known from the status that hosts report: `index` keeps a row for each in the same
//! transaction as the status.
//!
//! [`Fleet::search`]: crate::Fleet::search

mod find;
pub(crate) mod index;
mod query;

pub use find::{Hit, Hits};
pub use query::{Field, MOST_BYTES, MOST_TERMS, Query, SearchError, Target, Term, What};
