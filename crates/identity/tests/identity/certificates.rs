//! Authorities, requests, verification.

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use identity::{
    ca::{Authority, Error, HOST_LIFETIME, SERVER_LIFETIME},
    credentials::{Credentials, Enrolment},
    csr::{self, Csr, FileKey, HostKey},
    proof::{self, Nonces},
    verify::{ClientVerifier, Peer, Refusal, Revocations},
};
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use telemetry::Clock;

fn clock() -> Clock {
    Clock::fixed("2026-11-20T12:00:00Z".parse().unwrap())
}

fn openssl(dir: &Path, args: &[&str]) -> (bool, String) {
    let out = Command::new("openssl")
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed");
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    (out.status.success(), text)
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn request(key: &dyn HostKey) -> Csr {
    Csr::parse(&csr::make(key).unwrap()).unwrap()
}

/// A verifier with two tenants, `t1` and `t2`, and their authorities.
fn tenants(clock: &Clock) -> (ClientVerifier, Authority, Authority) {
    let first = Authority::create("tenant one", clock).unwrap();
    let second = Authority::create("tenant two", clock).unwrap();
    let verifier = ClientVerifier::new(clock);
    let (a, b) = (first.certificate_pem(), second.certificate_pem());
    verifier
        .set_authorities([("t1", a.as_str()), ("t2", b.as_str())])
        .unwrap();
    (verifier, first, second)
}

#[test]
fn openssl_agrees_with_a_hosts_certificate_for_clients_only() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::system();
    let authority = Authority::create("selvedge tenant acme", &clock).unwrap();
    let key = FileKey::generate().unwrap();
    let csr = csr::make(&key).unwrap();
    std::fs::write(dir.path().join("csr.pem"), &csr).unwrap();
    let (good, text) = openssl(dir.path(), &["req", "-in", "csr.pem", "-verify", "-noout"]);
    assert!(good, "{text}");

    let issued = authority
        .issue_host(&Csr::parse(&csr).unwrap(), "t1", "h1", HOST_LIFETIME, &clock)
        .unwrap();
    std::fs::write(dir.path().join("ca.pem"), authority.certificate_pem()).unwrap();
    std::fs::write(dir.path().join("host.pem"), &issued.certificate).unwrap();
    let verify = |purpose| {
        openssl(
            dir.path(),
            &[
                "verify",
                "-x509_strict",
                "-CAfile",
                "ca.pem",
                "-purpose",
                purpose,
                "host.pem",
            ],
        )
    };
    let (good, text) = verify("sslclient");
    assert!(good, "{text}");
    assert!(!verify("sslserver").0, "a host's certificate must not serve");
    let (_, text) = openssl(
        dir.path(),
        &[
            "x509",
            "-in",
            "host.pem",
            "-noout",
            "-ext",
            "subjectAltName",
            "-serial",
        ],
    );
    assert!(text.contains("URI:spiffe://selvedge/t1/host/h1"), "{text}");
    assert!(
        text.to_lowercase().contains(&issued.serial),
        "{text} {}",
        issued.serial
    );
}

#[test]
fn a_serving_certificate_is_good_for_its_names() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::system();
    let authority = Authority::create("selvedge orchestrator", &clock).unwrap();
    let names = ["fleet.example".to_owned(), "192.0.2.7".to_owned()];
    let serving = authority.issue_server(&names, SERVER_LIFETIME, &clock).unwrap();
    std::fs::write(dir.path().join("ca.pem"), authority.certificate_pem()).unwrap();
    std::fs::write(dir.path().join("server.pem"), &serving.certificate).unwrap();
    let verify = |flag, name| {
        let args = [
            "verify",
            "-x509_strict",
            "-CAfile",
            "ca.pem",
            "-purpose",
            "sslserver",
            flag,
            name,
            "server.pem",
        ];
        openssl(dir.path(), &args).0
    };
    assert!(verify("-verify_hostname", "fleet.example"));
    assert!(verify("-verify_ip", "192.0.2.7"));
    assert!(!verify("-verify_hostname", "other.example"));
    assert!(!format!("{serving:?}").contains("PRIVATE"));
}

