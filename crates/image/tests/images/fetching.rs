//! Fetching: once for all, resumed where it was cut, with errors that say what to do.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use crate::support::{self, Mood, Server, open, open_with, raw_disk, reference};
use image::{Error, HttpOptions, Library, Limits, Phase};
use telemetry::Clock;

const SIZE: usize = 3 << 20;

fn files_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn an_image_is_fetched_once_and_needs_no_network_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let disk = raw_disk(SIZE);
    let server = Server::start(Mood::new(disk.clone())).await;
    let cache = open(dir.path(), vec![]);
    let image = reference(&server.url());
    assert!(cache.get(&image).is_none());
    let seen = [const { Mutex::new(Vec::new()) }; 8];
    let asks = seen
        .iter()
        .map(|seen| cache.ensure(&image, |p| seen.lock().unwrap().push(p.phase)));
    let got: Vec<_> = futures::future::join_all(asks)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert!(got.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(
        server.requests(),
        ["GET /image HTTP/1.1"],
        "eight asked, one download"
    );
    assert!(
        seen.iter().all(|seen| !seen.lock().unwrap().is_empty()),
        "everybody sees progress"
    );
    assert_eq!(got[0].digest, format!("sha256:{}", support::sha256(&disk)));
    assert_eq!(got[0].validator.etag.as_deref(), Some("\"one\""));
    assert_eq!(std::fs::read(&got[0].disks[0].path).unwrap(), disk);
    assert!(
        std::fs::metadata(&got[0].disks[0].path)
            .unwrap()
            .permissions()
            .readonly()
    );
    assert!(
        files_in(&dir.path().join(".partial")).is_empty() && files_in(&dir.path().join(".work")).is_empty()
    );

    drop((server, cache));
    let again = open(dir.path(), vec![]).ensure(&image, |_| ()).await.unwrap();
    assert_eq!(again, got[0], "with the server gone");
}

/// Those who ask do so from tasks.
#[tokio::test]
async fn asking_can_move_between_threads() {
    fn send<T: Send>(future: T) -> T {
        future
    }
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path(), vec![]);
    let (sender, _receiver) = tokio::sync::watch::channel(String::new());
    let image = reference("nowhere.img");
    let ask = send(cache.ensure(&image, |p| {
        sender.send_replace(p.to_string());
    }));
    assert!(matches!(ask.await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let disk = raw_disk(SIZE);
    let server = Server::start(Mood {
        cut_after: Some(SIZE / 4),
        ..Mood::new(disk.clone())
    })
    .await;
    let got = open(dir.path(), vec![])
        .ensure(&reference(&server.url()), |_| ())
        .await
        .unwrap();
    assert_eq!(std::fs::read(&got.disks[0].path).unwrap(), disk);
    let requests = server.requests();
    assert!(requests.len() >= 4, "{requests:?}");
    assert!(requests[1..].iter().all(|r| r.contains("bytes=")), "{requests:?}");
}

#[tokio::test]
async fn a_server_without_ranges_sends_it_all_again() {
    let dir = tempfile::tempdir().unwrap();
    let disk = raw_disk(SIZE);
    let server = Server::start(Mood {
        cut_after: Some(SIZE / 2),
        ranges: false,
        ..Mood::new(disk.clone())
    })
    .await;
    let cache = open(dir.path(), vec![]);
    let image = reference(&server.url());
    // It comes no further than half each time, so the ask ends, and says so.
    let error = cache.ensure(&image, |_| ()).await.unwrap_err();
    assert!(
        matches!(error, Error::Unreachable { .. }) && error.is_transient(),
        "{error}"
    );
    server.change(|mood| mood.cut_after = None);
    let got = cache.ensure(&image, |_| ()).await.unwrap();
    assert_eq!(std::fs::read(&got.disks[0].path).unwrap(), disk);
}

#[tokio::test]
async fn a_changed_file_is_not_mixed_with_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Mood {
        stall_after: Some(SIZE / 2),
        ..Mood::new(vec![7; SIZE])
    })
    .await;
    let image = reference(&server.url());
    let cache = open_with(dir.path(), vec![], short());
    cache.ensure(&image, |_| ()).await.unwrap_err();
    let new = raw_disk(SIZE);
    server.change(|mood| {
        *mood = Mood {
            etag: Some("\"two\"".into()),
            ..Mood::new(new.clone())
        }
    });
    let got = cache.ensure(&image, |_| ()).await.unwrap();
    assert_eq!(std::fs::read(&got.disks[0].path).unwrap(), new);
    assert_eq!(got.validator.etag.as_deref(), Some("\"two\""));
}

