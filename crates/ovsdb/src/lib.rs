//! A client of the Open vSwitch database protocol (RFC 7047). No policy.
//!
//! ```text
//!   Client ──commands──▶ task ◀──JSON-RPC over a unix socket──▶ ovsdb-server
//!     ▲                   │
//!     └─ state, answers ──┴──▶ watch<Snapshot> of each monitor
//! ```
//!
//! One task owns the connection. It answers the server's echoes, sends its own when the server is silent,
//! and connects again when the connection is lost; monitors are then asked for again, so that a
//! [`Snapshot`] is never a mixture of two connections. A request that was under way when the connection
//! broke fails with [`Error::Lost`]: the caller looks at the database and decides, nothing is sent twice.
//!
//! | item | what it is |
//! |---|---|
//! | [`Framer`] | cuts the byte stream into messages, with bounds; fuzzed |
//! | [`Atom`], [`Datum`], [`Row`] | values of columns |
//! | [`Transaction`], [`Condition`] | what to do, all or nothing |
//! | [`Snapshot`] | the monitored tables as they are now |
//! | [`Client`] | the connection |
//!
//! The answer to a transaction comes after the updates that it caused (ovsdb-server flushes its monitors
//! first), so a snapshot read after [`Client::transact`] has them.
//!
//! States of the connection:
//!
//! ```text
//!   Connecting ──▶ Connected ──(closed, silent, nonsense)──▶ Disconnected(reason) ──(pause, doubling)──▶ Connected
//! ```

mod client;
mod datum;
mod framer;
mod table;
mod transaction;

pub use client::{Client, Config, ConnectionState, Error};
pub use datum::{Atom, Datum, Row};
pub use framer::{FrameError, Framer};
pub use table::{MonitorSpec, Snapshot, Table};
pub use transaction::{Condition, Transaction};
