use std::{fs, path::Path, sync::Arc, time::Duration};

use apiserver::http::{Server, ServerOptions};
use kinds::registry::Registry;
use store::SqliteStore;
use telemetry::{Clock, Metrics};
use tokio::{
    io::{AsyncBufReadExt, BufReader, DuplexStream, duplex},
    net::UnixListener,
    task::JoinHandle,
    time::timeout,
};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn services(folder: &Path) -> Arc<Services> {
    let store = Arc::new(SqliteStore::in_memory().unwrap());
    let api = Api::new(Arc::new(Registry::builtin()), store, Clock::system());
    let audit = apiserver::admission::FileAudit::open(folder.join("audit.log"), 1 << 20, 1).unwrap();
    let api = api.with_audit(Arc::new(audit));
    let server = Server::new(api.clone(), &Metrics::new(), ServerOptions::default());
    Arc::new(Services {
        tunnel: server.tunnel(),
        api,
        state: folder.join("state"),
        run: folder.join("run"),
        log: LogRing::new(1000),
    })
}

fn open(services: &Arc<Services>, open: Open) -> (DuplexStream, JoinHandle<Result<(), String>>) {
    let (near, far) = duplex(1 << 16);
    let services = services.clone();
    let serving = tokio::spawn(async move {
        let mut refused = Ok(());
        services
            .serve(open, far, |_, why| refused = Err(why.to_owned()))
            .await;
        refused
    });
    (near, serving)
}

async fn end(serving: JoinHandle<Result<(), String>>) -> Result<(), String> {
    timeout(PATIENCE, serving).await.expect("it goes on").unwrap()
}

#[tokio::test]
async fn a_console_is_bytes_both_ways_until_either_side_goes() {
    let dir = tempfile::tempdir().unwrap();
    let services = services(dir.path());
    let path = vm::console_socket(&services.run, "shop", "till").unwrap();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let machine = UnixListener::bind(&path).unwrap();
    let serial = || Open::Serial {
        namespace: "shop".into(),
        name: "till".into(),
        user: "ada".into(),
    };
    let (mut person, serving) = open(&services, serial());
    let (mut console, _) = machine.accept().await.unwrap();
    console.write_all(b"login: ").await.unwrap();
    let mut seen = [0; 7];
    person.read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen, b"login: ");
    person.write_all(b"root").await.unwrap();
    let mut typed = [0; 4];
    console.read_exact(&mut typed).await.unwrap();
    assert_eq!(&typed, b"root");
    drop(person);
    assert_eq!(end(serving).await, Ok(()));
    assert_eq!(console.read(&mut typed).await.unwrap(), 0);
    let audit = fs::read_to_string(dir.path().join("audit.log")).unwrap();
    assert!(
        audit.contains("\"ada\"") && audit.contains("serial") && audit.contains("till"),
        "{audit}"
    );

    drop(machine);
    fs::remove_file(&path).unwrap();
    let why = end(open(&services, serial()).1).await.unwrap_err();
    assert!(why.contains("not powered on"), "{why}");
    let nowhere = Open::Vnc {
        namespace: "../../etc".into(),
        name: "x".into(),
        user: "ada".into(),
    };
    assert!(end(open(&services, nowhere).1).await.is_err());
}

#[tokio::test]
async fn logs_are_told_and_followed() {
    let dir = tempfile::tempdir().unwrap();
    let services = services(dir.path());
    for line in ["one", "two", "three"] {
        services.log.push(line);
    }
    let logs = |unit: &str, follow| Open::Logs {
        unit: unit.into(),
        follow,
        lines: 2,
        user: "ada".into(),
    };
    let (mut person, serving) = open(&services, logs("", false));
    let mut text = String::new();
    person.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "two\nthree\n");
    assert_eq!(end(serving).await, Ok(()));

    let (person, serving) = open(&services, logs("selvedge-host", true));
    let mut lines = BufReader::new(person).lines();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "two");
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "three");
    services.log.push("four");
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "four");
    drop(lines);
    assert_eq!(end(serving).await, Ok(()));

    let [_, log] = vm::console_logs(&services.state, "shop", "till").unwrap();
    let never = end(open(&services, logs("vm/shop/till", false)).1).await;
    assert!(never.unwrap_err().contains("never run"));
    fs::create_dir_all(log.parent().unwrap()).unwrap();
    fs::write(&log, "a\nb\nc\n").unwrap();
    let (person, serving) = open(&services, logs("vm/shop/till", true));
    let mut lines = BufReader::new(person).lines();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "b");
    drop(lines);
    assert_eq!(end(serving).await, Ok(()));

    for bad in ["vm/../x/y", "-u", "a b", "*", "--root=/"] {
        assert!(end(open(&services, logs(bad, false)).1).await.is_err(), "{bad}");
    }
}
