//! Images from end to end: a server in the test, `qemu-img` as the oracle.
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    missing_docs,
    reason = "a failed unwrap is a failed test"
)]

#[path = "images/fetching.rs"]
mod fetching;
#[path = "images/importing.rs"]
mod importing;
#[path = "images/support.rs"]
mod support;
