//! Rollouts, plans, alerts and search.

#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap in a helper of tests is a failed test"
)]

mod alerts;
mod mail;
mod plans;
mod repo;
mod rollouts;
mod search;
mod world;
