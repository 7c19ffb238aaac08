//! `selvedge-orchestrator`: enrols, sees and steers a fleet of sites.
#![allow(dead_code)]
mod config;
mod files;
mod git;
mod hooks;
mod http;
mod oidc;
mod serve;
mod tls;
mod tunnel;

fn main() {}
