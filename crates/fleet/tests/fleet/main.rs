//! The fleet on both databases: real SQLite, and Debian's PostgreSQL in a private cluster.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers too: a failed unwrap is a failed test"
)]

mod assignments;
mod audit;
mod changes;
mod database;
mod enrolment;
mod names;
mod people;
mod properties;
mod requests;
mod scopes;
mod sites;
mod speed;
mod status;
mod steering;
mod support;
