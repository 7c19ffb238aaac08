//! People of a real OpenID Connect provider sign in through the page, in a real browser, at a real orchestrator.

#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap in a helper of tests is a failed test"
)]

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testkit::loopback::{Loopback, PASSWORD};
use testkit::wait::wait_until;
use testkit::{Programs, tool};

const WEB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/web");
const SECRET: &str = "a client's secret";

/// A program that ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Either it runs and is killed, or it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn people_come_in_through_a_provider() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, SECRET).unwrap();
    let of_provider = |port: u16| {
        format!(
            "[oidc]\nissuer = \"http://127.0.0.1:{port}\"\nclient_id = \"selvedge\"\nclient_secret_file = \"{}\"\n\
             tenant = \"acme\"\nscopes = [\"openid\", \"profile\", \"email\", \"groups\"]\n\
             [oidc.roles]\nops = \"operator\"\neverybody = \"viewer\"\n",
            secret.display()
        )
    };
    let programs = Programs::find();
    let (port, nobody) = (free_port(), free_port());
    let orchestrator = Loopback::start(&programs, &dir.path().join("hub"), &of_provider(port)).unwrap();
    orchestrator.found(&programs).unwrap();
    let away = Loopback::start(&programs, &dir.path().join("away"), &of_provider(nobody)).unwrap();

    let callback = format!("{}/api/v1/oidc/callback", orchestrator.url());
    let log = fs::File::create(dir.path().join("provider.log")).unwrap();
    let mut provider = Command::new(WEB);
    provider
        .args(["provider", &port.to_string(), &callback])
        .env("SECRET", SECRET)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    let _provider = Running(provider.spawn().unwrap());
    let listens = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
    // The first time, npm fetches what the page is tested with.
    wait_until("the provider", Duration::from_secs(120), listens).unwrap();

    let mut browser = Command::new(WEB);
    browser
        .arg("sign-in")
        .env("BASE_URL", orchestrator.url())
        .env("PROVIDER", format!("http://127.0.0.1:{port}"))
        .env("AWAY", away.url())
        .env("SELVEDGE_USER", "ada")
        .env("SELVEDGE_PASSWORD", PASSWORD);
    let said = tool::run(&mut browser).unwrap();
    println!("{said}");
    assert!(said.contains("12 passed"), "{said}");
}
