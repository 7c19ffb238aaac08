//! JSON, merge and strategic patches, and server-side apply with `managedFields`. Pure: values in, values out, no I/O, no
//! clock.
//!
//! ```text
//!             what kubectl, helm or GitOps sends                      what the API server stores
//!   application/json-patch+json ────────── json::patch ───────┐
//!   application/merge-patch+json ───────── json::merge_patch ─┤
//!   application/strategic-merge-patch+json strategic::patch ──┼─► managed::update_after_write ─► object
//!   POST, PUT ────────────────────────────────────────────────┘
//!   application/apply-patch+yaml ───────── apply::server_side_apply ─────────────────────────► object | conflicts
//! ```
//!
//! Every function takes the OpenAPI v3 schema of the object's version, as JSON without `$ref`. Of it, these are read:
//! `type`, `properties`, `additionalProperties`, `items`, `default` (of keys), `x-kubernetes-list-type`,
//! `x-kubernetes-list-map-keys`, `x-kubernetes-map-type`, `x-kubernetes-patch-strategy`, `x-kubernetes-patch-merge-key`.
//! Where the schema is silent, maps are merged and lists are one piece. `metadata` is known without a schema.
//!
//! | module | what it is |
//! |---|---|
//! | [`json`] | JSON Patch and JSON Merge Patch |
//! | [`strategic`] | strategic merge patches |
//! | [`managed`] | sets of fields, `metadata.managedFields`, and ownership after plain writes |
//! | [`apply`] | server-side apply |
//!
//! How ownership goes, in three rules:
//!
//! 1. Whoever applies a field owns it; several may own one with the same value.
//! 2. Whoever writes another value takes the field from the others. An applier has to `force` that; others just do.
//! 3. A field that its last applier does not apply any more goes away, unless somebody else owns it.
//!
//! The tests in `tests/golden.rs` hold all this against the Go libraries that the Kubernetes API server is made of.

pub mod apply;
mod error;
pub mod json;
pub mod managed;
mod schema;
pub mod strategic;
mod typed;

pub use error::Error;
