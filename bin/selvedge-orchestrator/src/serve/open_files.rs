//! How many files the process may have open: each connection is one.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Files beside connections: databases, repositories that are served, logs.
const OTHERS: u64 = 1024;

/// Asks the system for as many open files as the connections need, and says so when it allows fewer.
pub(crate) fn allow(connections: usize) {
    let wanted = u64::try_from(connections)
        .unwrap_or(u64::MAX)
        .saturating_add(OTHERS);
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    if soft >= wanted {
        return;
    }
    // More than the hard limit is for the privileged alone.
    if setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted)).is_ok() {
        return;
    }
    let allowed = hard.min(wanted);
    if setrlimit(Resource::RLIMIT_NOFILE, allowed, hard).is_err() || allowed < wanted {
        tracing::warn!(
            allowed,
            wanted,
            "fewer files may be open than connections are allowed: set LimitNOFILE= of the service, or lower limits.connections"
        );
    }
}
