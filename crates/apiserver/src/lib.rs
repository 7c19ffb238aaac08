//! The Kubernetes API over a store.
//!
//! ```text
//! kubectl, helm, Flux ─ TLS ─ http ──┐                          ┌─ registry of kinds (data, crate kinds)
//!                                    ├─▶ Api: the verbs ────────┼─ patches, apply (pure, crate merge)
//! reconcilers of this process ─ Client ┘  │                     └─ admission: GitOwned; audit log
//!                                         ▼
//!                                      Store: bytes, revisions, changes (crate store)
//! ```
//!
//! There is one path to the store, for people and for the daemon's own reconcilers: [`Api`]. It holds no
//! objects; what it answers was read from the store for that answer. It knows no kind by name but Namespace:
//! what else differs between kinds is in their [`kinds::registry::KindDef`].
//!
//! Tasks: [`Api::run_namespaces`] empties deleted namespaces, run once for each store. All else runs in the
//! task of the one who asks. [`Client`] is how a reconciler asks; [`http`] is how everybody else does.
//!
//! An object's life:
//!
//! ```text
//! create ─▶ there ─ update, patch, apply (each only if something changes) ─▶ there
//!             └ delete ─ no finalizers ─▶ gone
//!                      └ finalizers ─▶ deletionTimestamp is set ─ the last finalizer goes ─▶ gone
//! ```
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
