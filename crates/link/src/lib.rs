//! What host and orchestrator say to each other, and the tunnel between them.
pub mod message;
