//! What host and orchestrator say to each other, and the tunnel between them.
//!
//! A host keeps one outbound TLS connection to its orchestrator, through an HTTP proxy if there is one. Inside is one
//! WebSocket, and in it frames: control messages in JSON, and byte streams that the orchestrator opens into the host
//! (its API server, consoles, logs). Nothing listens at the site. The host runs on without the link: what it carries is
//! news, wishes and windows, never what a site needs to go on.
//!
//! ```text
//!         host                                            orchestrator
//!   StatusBook ──what changed──▶ ┌───────────┐    TLS     ┌─────────┐ ──HostMessage──▶ who takes status
//!   Handler ◀──assign, signal─── │ Connector │◀──────────▶│ Session │ ◀──Handle::send── assignments, signals
//!           ◀──open(Stream)───── └───────────┘ WebSocket  └─────────┘ ◀──Handle::open── tunnels, consoles
//! ```
//!
//! | item | what it is |
//! |---|---|
//! | [`message`] | the control messages and what a stream is opened for |
//! | [`frame`] | frames, their bounds, reading and writing them |
//! | [`mux`] | streams, credit, turns: no I/O; what one connection may make us hold |
//! | [`stream::Stream`] | one byte stream: `AsyncRead` and `AsyncWrite` |
//! | [`server`] | the orchestrator's side of one host |
//! | [`host`] | the host's side, for ever: dialling, proxies, pauses |
//! | [`status::StatusBook`] | what a host reports, by generations |
//! | [`tls`] | one port for hosts and people |
//! | [`close`] | how a link ends |
//!
//! # Tasks
//!
//! One task for each connection on either side. On the orchestrator it is whoever calls [`server::Session::next`]; on the
//! host it is [`host::Connector::run`], which starts a further task for each assignment, signal and stream. Nothing has a
//! channel: handles and streams put what they have into the connection's queues and wake its task.
//!
//! # Time
//!
//! | what | how long |
//! |---|---|
//! | TLS handshake, WebSocket upgrade, first message (orchestrator) | 15 s, 10 s, 10 s |
//! | heartbeat of a host | 30 s ± 10 %, given up after 3 without an answer |
//! | an orchestrator that hears nothing | 120 s |
//! | a frame from its first byte to its last | 30 s |
//! | a peer that doesn't read what it is sent | 60 s |
//! | between two status messages | at least 1 s, and the first is acknowledged |
//! | pauses between connections | full jitter up to 1 s, 2 s, 4 s … 5 min; anew after a minute of connection |
//!
//! # What it costs
//!
//! On the wire an idle host costs less than 2 kB a minute, both directions together with TLS, TCP and IP headers and
//! acknowledgements: about 300 bytes a heartbeat, some 700 bytes a minute with the five-minute `usage` (a test counts
//! the kernel's bytes and segments). In the orchestrator's memory an idle host costs about 11.4 kB with TLS, and a
//! simulated host about 21 kB in its own process (5,000 links of `examples/memory.rs`, unoptimised build): 4 kB are the
//! TLS library's reading buffer, the rest its keys and certificates, the task and its timer. What a hostile peer can make
//! one connection hold is [`mux::held_at_most`].

pub mod close;
pub mod frame;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod handle;
pub mod host;
pub mod message;
pub mod mux;
pub mod server;
mod socket;
pub mod status;
pub mod stream;
pub mod tls;

/// Where the WebSocket is.
pub const PATH: &str = "/link/v1";
