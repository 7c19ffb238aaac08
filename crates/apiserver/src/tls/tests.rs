use std::os::unix::fs::PermissionsExt;

use jiff::SignedDuration;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;

fn options(dir: &Path) -> TlsOptions {
    TlsOptions {
        dir: dir.join("pki"),
        config_dir: dir.join("etc"),
        names: vec!["host1".into(), "192.0.2.7".into(), "2001:db8::0:7".into()],
        server: "https://127.0.0.1:6443".into(),
        cluster: "site".into(),
    }
}

fn clock() -> Clock {
    Clock::fixed("2026-01-02T03:04:05Z".parse().unwrap())
}

fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = ["pki", "etc"]
        .iter()
        .flat_map(|d| std::fs::read_dir(dir.join(d)).unwrap())
        .map(|e| e.unwrap().path())
        .map(|p| {
            (
                p.file_name().unwrap().to_string_lossy().into_owned(),
                std::fs::read(&p).unwrap(),
            )
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_second_start_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    Tls::open(options(dir.path()), &clock()).unwrap();
    let before = files(dir.path());
    let names: Vec<&str> = before.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "admin.kubeconfig",
        "admin.pem",
        "break-glass.kubeconfig",
        "break-glass.pem",
        "ca.crt",
        "ca.pem",
        "serving.pem",
    ];
    assert_eq!(names, expected);
    let again = Tls::open(options(dir.path()), &clock()).unwrap();
    assert_eq!(files(dir.path()), before);
    assert!(!again.renew().unwrap());
    for (name, _) in before.iter().filter(|(name, _)| name != "ca.crt") {
        let path = [
            dir.path().join("pki").join(name),
            dir.path().join("etc").join(name),
        ]
        .into_iter()
        .find(|p| p.exists())
        .unwrap();
        assert_eq!(
            std::fs::metadata(path).unwrap().permissions().mode() & 0o777,
            0o600,
            "{name}"
        );
    }
}

#[test]
fn certificates_are_renewed_before_they_end_and_the_ca_stays() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock();
    let tls = Tls::open(options(dir.path()), &clock).unwrap();
    let before = files(dir.path());
    clock.advance(SignedDuration::from_hours(24 * 300));
    assert!(tls.renew().unwrap());
    for ((name, old), (_, new)) in before.iter().zip(&files(dir.path())) {
        assert_eq!(old == new, name.starts_with("ca."), "{name}");
    }
}

#[test]
fn other_names_give_a_new_serving_certificate_only() {
    let dir = tempfile::tempdir().unwrap();
    let tls = Tls::open(options(dir.path()), &clock()).unwrap();
    let before = files(dir.path());
    assert!(
        tls.set_names(vec!["host2".into()], "https://127.0.0.1:6443")
            .unwrap()
    );
    let changed: Vec<_> = before
        .iter()
        .zip(&files(dir.path()))
        .filter(|(a, b)| a != b)
        .map(|(a, _)| a.0.clone())
        .collect();
    assert_eq!(changed, ["serving.pem"]);
}

#[test]
fn a_damaged_leaf_is_made_anew_and_a_damaged_ca_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    Tls::open(options(dir.path()), &clock()).unwrap();
    std::fs::write(dir.path().join("pki/admin.pem"), "half of a fi").unwrap();
    Tls::open(options(dir.path()), &clock()).unwrap();
    std::fs::write(dir.path().join("pki/ca.pem"), "half of a fi").unwrap();
    let error = Tls::open(options(dir.path()), &clock()).unwrap_err();
    assert!(error.to_string().contains("restore it"), "{error}");
}

#[test]
fn break_glass_is_in_both_groups_and_valid_from_2020() {
    let dir = tempfile::tempdir().unwrap();
    let tls = Tls::open(options(dir.path()), &clock()).unwrap();
    let pem = tls.client(BREAK_GLASS, &[MASTERS, api::BREAK_GLASS]).unwrap();
    let der = CertificateDer::from_pem_slice(pem.certificate.as_bytes()).unwrap();
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let groups: Vec<_> = certificate
        .subject()
        .iter_organization()
        .map(|o| o.as_str().unwrap())
        .collect();
    assert_eq!(groups, [MASTERS, api::BREAK_GLASS]);
    assert_eq!(certificate.validity().not_before.timestamp(), 1_577_836_800);
}
