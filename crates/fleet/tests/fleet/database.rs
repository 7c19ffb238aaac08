//! The database itself: migrations, collisions, outages, a full disk, a process that is killed.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use fleet::db::Db;
use fleet::model::SiteSpec;
use fleet::{Caller, Error, Fleet, Role, Scope, args};
use telemetry::Clock;
use tokio::time::Instant;

use crate::support::{On, Setup, both, database, map, options, postgres};

async fn steps_forward(on: On) {
    let dir = tempfile::tempdir().unwrap();
    let url = database(on, &dir);
    let clock = Clock::system();
    // Step by step, with something in it from the first step on.
    let db = Db::connect(&url, &clock).await.unwrap();
    for version in 1..=Db::newest_schema() {
        db.migrate_to(version).await.unwrap();
        if version == 1 {
            db.write(|tx| {
                Box::pin(async move {
                    tx.run("INSERT INTO meta (name,value) VALUES ('kept','yes')", vec![])
                        .await
                })
            })
            .await
            .unwrap();
        }
    }
    db.close().await;
    // Opened by several at once, and again.
    let opened = (0..4).map(|_| Db::open(&url, &clock));
    for db in futures::future::join_all(opened).await {
        let row = db
            .unwrap()
            .row("SELECT value FROM meta WHERE name='kept'", vec![])
            .await
            .unwrap();
        assert_eq!(row.unwrap().str(0), "yes");
    }
    // A database of a later version is left alone.
    let db = Db::connect(&url, &clock).await.unwrap();
    let newer = Db::newest_schema() + 1;
    db.write(|tx| {
        Box::pin(async move {
            tx.run("INSERT INTO schema_version (version) VALUES ($1)", args![newer])
                .await
        })
    })
    .await
    .unwrap();
    assert!(matches!(Db::open(&url, &clock).await, Err(Error::Newer { .. })));
}

#[tokio::test]
async fn migrations_sqlite() {
    steps_forward(On::Sqlite).await;
}

#[tokio::test]
async fn migrations_postgres() {
    steps_forward(On::Postgres).await;
}

both!(transactions_that_collide_are_tried_again, |s| {
    // Two rows, taken in turn from both ends: PostgreSQL finds the deadlock, one is tried again.
    let db = s.fleet.db();
    db.write(|tx| {
        Box::pin(async move {
            tx.run("INSERT INTO counter (name,value) VALUES ('a',0),('b',0)", vec![])
                .await
        })
    })
    .await
    .unwrap();
    let writers = (0..4).map(|n| {
        let db = db.clone();
        tokio::spawn(async move {
            for _ in 0..5 {
                let (first, second) = if n % 2 == 0 { ("a", "b") } else { ("b", "a") };
                db.write(|tx| {
                    Box::pin(async move {
                        const ADD: &str = "UPDATE counter SET value=value+1 WHERE name=$1";
                        tx.run(ADD, args![first]).await?;
                        tokio::task::yield_now().await;
                        tx.run(ADD, args![second]).await
                    })
                })
                .await
                .unwrap();
            }
        })
    });
    for result in futures::future::join_all(writers).await {
        result.unwrap();
    }
    let rows = db
        .rows("SELECT value FROM counter WHERE name IN ('a','b')", vec![])
        .await
        .unwrap();
    assert_eq!(rows.iter().map(|row| row.int(0)).collect::<Vec<_>>(), [20, 20]);
});

