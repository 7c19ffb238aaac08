//! Signing in through a real OpenID Connect provider: `oidc-provider-mock` from PyPI, in a process of its own.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use crate::support::{Server, free_port, wait_for};
use serde_json::Value;

struct Provider {
    child: Child,
    issuer: String,
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The provider's program, installed at the first run.
fn program() -> PathBuf {
    let venv = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("oidc-provider");
    let program = venv.join("bin/oidc-provider-mock");
    if !program.exists() {
        let done = Command::new("python3")
            .args(["-m", "venv"])
            .arg(&venv)
            .status()
            .unwrap();
        assert!(done.success(), "python3 -m venv");
        let done = Command::new(venv.join("bin/pip"))
            .args(["install", "--quiet", "oidc-provider-mock==0.3.4"])
            .status()
            .unwrap();
        assert!(done.success(), "pip install oidc-provider-mock");
    }
    program
}

async fn provider() -> Provider {
    let port = free_port();
    let claims = r#"{"sub":"42","preferred_username":"grace","email":"grace@example.com","name":"Grace","groups":["ops"]}"#;
    let child = Command::new(program())
        .args(["--port", &port.to_string(), "--user-claims", claims])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let issuer = format!("http://127.0.0.1:{port}");
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::new();
    wait_for("the provider", || async {
        let asked = client
            .get(format!("{issuer}/.well-known/openid-configuration"))
            .send()
            .await;
        asked.ok().filter(|answer| answer.status().is_success()).map(drop)
    })
    .await;
    Provider { child, issuer }
}

fn cookie(answer: &reqwest::Response, name: &str) -> String {
    answer
        .headers()
        .get_all("set-cookie")
        .iter()
        .map(|value| value.to_str().unwrap().split(';').next().unwrap().to_owned())
        .find(|value| value.starts_with(&format!("{name}=")) && value.len() > name.len() + 1)
        .unwrap_or_else(|| panic!("no cookie {name} in {answer:?}"))
}

fn location(answer: &reqwest::Response) -> String {
    answer.headers()["location"].to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_comes_in_through_the_provider_with_the_role_of_their_group() {
    let provider = provider().await;
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "a client's secret\n").unwrap();
    let server = Server::start(&format!(
        "[oidc]\nissuer = \"{}\"\nclient_secret_file = \"{}\"\nclient_id = \"selvedge\"\ntenant = \"acme\"\nscopes = [\"openid\", \"profile\", \"email\"]\n\
         [oidc.roles]\nops = \"operator\"\neverybody = \"viewer\"\n",
        provider.issuer,
        secret.path().display()
    ))
    .await;
    let api = format!("{}/api/v1", server.url);
    let version: Value = server
        .client
        .get(format!("{api}/version"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert!(version["oidc"]["name"].as_str().unwrap().starts_with("127.0.0.1"));

    // To the provider, where Grace agrees; back with a code.
    let start = server
        .client
        .get(format!("{api}/oidc/start?next=/t/acme/sites"))
        .send()
        .await
        .unwrap();
    assert_eq!(start.status(), 303);
    let ours = cookie(&start, "selvedge_oidc");
    let there = location(&start);
    assert!(there.contains("code_challenge_method=S256"), "{there}");
    let browser = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let agreed = browser
        .post(&there)
        .header("content-type", "application/x-www-form-urlencoded")
        .body("sub=42&action=authorize")
        .send()
        .await
        .unwrap();
    assert!(
        agreed.status().is_redirection(),
        "{}",
        agreed.text().await.unwrap()
    );
    let back = location(&agreed);
    assert!(back.starts_with(&format!("{api}/oidc/callback?")), "{back}");

    // A code without the browser that began is worth nothing.
    let stolen = server.client.get(&back).send().await.unwrap();
    assert_eq!(stolen.status(), 401);

    let finished = server
        .client
        .get(&back)
        .header("cookie", &ours)
        .send()
        .await
        .unwrap();
    assert_eq!(finished.status(), 303, "{}", finished.text().await.unwrap());
    assert_eq!(location(&finished), "/t/acme/sites");
    let session = cookie(&finished, "selvedge_session");
    let me: Value = server
        .client
        .get(format!("{api}/me"))
        .header("cookie", &session)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(me["user"]["username"], "grace");
    assert_eq!(me["user"]["kind"], "oidc");
    assert_eq!(me["user"]["bindings"][0]["role"], "operator");
    assert_eq!(me["tenants"][0]["name"], "acme");

    // The code counts once.
    let again = server
        .client
        .get(&back)
        .header("cookie", &ours)
        .send()
        .await
        .unwrap();
    assert_eq!(again.status(), 401);
    // An account of the provider has no password here.
    let guess = server
        .client
        .post(format!("{api}/session"))
        .json(&serde_json::json!({ "tenant": "acme", "username": "grace", "password": "" }))
        .send()
        .await
        .unwrap();
    assert_eq!(guess.status(), 401);
}
