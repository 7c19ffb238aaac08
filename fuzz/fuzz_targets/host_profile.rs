//! The profile of a host configuration, alone and as two layers, to the vSwitches that it asks for.
#![no_main]

use hostconfig::{Layer, merge_layers, profile};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use vswitch::desired::{Desired, NicDevices};

fuzz_target!(|input: (&str, &str)| {
    let mut layers = Vec::new();
    for (name, text) in [("base", input.0), ("more", input.1)] {
        match profile::parse(&Value::String(text.into())) {
            Ok(parsed) => {
                assert!(parsed.value["esx"].is_object());
                layers.push(Layer {
                    name: name.into(),
                    base: name == "base",
                    profile: parsed.value,
                });
            }
            Err(error) => {
                let _ = error.to_string();
            }
        }
    }
    let merged = merge_layers(&layers);
    let nics = NicDevices::from([("vmnic0".into(), "eth0".into()), ("vmnic1".into(), "eth1".into())]);
    let _ = Desired::read(&merged.profile, &nics, "fuzz");
});
