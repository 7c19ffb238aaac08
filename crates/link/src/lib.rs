//! What host and orchestrator say to each other, and the tunnel between them.
pub mod close;
pub mod frame;
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
