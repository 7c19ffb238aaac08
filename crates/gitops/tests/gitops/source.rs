//! Where commits come from: transports, sign-in, references, and everything that can be wrong with them.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Stdio};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    common::{Repo, Site, config_map, run},
    http,
};

async fn secret(site: &Site, pairs: &[(&str, &str)]) {
    let data: serde_json::Map<String, Value> = pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), STANDARD.encode(v).into()))
        .collect();
    let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "git", "namespace": "flux-system"}, "data": data});
    site.client.apply(&object, true, false).await.unwrap();
}

async fn fetched(site: &Site, commit: &str) -> Value {
    site.wait("GitRepository", "flux-system", "site", "fetched", |o| {
        let revision = o["status"]["artifact"]["revision"].as_str().unwrap_or_default();
        revision.ends_with(commit) && crate::common::ready(o).0 == "True"
    })
    .await
}

/// No credential may be where others can read it, nor stay anywhere.
fn nothing_left_behind(site: &Site, secret: &str) {
    let left: Vec<_> = fs::read_dir(site.dir.path().join("run/gitops"))
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let mode = fs::metadata(site.dir.path().join("run/gitops"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    let config = fs::read_to_string(site.dir.path().join("state/git/flux-system_site.git/config")).unwrap();
    assert!(!config.contains(secret) && !config.contains("url"), "{config}");
}

#[tokio::test(flavor = "multi_thread")]
async fn http_with_and_without_sign_in() {
    let repo = Repo::new();
    repo.write("a.yaml", &config_map("a", "1"));
    let commit = repo.push();
    let site = Site::start().await;
    let open = http::serve(repo.root().into(), false, None).await;
    site.source(&format!("{}/site.git", open.url), json!({})).await;
    fetched(&site, &commit).await;

    let basic = format!("Basic {}", STANDARD.encode("me:geheim-1"));
    let closed = http::serve(repo.root().into(), false, Some(&basic)).await;
    let url = format!("{}/site.git", closed.url);
    site.source(&url, json!({})).await;
    let message = site
        .ready_is("GitRepository", "site", "False", "AuthenticationFailed")
        .await;
    assert!(message.contains("sign-in was refused"), "{message}");

    site.source(&url, json!({"secretRef": {"name": "git"}})).await;
    site.wait("GitRepository", "flux-system", "site", "without Secret", |o| {
        crate::common::message(o).contains("no Secret flux-system/git")
    })
    .await;
    secret(&site, &[("username", "me"), ("password", "geheim-2")]).await;
    site.fetch_now();
    let object = site
        .wait("GitRepository", "flux-system", "site", "refused", |o| {
            crate::common::message(o).contains("sign-in")
        })
        .await;
    assert!(!object.to_string().contains("geheim"), "{object}");
    // The last artifact is kept all the time.
    assert!(
        object["status"]["artifact"]["revision"]
            .as_str()
            .unwrap()
            .ends_with(&commit)
    );
    let next = repo.write("a.yaml", &config_map("a", "2")).push();
    secret(&site, &[("username", "me"), ("password", "geheim-1\n")]).await;
    site.fetch_now();
    fetched(&site, &next).await;

    let token = http::serve(repo.root().into(), false, Some("Bearer token-1")).await;
    let last = repo.write("a.yaml", &config_map("a", "3")).push();
    secret(&site, &[("bearerToken", "token-1")]).await;
    site.source(
        &format!("{}/site.git", token.url),
        json!({"secretRef": {"name": "git"}}),
    )
    .await;
    fetched(&site, &last).await;
    nothing_left_behind(&site, "token-1");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn https_with_a_certificate_authority() {
    let repo = Repo::new();
    let commit = repo.write("a.yaml", &config_map("a", "1")).push();
    let server = http::serve(repo.root().into(), true, None).await;
    let site = Site::start().await;
    site.source(&format!("{}/site.git", server.url), json!({})).await;
    let message = site
        .ready_is("GitRepository", "site", "False", "AuthenticationFailed")
        .await;
    assert!(message.contains("not trusted"), "{message}");
    secret(&site, &[("ca.crt", &server.certificate)]).await;
    site.source(
        &format!("{}/site.git", server.url),
        json!({"secretRef": {"name": "git"}}),
    )
    .await;
    fetched(&site, &commit).await;
    site.stop().await;
}

/// A real sshd on loopback.
struct Sshd {
    child: std::process::Child,
    port: u16,
    _dir: tempfile::TempDir,
    /// Whether sshd's folder was made for it and is to go again.
    made_folder: bool,
    identity: String,
    host_key: String,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.made_folder {
            let _ = fs::remove_dir("/run/sshd");
        }
    }
}

fn key(path: &Path) -> (String, String) {
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(path)
        .status()
        .unwrap();
    assert!(made.success());
    (
        fs::read_to_string(path).unwrap(),
        fs::read_to_string(path.with_extension("pub")).unwrap(),
    )
}

fn sshd() -> Option<Sshd> {
    let program = ["/usr/sbin/sshd", "/usr/bin/sshd"]
        .into_iter()
        .find(|p| Path::new(p).exists())?;
    if !nix::unistd::Uid::effective().is_root() {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let (_, host_key) = key(&dir.path().join("host"));
    let (identity, authorized) = key(&dir.path().join("user"));
    fs::write(dir.path().join("authorized"), authorized).unwrap();
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let made_folder = fs::create_dir("/run/sshd").is_ok();
    let d = dir.path().display();
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {d}/host\nAuthorizedKeysFile {d}/authorized\nPidFile {d}/pid\n\
         UsePAM no\nStrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\n"
    );
    fs::write(dir.path().join("config"), config).unwrap();
    let child = std::process::Command::new(program)
        .args(["-D", "-e", "-f"])
        .arg(dir.path().join("config"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Some(Sshd {
        child,
        port,
        identity,
        host_key,
        made_folder,
        _dir: dir,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_with_known_hosts() {
    let Some(sshd) = sshd() else {
        eprintln!("left out: needs sshd and root");
        return;
    };
    let repo = Repo::new();
    let commit = repo.write("a.yaml", &config_map("a", "1")).push();
    let site = Site::start().await;
    let url = format!("ssh://root@127.0.0.1:{}{}", sshd.port, repo.bare().display());
    let known = format!("[127.0.0.1]:{} {}", sshd.port, sshd.host_key);
    let other = format!(
        "[127.0.0.1]:{} ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJm3sVJ7dQyNfp0qyrZ5FQ0c9dT8c4uWl8yqYlKcC2xX",
        sshd.port
    );
    secret(&site, &[("identity", &sshd.identity), ("known_hosts", &other)]).await;
    site.source(&url, json!({"secretRef": {"name": "git"}})).await;
    let message = site
        .ready_is("GitRepository", "site", "False", "AuthenticationFailed")
        .await;
    assert!(message.contains("not trusted"), "{message}");
    secret(
        &site,
        &[("identity", sshd.identity.trim_end()), ("known_hosts", &known)],
    )
    .await;
    site.fetch_now();
    fetched(&site, &commit).await;
    let (stranger, _) = key(&sshd._dir.path().join("stranger"));
    secret(&site, &[("identity", &stranger), ("known_hosts", &known)]).await;
    site.fetch_now();
    let message = site
        .ready_is("GitRepository", "site", "False", "AuthenticationFailed")
        .await;
    assert!(message.contains("sign-in was refused"), "{message}");
    nothing_left_behind(&site, "PRIVATE KEY");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_tags_versions_and_commits() {
    let repo = Repo::new();
    let first = repo.write("a.yaml", &config_map("a", "1")).push();
    repo.git(&["tag", "-a", "v1.0.0", "-m", "one"]);
    let second = repo.write("a.yaml", &config_map("a", "2")).push();
    repo.git(&["tag", "v1.2.0"]);
    let third = repo.write("a.yaml", &config_map("a", "3")).push();
    repo.git(&["tag", "v2.0.0"]);
    repo.git(&["push", "-q", "../site.git", "--tags"]);
    let site = Site::start().await;
    for (reference, revision) in [
        (json!({"branch": "main"}), format!("main@sha1:{third}")),
        (
            json!({"branch": "main", "tag": "v1.0.0"}),
            format!("v1.0.0@sha1:{first}"),
        ),
        (
            json!({"semver": "1.x", "tag": "v1.0.0"}),
            format!("v1.2.0@sha1:{second}"),
        ),
        (
            json!({"name": "refs/tags/v2.0.0"}),
            format!("refs/tags/v2.0.0@sha1:{third}"),
        ),
        (json!({"commit": first}), format!("sha1:{first}")),
        (
            json!({"commit": second, "branch": "main"}),
            format!("main@sha1:{second}"),
        ),
    ] {
        site.source(&repo.url(), json!({"ref": reference})).await;
        site.wait("GitRepository", "flux-system", "site", &revision, |o| {
            o["status"]["artifact"]["revision"] == revision.as_str()
        })
        .await;
    }
    for (reference, said) in [
        (json!({"branch": "other"}), "there are: main"),
        (json!({"tag": "v9"}), "there is no `v9`"),
        (json!({"semver": "7.x"}), "no tag is a version in `7.x`"),
        (
            json!({"commit": "0123456789012345678901234567890123456789"}),
            "0123456789",
        ),
        (json!({"branch": "a..b"}), "no name of a branch"),
    ] {
        site.source(&repo.url(), json!({"ref": reference})).await;
        site.wait("GitRepository", "flux-system", "site", said, |o| {
            crate::common::message(o).contains(said)
        })
        .await;
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_then_pushed_then_rewritten_then_away() {
    let repo = Repo::new();
    let site = Site::start().await;
    site.source(&repo.url(), json!({})).await;
    site.kustomization("site", json!({})).await;
    let message = site
        .ready_is("GitRepository", "site", "False", "GitOperationFailed")
        .await;
    assert!(message.contains("is empty: push the branch `main`"), "{message}");
    site.ready_is("Kustomization", "site", "False", "ArtifactFailed")
        .await;
    repo.write("a.yaml", &config_map("a", "1")).push();
    repo.write("a.yaml", &config_map("a", "2")).commit();
    let third = repo.write("a.yaml", &config_map("a", "3")).push();
    site.fetch_now();
    site.applied("site", &third).await;
    for n in 0..5 {
        repo.write("a.yaml", &config_map("a", &format!("x{n}"))).commit();
    }
    let many = repo.push();
    site.fetch_now();
    site.applied("site", &many).await;
    // Five commits at once go on from the one before: no warning.
    site.wait_event("NewArtifact").await;
    assert!(site.events("HistoryRewritten").await.is_empty());

    repo.git(&["checkout", "-q", "--orphan", "again"]);
    let rewritten = repo.write("a.yaml", &config_map("a", "new")).push();
    site.fetch_now();
    site.applied("site", &rewritten).await;
    assert_eq!(site.config_map("a").await.unwrap()["data"]["k"], "new");
    let event = site.wait_event("HistoryRewritten").await;
    assert!(event["message"].as_str().unwrap().contains(&many), "{event}");

    fs::rename(repo.bare(), repo.root().join("away")).unwrap();
    site.fetch_now();
    site.ready_is("GitRepository", "site", "False", "GitOperationFailed")
        .await;
    assert_eq!(site.config_map("a").await.unwrap()["data"]["k"], "new");
    fs::rename(repo.root().join("away"), repo.bare()).unwrap();
    site.fetch_now();
    fetched(&site, &rewritten).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_server_and_one_that_says_nothing() {
    let site = Site::start().await;
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    site.source(&format!("http://127.0.0.1:{port}/site.git"), json!({}))
        .await;
    let message = site
        .ready_is("GitRepository", "site", "False", "GitOperationFailed")
        .await;
    assert!(message.contains("can't be reached"), "{message}");
    // Accepts and never answers: stopped with all its helpers when the time is over.
    let mute = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = mute.local_addr().unwrap().port();
    site.source(
        &format!("http://127.0.0.1:{port}/site.git"),
        json!({"timeout": "1s"}),
    )
    .await;
    site.wait("GitRepository", "flux-system", "site", "stopped", |o| {
        crate::common::message(o).contains("took longer than 1 s")
    })
    .await;
    let gone = || {
        let out = std::process::Command::new("ps")
            .args(["-eo", "args"])
            .output()
            .unwrap();
        !String::from_utf8_lossy(&out.stdout)
            .lines()
            .any(|l| l.contains("git-remote-http") && l.contains(&format!(":{port}/")))
    };
    let until = tokio::time::Instant::now() + crate::common::PATIENCE;
    site.source(
        &format!("http://127.0.0.1:{port}/site.git"),
        json!({"timeout": "1s", "suspend": true}),
    )
    .await;
    while !gone() {
        assert!(tokio::time::Instant::now() < until, "git's helper is still there");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_links_stay_inside_the_repository() {
    let repo = Repo::new();
    repo.write("site/a.yaml", &config_map("a", "1"))
        .write("base/b.yaml", &config_map("b", "1"));
    std::os::unix::fs::symlink("../base/b.yaml", repo.work().join("site/b.yaml")).unwrap();
    let good = repo.push();
    let site = Site::start().await;
    site.source(&repo.url(), json!({})).await;
    site.kustomization("site", json!({"path": "./site"})).await;
    site.applied("site", &good).await;
    assert!(site.config_map("b").await.is_some());
    for (name, target) in [
        ("out.yaml", "../../etc/passwd"),
        ("abs.yaml", "/etc/passwd"),
        ("folder", "../.."),
    ] {
        std::os::unix::fs::symlink(target, repo.work().join("site").join(name)).unwrap();
    }
    repo.write("site/more/kustomization.yaml", "resources: [../../../x.yaml]\n");
    // A list of a folder that no honest git writes, with an entry `..`.
    let blob = run(&repo.work(), &["hash-object", "-w", "site/a.yaml"]);
    let raw: Vec<u8> = (0..20)
        .map(|n| u8::from_str_radix(&blob[2 * n..2 * n + 2], 16).unwrap())
        .collect();
    let evil = [b"100644 ..\0".as_slice(), &raw, b"100644 c.yaml\0", &raw].concat();
    fs::write(repo.root().join("evil"), evil).unwrap();
    repo.push();
    site.fetch_now();
    let message = site
        .ready_is("Kustomization", "site", "False", "BuildFailed")
        .await;
    for said in [
        "site/out.yaml: `site/out.yaml` leads out",
        "site/abs.yaml",
        "site/folder: ",
        "`../../../x.yaml` leads out",
    ] {
        assert!(message.contains(said), "{said}: {message}");
    }
    let tree = run(
        &repo.work(),
        &["hash-object", "-w", "-t", "tree", "--literally", "../evil"],
    );
    let commit = run(&repo.work(), &["commit-tree", &tree, "-m", "evil"]);
    run(
        &repo.work(),
        &["push", "-q", "--force", "../site.git", &format!("{commit}:main")],
    );
    site.kustomization("site", json!({"path": "./"})).await;
    site.fetch_now();
    let object = site.applied("site", &commit).await;
    assert_eq!(
        object["status"]["inventory"]["entries"].as_array().unwrap().len(),
        1
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_of_fifty_thousand_files() {
    let repo = Repo::new();
    let mut stream = String::from("commit refs/heads/main\ncommitter t <t@example.com> 0 +0000\ndata 1\nx\n");
    for n in 0..50_000 {
        let text = format!("file {n}\n");
        stream.push_str(&format!(
            "M 644 inline data/{}/{n}.txt\ndata {}\n{text}\n",
            n % 500,
            text.len()
        ));
    }
    for n in 0..20 {
        let text = config_map(&format!("c{n}"), "1");
        stream.push_str(&format!(
            "M 644 inline site/c{n}.yaml\ndata {}\n{text}\n",
            text.len()
        ));
    }
    let mut child = std::process::Command::new("git")
        .current_dir(repo.bare())
        .args(["fast-import", "--quiet"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), stream.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    let commit = run(&repo.bare(), &["rev-parse", "main"]);
    let site = Site::start().await;
    site.source(&repo.url(), json!({})).await;
    site.kustomization("site", json!({"path": "./site"})).await;
    site.kustomization("all", json!({"path": "./", "prune": false}))
        .await;
    site.applied("site", &commit).await;
    // The whole tree is walked, and only its manifests are read.
    let all = site.applied("all", &commit).await;
    assert_eq!(
        all["status"]["inventory"]["entries"].as_array().unwrap().len(),
        20
    );
    site.stop().await;
}
