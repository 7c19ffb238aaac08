//! The PostgreSQL that all tests of this binary share; it ends with the process.

use std::sync::OnceLock;

pub(crate) use testkit::postgres::Cluster;
use testkit::postgres::Durability;

/// The cluster that all tests share.
pub(crate) fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(start)
}

/// One for a test that takes it down.
pub(crate) fn start() -> Cluster {
    Cluster::start(Durability::None).unwrap()
}
