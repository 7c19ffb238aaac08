//! Identities, with OpenSSL as the other opinion.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers too: a failed unwrap is a failed test"
)]

mod certificates;
mod clocks;
mod enrolment;
mod machine;
mod secrets;
mod server;
mod soft_tpm;
mod tpm;
