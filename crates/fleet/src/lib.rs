//! The orchestrator's domain: tenants, sites, hosts, repositories, rollouts, status, and its database.
//!
//! Everything goes through a [`Fleet`], which is a database and the keys that seal secrets in it. A `Fleet` has a room
//! for each kind of thing (`fleet.sites()`, `fleet.hosts()`, …), and each room's methods take the [`Caller`] first: the
//! tenant, who asks, what they may and where. So no query can forget the tenant, and no change its line in the audit log.
//!
//! ```text
//!   page, command line ─▶ API ─▶ Caller ─▶ room ─▶ one transaction: the rows, a line of the audit log, a row of the change log
//!                                                       │ commit
//!   hosts ─▶ link ─▶ status::Ingest (batches) ──────────┤
//!                                                       ▼
//!        changes: watchers of pages (SSE) · which hosts to tell what (assignments) · rollouts · other processes
//! ```
//!
//! | room | what it is |
//! |---|---|
//! | [`model`] | what the API shows; no secrets in it |
//! | [`caller`], [`selector`] | who may what, where: roles, scopes, label selectors |
//! | [`db`] | SQLite and PostgreSQL behind one face; migrations; backup |
//! | [`page`] | lists in pages by cursors |
//! | [`tenants`], [`people`] | organisations and their authorities; accounts, second factors, sessions, tokens, bindings |
//! | [`audit`], [`changes`] | what was done, by whom; what changed, for watchers |
//! | [`repositories`], [`sites`], [`hosts`] | what people write down, and what hosts made of it |
//! | [`enrolment`] | how machines become hosts; activation keys |
//! | [`assignments`] | what each host is told, its generation, and what a restore must not undo |
//! | [`status`] | what hosts report: batches, deltas, summaries, heartbeats, events, use over time |
//! | [`rollout`], [`plan`], [`alert`], [`search`] | steering |
//! | [`nodes`], [`idempotency`], [`overview`] | processes and their leader; requests that come twice; the first page |
//!
//! # States of a host
//!
//! ```text
//!   phase:       expected ─▶ enrolled ─▶ revoked        pending ─approve─▶ enrolled
//!   connection:  never ─▶ online ⇄ stale (two beats missed) ─▶ offline (four) ─▶ online
//!   state:       pending · offline, stale (connection) · else what it reports: healthy, progressing, degraded, failing
//! ```
//!
//! # Tasks
//!
//! The server starts them: a [`status::Ingest`] in each process; in the one that leads ([`nodes::Nodes::lead`]) every few
//! seconds [`nodes::Nodes::reap`] and [`Fleet::sweep`], each minute [`changes::Changes::prune`],
//! [`idempotency::Idempotency::expire`] and [`people::People::forget_tries`], and some times an hour
//! [`status::Usage::condense`].

pub mod alert;
pub mod assignments;
pub mod audit;
pub mod caller;
pub mod changes;
mod check;
pub mod db;
pub mod enrolment;
mod error;
mod fleet;
pub mod hosts;
pub mod idempotency;
mod log;
pub mod model;
pub mod nodes;
pub mod overview;
pub mod page;
pub mod people;
pub mod plan;
pub mod repositories;
pub mod rollout;
pub mod search;
mod secrets;
pub mod selector;
pub mod sites;
pub mod status;
pub mod tenants;

pub use caller::{Caller, Grant, Role, Scope};
pub use error::Error;
pub use fleet::{Fleet, Options, PasswordCost};
pub use log::{Kind, Op};
pub use page::{Page, Query};
pub use selector::Selector;
