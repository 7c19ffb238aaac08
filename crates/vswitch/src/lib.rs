//! Switches, port groups, uplink teaming, security, link discovery.

pub mod apply;
mod base;
pub mod desired;
pub mod observe;
mod offline;
pub mod plan;
mod report;
mod switch;

pub use base::base_profile;
pub use offline::validate;
pub use switch::{Config, NicError, VSwitch};
