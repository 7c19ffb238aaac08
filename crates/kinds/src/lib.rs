//! Every API kind of Selvedge: types, schemas, defaults, validation. No I/O, no tokio.
//!
//! | module | what it is |
//! |---|---|
//! | [`object`] | reading and writing the common parts of any object held as JSON |
//! | [`registry`] | the kinds a host serves, as data: names, scope, versions, schemas, columns |
//! | [`condition`] | status conditions |
//! | [`network`] | what the network and its users tell each other |

pub mod condition;
pub mod network;
pub mod object;
pub mod registry;

pub use object::{Gvk, Gvr, Object, ObjectKey};