/// Gives up on a stalled server soon.
fn short() -> HttpOptions {
    HttpOptions {
        idle_timeout: Duration::from_millis(300),
        ..HttpOptions::default()
    }
}

#[tokio::test]
async fn without_a_validator_nothing_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let disk = raw_disk(SIZE);
    let server = Server::start(Mood {
        etag: None,
        cut_after: Some(SIZE / 2),
        ..Mood::new(disk.clone())
    })
    .await;
    let cache = open(dir.path(), vec![]);
    cache.ensure(&reference(&server.url()), |_| ()).await.unwrap_err();
    server.change(|mood| mood.cut_after = None);
    let got = cache.ensure(&reference(&server.url()), |_| ()).await.unwrap();
    assert_eq!(std::fs::read(&got.disks[0].path).unwrap(), disk);
    assert!(
        server.requests().iter().all(|r| !r.contains("bytes=")),
        "{:?}",
        server.requests()
    );
}

#[tokio::test]
async fn a_name_without_scheme_falls_back_to_http_and_follows_redirects() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Mood::new(raw_disk(SIZE))).await;
    let image = reference(&format!("127.0.0.1:{}/moved", server.port));
    let got = open(dir.path(), vec![]).ensure(&image, |_| ()).await.unwrap();
    assert_eq!(got.source_url, format!("http://127.0.0.1:{}/moved", server.port));
    assert_eq!(server.requests(), ["GET /moved HTTP/1.1", "GET /image HTTP/1.1"]);
}

#[tokio::test]
async fn an_untrusted_certificate_is_no_reason_to_fall_back() {
    support::provider();
    let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    let certificate = key.cert.der().clone();
    let pem = key.cert.pem();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate],
            key.signing_key.serialize_der().try_into().unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let body = raw_disk(4096);
    let task = tokio::spawn(async move {
        loop {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let _ = stream.read(&mut [0; 4096]).await;
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&body).await;
            let _ = stream.shutdown().await;
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let image = reference(&format!("127.0.0.1:{port}/image"));
    let error = open(dir.path(), vec![])
        .ensure(&image, |_| ())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("trust its CA"), "{error}");
    assert!(!error.contains("http://"), "{error}");

    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, pem).unwrap();
    let http = HttpOptions {
        ca_file: Some(ca_file),
        ..HttpOptions::default()
    };
    let got = open_with(dir.path(), vec![], http)
        .ensure(&image, |_| ())
        .await
        .unwrap();
    assert_eq!(got.source_url, format!("https://127.0.0.1:{port}/image"));
    task.abort();
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Mood::new(raw_disk(SIZE))).await;
    let cache = open(dir.path(), vec![]);
    let ask = async |text: &str| cache.ensure(&reference(text), |_| ()).await.unwrap_err();

    let error = ask(&format!("http://127.0.0.1:{}/other", server.port)).await;
    assert!(matches!(&error, Error::NotFound { .. }), "{error}");
    assert_eq!(error.reason(), "ImageNotFound");
    let error = ask(&format!("127.0.0.1:{}/other", server.port)).await;
    assert!(matches!(&error, Error::NotFound { .. }), "{error}");
    let error = ask("nowhere.ova").await;
    assert!(error.to_string().contains("no library is configured"), "{error}");
    let error = ask("file:///nowhere/x.ova").await;
    assert!(error.to_string().contains("has none"), "{error}");

    let port = server.port;
    drop(server);
    // The port is closed once the server's task has ended.
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let error = ask(&format!("127.0.0.1:{port}/image")).await;
    assert!(
        matches!(&error, Error::Unreachable { .. }) && error.is_transient(),
        "{error}"
    );
    assert!(
        error.to_string().contains("https://127.0.0.1") && error.to_string().contains("refused"),
        "{error}"
    );

    let server = Server::start(Mood::new(raw_disk(65 << 20))).await;
    let error = ask(&server.url()).await;
    assert!(
        matches!(
            &error,
            Error::TooLarge {
                what: "the download",
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn libraries_are_looked_at_in_order() {
    let (dir, shelf) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let disk = raw_disk(SIZE);
    let server = Server::start(Mood {
        path: "/library/a.img",
        ..Mood::new(disk)
    })
    .await;
    let local = raw_disk(8192);
    std::fs::write(shelf.path().join("b.img"), &local).unwrap();
    let libraries = vec![
        Library::parse(shelf.path().to_str().unwrap()).unwrap(),
        Library::parse(&format!("http://127.0.0.1:{}/library/", server.port)).unwrap(),
    ];
    let cache = open(dir.path(), libraries);
    let a = cache.ensure(&reference("a.img"), |_| ()).await.unwrap();
    assert_eq!(a.disks[0].virtual_size, SIZE as u64);
    let b = cache.ensure(&reference("b.img"), |_| ()).await.unwrap();
    assert_eq!(std::fs::read(&b.disks[0].path).unwrap(), local);
    assert!(
        shelf.path().join("b.img").exists(),
        "what is in a library stays there"
    );
    let error = cache
        .ensure(&reference("c.img"), |_| ())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("/c.img, http://127.0.0.1"), "{error}");
}

#[tokio::test]
async fn eviction_keeps_what_is_in_use() {
    let (dir, shelf) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["a.img", "b.img"] {
        std::fs::write(shelf.path().join(name), raw_disk(8192)).unwrap();
    }
    let cache = open(dir.path(), vec![Library::Dir(shelf.path().into())]);
    let a = cache.ensure(&reference("a.img"), |_| ()).await.unwrap();
    cache.ensure(&reference("b.img"), |_| ()).await.unwrap();
    assert_eq!(cache.list().unwrap().len(), 2);
    let in_use: BTreeSet<_> = [a.disks[0].path.clone()].into();
    let removed = cache.evict(&in_use, 0).unwrap();
    assert_eq!(
        removed.iter().map(|e| e.image.as_str()).collect::<Vec<_>>(),
        ["b.img"]
    );
    assert!(cache.get(&reference("a.img")).is_some() && cache.get(&reference("b.img")).is_none());
}

#[tokio::test]
async fn a_lost_disk_is_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Mood::new(raw_disk(SIZE))).await;
    let cache = open(dir.path(), vec![]);
    let image = reference(&server.url());
    let got = cache.ensure(&image, |_| ()).await.unwrap();
    std::fs::remove_file(&got.disks[0].path).unwrap();
    assert_eq!(cache.ensure(&image, |_| ()).await.unwrap(), got);
    assert_eq!(server.requests().len(), 2);
}

