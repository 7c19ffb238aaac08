//! kill -9, full disks, damaged and foreign files.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use super::common::{Dice, all, create, key, text, value};
use store::{Error, ListQuery, Options, SqliteStore, Store};

const DATABASE: &str = "SELVEDGE_TEST_DATABASE";

/// Starts this test binary again to run one of the tests that are only meant to be started so.
fn child(test: &str, database: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
        .env(DATABASE, database);
    command
}

fn database_of_child() -> PathBuf {
    std::env::var_os(DATABASE)
        .expect("started by another test")
        .into()
}

/// Writers that own a key each: they create it, update it some times, delete it, and begin again, and say
/// what they are about to do and what was answered.
#[test]
#[ignore = "the child of no_answered_write_is_lost_to_kill_9"]
fn child_that_writes() {
    let options = Options {
        history_count: 200,
        ..Options::default()
    };
    let store = Arc::new(SqliteStore::open(database_of_child(), options).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        out.write_all(line.as_bytes()).and_then(|()| out.flush()).unwrap();
    };
    runtime.block_on(async {
        let writers: Vec<_> = (0..12)
            .map(|writer| {
                let store = store.clone();
                tokio::spawn(async move {
                    let resource = if writer == 0 { "/events" } else { "/configmaps" };
                    let key = key(resource, "", &format!("w{writer}"));
                    let mut stored = store.get(&key).await.unwrap();
                    let last = stored
                        .as_ref()
                        .map_or(0, |entry| text(&entry.value).parse().unwrap());
                    for number in last + 1.. {
                        let content = number.to_string();
                        let entry = match &stored {
                            Some(old) if number % 7 == 0 => {
                                say(format!("try {writer} {number} gone\n"));
                                store.delete(&key, old.revision, value(&content)).await.unwrap()
                            }
                            Some(old) => {
                                say(format!("try {writer} {number} here\n"));
                                store.update(&key, old.revision, value(&content)).await.unwrap()
                            }
                            None => {
                                say(format!("try {writer} {number} here\n"));
                                store.create(&key, value(&content)).await.unwrap()
                            }
                        };
                        let gone = stored.is_some() && number % 7 == 0;
                        let is = if gone { "gone" } else { "here" };
                        say(format!("ack {writer} {number} {is} {}\n", entry.revision));
                        stored = (!gone).then_some(entry);
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

/// What a writer was answered last, and what it was about to do.
#[derive(Clone, Debug, Default, PartialEq)]
struct Said {
    acked: Option<String>,
    tried: Option<String>,
}

#[test]
fn no_answered_write_is_lost_to_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("site.db");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut dice = Dice(0x5e1f_ed6e);
    let (mut newest, mut acks) = (0, 0);
    for round in 0..60 {
        let mut said: BTreeMap<String, Said> = BTreeMap::new();
        let mut process = child("faults::child_that_writes", &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut left = 1 + dice.below(600);
        let mut killed = false;
        while let Some(Ok(line)) = lines.next() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["try", writer, number, is] => {
                    said.entry(writer.into()).or_default().tried = Some(state(number, is));
                }
                ["ack", writer, number, is, revision] => {
                    let said = said.entry(writer.into()).or_default();
                    said.acked = Some(state(number, is));
                    let revision: u64 = revision.parse().unwrap();
                    newest = newest.max(revision);
                    acks += 1;
                    left -= left.min(1);
                }
                _ => {}
            }
            // The lines still in the pipe were said before it died and count too.
            if left == 0 && !killed {
                process.kill().unwrap();
                killed = true;
            }
        }
        process.wait().unwrap();
        assert!(killed, "the child ended by itself in round {round}");

        let store = SqliteStore::open(&path, Options::default()).unwrap();
        assert!(
            store.revision() >= newest,
            "revisions went backwards from {newest} to {}",
            store.revision()
        );
        runtime.block_on(async {
            store.check().await.unwrap();
            for (writer, said) in &said {
                let stored = store
                    .get(&key("/configmaps", "", &format!("w{writer}")))
                    .await
                    .unwrap();
                if writer == "0" {
                    continue; // Ephemeral: only its revisions count.
                }
                let is = stored.map_or("gone".into(), |entry| text(&entry.value));
                let acked = said.acked.as_ref().is_none_or(|acked| *acked == is);
                let tried = said.tried.as_ref() == Some(&is);
                let nothing = said.acked.is_none();
                assert!(
                    acked || tried || nothing,
                    "round {round}, writer {writer}: {said:?}, but stored is {is}"
                );
            }
        });
    }
    assert!(acks > 2000, "the children did something: {acks}");
}

fn state(number: &str, is: &str) -> String {
    if is == "gone" {
        "gone".into()
    } else {
        number.into()
    }
}

#[test]
#[ignore = "the child of a_full_disk_refuses_writes_until_there_is_room; in a mount namespace of its own"]
fn child_on_a_small_disk() {
    let mount_point = database_of_child();
    let none: Option<&str> = None;
    nix::mount::mount(
        none,
        "/",
        none,
        nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE,
        none,
    )
    .unwrap();
    nix::mount::mount(
        Some("tmpfs"),
        &mount_point,
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        Some("size=6m"),
    )
    .unwrap();
    let ballast = mount_point.join("ballast");
    std::fs::write(&ballast, vec![1; 2 << 20]).unwrap();
    let path = mount_point.join("site.db");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(&path, Options::default()).unwrap();
        let big = "x".repeat(50_000);
        let mut stored = 0;
        let error = loop {
            match create(&store, &key("/configmaps", "", &format!("c{stored}")), &big).await {
                Ok(_) => stored += 1,
                Err(error) => break error,
            }
            assert!(stored < 1000, "the disk never filled");
        };
        assert!(matches!(&error, Error::NoSpace { .. }), "{error:?}");
        assert!(error.to_string().contains("free some"), "{error}");
        assert!(stored > 5);
        // It still reads, and what is in memory goes on.
        let page = store.list(all("/configmaps")).await.unwrap();
        assert_eq!(page.entries.len(), stored);
        assert_eq!(page.revision, store.revision());
        create(&store, &key("/events", "", "e"), "x").await.unwrap();
        for _ in 0..50 {
            let again = create(&store, &key("/configmaps", "", "more"), &big).await;
            assert!(matches!(again, Err(Error::NoSpace { .. })), "{again:?}");
        }
        let mut watch = store.watch("/configmaps", page.revision).unwrap();
        // And writes again when there is room.
        std::fs::remove_file(&ballast).unwrap();
        let made = create(&store, &key("/configmaps", "", "more"), &big)
            .await
            .unwrap();
        assert_eq!(watch.next().await.unwrap().revision, made.revision);
        store.check().await.unwrap();
        drop(store);
        let store = SqliteStore::open(&path, Options::default()).unwrap();
        assert_eq!(
            store.list(all("/configmaps")).await.unwrap().entries.len(),
            stored + 1
        );
    });
    println!("all is well on the small disk");
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let inner = child("faults::child_on_a_small_disk", directory.path());
    // The mount is private to the child and goes with it, however it ends.
    let output = Command::new("unshare")
        .arg("--mount")
        .arg(inner.get_program())
        .args(inner.get_args())
        .env(DATABASE, directory.path())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(
        out.contains("all is well"),
        "{out}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success());
}

#[tokio::test]
async fn a_damaged_file_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("site.db");
    let store = SqliteStore::open(&path, Options::default()).unwrap();
    for i in 0..300 {
        create(
            &store,
            &key("/configmaps", "", &format!("c{i:03}")),
            &"x".repeat(1000),
        )
        .await
        .unwrap();
    }
    drop(store);
    let whole = std::fs::read(&path).unwrap();

    // The head.
    std::fs::write(
        &path,
        [b"this is not a database".as_slice(), &whole[22..]].concat(),
    )
    .unwrap();
    let error = SqliteStore::open(&path, Options::default()).err().unwrap();
    assert!(matches!(&error, Error::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains("move"), "{error}");

    // The middle.
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle..middle + 32 * 4096].fill(0xa5);
    std::fs::write(&path, damaged).unwrap();
    assert!(matches!(read_all(&path).await, Err(Error::Damaged { .. })));

    // Cut short.
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(read_all(&path).await, Err(Error::Damaged { .. })));

    // Whole again.
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(read_all(&path).await.unwrap(), 300);
}

async fn read_all(path: &Path) -> Result<usize, Error> {
    let store = SqliteStore::open(path, Options::default())?;
    let page = store.list(all("/configmaps")).await?;
    store.check().await?;
    Ok(page.entries.len())
}

#[tokio::test]
async fn foreign_files_and_second_processes_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("site.db");
    let store = SqliteStore::open(&path, Options::default()).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    create(&store, &key("/secrets", "", "s"), "x").await.unwrap();
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(
            file.metadata().unwrap().permissions().mode() & 0o077,
            0,
            "{:?}",
            file.path()
        );
    }
    let second = SqliteStore::open(&path, Options::default()).err().unwrap();
    assert!(second.to_string().contains("another process"), "{second}");
    drop(store);

    let other = directory.path().join("other.db");
    rusqlite::Connection::open(&other)
        .unwrap()
        .execute_batch("CREATE TABLE t (x)")
        .unwrap();
    let error = SqliteStore::open(&other, Options::default()).err().unwrap();
    assert!(error.to_string().contains("another program"), "{error}");

    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch("PRAGMA user_version=99")
        .unwrap();
    let error = SqliteStore::open(&path, Options::default()).err().unwrap();
    assert!(error.to_string().contains("newer version"), "{error}");
    let nowhere = SqliteStore::open(directory.path().join("no/such/site.db"), Options::default());
    assert!(matches!(nowhere, Err(Error::Unusable { .. })));
}

#[tokio::test]
async fn a_store_opens_in_milliseconds_and_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("site.db");
    let store = Arc::new(SqliteStore::open(&path, Options::default()).unwrap());
    let writers: Vec<_> = (0..50)
        .map(|w| {
            let store = store.clone();
            tokio::spawn(async move {
                for i in 0..100 {
                    create(
                        &store,
                        &key("/configmaps", "", &format!("c{w}-{i}")),
                        &"x".repeat(2000),
                    )
                    .await
                    .unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let revision = store.revision();
    drop(store);
    let start = tokio::time::Instant::now();
    let store = SqliteStore::open(&path, Options::default()).unwrap();
    let took = start.elapsed();
    assert!(took.as_millis() < 100, "{took:?}");
    assert_eq!(store.revision(), revision, "a clean end wastes no revision");
    let page = store
        .list(ListQuery {
            limit: 10,
            ..all("/configmaps")
        })
        .await
        .unwrap();
    assert_eq!(page.remaining, Some(4990));
    // Watches go on over a restart.
    let mut watch = store.watch("/configmaps", revision - 3).unwrap();
    for at in revision - 2..=revision {
        assert_eq!(watch.next().await.unwrap().revision, at);
    }
}
