//! GitOps on a real API with a store in memory and real repositories.

#![allow(clippy::unwrap_used, reason = "helpers too: a failed unwrap is a failed test")]

mod apply;
mod assigned;
mod common;
mod http;
mod source;
mod speed;
