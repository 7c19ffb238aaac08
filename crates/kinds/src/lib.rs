//! Every API kind of Selvedge: types, schemas, defaults, validation. No I/O, no tokio.
//!
//! A kind is a document in `data/`: names, versions, columns and one OpenAPI schema. [`registry`] reads the
//! documents; what a schema can't say is in the private module `rules`. An object goes through a kind in this
//! order, both in the API server and in `selvedge validate`:
//!
//! ```text
//! JSON ─ set_defaults ─ admit(old, now) ─ validate ─ validate_update(old) ─ to_stored ─ store
//!                                            └ unknown_fields: kept, the caller warns
//! store ─ from_stored(version) ─ reader          column.cell(object, now): what `kubectl get` shows
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`object`] | reading and writing the common parts of any object held as JSON |
//! | [`registry`] | the kinds a host serves, as data: names, scope, versions, schemas, columns |
//! | [`gvr`] | the resources by name |
//! | [`metadata`] | the rules for names and labels |
//! | [`columns`], [`jsonpath`] | what `kubectl get` shows |
//! | [`event`] | events in their two forms |
//! | [`core`], [`vm`], [`flux`], [`host`] | the kinds as types, for the domains that act on them |
//! | [`condition`] | status conditions |
//! | [`quantity`], [`duration`] | `8Gi`, `2000m`; `1h30m` |
//! | [`mod@reference`] | the reference of the kinds as Markdown |
//! | [`network`] | what the network and its users tell each other |

pub mod columns;
pub mod condition;
pub mod core;
pub mod duration;
pub mod event;
pub mod flux;
pub mod gvr;
pub mod host;
pub mod jsonpath;
pub mod metadata;
pub mod network;
pub mod object;
pub mod quantity;
pub mod reference;
pub mod registry;
mod rules;
mod schema;
pub mod typed;
pub mod vm;

pub use object::{Gvk, Gvr, Object, ObjectKey};