both!(a_transaction_is_whole_or_not_at_all, |s| {
    let db = s.fleet.db();
    const INSERT: &str = "INSERT INTO meta (name,value) VALUES ($1,'x')";
    // Many at once, every third fails after it wrote: its neighbours in the same commit are not touched.
    let writers = (0..60).map(|n| {
        let db = db.clone();
        tokio::spawn(async move {
            let name = &format!("k{n:02}");
            db.write(|tx| {
                Box::pin(async move {
                    tx.run(INSERT, args![name]).await?;
                    if n % 3 == 0 {
                        Err(Error::conflict("no"))
                    } else {
                        Ok(())
                    }
                })
            })
            .await
        })
    });
    let results = futures::future::join_all(writers).await;
    let kept = results
        .into_iter()
        .filter(|result| result.as_ref().unwrap().is_ok())
        .count();
    // One that is dropped in the middle takes back what it did, and holds nobody up.
    let gate = Arc::new(tokio::sync::Notify::new());
    let dropped = {
        let (db, gate) = (db.clone(), gate.clone());
        tokio::spawn(async move {
            let gate = &gate;
            db.write(|tx| {
                Box::pin(async move {
                    tx.run(INSERT, args!["dropped"]).await?;
                    gate.notify_one();
                    std::future::pending::<()>().await;
                    Ok(())
                })
            })
            .await
        })
    };
    gate.notified().await;
    dropped.abort();
    db.write(|tx| Box::pin(async move { tx.run(INSERT, args!["after"]).await }))
        .await
        .unwrap();
    let count = async |pattern: &'static str| {
        let row = db
            .row("SELECT COUNT(*) FROM meta WHERE name LIKE $1", args![pattern])
            .await
            .unwrap();
        row.unwrap().int(0)
    };
    assert_eq!((kept, count("k%").await), (40, 40));
    assert_eq!((count("dropped").await, count("after").await), (0, 1));
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_goes_and_comes_back() {
    let cluster = tokio::task::spawn_blocking(postgres::start).await.unwrap();
    let url = cluster.database().unwrap();
    let clock = Clock::system();
    let db = Db::open(&url, &clock).await.unwrap();
    let write = async |name: &'static str| {
        db.write(|tx| {
            Box::pin(async move {
                tx.run("INSERT INTO meta (name,value) VALUES ($1,'x')", args![name])
                    .await
            })
        })
        .await
    };
    write("before").await.unwrap();
    cluster.down().unwrap();
    assert!(matches!(db.ping().await, Err(Error::Unavailable(_))));
    let failed = write("lost").await;
    assert!(matches!(failed, Err(Error::Unavailable(_))), "{failed:?}");
    cluster.up().unwrap();
    crate::support::until("it works again", async || write("after").await.is_ok()).await;
    let rows = db
        .rows("SELECT name FROM meta WHERE value='x' ORDER BY name", vec![])
        .await
        .unwrap();
    assert_eq!(
        rows.iter().map(|row| row.str(0)).collect::<Vec<_>>(),
        ["after", "before"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_program_that_holds_sqlite_is_waited_for() {
    let s = Setup::new(On::Sqlite).await;
    let path = s.url.strip_prefix("sqlite:").unwrap().to_owned();
    // As the command line does while the server runs.
    let other = Db::connect(&s.url, &s.clock).await.unwrap();
    let held = Arc::new(tokio::sync::Notify::new());
    let holder = {
        let held = held.clone();
        tokio::spawn(async move {
            let held = &held;
            other
                .write(|tx| {
                    Box::pin(async move {
                        tx.run("INSERT INTO meta (name,value) VALUES ('theirs','x')", vec![])
                            .await?;
                        held.notify_one();
                        tokio::time::sleep(Duration::from_millis(300)).await;
                        Ok(())
                    })
                })
                .await
        })
    };
    held.notified().await;
    s.site("berlin", "").await;
    holder.await.unwrap().unwrap();
    assert!(std::path::Path::new(&path).exists());
}

/// A small file system of its own; gone when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=3m", "selvedge-test"])
            .arg(dir.path())
            .status()
            .unwrap();
        assert!(mounted.success());
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_said_and_survived() {
    let disk = SmallDisk::new();
    let filler = disk.0.path().join("filler");
    let db = Db::open(
        &format!("sqlite:{}", disk.0.path().join("fleet.db").display()),
        &Clock::system(),
    )
    .await
    .unwrap();
    let write = async |n: usize| {
        let name = &format!("row-{n}");
        db.write(|tx| {
            Box::pin(async move {
                let value = "x".repeat(20_000);
                tx.run("INSERT INTO meta (name,value) VALUES ($1,$2)", args![name, value])
                    .await
            })
        })
        .await
    };
    write(0).await.unwrap();
    // Somebody fills the disk.
    let _ = std::fs::write(&filler, vec![1_u8; 4 << 20]);
    let mut kept = 1;
    let failed = loop {
        match write(kept).await {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 200);
    };
    assert!(matches!(failed, Error::Unavailable(_)), "{failed:?}");
    db.ping().await.unwrap();
    std::fs::remove_file(&filler).unwrap();
    write(kept).await.unwrap();
    let row = db
        .row("SELECT COUNT(*) FROM meta WHERE name LIKE 'row-%'", vec![])
        .await
        .unwrap();
    assert_eq!(row.unwrap().int(0), i64::try_from(kept).unwrap() + 1);
    db.close().await;
}

const CHILD: &str = "SELVEDGE_FLEET_TEST_CHILD";

/// The child of the next test: makes sites until it is killed, and says the name of each that was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_writes() {
    let Ok(url) = std::env::var(CHILD) else { return };
    let keys = identity::seal::MasterKeys::generate().unwrap();
    let fleet = Fleet::open(&url, keys, &Clock::system(), options())
        .await
        .unwrap();
    let tenant = fleet.tenants().find("acme").await.unwrap().unwrap();
    let caller = Caller::user(&tenant.id, "child", Role::Owner, Scope::All);
    let writers = (0..8).map(|w| {
        let (fleet, caller) = (fleet.clone(), caller.clone());
        tokio::spawn(async move {
            for n in 0.. {
                let spec = SiteSpec {
                    name: format!("s-{w}-{n}-{}", std::process::id()),
                    labels: map("region=eu"),
                    ..SiteSpec::default()
                };
                let made = fleet.sites().create(&caller, &spec).await.unwrap();
                println!("made {}", made.name);
            }
        })
    });
    futures::future::join_all(writers).await;
}

async fn killed(on: On) {
    let s = Setup::new(on).await;
    let mut said = Vec::new();
    for round in 1..=4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "database::child_that_writes",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(CHILD, &s.url)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        let names = tokio::task::spawn_blocking(move || {
            let mut names = Vec::new();
            let started = Instant::now();
            for line in BufReader::new(output).lines() {
                let line = line.unwrap();
                if let Some((_, name)) = line.split_once("made ") {
                    names.push(name.to_owned());
                }
                // Somewhere in the middle of the work, another place each time.
                if names.len() == 40 * round || started.elapsed() > Duration::from_secs(20) {
                    let pid = child.id().to_string();
                    Command::new("kill").args(["-9", &pid]).status().unwrap();
                }
            }
            child.wait().unwrap();
            names
        })
        .await
        .unwrap();
        assert!(names.len() >= 40 * round, "only {}", names.len());
        said.extend(names);
    }
    for name in &said {
        s.fleet
            .sites()
            .get(&s.owner, name)
            .await
            .unwrap_or_else(|e| panic!("{name} was acknowledged: {e}"));
    }
    // Each site came with its line of the audit log, and no line without its site.
    let whole = s.fleet.audit().verify(&s.owner).await.unwrap();
    assert_eq!(whole.broken_at, None);
    let sites = s
        .fleet
        .sites()
        .list(&s.owner, &fleet::Query::default())
        .await
        .unwrap()
        .total;
    assert_eq!(whole.lines, sites + 1);
    assert_eq!(s.fleet.changes().newest().await.unwrap(), sites);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_sqlite() {
    killed(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_postgres() {
    killed(On::Postgres).await;
}
