//! Host and orchestrator on real TCP and TLS.

mod budget;
mod hostile;
mod lab;
mod proxy;
mod session;
mod streams;
