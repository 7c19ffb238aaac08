//! Seals, activation keys, pauses.

use std::{collections::HashSet, time::Duration};

use identity::{
    activation::{self, ActivationKey},
    backoff::{Backoff, jittered},
    seal::{Binding, Error, MasterKeys},
};
use proptest::prelude::*;

const CA: Binding<'static> = Binding {
    purpose: "ca-key",
    tenant: "t1",
    record: "r1",
};

#[test]
fn a_sealed_secret_opens_only_where_it_belongs() {
    let keys = MasterKeys::generate().unwrap();
    let sealed = keys.seal(CA, b"the key").unwrap();
    assert_eq!(keys.open_sealed(CA, &sealed).unwrap(), b"the key");
    assert!(!sealed.windows(7).any(|window| window == b"the key"));
    assert_ne!(sealed, keys.seal(CA, b"the key").unwrap(), "never twice the same");
    for other in [
        Binding { tenant: "t2", ..CA },
        Binding { record: "r2", ..CA },
        Binding {
            purpose: "token",
            ..CA
        },
        // The same letters, cut elsewhere.
        Binding {
            tenant: "t1r",
            record: "1",
            ..CA
        },
    ] {
        assert!(
            matches!(keys.open_sealed(other, &sealed), Err(Error::Damaged)),
            "{other:?}"
        );
    }
    for at in 5..sealed.len() {
        let mut damaged = sealed.clone();
        damaged[at] ^= 1;
        assert!(matches!(keys.open_sealed(CA, &damaged), Err(Error::Damaged)));
    }
    for length in 0..sealed.len() {
        assert!(keys.open_sealed(CA, &sealed[..length]).is_err());
    }
    let stranger = MasterKeys::generate().unwrap();
    assert!(matches!(stranger.open_sealed(CA, &sealed), Err(Error::Damaged)));
}

#[test]
fn keys_rotate_and_what_they_derive_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("master.key");
    let mut keys = MasterKeys::open(&path).unwrap();
    let old = keys.seal(CA, b"secret").unwrap();
    let derived = keys.derive("nonces");
    keys.rotate().unwrap();
    keys.write(&path).unwrap();
    let keys = MasterKeys::open(&path).unwrap();
    assert_eq!(keys.open_sealed(CA, &old).unwrap(), b"secret");
    let new = keys.seal(CA, b"secret").unwrap();
    assert!(!keys.is_current(&old) && keys.is_current(&new));
    assert_eq!(keys.derive("nonces"), derived);
    assert_ne!(keys.derive("cookies"), derived);

    // The old line is taken out: what is sealed anew opens, the rest says which key is missing.
    let text = std::fs::read_to_string(&path).unwrap();
    let rest: Vec<&str> = text.lines().filter(|line| !line.starts_with("1 ")).collect();
    let keys = MasterKeys::parse(&rest.join("\n")).unwrap();
    assert_eq!(keys.open_sealed(CA, &new).unwrap(), b"secret");
    assert!(matches!(keys.open_sealed(CA, &old), Err(Error::UnknownKey(1))));
    for bad in [
        "",
        "# only words",
        "1",
        "x AAAA",
        "1 AAAA",
        &format!("{text}{text}"),
    ] {
        assert!(MasterKeys::parse(bad).is_err(), "{bad}");
    }
    assert_eq!(format!("{keys:?}"), "[2]");
}

#[test]
fn an_activation_key_is_read_as_people_type_it() {
    let key = ActivationKey::generate().unwrap();
    let text = key.text();
    assert_eq!(text.len(), 39, "{text}");
    for typed in [
        text.clone(),
        text.to_lowercase(),
        text.replace('-', ""),
        text.replace('-', " "),
        text.trim_start_matches("SLV-").to_owned(),
        format!(" {text}\n"),
        text.replacen("SLV", "slv", 1).replace('0', "o").replace('1', "l"),
    ] {
        assert_eq!(
            ActivationKey::parse(&typed).map(|read| read.hash()),
            Ok(key.hash()),
            "{typed}"
        );
    }
    assert_eq!(key.hash().len(), 64);
    assert_eq!(format!("{key:?}"), "ActivationKey(…)");
    for bad in [
        "",
        "SLV-",
        "hello",
        "SLV-UUUUU",
        &text[..38],
        &format!("{text}A"),
        "ä€",
    ] {
        assert_eq!(
            ActivationKey::parse(bad).unwrap_err(),
            activation::Error::Malformed,
            "{bad}"
        );
    }
    let keys: HashSet<String> = (0..1000)
        .map(|_| ActivationKey::generate().unwrap().hash())
        .collect();
    assert_eq!(keys.len(), 1000);
}

#[test]
fn a_typing_mistake_is_told_from_a_wrong_key() {
    let mut missed = 0;
    for _ in 0..50 {
        let text = ActivationKey::generate().unwrap().text();
        for at in 4..text.len() {
            if text.as_bytes()[at] == b'-' {
                continue;
            }
            let mut typed = text.clone().into_bytes();
            typed[at] = if typed[at] == b'7' { b'8' } else { b'7' };
            if ActivationKey::parse(std::str::from_utf8(&typed).unwrap()).is_ok() {
                missed += 1;
            }
        }
    }
    assert!(
        missed < 10,
        "{missed} of 1500 mistakes were not noticed; one in a thousand is due"
    );
}

proptest! {
    #[test]
    fn no_text_makes_the_readers_of_secrets_fall(text in ".{0,80}", bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = ActivationKey::parse(&text);
        let _ = MasterKeys::parse(&text);
        let _ = MasterKeys::generate().unwrap().open_sealed(CA, &bytes);
    }
}

#[test]
fn pauses_double_up_to_a_limit_with_full_jitter() {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(5));
    let mut ceilings = Vec::new();
    for _ in 0..12 {
        ceilings.push(backoff.ceiling().as_secs());
        assert!(backoff.next_pause() <= Duration::from_secs(*ceilings.last().unwrap()));
    }
    assert_eq!(ceilings, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    backoff.reset();
    assert_eq!(backoff.ceiling(), Duration::from_secs(1));

    // A thousand that fail together come back evenly over the whole pause.
    let mut tenths = [0; 10];
    for _ in 0..1000 {
        let mut one = Backoff::new(Duration::from_secs(10), Duration::from_secs(10));
        let pause = one.next_pause().as_millis() / 1001;
        tenths[usize::try_from(pause).unwrap()] += 1;
    }
    assert!(tenths.iter().all(|count| *count > 50), "{tenths:?}");
    for _ in 0..100 {
        let beat = jittered(Duration::from_secs(30), 0.1).as_secs_f64();
        assert!((27.0..=33.0).contains(&beat));
    }
}

#[test]
fn processes_that_start_at_once_have_one_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/master.key");
    let opened: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| MasterKeys::open(&path).unwrap().derive("same")))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(opened.iter().all(|one| *one == opened[0]));
    let left: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}
