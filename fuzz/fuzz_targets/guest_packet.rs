//! Packets of a guest and of its network: only usable addresses are learned.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    let Some(card) = frame.get(6..12).and_then(|mac| mac.try_into().ok()) else {
        return;
    };
    // From the card, and from somebody else to the card.
    for card in [card, [2, 0, 0, 0, 0, 1]] {
        if let Some(learned) = vm::packet::learn(frame, card) {
            assert!(!learned.ip.is_unspecified() && !learned.ip.is_multicast() && !learned.ip.is_loopback());
            let longest = if learned.ip.is_ipv4() { 32 } else { 128 };
            assert!(learned.prefix.is_none_or(|prefix| prefix <= longest));
        }
    }
});
