//! Enrolment over `/enroll/v1`: what is said, and the host's side of it.
//!
//! [`Client`] asks one question at a time.

mod client;
mod message;

pub use client::{Client, ClientOptions, Error};
pub use message::{Answer, Granted, Nonce, PROOF_HEADER, Problem, Renewal, Request, Waiting};
