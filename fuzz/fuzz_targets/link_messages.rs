//! Control messages of both sides: what is read can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use link::message::{HostMessage, Open, ServerMessage};

fn settle<T: serde::de::DeserializeOwned + serde::Serialize>(data: &[u8]) {
    if let Ok(read) = serde_json::from_slice::<T>(data) {
        let written = serde_json::to_vec(&read).expect("what was read can be written");
        serde_json::from_slice::<T>(&written).expect("what was written can be read");
    }
}

fuzz_target!(|data: &[u8]| {
    settle::<HostMessage>(data);
    settle::<ServerMessage>(data);
    settle::<Open>(data);
    link::fuzzing::close(&String::from_utf8_lossy(data));
});
