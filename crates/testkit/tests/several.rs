//! Three orchestrator processes on one PostgreSQL behind a balancer, with a crowd of hosts spread over them; one is killed.

#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap in a helper of tests is a failed test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use testkit::Programs;
use testkit::cli::Cli;
use testkit::loopback::Loopback;
use testkit::postgres::{Cluster, Durability};
use testkit::simulate::{Crowd, enrol};
use testkit::site::items;
use testkit::wait::{wait_for, wait_until};
use tokio::net::{TcpListener, TcpStream};

const HOSTS: u32 = 300;
const SOON: Duration = Duration::from_secs(60);

/// What stands before several processes in a data centre: hands each connection to the next of them that answers.
async fn balance(listener: TcpListener, ports: Vec<u16>) {
    let turn = Arc::new(AtomicUsize::new(0));
    while let Ok((mut from, _)) = listener.accept().await {
        let (turn, ports) = (turn.clone(), ports.clone());
        tokio::spawn(async move {
            for _ in 0..ports.len() {
                let next = turn.fetch_add(1, Ordering::Relaxed) % ports.len();
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports[next]));
                if let Ok(mut to) = TcpStream::connect(address).await {
                    // An end is an end, whoever makes it and however.
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                    return;
                }
            }
        });
    }
}

/// The database, looked into past the orchestrators.
struct Inside<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl Inside<'_> {
    fn lines(&self, sql: &str) -> Vec<String> {
        let text = self.cluster.sql(&self.name, sql).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// How many hosts are connected to each process, by its address.
    fn spread(&self) -> BTreeMap<String, usize> {
        let sql = "SELECT n.url, COUNT(*) FROM host h JOIN node n ON n.id = h.node \
                   WHERE h.connection = 'online' GROUP BY n.url";
        let pair = |line: String| {
            let (url, count) = line.split_once('|').unwrap();
            (url.to_owned(), count.parse().unwrap())
        };
        self.lines(sql).into_iter().map(pair).collect()
    }

    /// A host at the process with this port.
    fn host_of(&self, port: u16) -> String {
        let sql = format!(
            "SELECT h.name FROM host h JOIN node n ON n.id = h.node WHERE n.url LIKE '%:{port}' \
             AND h.connection = 'online' ORDER BY h.name LIMIT 1"
        );
        self.lines(&sql).first().unwrap().clone()
    }

    /// Which task is led by which process, by its address.
    fn leaders(&self) -> Vec<(String, String)> {
        // Alerts are looked for every half minute: who does may be away a minute. The rest is taken over at once.
        let sql = "SELECT l.name, n.url FROM lease l JOIN node n ON n.id = l.holder \
                   WHERE l.name IN ('rollouts', 'server') ORDER BY l.name";
        self.lines(sql)
            .iter()
            .filter_map(|line| line.split_once('|'))
            .map(|(name, url)| (name.to_owned(), url.to_owned()))
            .collect()
    }
}

/// Makes sites for ever, through whatever process answers; says which the orchestrators said they had made.
fn make_sites(cli: &Cli, stop: &AtomicBool) -> Vec<String> {
    let mut made = Vec::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("site-{number}");
        // One that died with its process may be there or not.
        if cli.run(["site", "create", &name, "--label", "region=eu"]).is_ok() {
            made.push(name);
        }
    }
    made
}

fn names(list: &serde_json::Value) -> BTreeSet<String> {
    items(list)
        .iter()
        .filter_map(|item| item["name"].as_str().map(str::to_owned))
        .collect()
}