#[test]
fn names_in_a_request_are_not_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let made = openssl(
        dir.path(),
        &[
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            "key.pem",
            "-out",
            "csr.pem",
            "-subj",
            "/CN=selvedge-admin/O=system:masters",
            "-addext",
            "subjectAltName=URI:spiffe://selvedge/t2/host/victim,DNS:fleet.example",
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-addext",
            "extendedKeyUsage=serverAuth",
        ],
    );
    assert!(made.0, "{}", made.1);
    let clock = clock();
    let (_, authority, _) = tenants(&clock);
    let csr = Csr::parse(&std::fs::read_to_string(dir.path().join("csr.pem")).unwrap()).unwrap();
    let issued = authority
        .issue_host(&csr, "t1", "h1", HOST_LIFETIME, &clock)
        .unwrap();
    std::fs::write(dir.path().join("host.pem"), &issued.certificate).unwrap();
    let (_, text) = openssl(dir.path(), &["x509", "-in", "host.pem", "-noout", "-text"]);
    assert!(text.contains("URI:spiffe://selvedge/t1/host/h1"), "{text}");
    for wrong in [
        "victim",
        "masters",
        "admin",
        "CA:TRUE",
        "fleet.example",
        "TLS Web Server",
    ] {
        assert!(!text.contains(wrong), "{wrong} was taken over:\n{text}");
    }
}

#[test]
fn requests_that_are_not_signed_by_their_key_or_are_of_another_kind_are_refused() {
    let key = FileKey::generate().unwrap();
    let pem = csr::make(&key).unwrap();
    let mut der = rustls::pki_types::CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
        .unwrap()
        .to_vec();
    let encode = |der: &[u8]| {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let text = STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
    };
    assert!(Csr::parse(&encode(&der)).is_ok());
    let last = der.len() - 1;
    der[last] ^= 1;
    assert_eq!(Csr::parse(&encode(&der)), Err(csr::Error::Signature));
    der.push(0);
    assert_eq!(Csr::parse(&encode(&der)), Err(csr::Error::Malformed));
    assert_eq!(Csr::parse(&"x".repeat(9000)), Err(csr::Error::TooLong));

    let dir = tempfile::tempdir().unwrap();
    for (kind, option) in [("rsa:2048", None), ("ec", Some("ec_paramgen_curve:P-384"))] {
        let mut args = vec![
            "req", "-new", "-newkey", kind, "-nodes", "-keyout", "k", "-out", "c", "-subj", "/CN=x",
        ];
        args.extend(option.iter().flat_map(|option| ["-pkeyopt", option]));
        assert!(openssl(dir.path(), &args).0);
        let pem = std::fs::read_to_string(dir.path().join("c")).unwrap();
        assert_eq!(Csr::parse(&pem), Err(csr::Error::Key), "{kind}");
    }
}

#[test]
fn ids_that_could_say_something_else_are_refused() {
    let clock = clock();
    let (_, authority, _) = tenants(&clock);
    let csr = request(&FileKey::generate().unwrap());
    for bad in ["", "a/host/b", "ä", "a b", &"x".repeat(65)] {
        let refused = authority.issue_host(&csr, "t1", bad, HOST_LIFETIME, &clock);
        assert!(matches!(refused, Err(Error::Id(_))), "{bad}");
    }
    let endless = Duration::from_secs(u64::MAX / 4);
    assert!(authority.issue_host(&csr, "t1", "h1", endless, &clock).is_err());
}

#[test]
fn a_certificate_counts_for_its_tenant_and_its_time() {
    let clock = clock();
    let (verifier, first, second) = tenants(&clock);
    let csr = request(&FileKey::generate().unwrap());
    let day = Duration::from_hours(24);
    let issued = first.issue_host(&csr, "t1", "h1", day, &clock).unwrap();
    let good = der(&issued.certificate);
    let peer = verifier.check(&good, &[]).unwrap();
    assert_eq!((peer.tenant.as_str(), peer.host.as_str()), ("t1", "h1"));
    assert_eq!(peer.serial, issued.serial);
    assert_eq!(peer.public_key, csr.public_key());

    let untrusted = Refusal::Untrusted { host: "h1".into() };
    let stolen = second.issue_host(&csr, "t1", "h1", day, &clock).unwrap();
    assert_eq!(
        verifier.check(&der(&stolen.certificate), &[]),
        Err(untrusted.clone())
    );
    assert_eq!(verifier.check_expired(&stolen.certificate), Err(untrusted));
    let unknown = first.issue_host(&csr, "t3", "h1", day, &clock).unwrap();
    assert_eq!(
        verifier.check(&der(&unknown.certificate), &[]),
        Err(Refusal::UnknownTenant)
    );
    // The authority's own certificate is no host's.
    assert_eq!(
        verifier.check(&der(&first.certificate_pem()), &[]),
        Err(Refusal::Malformed)
    );

    // A process whose clock is half an hour behind lets it in, one that is a day behind doesn't.
    let at = |offset: i64| {
        let clock = Clock::fixed(
            "2026-11-20T12:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(offset),
        );
        let verifier = ClientVerifier::new(&clock);
        verifier.set_authority("t1", &first.certificate_pem()).unwrap();
        verifier.check(&good, &[]).map(|_| ())
    };
    assert_eq!(at(-1800), Ok(()));
    assert!(matches!(at(-86_400), Err(Refusal::NotYet { .. })));
    assert_eq!(at(86_400 + 240), Ok(()), "five minutes of grace");
    assert!(matches!(at(86_400 + 301), Err(Refusal::Expired { .. })));

    clock.advance(SignedDuration::from_hours(24 * 30));
    assert!(matches!(verifier.check(&good, &[]), Err(Refusal::Expired { .. })));
    assert_eq!(verifier.check_expired(&issued.certificate).unwrap().host, "h1");
}

