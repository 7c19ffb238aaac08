//! A client of the QEMU machine protocol (QMP) and of the QEMU guest agent. No policy.
//!
//! Both speak JSON, one object a line, over a unix socket. QMP greets, wants `qmp_capabilities`, answers
//! requests by id and tells events whenever they happen. The guest agent greets nobody, tells no events and
//! lives in the guest: everything it says is foreign, may stop in the middle, and may never come.
//!
//! | module | what it is |
//! |---|---|
//! | [`codec`] | bytes to lines of JSON and back, with a bound on a line. Pure |
//! | [`message`] | what a line of QMP is: greeting, reply, event, something newer. Pure |
//! | [`client`] | a connection to QMP: [`Client::connect`], [`Client::execute`], events |
//! | [`commands`] | the commands we use, typed where we read the answer |
//! | [`agent`] | a connection to the guest agent: [`Agent::connect`], `guest-sync-delimited`, addresses |
//!
//! ```text
//!             connect            greeting            qmp_capabilities
//!  (socket) ───────────▶ waiting ────────▶ negotiating ────────────▶ ready ──▶ closed
//!                           └──────────── any error, any time ──────────────────▲
//! ```
//!
//! One task owns a QMP connection. Requests reach it over a bounded queue; replies go back by id; events go
//! to a bounded broadcast. When the connection ends, every waiting request fails with [`Error::Closed`],
//! [`Client::closed`] resolves, and the event stream ends: that is how a dead QEMU is seen at once.
//!
//! Commands, fields and events that this crate does not know pass through as JSON, so a newer QEMU works.
//!
//! Sources: QEMU `docs/interop/qmp-spec.rst`, `docs/interop/qemu-ga-ref.rst`.

pub mod agent;
pub mod client;
pub mod codec;
pub mod commands;
pub mod message;

pub use agent::Agent;
pub use client::{Client, Error, Limits};
pub use commands::{RunState, Status};
pub use message::{Event, Message};
