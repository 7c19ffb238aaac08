//! The HTTP server, asked by real kubectls and by hand.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests"
)]

mod kubectl;
mod kubectl_old;
mod kubectl_writes;
mod lists;
mod protocol;
mod server;
mod site;
mod tunnel;
mod watches;
