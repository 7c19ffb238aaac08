//! The demo's claims, end to end, with the programs of this profile.

mod common;

use testkit::smoke;

#[test]
fn every_claim_of_the_demo_holds() {
    smoke::run(&common::options("e2e"), &common::sources()).unwrap();
}
