//! The claims of a fleet and its orchestrator, end to end, with the programs of this profile.

use std::path::Path;

use testkit::site::Sources;
use testkit::{Options, smoke};

#[test]
fn every_claim_of_a_fleet_holds() {
    let image = Sources::of_this_repository().unwrap().image;
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/fleet");
    smoke::run_fleet(&Options::new("fleet"), &repository, &image).unwrap();
}
