//! The orchestrator's domain: tenants, sites, hosts, repositories, rollouts, status, and its database.

mod check;
pub mod assignments;
pub mod audit;
pub mod repositories;
pub mod hosts;
pub mod sites;
pub mod nodes;
pub mod changes;
pub mod idempotency;
pub mod caller;
pub mod db;
pub mod enrolment;
mod error;
mod fleet;
mod log;
pub mod model;
pub mod page;
pub mod people;
pub mod alert;
pub mod plan;
pub mod rollout;
pub mod search;
mod secrets;
pub mod selector;
pub mod status;
pub mod overview;
pub mod tenants;

pub use caller::{Caller, Grant, Role, Scope};
pub use error::Error;
pub use fleet::{Fleet, Options, PasswordCost};
pub use log::{Kind, Op};
pub use page::{Page, Query};
pub use selector::Selector;
