//! `selvedge-orchestrator`: enrols, sees and steers a fleet of sites.

fn main() {}
