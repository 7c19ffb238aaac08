//! What the end-to-end tests share.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use testkit::site::{Site, Sources};
use testkit::{Options, Programs};

/// Options of a lab that uses the programs of this profile.
pub fn options(name: &str) -> Options {
    Options {
        programs: Programs::find().with_lab(env!("CARGO_BIN_EXE_selvedge-lab")),
        ..Options::new(name)
    }
}

/// The example site, and the demo guest, which is built when it is not there.
pub fn sources() -> Sources {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let image = IMAGE.get_or_init(|| {
        if let Some(given) = std::env::var_os("SELVEDGE_DEMO_GUEST") {
            return given.into();
        }
        let images = Path::new(env!("CARGO_TARGET_TMPDIR")).join("images");
        let built = Command::new(root.join("images/demo-guest/build"))
            .arg(&images)
            .status()
            .unwrap();
        assert!(built.success(), "the demo guest cannot be built");
        images.join("demo-guest.ova")
    });
    Sources {
        site: root.join("examples/site"),
        image: image.clone(),
    }
}

/// A site whose host runs and has the example site.
#[allow(dead_code, reason = "not every test file needs it")]
pub fn open_shop(name: &str) -> Site {
    let mut site = Site::prepare(&options(name), &sources()).unwrap();
    site.lab.start_host(1).unwrap();
    site.wait_api().unwrap();
    let commit = site.lab.push("Open the shop").unwrap();
    site.wait_applied(&commit).unwrap();
    site
}
