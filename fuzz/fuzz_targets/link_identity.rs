//! What comes to the enrolment's door: requests, certificates, activation keys, nonces, sealed secrets.
#![no_main]

use std::sync::LazyLock;

use identity::{
    activation::ActivationKey,
    csr::Csr,
    proof::Nonces,
    seal::{Binding, MasterKeys},
    verify::{ClientVerifier, Peer},
};
use libfuzzer_sys::fuzz_target;
use telemetry::Clock;

static KEYS: LazyLock<(MasterKeys, Nonces, ClientVerifier)> = LazyLock::new(|| {
    let keys = MasterKeys::generate().expect("there is randomness");
    (keys, Nonces::new(&[7; 32]), ClientVerifier::new(&Clock::system()))
});

fuzz_target!(|data: &[u8]| {
    let (keys, nonces, verifier) = &*KEYS;
    let text = String::from_utf8_lossy(data);
    let _ = Csr::parse(&text);
    let _ = verifier.check_expired(&text);
    if let Some(peer) = Peer::read(data) {
        let id = |c: char| c.is_ascii_alphanumeric() || c == '-';
        assert!(peer.tenant.chars().all(id) && peer.host.chars().all(id));
    }
    if let Ok(key) = ActivationKey::parse(&text) {
        assert_eq!(ActivationKey::parse(&key.text()), Ok(key));
    }
    assert!(nonces.check(&text, &Clock::system()).is_err());
    let binding = Binding {
        purpose: "p",
        tenant: "t",
        record: "r",
    };
    assert!(keys.open_sealed(binding, data).is_err());
    let _ = MasterKeys::parse(&text);
});
