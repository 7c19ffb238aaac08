//! Mail of alerts through a mail server that people run, with and without encryption.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use fleet::alert::{Courier, Smtp, SmtpTls, Thresholds, Watch};
use fleet::args;
use fleet::model::{ChannelKind, ChannelSpec, Severity};
use identity::ca::{Authority, SERVER_LIFETIME};
use serde_json::Value;
use telemetry::Clock;

use crate::support::{On, Setup, until};

const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fleet/steering/mail.py");

/// The server's process, killed when dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    async fn start(mode: &str, authority: &Authority, dir: &Path) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let names = vec!["localhost".to_owned()];
        let serving = authority
            .issue_server(&names, SERVER_LIFETIME, &Clock::system())
            .unwrap();
        let (certificate, key) = (dir.join("certificate"), dir.join("key"));
        std::fs::write(&certificate, serving.certificate).unwrap();
        std::fs::write(&key, serving.key).unwrap();
        let child = Command::new("/usr/bin/python3")
            .args([SERVER, &port.to_string(), mode])
            .args([certificate, key])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let server = Self { child, port };
        until("the mail server (python3-aiosmtpd: scripts/setup)", || async {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        server
    }

    /// Ends it; what it took.
    fn took(mut self) -> Vec<Value> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let lines = BufReader::new(self.child.stdout.take().unwrap()).lines();
        lines
            .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Either it runs and is killed, or it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What came of one alert that was to be mailed: what the server took, and why not.
async fn mailed(server: &str, client: SmtpTls, password: &str, trusted: bool) -> (Vec<Value>, String) {
    // An error means that a provider is there already, which is what we want.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::create("a mail server's", &Clock::system()).unwrap();
    let other = Authority::create("another", &Clock::system()).unwrap();
    let server = Server::start(server, &authority, dir.path()).await;
    let s = Setup::new(On::Sqlite).await;
    let people = ChannelSpec {
        name: "people".into(),
        kind: ChannelKind::Email,
        to: vec!["ada@example.com".into()],
        severity: Severity::Critical,
        ..ChannelSpec::default()
    };
    s.fleet.channels().create(&s.owner, &people).await.unwrap();
    s.site("berlin", "").await;
    let offline = args![&s.tenant.id];
    let offline = &offline;
    s.fleet
        .db()
        .write(|tx| {
            Box::pin(async move {
                tx.run("UPDATE site SET state='offline' WHERE tenant=$1", offline.clone())
                    .await
                    .map(drop)
            })
        })
        .await
        .unwrap();
    s.later(600);
    Watch::new(s.fleet.clone(), "n1", Thresholds::default())
        .look()
        .await
        .unwrap();
    let trust = if trusted { &authority } else { &other };
    let smtp = Smtp {
        host: "localhost".into(),
        port: server.port,
        tls: client,
        credentials: (!password.is_empty()).then(|| ("selvedge".into(), password.into())),
        from: "Selvedge <alerts@example.com>".into(),
        ca_pem: Some(trust.certificate_pem().to_owned()),
    };
    let courier = Courier::new(s.fleet.clone(), "n1", Some(&smtp), None).unwrap();
    assert_eq!(courier.round().await.unwrap(), 1);
    let shown = s.fleet.channels().get(&s.owner, "people").await.unwrap();
    (server.took(), shown.failure)
}

#[tokio::test]
async fn mail_leaves_encrypted_and_signed_in() {
    for (server, client) in [("starttls", SmtpTls::StartTls), ("tls", SmtpTls::Tls)] {
        let (took, failure) = mailed(server, client, "of a test", true).await;
        assert_eq!(failure, "", "{server}");
        assert_eq!(took.len(), 1, "{server}");
        let mail = &took[0];
        assert_eq!(
            (&mail["encrypted"], &mail["user"]),
            (&true.into(), &"selvedge".into())
        );
        assert_eq!(mail["from"], "alerts@example.com");
        assert_eq!(mail["to"], serde_json::json!(["ada@example.com"]));
        let text = mail["text"].as_str().unwrap();
        assert!(
            text.contains("Subject: [critical] site berlin is offline"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn mail_stays_here_when_the_server_is_not_to_be_trusted() {
    // Another's certificate; a wrong password; and one that offers no encryption, as a thief between would.
    for (server, client, password, trusted, why) in [
        ("starttls", SmtpTls::StartTls, "of a test", false, "certificate"),
        ("tls", SmtpTls::Tls, "of a test", false, "certificate"),
        ("starttls", SmtpTls::StartTls, "wrong", true, "535"),
        ("none", SmtpTls::StartTls, "of a test", true, "STARTTLS"),
    ] {
        let (took, failure) = mailed(server, client, password, trusted).await;
        assert!(took.is_empty(), "{server}: {took:?}");
        assert!(
            failure.to_lowercase().contains(&why.to_lowercase()),
            "{server}, {why}: {failure}"
        );
        assert!(!failure.contains(password), "{failure}");
    }
}
