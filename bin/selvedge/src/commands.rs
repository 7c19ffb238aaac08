//! The commands, one file each.

pub(crate) mod fleet;
pub(crate) mod get;
pub(crate) mod logs;
pub(crate) mod nic;
pub(crate) mod reconcile;
pub(crate) mod status;
pub(crate) mod validate;
pub(crate) mod version;
pub(crate) mod vm;
