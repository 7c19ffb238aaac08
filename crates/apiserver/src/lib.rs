//! The Kubernetes API over a store.
//!
//! | module | what it is |
//! |---|---|
//! | [`api`] | the verbs over a store: defaults, admission, validation, patches, selectors, finalizers. No HTTP. |
//! | [`client`] | the same for reconcilers in this process |
//! | [`status`] | the `Status` object that every refusal is |

pub mod api;
pub mod client;
pub mod status;

pub use api::{Api, Caller};
pub use client::Client;
pub use status::Status;