/// A small file system that is gone when dropped.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(options: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(dir.path())
            .status();
        assert!(status.unwrap().success());
        Self(dir)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_left_clean() {
    let small = Small::mount("size=1m");
    let dir = small.0.path().join("cache");
    let cache = open(&dir, vec![]);
    let server = Server::start(Mood::new(raw_disk(SIZE))).await;
    let error = cache.ensure(&reference(&server.url()), |_| ()).await.unwrap_err();
    assert!(matches!(&error, Error::DiskFull { .. }), "{error}");
    assert!(error.to_string().contains("it needs 4 MiB more"), "{error}");
    assert!(files_in(&dir.join(".partial")).is_empty() && files_in(&dir.join(".work")).is_empty());

    // Full in the middle of an import: the disk in the archive is compressed, unpacked it does not fit.
    let made = tempfile::tempdir().unwrap();
    let mut disk = vec![0; 2 << 20];
    let noise: Vec<u8> = raw_disk(4096);
    for chunk in disk.chunks_mut(4096) {
        chunk.copy_from_slice(&noise);
    }
    let vmdk = support::converted(made.path(), &disk, "vmdk", "subformat=streamOptimized");
    let ova = support::ova(&std::fs::read(vmdk).unwrap(), disk.len());
    assert!(ova.len() < 500_000, "{}", ova.len());
    server.change(|mood| *mood = Mood::new(ova));
    let error = cache.ensure(&reference(&server.url()), |_| ()).await.unwrap_err();
    assert!(matches!(&error, Error::DiskFull { .. }), "{error}");
    assert!(files_in(&dir.join(".partial")).is_empty() && files_in(&dir.join(".work")).is_empty());
}

const CHILD: &str = "SELVEDGE_TEST_IMAGE_CHILD";

/// Not a test of its own: what [`kill_9_in_the_middle`] starts and kills.
#[tokio::test]
async fn child() {
    let Ok(text) = std::env::var(CHILD) else { return };
    let (dir, url) = text.split_once('|').unwrap();
    let _ = open(Path::new(dir), vec![]).ensure(&reference(url), |_| ()).await;
}