#[test]
fn one_of_three_processes_is_killed_and_nothing_is_lost() {
    // An error means that a provider is there already, which is what we want.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let programs = Programs::find();
    let cluster = Cluster::start(Durability::None).unwrap();
    let database = cluster.database().unwrap();
    let name = database
        .strip_prefix("postgres://selvedge@localhost/")
        .and_then(|rest| rest.split('?').next());
    let inside = Inside {
        cluster: &cluster,
        name: name.unwrap().to_owned(),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime
        .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .unwrap();
    let url = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let more = format!("[database]\nurl = \"{database}\"\n[link]\nheartbeat = \"2s\"");
    let start = |name: &str, first: Option<&Loopback>| {
        Loopback::start_behind(&programs, &dir.path().join(name), &url, &more, first).unwrap()
    };
    let first = start("one", None);
    let mut all = vec![start("two", Some(&first)), start("three", Some(&first))];
    all.insert(0, first);
    runtime.spawn(balance(listener, all.iter().map(Loopback::port).collect()));

    let cli = all[0].found(&programs).unwrap();
    cli.run(["site", "create", "berlin"]).unwrap();
    let uses = HOSTS.to_string();
    let key = cli
        .json(["enroll", "key", "create", "--site", "berlin", "--max-uses", &uses])
        .unwrap();
    let hub = all[0].hub().unwrap();
    let enrolled = runtime
        .block_on(enrol(&hub, 0..HOSTS, 32, key["key"].as_str()))
        .unwrap();
    let mut crowd = {
        let _inside = runtime.enter();
        Crowd::start(&hub, &enrolled.hosts).unwrap()
    };
    runtime.block_on(crowd.wait_connected(SOON)).unwrap();
    let everybody = usize::try_from(HOSTS).unwrap();
    let counted = |spread: &BTreeMap<String, usize>| spread.values().sum::<usize>();
    wait_until("all hosts online", SOON, || {
        counted(&inside.spread()) == everybody
    })
    .unwrap();
    let spread = inside.spread();
    println!("spread: {spread:?}");
    assert_eq!(spread.len(), 3);
    assert!(spread.values().all(|count| *count > 50), "{spread:?}");

    // Any process reaches a host of any other.
    let each: Vec<Cli> = all
        .iter()
        .map(|one| {
            one.log_in(&programs, &format!("https://127.0.0.1:{}", one.port()))
                .unwrap()
        })
        .collect();
    let ports: Vec<u16> = all.iter().map(Loopback::port).collect();
    let signal_all = |from: &[usize], crowd: &Crowd| {
        for asked in from {
            for of in from {
                let before = crowd.told.signals();
                let host = inside.host_of(ports[*of]);
                each[*asked].run(["host", "signal", &host, "fetch"]).unwrap();
                wait_until("the signal", SOON, || crowd.told.signals() == before + 1).unwrap();
            }
        }
    };
    signal_all(&[0, 1, 2], &crowd);

    // The one that leads is killed, while people write and all hosts report.
    let led = inside.leaders();
    println!("led: {led:?}");
    assert_eq!(led.len(), 2, "{led:?}");
    let leads: u16 = led[0].1.rsplit_once(':').unwrap().1.parse().unwrap();
    let victim = all.iter().position(|one| one.port() == leads).unwrap();
    let others: Vec<usize> = (0..3).filter(|index| *index != victim).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (stop, cli) = (stop.clone(), all[0].log_in(&programs, &url).unwrap());
        std::thread::spawn(move || make_sites(&cli, &stop))
    };
    let made = |least: usize| {
        wait_for("sites", SOON, || {
            let names = names(&each[others[0]].json(["site", "list"]).unwrap());
            Ok(if names.len() > least {
                Ok(names.len())
            } else {
                Err(format!("{} sites", names.len()))
            })
        })
        .unwrap()
        .0
    };
    let before = made(8);
    let commit = "0123456789abcdef0123456789abcdef01234567";
    for index in 0..everybody {
        crowd.report(
            index,
            "source",
            serde_json::json!({"branch": "main", "fetched": commit, "applied": commit, "attempted": commit}),
        );
    }
    let begun = tokio::time::Instant::now();
    all[victim].kill().unwrap();
    let lost = wait_until("hosts that noticed", SOON, || crowd.connected() < everybody).map(|_| ());
    runtime.block_on(crowd.wait_connected(SOON)).unwrap();
    let back = begun.elapsed();
    lost.unwrap();
    wait_until("all hosts online elsewhere", SOON, || {
        let spread = inside.spread();
        counted(&spread) == everybody && !spread.keys().any(|url| url.contains(&format!(":{leads}")))
    })
    .unwrap();
    println!(
        "killed the leader: its {} hosts were back {:.1} s later: {:?}",
        spread
            .iter()
            .find(|(url, _)| url.contains(&format!(":{leads}")))
            .unwrap()
            .1,
        back.as_secs_f64(),
        inside.spread()
    );

    // People go on, and what they were told was made is there.
    made(before + 8);
    stop.store(true, Ordering::Relaxed);
    let acknowledged = writer.join().unwrap();
    let cli = &each[others[1]];
    let there = names(&cli.json(["site", "list"]).unwrap());
    let missing: Vec<&String> = acknowledged
        .iter()
        .filter(|name| !there.contains(*name))
        .collect();
    assert!(missing.is_empty(), "{missing:?} were lost");
    println!(
        "{} sites were acknowledged, {} are there",
        acknowledged.len(),
        there.len() - 1
    );
    // So is what every host reported, whichever process it had told.
    wait_for("every host's report", SOON, || {
        let hosts = items(&cli.json(["host", "list"]).unwrap());
        let known = hosts.iter().filter(|host| host["applied"] == commit).count();
        Ok(if known == everybody {
            Ok(())
        } else {
            Err(format!("{known} of {} are known", hosts.len()))
        })
    })
    .unwrap();
    let site = cli.json(["site", "get", "berlin"]).unwrap();
    assert_eq!(site["hosts"]["online"], HOSTS, "{}", site["hosts"]);

    // The others lead now, and reach all hosts of each other.
    let took = wait_until("other leaders", SOON, || {
        let now = inside.leaders();
        now.len() == led.len() && now.iter().all(|(_, url)| !url.ends_with(&format!(":{leads}")))
    });
    println!(
        "others led {:.1} s after they had all hosts: {:?}",
        took.unwrap().as_secs_f64(),
        inside.leaders()
    );
    signal_all(&others, &crowd);
    runtime.block_on(crowd.stop());
}
