//! The Kubernetes API over a store.
//!
//! | module | what it is |
//! |---|---|
//! | [`admission`] | rules for writes (only Git writes what Git owns), the audit log |
//! | [`api`] | the verbs over a store: defaults, admission, validation, patches, selectors, finalizers. No HTTP. |
//! | [`client`] | the same for reconcilers in this process |
//! | [`http`] | the server: what kubectl and other hosts talk to |
//! | [`status`] | the `Status` object that every refusal is |
//! | [`tls`] | the host's certificates and kubeconfigs |

pub mod admission;
pub mod api;
pub mod client;
mod discovery;
pub mod http;
mod openapi;
mod protobuf;
pub mod status;
mod table;
pub mod tls;

pub use api::{Api, Caller};
pub use client::Client;
pub use status::Status;