#[tokio::test]
async fn kill_9_in_the_middle() {
    let dir = tempfile::tempdir().unwrap();
    let disk = raw_disk(8 << 20);
    let server = Server::start(Mood {
        stall_after: Some(5 << 20),
        ..Mood::new(disk.clone())
    })
    .await;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "fetching::child"])
        .env(CHILD, format!("{}|{}", dir.path().display(), server.url()))
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    let part = dir
        .path()
        .join(".partial")
        .join(format!("{}.part", reference(&server.url()).key()));
    // The level to wait for: some megabytes on disk.
    let arrived = async {
        while std::fs::metadata(&part).map_or(0, |meta| meta.len()) < 4 << 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), arrived).await;
    child.kill().unwrap();
    child.wait().unwrap();
    in_time.unwrap();
    server.change(|mood| mood.stall_after = None);
    let got = open(dir.path(), vec![])
        .ensure(&reference(&server.url()), |_| ())
        .await
        .unwrap();
    assert_eq!(std::fs::read(&got.disks[0].path).unwrap(), disk);
    let last = server.requests().pop().unwrap();
    let from: usize = last
        .split("bytes=")
        .nth(1)
        .unwrap()
        .trim_end_matches('-')
        .parse()
        .unwrap();
    assert!(from >= 4 << 20, "{last}");
}

#[tokio::test]
async fn a_finished_but_unimported_download_is_not_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let disk = raw_disk(SIZE);
    let server = Server::start(Mood::new(disk.clone())).await;
    let image = reference(&server.url());
    drop(open(dir.path(), vec![]));
    let base = dir.path().join(".partial").join(image.key());
    std::fs::write(base.with_extension("part"), &disk).unwrap();
    let note = serde_json::json!({"url": server.url(), "validator": {"etag": "\"one\""}});
    std::fs::write(base.with_extension("json"), note.to_string()).unwrap();
    let got = open(dir.path(), vec![]).ensure(&image, |_| ()).await.unwrap();
    assert_eq!(std::fs::read(&got.disks[0].path).unwrap(), disk);
    assert_eq!(*server.sent.borrow(), 0, "not one byte");
}

#[tokio::test]
async fn dropping_the_cache_ends_the_ask() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Mood {
        stall_after: Some(SIZE / 2),
        ..Mood::new(raw_disk(SIZE))
    })
    .await;
    let limits = Limits::default();
    support::provider();
    let cache = image::Cache::new(
        dir.path(),
        vec![],
        HttpOptions::default(),
        limits,
        Clock::system(),
    )
    .unwrap();
    let image = reference(&server.url());
    let (sender, mut downloading) = tokio::sync::watch::channel(false);
    {
        let ask = cache.ensure(&image, |p| {
            sender.send_replace(p.phase == Phase::Downloading);
        });
        tokio::select! {
            _ = ask => panic!("it cannot end"),
            seen = downloading.wait_for(|yes| *yes) => drop(seen.unwrap()),
        }
    }
    drop(cache);
    // Nothing holds the directory any more: another cache goes on.
    server.change(|mood| mood.stall_after = None);
    open(dir.path(), vec![]).ensure(&image, |_| ()).await.unwrap();
}

#[tokio::test]
async fn files_of_the_host_are_images_only_in_a_library() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for folder in ["library", "other"] {
        std::fs::create_dir(path(folder)).unwrap();
        std::fs::write(path(folder).join("disk.raw"), raw_disk(SIZE)).unwrap();
    }
    std::os::unix::fs::symlink(path("other/disk.raw"), path("library/link.raw")).unwrap();
    let cache = open(&path("cache"), vec![Library::Dir(path("library"))]);
    let ask = async |name: &str| {
        let text = format!("file://{}/{name}", dir.path().display());
        cache.ensure(&reference(&text), |_| ()).await
    };
    ask("library/disk.raw").await.unwrap();
    ask("other/../library/disk.raw").await.unwrap();
    for name in [
        "other/disk.raw",
        "library/../other/disk.raw",
        "library/link.raw",
        "library/../other/absent.raw",
    ] {
        let error = ask(name).await.unwrap_err();
        assert_eq!(error.reason(), "ImageOutsideLibraries", "{name}: {error}");
    }
    let error = ask("library/absent.raw").await.unwrap_err();
    assert_eq!(error.reason(), "ImageNotFound", "{error}");
}
