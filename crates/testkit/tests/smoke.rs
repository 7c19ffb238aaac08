//! The demo's claims, end to end, with the programs of this profile.

use std::path::Path;
use std::process::Command;

use testkit::site::Sources;
use testkit::{Options, Programs, smoke};

#[test]
fn every_claim_of_the_demo_holds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let image = std::env::var_os("SELVEDGE_DEMO_GUEST").map_or_else(
        || {
            let images = Path::new(env!("CARGO_TARGET_TMPDIR")).join("images");
            let built = Command::new(root.join("images/demo-guest/build"))
                .arg(&images)
                .status()
                .unwrap();
            assert!(built.success(), "the demo guest cannot be built");
            images.join("demo-guest.ova")
        },
        Into::into,
    );
    let programs = Programs::find().with_lab(env!("CARGO_BIN_EXE_selvedge-lab"));
    let options = Options {
        programs,
        ..Options::new("e2e")
    };
    smoke::run(
        &options,
        &Sources {
            site: root.join("examples/site"),
            image,
        },
    )
    .unwrap();
}
