//! The orchestrator's domain: tenants, sites, hosts, repositories, rollouts, status, and its database.

pub mod caller;
pub mod db;
mod error;
mod fleet;
mod log;
pub mod model;
pub mod page;
pub mod rollout;
pub mod search;
pub mod selector;

pub use caller::{Caller, Grant, Role, Scope};
pub use error::Error;
pub use fleet::{Fleet, Options, PasswordCost};
pub use log::{Kind, Op};
pub use page::{Page, Query};
pub use selector::Selector;
