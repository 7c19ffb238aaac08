//! The description in an OVA.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(ovf) = image::ovf::parse(text) {
        let written = serde_json::to_string(&ovf.info).expect("it is data");
        assert_eq!(
            serde_json::from_str::<image::OvfInfo>(&written).expect("it is our own"),
            ovf.info
        );
    }
});
