//! Enrolment over `/enroll/v1`: what is said, and the host's side of it.
//!
//! [`Client`] asks one question at a time. [`Keeper`] does the rest for a host: it asks until it is let in, keeps the
//! certificate on disk, and renews it for as long as it runs.

mod client;
mod keeper;
mod message;

pub use client::{Client, ClientOptions, Error};
pub use keeper::{Keeper, KeeperOptions, Pauses, State};
pub use message::{Answer, Granted, Nonce, PROOF_HEADER, Problem, Renewal, Request, Waiting};