#[test]
fn authorities_and_revocations_are_swapped_while_it_runs() {
    let clock = clock();
    let (verifier, first, second) = tenants(&clock);
    let csr = request(&FileKey::generate().unwrap());
    let old = first.issue_host(&csr, "t1", "h1", HOST_LIFETIME, &clock).unwrap();
    let other = first.issue_host(&csr, "t1", "h2", HOST_LIFETIME, &clock).unwrap();
    let check = |pem: &str| verifier.check(&der(pem), &[]).map(|peer| peer.host);
    let revoked = |host: &str| Err(Refusal::Revoked { host: host.into() });

    verifier.revoke_serial(&old.serial);
    assert_eq!(check(&old.certificate), revoked("h1"));
    assert_eq!(
        verifier.check_expired(&old.certificate).map(|p| p.host),
        revoked("h1")
    );
    assert!(verifier.is_revoked(&Peer::read(&der(&old.certificate)).unwrap()));
    assert_eq!(check(&other.certificate), Ok("h2".into()));
    verifier.revoke_host("h2");
    assert_eq!(check(&other.certificate), revoked("h2"));
    verifier.set_revocations(Revocations::default());
    assert_eq!(check(&other.certificate), Ok("h2".into()));

    // The tenant's authority changes: for a while both count, then only the new one.
    let next = Authority::create("tenant one", &clock).unwrap();
    let both = first.certificate_pem() + &next.certificate_pem();
    verifier.set_authority("t1", &both).unwrap();
    let new = next.issue_host(&csr, "t1", "h1", HOST_LIFETIME, &clock).unwrap();
    assert!(check(&old.certificate).is_ok() && check(&new.certificate).is_ok());
    verifier.set_authority("t1", &next.certificate_pem()).unwrap();
    assert!(check(&old.certificate).is_err() && check(&new.certificate).is_ok());
    verifier.remove_authority("t1");
    assert_eq!(check(&new.certificate), Err(Refusal::UnknownTenant));
    // A bad one changes nothing.
    assert!(verifier.set_authorities([("t1", "no PEM")]).is_err());
    let theirs = second
        .issue_host(&csr, "t2", "h9", HOST_LIFETIME, &clock)
        .unwrap();
    assert!(check(&theirs.certificate).is_ok());
}

#[test]
fn an_authority_comes_back_from_what_is_stored_and_only_with_its_own_key() {
    let clock = clock();
    let (verifier, first, second) = tenants(&clock);
    let again = Authority::from_parts(&first.certificate_pem(), first.key()).unwrap();
    let csr = request(&FileKey::generate().unwrap());
    let issued = again.issue_host(&csr, "t1", "h1", HOST_LIFETIME, &clock).unwrap();
    assert!(verifier.check(&der(&issued.certificate), &[]).is_ok());
    let mixed = Authority::from_parts(&first.certificate_pem(), second.key());
    assert!(matches!(mixed, Err(Error::Damaged)));
}

