//! Keys in a TPM: swtpm is the TPM, tpm2-tools the other opinion.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Output, sync::Arc};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use base64::{Engine, engine::general_purpose::STANDARD};
use identity::{
    csr::{self, Csr},
    key::{HostKey, KeyError, KeyStore, Place, TpmError, TpmKey},
};

use super::soft_tpm::SoftTpm;

/// Runs a program of tpm2-tools.
fn tool(tpm: &SoftTpm, arguments: &str) -> Output {
    let mut words = arguments.split(' ');
    std::process::Command::new(words.next().unwrap())
        .args(words)
        .current_dir(tpm.folder())
        .env("TPM2TOOLS_TCTI", format!("swtpm:path={}", tpm.socket().display()))
        .output()
        .expect("tpm2-tools are there (scripts/setup installs them)")
}

fn does(tpm: &SoftTpm, arguments: &str) -> String {
    let output = tool(tpm, arguments);
    assert!(output.status.success(), "{arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn signs(key: &dyn HostKey) {
    let signature = key.sign(b"it is me").unwrap();
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.public_key());
    public.verify(b"it is me", &signature).unwrap();
    assert!(public.verify(b"it is you", &signature).is_err());
}

fn why(error: KeyError) -> TpmError {
    match error {
        KeyError::Tpm(error) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_tpms_key_signs_and_is_there_again_after_a_restart() {
    let (mut tpm, dir) = (SoftTpm::new(), tempfile::tempdir().unwrap());
    let file = dir.path().join("tpm-key.json");
    assert!(TpmKey::read(&tpm.socket(), &file).unwrap().is_none());
    let key = TpmKey::make(&tpm.socket(), &file).unwrap();
    assert!(key.in_tpm());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // Short numbers come about once in some hundred signatures: all kinds must be good.
    for _ in 0..600 {
        signs(&key);
    }
    Csr::parse(&csr::make(&key).unwrap()).unwrap();

    // The machine is switched off, and on again with the daemon running (it slept): what was loaded is gone.
    tpm.off();
    for error in [key.sign(b"").unwrap_err(), csr::make(&key).unwrap_err()] {
        assert!(matches!(why(error), TpmError::Absent { device } if device == tpm.socket()));
    }
    tpm.on();
    signs(&key);
    let point = key.public_key().to_vec();
    drop(key);
    tpm.off();
    tpm.on();
    let key = TpmKey::read(&tpm.socket(), &file).unwrap().unwrap();
    assert_eq!(key.public_key(), point);
    signs(&key);
    drop(key);
    // Nothing is left in the TPM.
    assert_eq!(does(&tpm, "tpm2_getcap handles-transient"), "");
    assert_eq!(does(&tpm, "tpm2_getcap handles-persistent"), "");
}

#[test]
fn another_tpm_and_one_that_was_cleared_do_not_know_the_key() {
    let (tpm, other, dir) = (SoftTpm::new(), SoftTpm::new(), tempfile::tempdir().unwrap());
    let file = dir.path().join("tpm-key.json");
    drop(TpmKey::make(&tpm.socket(), &file).unwrap());
    let refused = TpmKey::read(&other.socket(), &file).unwrap_err();
    assert!(
        refused.to_string().contains("selvedge-host enroll --again"),
        "{refused}"
    );
    assert!(matches!(why(refused), TpmError::OtherTpm));
    // Wherever the host wants it, a key that is elsewhere is not replaced by a new one.
    for place in [Place::Auto, Place::Tpm, Place::File] {
        let store = KeyStore::new(dir.path().to_owned(), place, &other.socket());
        assert!(matches!(why(store.open().unwrap_err()), TpmError::OtherTpm));
    }
    does(&tpm, "tpm2_clear -c platform");
    let refused = TpmKey::read(&tpm.socket(), &file).unwrap_err();
    assert!(matches!(why(refused), TpmError::OtherTpm));
    // Nor one whose file was changed.
    let text = fs::read_to_string(&file).unwrap();
    let mut stored: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut private = STANDARD.decode(stored["private"].as_str().unwrap()).unwrap();
    *private.last_mut().unwrap() ^= 1;
    stored["private"] = STANDARD.encode(private).into();
    fs::write(&file, stored.to_string()).unwrap();
    let refused = TpmKey::read(&tpm.socket(), &file).unwrap_err();
    assert!(matches!(why(refused), TpmError::OtherTpm));
    for bad in ["", "{}", "{\"public\":\"AAA=\",\"private\":\"\"}", "-----BEGIN"] {
        fs::write(&file, bad).unwrap();
        let refused = TpmKey::read(&tpm.socket(), &file).unwrap_err();
        assert!(matches!(refused, KeyError::Damaged { .. }), "{bad}");
    }
}

#[test]
fn tpm2_tools_load_what_is_stored_and_say_that_it_can_not_leave() {
    let (tpm, dir) = (SoftTpm::new(), tempfile::tempdir().unwrap());
    let file = dir.path().join("tpm-key.json");
    let key = TpmKey::make(&tpm.socket(), &file).unwrap();
    let point = key.public_key().to_vec();
    drop(key);
    let stored: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    for part in ["public", "private"] {
        let bytes = STANDARD.decode(stored[part].as_str().unwrap()).unwrap();
        fs::write(tpm.folder().join(part), bytes).unwrap();
    }
    does(
        &tpm,
        "tpm2_createprimary -Q -C o -G ecc256:aes128cfb -c storage \
         -a fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt",
    );
    does(&tpm, "tpm2_flushcontext -t");
    does(&tpm, "tpm2_load -Q -C storage -u public -r private -c key");
    does(&tpm, "tpm2_flushcontext -t");
    let facts = does(&tpm, "tpm2_readpublic -c key -f der -o key.der");
    assert!(
        facts.contains("value: fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|sign\n"),
        "{facts}"
    );
    let der = fs::read(tpm.folder().join("key.der")).unwrap();
    assert!(der.ends_with(&point));
    does(&tpm, "tpm2_flushcontext -t");
    // What it signs, we read.
    fs::write(tpm.folder().join("message"), "it is me").unwrap();
    does(&tpm, "tpm2_sign -c key -g sha256 -f plain -o signature message");
    let signature = fs::read(tpm.folder().join("signature")).unwrap();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &point)
        .verify(b"it is me", &signature)
        .unwrap();
    does(&tpm, "tpm2_flushcontext -t");
    let taken = tool(&tpm, "tpm2_duplicate -C storage -c key -G null -r stolen -s seed");
    assert!(!taken.status.success(), "{taken:?}");
}

#[test]
fn a_locked_tpm_still_signs_and_a_closed_one_says_what_to_do() {
    let (tpm, dir) = (SoftTpm::new(), tempfile::tempdir().unwrap());
    let store = |folder: &str, place| KeyStore::new(dir.path().join(folder), place, &tpm.socket());
    let first = store("a", Place::Auto);
    let key = first.open().unwrap();
    assert!(key.in_tpm());
    let point = key.public_key().to_vec();
    drop(key);

    // Somebody else's password is guessed until the TPM locks itself.
    does(&tpm, "tpm2_dictionarylockout -s -n 1 -t 1000 -l 1000");
    fs::write(tpm.folder().join("secret"), "s").unwrap();
    does(&tpm, "tpm2_createprimary -Q -C o -c storage");
    does(&tpm, "tpm2_flushcontext -t");
    does(
        &tpm,
        "tpm2_create -Q -C storage -i secret -p right -u su -r sr -c sealed",
    );
    does(&tpm, "tpm2_flushcontext -t");
    for _ in 0..2 {
        assert!(!tool(&tpm, "tpm2_unseal -c sealed -p wrong").status.success());
        does(&tpm, "tpm2_flushcontext -t");
    }
    let locked = tool(&tpm, "tpm2_unseal -c sealed -p right");
    assert!(
        String::from_utf8_lossy(&locked.stderr).contains("lockout"),
        "{locked:?}"
    );
    does(&tpm, "tpm2_flushcontext -t");
    let key = first.open().unwrap();
    assert_eq!(key.public_key(), point);
    signs(&*key);
    drop(key);

    TpmKey::probe(&tpm.socket()).unwrap();
    does(&tpm, "tpm2_changeauth -c owner secret");
    assert!(matches!(
        TpmKey::probe(&tpm.socket()).unwrap_err(),
        TpmError::Closed { .. }
    ));
    let closed = why(store("b", Place::Tpm).open().unwrap_err());
    assert!(matches!(closed, TpmError::Closed { .. }), "{closed:?}");
    assert!(closed.to_string().contains("tpm2_changeauth"), "{closed}");
    // A new host goes on with a file, if it may.
    assert!(!store("c", Place::Auto).open().unwrap().in_tpm());
}

#[test]
fn a_host_keeps_the_kind_of_key_that_it_has() {
    let (tpm, dir) = (SoftTpm::new(), tempfile::tempdir().unwrap());
    let socket = tpm.socket();
    let open =
        |folder: &str, place, device: &Path| KeyStore::new(dir.path().join(folder), place, device).open();
    let nowhere = Path::new("/nowhere/tpm");
    assert!(!open("file", Place::File, &socket).unwrap().in_tpm());
    assert!(!open("auto", Place::Auto, nowhere).unwrap().in_tpm());
    let refused = why(open("tpm", Place::Tpm, nowhere).unwrap_err());
    assert!(refused.to_string().contains("firmware"), "{refused}");
    assert!(open("tpm", Place::Tpm, &socket).unwrap().in_tpm());

    let point = |folder: &str, place, device: &Path| -> (bool, Vec<u8>) {
        let key: Arc<dyn HostKey> = open(folder, place, device).unwrap();
        (key.in_tpm(), key.public_key().to_vec())
    };
    for (folder, in_tpm) in [("file", false), ("auto", false), ("tpm", true)] {
        let first = point(folder, Place::Auto, &socket);
        assert_eq!(first.0, in_tpm);
        for place in [Place::File, Place::Tpm] {
            assert_eq!(point(folder, place, &socket), first);
        }
    }
    // Without its TPM, it has none; it makes no other.
    assert!(matches!(
        why(open("tpm", Place::Auto, nowhere).unwrap_err()),
        TpmError::Absent { .. }
    ));
    // Begun anew, it goes where it is wanted.
    let store = KeyStore::new(dir.path().join("auto"), Place::Auto, &socket);
    store.forget().unwrap();
    assert!(store.open().unwrap().in_tpm());
}

#[test]
fn what_is_no_tpm_is_told_from_one() {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixListener,
    };
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let header = |size: u32, code: u32| [&[0x80, 1][..], &size.to_be_bytes(), &code.to_be_bytes()].concat();
    let answers: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "can't speak"),
        (b"HTTP/1.1 400".to_vec(), "can't speak"),
        (header(5000, 0), "can't speak"),
        (header(10, 0), "does not speak TPM 2.0"),
        ([header(12, 0), vec![0; 2]].concat(), "does not speak TPM 2.0"),
        ([header(10, 0), vec![0; 2]].concat(), "can't speak"),
        (header(10, 0xb0143), "000b0143"),
        (header(10, 0x101), "TPM_RC_FAILURE"),
    ];
    let given = answers.clone();
    let serving = std::thread::spawn(move || {
        for (answer, _) in given {
            let (mut client, _) = listener.accept().unwrap();
            let _ = client.read(&mut [0; 4096]).unwrap();
            client.write_all(&answer).unwrap();
        }
    });
    for (answer, words) in answers {
        let error = TpmKey::make(&socket, &dir.path().join("k")).unwrap_err();
        assert!(error.to_string().contains(words), "{answer:?}: {error}");
    }
    serving.join().unwrap();
    assert!(!dir.path().join("k").exists());
}
