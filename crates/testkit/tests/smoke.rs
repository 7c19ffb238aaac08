//! The demo's claims, end to end, with the programs of this profile.

use testkit::site::Sources;
use testkit::{Options, smoke};

#[test]
fn every_claim_of_the_demo_holds() {
    smoke::run(&Options::new("e2e"), &Sources::of_this_repository().unwrap()).unwrap();
}