#[test]
fn a_key_file_is_private_and_whole() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("identity/host.key");
    let made = FileKey::open(&path).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = FileKey::open(&path).unwrap();
    assert_eq!(made.public_key(), again.public_key());
    assert_eq!(format!("{made:?}"), "FileKey");
    let (good, text) = openssl(
        dir.path(),
        &["ec", "-in", "identity/host.key", "-noout", "-check"],
    );
    assert!(good, "{text}");
    // A left-over of a crash in the middle of writing is not the key.
    std::fs::write(path.with_file_name("host.key.new"), "half").unwrap();
    FileKey::generate().unwrap().write(&path).unwrap();
    assert_ne!(FileKey::open(&path).unwrap().public_key(), made.public_key());
    // A damaged key is said, never replaced in silence.
    std::fs::write(&path, "scrap").unwrap();
    assert!(FileKey::open(&path).is_err());
}

#[test]
fn credentials_are_due_at_two_thirds_and_belong_to_their_key() {
    let clock = clock();
    let (_, authority, _) = tenants(&clock);
    let key: Arc<dyn HostKey> = Arc::new(FileKey::generate().unwrap());
    let issued = authority
        .issue_host(&request(&*key), "t1", "h1", Duration::from_hours(29), &clock)
        .unwrap();
    let credentials = Credentials::new(key, &issued.certificate).unwrap();
    // Valid from an hour before: 30 hours of life.
    assert_eq!(credentials.renew_at(), "2026-11-21T07:00:00Z".parse().unwrap());
    assert!(!credentials.is_expired(clock.now()));
    let other: Arc<dyn HostKey> = Arc::new(FileKey::generate().unwrap());
    assert!(Credentials::new(other, &issued.certificate).is_err());

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("enrolment.json");
    assert_eq!(Enrolment::read(&path).unwrap(), None);
    let enrolment = Enrolment {
        certificate: issued.certificate,
        host_id: "h1".into(),
        ..Enrolment::default()
    };
    enrolment.write(&path).unwrap();
    assert_eq!(Enrolment::read(&path).unwrap(), Some(enrolment));
}

#[test]
fn a_renewal_is_proven_by_the_old_key_for_one_request_and_for_minutes() {
    let clock = clock();
    let (verifier, authority, _) = tenants(&clock);
    let key = FileKey::generate().unwrap();
    let issued = authority
        .issue_host(&request(&key), "t1", "h1", HOST_LIFETIME, &clock)
        .unwrap();
    clock.advance(SignedDuration::from_hours(24 * 60));
    let peer = verifier.check_expired(&issued.certificate).unwrap();

    // Two processes with one secret: what one gives the other takes.
    let (giver, taker) = (Nonces::new(&[7; 32]), Nonces::new(&[7; 32]));
    let nonce = giver.give(&clock).unwrap();
    let csr = csr::make(&key).unwrap();
    let proven = proof::prove_renewal(&key, &nonce, &csr).unwrap();
    let mark = taker.check(&nonce, &clock).unwrap();
    assert_eq!(mark.len(), 32);
    assert_eq!(proof::check_renewal(&peer, &nonce, &csr, &proven), Ok(()));

    // Another request, another nonce, another key, or a forged nonce: no.
    let other = FileKey::generate().unwrap();
    let swapped = csr::make(&other).unwrap();
    assert_eq!(
        proof::check_renewal(&peer, &nonce, &swapped, &proven),
        Err(proof::Error::Proof)
    );
    let fresh = giver.give(&clock).unwrap();
    assert_eq!(
        proof::check_renewal(&peer, &fresh, &csr, &proven),
        Err(proof::Error::Proof)
    );
    let forged = proof::prove_renewal(&other, &nonce, &csr).unwrap();
    assert_eq!(
        proof::check_renewal(&peer, &nonce, &csr, &forged),
        Err(proof::Error::Proof)
    );
    assert_eq!(
        Nonces::new(&[8; 32]).check(&nonce, &clock),
        Err(proof::Error::Forged)
    );
    for bad in ["", "x", &"A".repeat(300), "äöü"] {
        assert_eq!(taker.check(bad, &clock), Err(proof::Error::Forged));
    }
    clock.advance(SignedDuration::from_secs(301));
    assert_eq!(taker.check(&nonce, &clock), Err(proof::Error::Stale));

    let asked = proof::prove_request(&key, "request-1").unwrap();
    assert_eq!(
        proof::check_request(&peer.public_key, "request-1", &asked),
        Ok(())
    );
    assert!(proof::check_request(&peer.public_key, "request-2", &asked).is_err());
    assert!(proof::check_request(&peer.public_key, "request-1", "!").is_err());
}
