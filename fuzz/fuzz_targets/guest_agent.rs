//! What a guest says of its network cards: bounded, and prefixes fit their addresses.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(answer) = serde_json::from_slice(data) else {
        return;
    };
    let cards = qmp::agent::interfaces(&answer);
    assert!(cards.len() <= 64);
    for card in cards {
        assert!(card.name.chars().count() <= 64 && card.addresses.len() <= 64);
        for (ip, prefix) in card.addresses {
            assert!(prefix <= if ip.is_ipv4() { 32 } else { 128 });
        }
    }
});
