//! The verbs without HTTP, as tables where they are tables.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap in a test is a failed test"
)]

mod admission;
mod client;
mod common;
mod deletes;
mod lists;
mod patches;
mod property;
mod watches;
mod writes;
