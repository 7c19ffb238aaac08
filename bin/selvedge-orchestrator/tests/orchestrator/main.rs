//! The orchestrator from outside: its own process, real hosts of the `link` crate, real Git, PostgreSQL and OpenID
//! Connect programs. Every process logs at trace level, and what it must not say is looked for there.

#![cfg(test)]

mod concerned;
mod edges;
mod first;
mod many;
mod openapi;
mod revoked;
mod support;
