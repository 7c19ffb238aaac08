//! Host and orchestrator on real TCP and TLS.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers too: a failed unwrap is a failed test"
)]

mod budget;
mod hostile;
mod lab;
mod proxy;
mod session;
mod streams;
