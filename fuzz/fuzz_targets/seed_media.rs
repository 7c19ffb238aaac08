//! Bootstrap data of a virtual machine, in each transport, to the CD that its guest gets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seed::{Media, Nic, Request, Transport};

const KEYS: [&str; 8] = [
    "user-data",
    "userdata",
    "network-config",
    "meta-data",
    "guestinfo.userdata",
    "guestinfo.metadata",
    "ssh-public-keys",
    "unattend",
];

fuzz_target!(|input: (u8, Vec<(u8, String, Vec<u8>)>)| {
    let (transport, data) = input;
    let transport = match transport % 5 {
        0 => Transport::CloudInit,
        1 => Transport::ExtraConfig,
        2 => Transport::OvfEnv,
        3 => Transport::VAppConfig,
        _ => Transport::Sysprep,
    };
    let data = data.into_iter().map(|(pick, key, value)| {
        let known = KEYS.get(usize::from(pick));
        (known.map_or(key, |known| (*known).to_owned()), value)
    });
    let request = Request {
        instance_id: "id".into(),
        host_name: "guest".into(),
        nics: vec![Nic {
            mac: "52:54:00:00:00:01".into(),
        }],
        transport,
        data: data.collect(),
    };
    if let Ok(media) = Media::new(&request) {
        assert_eq!(media.iso().len() % 2048, 0, "whole sectors");
    }
});
